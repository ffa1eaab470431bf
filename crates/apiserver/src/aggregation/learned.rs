//! What another server says it serves, kept for the documents that this one shows.

use std::{sync::Arc, time::Duration};

use apimachinery::Object;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::{check::Verdict, fetch, legacy, swagger, table::Backend};
use crate::server::Inner;

/// The largest document of discovery.
const LARGEST: usize = 16 << 20;
/// The largest OpenAPI document.
const LARGEST_OPENAPI: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(5);
const OPENAPI_PATIENCE: Duration = Duration::from_secs(30);

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// The resources of one version, in the form of aggregated discovery.
pub struct Discovered {
    resources: Value,
    etag: String,
}

/// The OpenAPI documents of one version.
pub struct Documents {
    /// Where the v3 document is, with its hash; empty if there is none.
    pub v3: String,
    /// What the v2 document says of this version: `paths` and `definitions`.
    pub v2: Option<Map<String, Value>>,
    v2_etag: String,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Learned {
    /// What was last written into the condition.
    verdict: Mutex<Option<Verdict>>,
    discovered: ArcSwapOption<Discovered>,
    /// The last try to learn it failed.
    stale: std::sync::atomic::AtomicBool,
    pub documents: ArcSwapOption<Documents>,
}

impl Learned {
    /// Whether the object says what the last check found; before the first, nothing is missed.
    pub fn said(&self, object: &Object) -> bool {
        self.verdict.lock().as_ref().is_none_or(|verdict| verdict.is_in(object))
    }

    pub fn conclude(&self, verdict: &Verdict) {
        *self.verdict.lock() = Some(verdict.clone());
    }

    /// The version as aggregated discovery lists it.
    pub fn version(&self, name: &str) -> Value {
        let discovered = self.discovered.load();
        let stale = discovered.is_none() || self.stale.load(std::sync::atomic::Ordering::Relaxed);
        let mut document = json!({"version": name});
        if let Some(discovered) = &*discovered
            && discovered.resources.as_array().is_some_and(|list| !list.is_empty())
        {
            document["resources"] = discovered.resources.clone();
        }
        document["freshness"] = if stale { "Stale" } else { "Current" }.into();
        document
    }

    /// The server does not answer: what is known of it may be old.
    pub fn doubt(&self) {
        self.stale.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Asks for the resources again. Whether that worked.
    pub async fn discover(&self, inner: &Inner, backend: &Backend) -> bool {
        let fresh = match self.discovered(inner, backend).await {
            Ok(Some(discovered)) => {
                self.discovered.store(Some(Arc::new(discovered)));
                true
            }
            Ok(None) => true,
            Err(why) => {
                tracing::warn!(why, name = backend.name, "the resources of an APIService are not known");
                false
            }
        };
        self.stale.store(!fresh, std::sync::atomic::Ordering::Relaxed);
        fresh
    }

    /// `None`: as before.
    async fn discovered(&self, inner: &Inner, backend: &Backend) -> Result<Option<Discovered>, String> {
        let known = self.discovered.load().as_ref().map(|d| d.etag.clone()).unwrap_or_default();
        let got = fetch::get(inner, backend, "/apis", AGGREGATED, &known, (LARGEST, PATIENCE)).await?;
        match got.status {
            304 if !known.is_empty() => Ok(None),
            200 if is_aggregated(&got.content_type) => {
                let document: Value = serde_json::from_slice(&got.body).map_err(|e| e.to_string())?;
                let resources = of_version(&document, backend);
                Ok(Some(Discovered { resources, etag: got.etag }))
            }
            503 => Err("the service answered 503".to_owned()),
            _ => {
                let path = backend.path();
                let got =
                    fetch::get(inner, backend, &path, "application/json", "", (LARGEST, PATIENCE)).await?;
                if got.status != 200 {
                    return Err(format!("failed to download legacy discovery for {path}: {}", got.status));
                }
                let document: Value = serde_json::from_slice(&got.body).map_err(|e| e.to_string())?;
                let resources = legacy::resources(&document, &backend.group, &backend.version);
                Ok(Some(Discovered { resources, etag: String::new() }))
            }
        }
    }

    /// Asks for the OpenAPI documents again. A server without them, or with broken ones, has none: its resources work all
    /// the same. Whether something changed.
    pub async fn describe(&self, inner: &Inner, backend: &Backend) -> bool {
        let old = self.documents.load_full();
        let bounds = (LARGEST_OPENAPI, OPENAPI_PATIENCE);
        let path = format!("apis/{}/{}", backend.group, backend.version);
        let v3 = match fetch::get(inner, backend, "/openapi/v3", "application/json", "", bounds).await {
            Ok(got) if got.status == 200 => {
                let root: Value = serde_json::from_slice(&got.body).unwrap_or_default();
                let url = root["paths"][&path]["serverRelativeURL"].as_str().unwrap_or_default();
                // It is a path of the other server and must not become another place.
                if url.starts_with("/openapi/v3/") { url.to_owned() } else { String::new() }
            }
            _ => String::new(),
        };
        let known = old.as_ref().map(|d| d.v2_etag.clone()).unwrap_or_default();
        let got = fetch::get(inner, backend, "/openapi/v2", "application/json", &known, bounds).await;
        let (v2, v2_etag) = match got {
            Ok(got) if got.status == 304 && !known.is_empty() => {
                (old.as_ref().and_then(|d| d.v2.clone()), known)
            }
            Ok(got) if got.status == 200 => (swagger::of_version(&got.body, &backend.path()), got.etag),
            _ => (None, String::new()),
        };
        let changed = old.is_none_or(|old| old.v3 != v3 || old.v2 != v2);
        self.documents.store(Some(Arc::new(Documents { v3, v2, v2_etag })));
        changed
    }
}

/// The content type names group, version and kind of the document.
fn is_aggregated(content_type: &str) -> bool {
    let mut parameters: Vec<&str> = content_type.split(';').map(str::trim).collect();
    parameters.sort_unstable();
    ["as=APIGroupDiscoveryList", "g=apidiscovery.k8s.io", "v=v2"]
        .iter()
        .all(|wanted| parameters.binary_search(wanted).is_ok())
}

fn of_version(document: &Value, backend: &Backend) -> Value {
    let groups = document["items"].as_array().into_iter().flatten();
    let mut versions = groups
        .filter(|g| g["metadata"]["name"] == backend.group.as_str())
        .flat_map(|g| g["versions"].as_array().into_iter().flatten());
    let found = versions.find(|v| v["version"] == backend.version.as_str());
    let mut resources = found.and_then(|v| v["resources"].as_array().cloned()).unwrap_or_default();
    resources.retain(Value::is_object);
    for resource in &mut resources {
        fill(resource);
        let subs = resource.get_mut("subresources").and_then(Value::as_array_mut);
        if let Some(subs) = subs {
            subs.retain(Value::is_object);
            subs.iter_mut().for_each(fill);
        }
    }
    resources.into()
}

/// Clients of v0.26 fall over an absent kind (kubernetes#118361).
fn fill(entry: &mut Value) {
    if !entry["responseKind"].is_object() {
        entry["responseKind"] = json!({"group": "", "version": "", "kind": ""});
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregated_form_is_told_by_its_content_type() {
        assert!(is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
        assert!(!is_aggregated("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"));
        assert!(!is_aggregated("application/json"));
    }

    #[test]
    fn before_it_is_known_a_version_is_stale() {
        assert_eq!(Learned::default().version("v1"), json!({"version": "v1", "freshness": "Stale"}));
    }
}
