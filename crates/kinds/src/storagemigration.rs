//! `storagemigration.k8s.io/v1`: StorageVersionMigration.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/storagemigration`.

use apimachinery::{FieldError, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::name,
    checks::{Checks, path},
    declare::Declarer,
    object::{at, list, set, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("storagemigration.k8s.io/v1", "storageversionmigrations")
        .needs_resource_version()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(StorageVersionMigration);
}

struct StorageVersionMigration;

fn check(checks: &mut Checks, object: &Value) {
    let path = path("spec").child("resource");
    let resource = text(object, "spec.resource.resource");
    if resource.is_empty() {
        checks.required(&path.child("resource"), "resource is required to be set");
    } else {
        checks.together(&path.child("resource"), resource, &names::is_dns1035_label(resource));
    }
    let group = text(object, "spec.resource.group");
    if !group.is_empty() {
        checks.together(&path.child("group"), group, &names::is_dns1123_subdomain(group));
    }
}

/// A resourceVersion is a decimal number without zeros before it.
fn is_version(version: &str) -> bool {
    !version.starts_with('0') && version.bytes().all(|b| b.is_ascii_digit())
}

fn is(object: &Value, state: &str) -> bool {
    let found = list(object, "status.conditions").iter().find(|c| c["type"] == state);
    found.is_some_and(|condition| condition["status"] == "True")
}

fn check_status(checks: &mut Checks, new: &Value, old: &Value) {
    let (version_path, path) = (path("status").child("resourceVersion"), path("status").child("conditions"));
    let (version, before) = (text(new, "status.resourceVersion"), text(old, "status.resourceVersion"));
    if !is_version(version) {
        checks.invalid(&version_path, version, &format!("resource version is not well formed: {version}"));
    }
    let conditions = at(new, "status.conditions");
    checks.conditions(&path, list(new, "status.conditions"));
    if !before.is_empty() && before != version {
        checks.invalid(&version_path, version, "field is immutable");
    }
    if is(new, "Succeeded") && is(new, "Failed") {
        let detail = "Both success and failed conditions cannot be true at the same time";
        checks.invalid(&path, conditions.clone(), detail);
    }
    for (state, word) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is(old, state) && !is(new, state) {
            let detail = format!("{word} condition cannot be set to false once it is true");
            checks.invalid(&path, conditions.clone(), &detail);
        }
    }
}

impl Strategy for StorageVersionMigration {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| match subresource {
            "status" => check_status(checks, new, old),
            _ => checks.immutable(new, old, "spec"),
        })
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let (group, resource) = (text(object, "spec.resource.group"), text(object, "spec.resource.resource"));
        let whole = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let known = |c: &&Value| {
            c["status"] == "True" && ["Running", "Failed", "Succeeded"].contains(&text(c, "type"))
        };
        let state = list(object, "status.conditions").iter().rfind(known);
        let state = state.map_or("Unknown", |condition| text(condition, "type"));
        Some(vec![name(object), whole.into(), state.into()])
    }
}
