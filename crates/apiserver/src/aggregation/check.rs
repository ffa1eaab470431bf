//! Whether the server behind an APIService answers: the condition `Available`.
//!
//! Source: `controllers/status/remote`, `controllers/status/local`.

use std::time::Duration;

use access::Reader as _;
use apimachinery::{Object, meta};
use futures::future::select_ok;
use serde_json::Value;

use super::{fetch, table::Backend};
use crate::server::Inner;

/// The type of the condition.
pub const AVAILABLE: &str = "Available";

/// The largest list of resources, and how long it may take.
const BOUNDS: (usize, Duration) = (4 << 20, Duration::from_secs(5));
/// So many are asked at once when the first try fails: behind a Service may be more than one, not all of them well.
const TRIES: usize = 4;

/// What the condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Verdict {
    /// The server is this one.
    pub fn local() -> Self {
        let message = "Local APIServices are always available".to_owned();
        Self { available: true, reason: "Local", message }
    }

    fn missing(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    /// Whether the object's condition says just this.
    pub fn is_in(&self, object: &Object) -> bool {
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let mut found = conditions.filter(|c| c["type"] == AVAILABLE);
        found.next().is_some_and(|c| {
            (c["status"] == "True") == self.available
                && c["reason"] == self.reason
                && c["message"] == self.message.as_str()
        })
    }
}

/// Looks at the Service, its endpoints, and asks for the list of resources.
pub async fn check(inner: &Inner, backend: &Backend) -> Verdict {
    match objects(inner, backend) {
        Err(verdict) => verdict,
        Ok(()) => match answers(inner, backend).await {
            Err(why) => Verdict::missing("FailedDiscoveryCheck", why),
            Ok(()) => Verdict { available: true, reason: "Passed", message: "all checks passed".to_owned() },
        },
    }
}

fn objects(inner: &Inner, backend: &Backend) -> Result<(), Verdict> {
    let Backend { namespace, service: name, port, .. } = backend;
    let Some(service) = inner.stored("", "services", namespace, name) else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Err(Verdict::missing("ServiceNotFound", message));
    };
    if service["spec"]["type"].as_str().is_some_and(|kind| kind != "ClusterIP") {
        return Ok(());
    }
    let ports = service["spec"]["ports"].as_array();
    let Some(found) = ports.into_iter().flatten().find(|p| p["port"].as_u64() == Some((*port).into())) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Err(Verdict::missing("ServicePortError", message));
    };
    if (namespace.as_str(), name.as_str()) == ("default", "kubernetes") {
        return Ok(());
    }
    let port_name = found["name"].as_str().unwrap_or_default();
    let mut slices = inner.reader.list("discovery.k8s.io", "endpointslices", namespace);
    slices.retain(|slice| meta::label(slice, "kubernetes.io/service-name") == Some(name));
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(Verdict::missing("EndpointsNotFound", message));
    }
    let list = |slice: &Value, field: &str| slice[field].as_array().cloned().unwrap_or_default();
    let usable = slices.iter().any(|slice| {
        list(slice, "endpoints").iter().any(|e| e["conditions"]["ready"] != false)
            && list(slice, "ports")
                .iter()
                .any(|p| p["name"].as_str().unwrap_or_default() == port_name && p["port"].is_u64())
    });
    if usable {
        return Ok(());
    }
    let message = format!(
        "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
    );
    Err(Verdict::missing("MissingEndpoints", message))
}

async fn answers(inner: &Inner, backend: &Backend) -> Result<(), String> {
    if ask(inner, backend).await.is_ok() {
        return Ok(());
    }
    select_ok((0..TRIES).map(|_| Box::pin(ask(inner, backend)))).await.map(|_| ())
}

async fn ask(inner: &Inner, backend: &Backend) -> Result<(), String> {
    let path = backend.path();
    let got = fetch::get(inner, backend, &path, "application/json, */*", "", BOUNDS).await?;
    if (200..300).contains(&got.status) {
        return Ok(());
    }
    let url = backend.target.url(&path);
    Err(format!("failing or missing response from {url}: bad status from {url}: {}", got.status))
}
