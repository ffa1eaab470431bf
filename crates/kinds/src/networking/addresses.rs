//! IPAddress and ServiceCIDR: where addresses of Services come from.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/networking/validation`, `pkg/registry/networking/{ipaddress,servicecidr}`.

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, list, same, set, text},
    resource::{NameRule, Strategy},
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("networking.k8s.io/v1", "ipaddresses").named(NameRule::Address).strategy(IpAddress);
    to.resource("networking.k8s.io/v1", "servicecidrs")
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(ServiceCidr);
}

/// An address that is taken, and by what. Its name is the address.
struct IpAddress;

fn check_parent(checks: &mut Checks, parent: &Value, path: &FieldPath) {
    let group = text(parent, "group");
    if !group.is_empty() {
        checks.dns_subdomain(&path.child("group"), group);
    }
    for field in ["resource", "name", "namespace"] {
        match text(parent, field) {
            "" if field == "namespace" => {}
            "" => checks.required(&path.child(field), ""),
            value => checks.each(&path.child(field), value, names::is_path_segment(value)),
        }
    }
}

impl Strategy for IpAddress {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            let (parent, path) = (at(object, "spec.parentRef"), path("spec").child("parentRef"));
            if parent.is_null() {
                checks.required(&path, "");
            } else {
                check_parent(checks, parent, &path);
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if !at(new, "spec.parentRef").is_null() {
                checks.unchanged(new, old, "spec.parentRef");
            }
        })
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let parent = at(object, "spec.parentRef");
        let [group, resource, namespace, parent_name] =
            ["group", "resource", "namespace", "name"].map(|field| text(parent, field));
        let kind = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let place = if namespace.is_empty() { String::new() } else { format!("/{namespace}") };
        let shown = format!("{}{place}/{parent_name}", kind.to_lowercase());
        Some(vec![name(object), if parent.is_null() { json!("<none>") } else { shown.into() }])
    }
}

/// Ranges that Services get their addresses from: one, or one of each family.
struct ServiceCidr;

/// Whether a block is of IPv6; `None` for what is no block.
fn is_ipv6(cidr: &Value) -> Option<bool> {
    cidr.as_str()?.parse::<ipnet::IpNet>().ok().map(|block| matches!(block, ipnet::IpNet::V6(_)))
}

fn check_ranges(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let cidrs = list(spec, "cidrs");
    if cidrs.is_empty() {
        return checks.required(path, "at least one CIDR required");
    }
    if cidrs.len() > 2 {
        return checks.invalid(path, spec.clone(), "may only hold up to 2 values");
    }
    for (index, cidr) in cidrs.iter().enumerate() {
        checks.canonical_cidr(&path.index(index), cidr.as_str().unwrap_or_default());
    }
    if let [first, second] = cidrs
        && is_ipv6(first).is_some()
        && is_ipv6(first) == is_ipv6(second)
    {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        checks.invalid(path, cidrs.to_vec(), detail);
    }
}

impl Strategy for ServiceCidr {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            if text(object, "metadata.resourceVersion").is_empty() {
                check_ranges(checks, at(object, "spec"), &path("spec").child("cidrs"));
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        Checks::run(|checks| {
            let path = path("spec").child("cidrs");
            let (now, before) = (list(new, "spec.cidrs"), list(old, "spec.cidrs"));
            let second_added = before.len() == 1 && now.len() == 2;
            if now.len() != before.len() && !second_added {
                return checks.invalid(&path, now.to_vec(), "field is immutable");
            }
            for (index, (now, before)) in now.iter().zip(before).enumerate() {
                if !same(now, before) {
                    checks.invalid(&path.index(index), now.clone(), "field is immutable");
                }
            }
            if second_added {
                check_ranges(checks, at(new, "spec"), &path);
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let cidrs: Vec<&str> = list(object, "spec.cidrs").iter().filter_map(Value::as_str).collect();
        Some(vec![name(object), cidrs.join(",").into(), created(object, now)])
    }
}
