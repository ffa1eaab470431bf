//! What the server that is not there does to the objects of a request.

use std::sync::Arc;

use apimachinery::{ApiError, defaults, meta, structure};
use chrono::{DateTime, Utc};
use k8s_openapi::jiff::Timestamp;
use kinds::Resource;
use serde_json::{Value, json};

use crate::world::{Kind, Served};

pub(super) fn resource(kind: &Kind) -> Result<&'static Arc<Resource>, ApiError> {
    kinds::find(&kind.group, &kind.version, &kind.plural)
        .ok_or_else(|| ApiError::other(404, "NotFound", "the server could not find the requested resource"))
}

/// The kind that an object says it is.
pub(super) fn kind_of(object: &Value) -> Result<Kind, ApiError> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let name = object["kind"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let found = kinds::all()
        .iter()
        .find(|r| *r.group == *group && *r.version == *version && *r.kind == *name)
        .ok_or_else(|| ApiError::bad_request(format!("no kind {name:?} in {api_version:?}")))?;
    Ok(kind_named(found))
}

/// What this server serves, of what can be listed, watched and deleted.
#[must_use]
pub fn served() -> Vec<Served> {
    let verbs = |r: &Resource| r.verbs.iter().map(ToString::to_string).collect::<Vec<_>>();
    kinds::all()
        .iter()
        .filter(|r| ["delete", "list", "watch"].iter().all(|verb| r.verbs.iter().any(|v| **v == **verb)))
        .map(|r| Served { kind: kind_named(r), namespaced: r.namespaced, verbs: verbs(r) })
        .collect()
}

pub(super) fn kind_named(resource: &Resource) -> Kind {
    Kind {
        group: resource.group.to_string().into(),
        version: resource.version.to_string().into(),
        kind: resource.kind.to_string().into(),
        plural: resource.plural.to_string().into(),
    }
}

/// A namespace goes only when its own finalizers are gone, too.
pub(super) fn is_held(kind: &Kind, object: &Value) -> bool {
    let own = kind.plural == "namespaces"
        && object["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    own || meta::finalizers(object).next().is_some()
}

pub(super) fn shape(resource: &Resource, object: &mut Value) -> Result<(), ApiError> {
    structure::check(object, &resource.schema).map_err(ApiError::bad_request)?;
    structure::prune(object, &resource.schema);
    structure::canonicalize(object, &resource.schema).map_err(ApiError::bad_request)?;
    structure::always(object, &resource.schema);
    defaults::apply(object, &resource.schema);
    resource.strategy.default(object);
    Ok(())
}

pub(super) fn utc(at: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(at.as_second(), 0).unwrap_or_default()
}

pub(super) fn text_of(at: Timestamp) -> Value {
    apimachinery::time::format_time(utc(at)).into()
}

pub(super) fn remove(map: &mut Value, field: &str) {
    if let Some(map) = map.as_object_mut() {
        map.remove(field);
    }
}

pub(super) fn copy(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => remove(new, field),
    }
}

pub(super) fn inherit(new: &mut Value, old: &Value) {
    for field in ["uid", "creationTimestamp"] {
        if new["metadata"].get(field).is_none_or(|v| v.is_null() || v == "") {
            copy(&mut new["metadata"], &old["metadata"], field);
        }
    }
    for field in ["generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"] {
        copy(&mut new["metadata"], &old["metadata"], field);
    }
}

/// Leaves of a change what the subresource may change.
pub(super) fn confine(resource: &Resource, new: &mut Value, old: &Value, subresource: &str) {
    match subresource {
        "" if resource.subresource("status").is_some() => copy(new, old, "status"),
        "status" => {
            let fields = [&*new, old].map(|o| o.as_object().into_iter().flatten().map(|(k, _)| k.clone()));
            let fields: Vec<String> = fields.into_iter().flatten().collect();
            for field in fields.iter().filter(|f| !matches!(f.as_str(), "metadata" | "status")) {
                copy(new, old, field);
            }
            if resource.behaviour.status_keeps_metadata {
                for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                    copy(&mut new["metadata"], &old["metadata"], field);
                }
            }
        }
        _ => {}
    }
}

pub(super) fn propagate(resource: &Resource, object: &mut Value, asked: Option<&str>) {
    let had: Vec<String> = meta::finalizers(object).map(str::to_owned).collect();
    let policy = match asked {
        Some(policy) => policy,
        None if had.iter().any(|f| f == "orphan") => "Orphan",
        None if had.iter().any(|f| f == "foregroundDeletion") => "Foreground",
        None if resource.behaviour.orphans_by_default => "Orphan",
        None => "Background",
    };
    let mut list: Vec<Value> = had
        .into_iter()
        .filter(|f| !matches!(f.as_str(), "orphan" | "foregroundDeletion"))
        .map(Value::String)
        .collect();
    match policy {
        "Orphan" => list.push("orphan".into()),
        "Foreground" => list.push("foregroundDeletion".into()),
        _ => {}
    }
    if list.is_empty() {
        remove(&mut object["metadata"], "finalizers");
    } else {
        object["metadata"]["finalizers"] = json!(list);
    }
}

pub(super) fn grace(resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
    let unscheduled = object["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    let ended = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !resource.behaviour.graceful || unscheduled || ended {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    asked.unwrap_or(own).max(0)
}
