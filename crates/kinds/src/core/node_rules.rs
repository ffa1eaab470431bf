//! What is wrong with a Node.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath, names};
use ipnet::IpNet;
use serde_json::Value;

use crate::{
    checks::{Checks, path},
    object::{at, entries, list, number, text},
    podspec::quantity_value,
};

pub fn check(checks: &mut Checks, node: &Value) {
    check_taints(checks, node);
    check_resources(checks, node);
    check_cidrs(checks, node);
}

/// Upstream places taints below `metadata` in its errors.
fn check_taints(checks: &mut Checks, node: &Value) {
    let mut seen = BTreeSet::new();
    for (index, taint) in list(node, "spec.taints").iter().enumerate() {
        let path = path("metadata").child("taints").index(index);
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        checks.qualified_name(&path.child("key"), key);
        let value = text(taint, "value");
        let messages = names::is_label_value(value);
        if !messages.is_empty() {
            checks.invalid(&path.child("value"), value, &messages.join(";"));
        }
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        checks.required_one_of(&path.child("effect"), effect, &effects);
        if !seen.insert((key, effect)) {
            let detail = "taints must be unique by key and effect pair".to_owned();
            checks.errors.push(FieldError { detail, ..FieldError::duplicate(&path, taint.clone()) });
        }
    }
}

fn check_resources(checks: &mut Checks, node: &Value) {
    for field in ["status.capacity", "status.allocatable"] {
        for (name, value) in entries(node, field) {
            quantity_value(checks, name, value, &path(field).child(name));
        }
    }
    let swap = number(node, "status.nodeInfo.swap.capacity");
    checks.nonnegative(&path("metadata").child("nodeSwapStatus").child("capacity"), swap);
}

fn check_cidrs(checks: &mut Checks, node: &Value) {
    let path = path("spec").child("podCIDRs");
    let cidrs: Vec<&str> = list(node, "spec.podCIDRs").iter().filter_map(Value::as_str).collect();
    for (index, cidr) in cidrs.iter().enumerate() {
        checks.cidr(&path.index(index), cidr);
    }
    if cidrs.len() > 1 {
        let parsed: Vec<IpNet> = cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
        let is_dual = parsed.iter().any(|cidr| matches!(cidr, IpNet::V4(_)))
            && parsed.iter().any(|cidr| matches!(cidr, IpNet::V6(_)));
        if !is_dual || cidrs.len() > 2 {
            checks.invalid(&path, cidrs, "may specify no more than one CIDR for each IP family");
        }
    }
}

/// What may not change, on writes of the object and of its status.
pub fn check_update(checks: &mut Checks, new: &Value, old: &Value, subresource: &str) {
    if !subresource.is_empty() {
        check_resources(checks, new);
    }
    let mut seen = BTreeSet::new();
    for (index, address) in list(new, "status.addresses").iter().enumerate() {
        if !seen.insert(["type", "address"].map(|field| text(address, field))) {
            checks.duplicate(&path("status").child("addresses").index(index), address.clone());
        }
    }
    let (cidrs, before) = (list(new, "spec.podCIDRs"), list(old, "spec.podCIDRs"));
    if !before.is_empty() && cidrs != before {
        let detail = r#"node updates may not change podCIDR except from "" to valid"#;
        checks.forbidden(&path("spec").child("podCIDRs"), detail);
    }
    let (provider, before) = (text(new, "spec.providerID"), text(old, "spec.providerID"));
    if !before.is_empty() && provider != before {
        let detail = if provider.is_empty() {
            "field cannot be cleared once set"
        } else {
            "field cannot be modified once set"
        };
        checks.invalid(&path("spec").child("providerID"), Value::Null, detail);
    }
    if text(new, "spec.externalID") != text(old, "spec.externalID") {
        checks.forbidden(&path("spec").child("externalID"), "may not be updated");
    }
}

/// What is warned for.
pub fn warnings(node: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if !at(node, "spec.configSource").is_null() {
        warnings.push("spec.configSource: the feature is removed".to_owned());
    }
    if !text(node, "spec.externalID").is_empty() {
        warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    let cidrs: FieldPath = path("spec").child("podCIDRs");
    for (index, cidr) in list(node, "spec.podCIDRs").iter().enumerate() {
        crate::warnings::cidr(&mut warnings, &cidrs.index(index), cidr.as_str().unwrap_or_default());
    }
    warnings
}
