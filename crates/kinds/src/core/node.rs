//! Node.

use std::collections::BTreeSet;

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::node_rules as rules;
use crate::{
    cells::{created, name},
    checks::Checks,
    object::{at, entries, flag, has, list, set, text},
    resource::Strategy,
};

pub struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Object) {
        if !has(object, "status.allocatable") && has(object, "status.capacity") {
            let capacity = at(object, "status.capacity").clone();
            set(object, "status.allocatable", capacity);
        }
        // `podCIDR` is the first of `podCIDRs`; where they differ `podCIDR` is right.
        let cidr = text(object, "spec.podCIDR").to_owned();
        let first = list(object, "spec.podCIDRs").first().and_then(Value::as_str).map(str::to_owned);
        match (cidr.is_empty(), first) {
            (true, Some(first)) => set(object, "spec.podCIDR", first),
            (false, first) if first.as_ref() != Some(&cidr) => set(object, "spec.podCIDRs", vec![cidr]),
            _ => {}
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| rules::check(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| rules::check_update(checks, new, old, subresource))
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        rules::warnings(new)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let ready = list(object, "status.conditions").iter().rfind(|condition| condition["type"] == "Ready");
        let mut status = match ready {
            Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if flag(object, "spec.unschedulable") {
            status.push_str(",SchedulingDisabled");
        }
        let mut roles = BTreeSet::new();
        for (key, value) in entries(object, "metadata.labels") {
            match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) if !role.is_empty() => roles.extend([role]),
                _ if key == "kubernetes.io/role" => {
                    roles.extend(value.as_str().filter(|role| !role.is_empty()))
                }
                _ => {}
            }
        }
        let roles = roles.into_iter().collect::<Vec<_>>().join(",");
        let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
        let info = |field: &str| text(at(object, "status.nodeInfo"), field);
        let mut kernel = or(info("kernelVersion"), "<unknown>");
        if !info("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info("architecture"));
        }
        let address = |kind: &str| {
            let found = list(object, "status.addresses").iter().find(|address| address["type"] == kind);
            found.map_or("<none>", |address| text(address, "address")).into()
        };
        Some(vec![
            name(object),
            status.into(),
            or(&roles, "<none>").into(),
            created(object, now),
            info("kubeletVersion").into(),
            address("InternalIP"),
            address("ExternalIP"),
            or(info("osImage"), "<unknown>").into(),
            kernel.into(),
            or(info("containerRuntimeVersion"), "<unknown>").into(),
        ])
    }
}
