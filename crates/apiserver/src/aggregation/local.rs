//! The APIServices of what this server serves itself: made for built-in groups at start, and for the groups of
//! CustomResourceDefinitions as these come and go. Whoever takes the label off one of them keeps it as it is.
//!
//! Source: `controllers/autoregister`, `pkg/controlplane/controller/crdregistration`.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::{ApiError, Object, meta};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::{
    Follower, GROUP,
    check::Verdict,
    keeper,
    priorities::{self, CUSTOM, MEASURED, Priority},
};
use crate::{
    catalogue::Served,
    server::Inner,
    special::{bootstrap, metrics},
    verbs::delete,
};

/// Who keeps an APIService.
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Brought up to date when the server starts.
const AT_START: &str = "onstart";
/// Kept up to date always.
const ALWAYS: &str = "true";

/// So many are written at once: the store puts them into one commit.
const AT_ONCE: usize = 64;

fn wanted(inner: &Inner, group: &str, version: &str, priority: Priority, label: &str) -> Object {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {LABEL: label}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": priority.group, "versionPriority": priority.version,
        },
    });
    let local = Verdict::local();
    let now = (inner.config.now)();
    kinds::apiextensions::names::set_condition(
        &mut object,
        super::check::AVAILABLE,
        true,
        local.reason,
        &local.message,
        now,
    );
    object
}

/// Built-in groups and versions. The group of APIServices itself has none, as nobody else can serve it.
fn builtin(inner: &Inner) -> BTreeMap<String, Object> {
    let catalogue = inner.catalogue.load();
    let mut all = BTreeMap::new();
    for (group, found) in &catalogue.groups {
        for (version, _) in found.versions.iter().filter(|(_, v)| v.builtin) {
            let measured = (group == metrics::GROUP).then_some(MEASURED);
            let Some(priority) = priorities::of(group, version).or(measured) else { continue };
            let object = wanted(inner, group, version, priority, AT_START);
            all.insert(meta::name(&object).to_owned(), object);
        }
    }
    all
}

/// Groups and versions that are defined and served.
fn custom(inner: &Inner, definitions: &[Object]) -> BTreeMap<String, Object> {
    let mut all = BTreeMap::new();
    for definition in definitions {
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
            let name = version["name"].as_str().unwrap_or_default();
            if version["served"] == true && !group.is_empty() && !name.is_empty() {
                let object = wanted(inner, group, name, CUSTOM, ALWAYS);
                all.insert(meta::name(&object).to_owned(), object);
            }
        }
    }
    all
}

fn label(object: &Object) -> &str {
    meta::label(object, LABEL).unwrap_or_default()
}

/// Makes, changes and deletes what is kept at start.
pub(super) async fn at_start(inner: &Arc<Inner>, follower: &Follower) -> Result<(), ApiError> {
    let (objects, _) = Follower::list(inner, &follower.services)?;
    let there: BTreeMap<&str, &Object> = objects.iter().map(|o| (meta::name(o), o)).collect();
    let builtin = builtin(inner);
    let make = builtin.iter().filter(|(name, object)| match there.get(name.as_str()) {
        None => true,
        // Metrics may be somebody else's business: whoever installs a server for them means it.
        Some(old) if object["spec"]["group"] == metrics::GROUP => !old["spec"]["service"].is_object(),
        Some(old) => label(old) == AT_START && old["spec"] != object["spec"],
    });
    stream::iter(make)
        .map(|(_, object)| bootstrap::replace(inner, object.clone(), &["spec"]))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    for (name, old) in there {
        if label(old) == AT_START && !builtin.contains_key(name) {
            remove(inner, &follower.services, name).await?;
        }
    }
    Ok(())
}

/// Brings what is always kept to what is defined, and says of all local ones that they are.
pub(super) async fn follow(
    inner: &Arc<Inner>,
    services: &Arc<Served>,
    objects: &[Object],
    definitions: &[Object],
) {
    let there: BTreeMap<&str, &Object> = objects.iter().map(|o| (meta::name(o), o)).collect();
    let custom = custom(inner, definitions);
    let mut failed = Vec::new();
    for (name, object) in &custom {
        let stale = match there.get(name.as_str()) {
            None => true,
            Some(old) => label(old) == ALWAYS && old["spec"] != object["spec"],
        };
        if stale {
            failed.extend(bootstrap::replace(inner, object.clone(), &["spec"]).await.err());
        }
    }
    let local = Verdict::local();
    for (name, old) in there {
        if label(old) == ALWAYS && !custom.contains_key(name) {
            failed.extend(remove(inner, services, name).await.err());
        } else if !old["spec"]["service"].is_object() && !local.is_in(old) {
            failed.extend(keeper::write(inner, services, name, None, &local).await.err());
        }
    }
    // Who was faster is heard of by the next event.
    for error in failed.into_iter().filter(|e| !matches!(e.code, 404 | 409)) {
        tracing::warn!(%error, "an APIService of this server was not brought up to date");
    }
}

async fn remove(inner: &Inner, services: &Served, name: &str) -> Result<(), ApiError> {
    match inner.config.store.get(&services.key("", name)) {
        None => Ok(()),
        Some(entry) => delete::purge(inner, services, &entry).await.map(|_| ()),
    }
}
