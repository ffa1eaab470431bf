//! `apiregistration.k8s.io/v1`: APIService.
//!
//! Source: `k8s.io/kube-aggregator/pkg/apis/apiregistration`, `pkg/registry/apiservice`.

use apimachinery::{FieldError, Object, names, time};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    certificates::bytes,
    checks::{Checks, path},
    declare::Declarer,
    object::{at, flag, has, list, number, set, text},
    resource::{NameRule, Strategy},
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("apiregistration.k8s.io/v1", "apiservices")
        .needs_resource_version()
        .named(NameRule::PathSegment)
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(ApiService);
}

struct ApiService;

/// What an APIService that the server itself answers is from the beginning.
fn local(now: DateTime<Utc>) -> Value {
    json!({
        "type": "Available", "status": "True", "reason": "Local",
        "message": "Local APIServices are always available",
        "lastTransitionTime": time::format_time(now),
    })
}

fn check(checks: &mut Checks, object: &Value) {
    let (spec, path) = (at(object, "spec"), path("spec"));
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    check_name(checks, text(object, "metadata.name"), &format!("{version}.{group}"));
    if group.is_empty() && version != "v1" {
        let detail = "only v1 may have an empty group and it better be legacy kube";
        checks.required(&path.child("group"), detail);
    }
    if !group.is_empty() {
        checks.dns_subdomain(&path.child("group"), group);
    }
    checks.each(&path.child("version"), version, names::is_dns1035_label(version));
    for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let priority = number(spec, field);
        if !(1..=most).contains(&priority) {
            let detail = format!("must be positive and less than {most}");
            checks.invalid(&path.child(field), priority, &detail);
        }
    }
    let authority = bytes(at(spec, "caBundle"));
    let insecure = flag(spec, "insecureSkipTLSVerify");
    if !has(spec, "service") {
        if !authority.is_empty() {
            let detail = "local APIServices may not have a caBundle";
            checks.invalid(&path.child("caBundle"), format!("{} bytes", authority.len()), detail);
        }
        if insecure {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            checks.invalid(&path.child("insecureSkipTLSVerify"), true, detail);
        }
        return;
    }
    let service = path.child("service");
    for field in ["namespace", "name"] {
        if text(at(spec, "service"), field).is_empty() {
            checks.required(&service.child(field), "");
        }
    }
    checks.reachable_port(&service.child("port"), number(spec, "service.port"));
    if insecure && !authority.is_empty() {
        let detail = "may not be true if caBundle is present";
        checks.invalid(&path.child("insecureSkipTLSVerify"), true, detail);
    }
}

/// The name repeats version and group.
fn check_name(checks: &mut Checks, name: &str, wanted: &str) {
    let path = path("metadata").child("name");
    let faults = names::is_path_segment(name);
    if !faults.is_empty() {
        checks.each(&path, name, faults);
    } else if name != wanted {
        checks.invalid(&path, name, &format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
}

impl Strategy for ApiService {
    fn prepare_create(&self, object: &mut Object, now: DateTime<Utc>) {
        let conditions = if has(object, "spec.service") { vec![] } else { vec![local(now)] };
        set(
            object,
            "status",
            if conditions.is_empty() { json!({}) } else { json!({"conditions": conditions}) },
        );
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update(&self, new: &Object, _old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            let conditions = list(new, "status.conditions").iter().enumerate();
            for (index, condition) in conditions.filter(|_| subresource == "status") {
                let path = path("status").child("conditions").index(index).child("status");
                checks.one_of(&path, text(condition, "status"), &["True", "False", "Unknown"]);
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let service = match at(object, "spec.service") {
            Value::Null => "Local".to_owned(),
            service => format!("{}/{}", text(service, "namespace"), text(service, "name")),
        };
        let available = list(object, "status.conditions").iter().find(|c| c["type"] == "Available");
        let available = available.map_or("Unknown".to_owned(), |condition| {
            match (text(condition, "status"), text(condition, "reason")) {
                (status @ "True", _) | (status, "") => status.to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            }
        });
        Some(vec![name(object), service.into(), available.into(), created(object, now)])
    }
}
