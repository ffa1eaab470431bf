//! `discovery.k8s.io/v1`: EndpointSlice.

use std::{collections::BTreeSet, net::IpAddr};

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name, some_of},
    checks::{Checks, PROTOCOLS, path},
    declare::Declarer,
    object::{at, items_mut, list, remove, same, text},
    resource::{Generation, Strategy},
    warnings,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("discovery.k8s.io/v1", "endpointslices")
        .behaves(|b| b.generation = Generation::ContentOrLabels)
        .strategy(EndpointSlice);
}

struct EndpointSlice;

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;
const MOST_HINTS: usize = 8;

/// The field is of an older version and cannot be written through this one.
fn drop_topology(object: &mut Value) {
    for endpoint in items_mut(object, "endpoints") {
        remove(endpoint, "deprecatedTopology");
    }
}

fn check(checks: &mut Checks, object: &Value) {
    let kind = text(object, "addressType");
    checks.required_one_of(&path("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    check_ports(checks, list(object, "ports"));
    let (endpoints, path) = (list(object, "endpoints"), path("endpoints"));
    if endpoints.len() > MOST_ENDPOINTS {
        return checks.errors.push(FieldError::too_many(&path, endpoints.len(), MOST_ENDPOINTS));
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        check_endpoint(checks, endpoint, kind, &path.index(index));
    }
}

fn check_ports(checks: &mut Checks, ports: &[Value]) {
    let path = path("ports");
    if ports.len() > MOST_PORTS {
        return checks.errors.push(FieldError::too_many(&path, ports.len(), MOST_PORTS));
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            checks.dns_label(&path.child("name"), name);
        }
        if !seen.insert(name) {
            checks.duplicate(&path.child("name"), name);
        }
        checks.required_one_of(&path.child("protocol"), text(port, "protocol"), &PROTOCOLS);
        if let Some(protocol) = at(port, "appProtocol").as_str() {
            checks.qualified_name(&path.child("appProtocol"), protocol);
        }
    }
}

fn check_endpoint(checks: &mut Checks, endpoint: &Value, kind: &str, path: &FieldPath) {
    let (addresses, addresses_path) = (list(endpoint, "addresses"), path.child("addresses"));
    if addresses.is_empty() {
        checks.required(&addresses_path, "");
    } else if addresses.len() > MOST_ADDRESSES {
        checks.errors.push(FieldError::too_many(&addresses_path, addresses.len(), MOST_ADDRESSES));
    }
    for (index, address) in addresses.iter().enumerate() {
        check_address(checks, address.as_str().unwrap_or_default(), kind, &addresses_path, index);
    }
    if let Some(node) = at(endpoint, "nodeName").as_str() {
        checks.dns_subdomain(&path.child("nodeName"), node);
    }
    if let Some(name) = at(endpoint, "hostname").as_str() {
        checks.dns_label(&path.child("hostname"), name);
    }
    for (field, node) in [("forZones", false), ("forNodes", true)] {
        check_hints(checks, list(at(endpoint, "hints"), field), node, &path.child("hints").child(field));
    }
}

/// Upstream names the list where an address is of the other family.
fn check_address(checks: &mut Checks, address: &str, kind: &str, path: &FieldPath, index: usize) {
    let at = path.index(index);
    match kind {
        "IPv4" | "IPv6" => match address.parse::<IpAddr>() {
            Ok(parsed) if parsed.is_ipv6() && kind == "IPv6" && parsed.to_string() != address => {
                checks.canonical_ip(&at, address);
            }
            Err(_) => {
                checks.ip(&at, address);
            }
            Ok(parsed) => {
                if parsed.is_ipv4() != (kind == "IPv4") {
                    checks.invalid(path, address, &format!("must be an {kind} address"));
                }
                checks.endpoint_ip(&at, address);
            }
        },
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            if name.is_empty() {
                checks.required(&at, "");
            } else {
                check_domain(checks, name, &at);
            }
        }
        _ => {}
    }
}

/// The messages about one name are one.
fn check_domain(checks: &mut Checks, name: &str, path: &FieldPath) {
    let messages = names::is_dns1123_subdomain(name);
    if !messages.is_empty() {
        return checks.invalid(path, name, &messages.join(","));
    }
    if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        return checks.invalid(path, name, detail);
    }
    let long = name.split('.').map(|label| (label, names::is_dns1123_label(label)));
    if let Some((label, messages)) = long.into_iter().find(|(_, messages)| !messages.is_empty()) {
        checks.invalid(path, label, &messages.join(","));
    }
}

fn check_hints(checks: &mut Checks, hints: &[Value], node: bool, path: &FieldPath) {
    if hints.len() > MOST_HINTS {
        return checks.errors.push(FieldError::too_many(path, hints.len(), MOST_HINTS));
    }
    let mut seen = BTreeSet::new();
    for (index, hint) in hints.iter().enumerate() {
        let path = path.index(index).child("name");
        let name = text(hint, "name");
        if !seen.insert(name) {
            checks.duplicate(&path, name);
        }
        let messages = if node { names::is_dns1123_subdomain(name) } else { names::is_label_value(name) };
        checks.each(&path, name, messages);
    }
}

impl Strategy for EndpointSlice {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        drop_topology(object);
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, _subresource: &str) {
        if !same(at(new, "endpoints"), at(old, "endpoints")) {
            drop_topology(new);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| checks.unchanged(new, old, "addressType"))
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() && text(new, "addressType") == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        // What controllers write is in its usual form.
        let by =
            at(new, "metadata.labels").get("endpointslice.kubernetes.io/managed-by").and_then(Value::as_str);
        if matches!(by, Some("endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io"))
        {
            return warnings;
        }
        for (index, endpoint) in list(new, "endpoints").iter().enumerate() {
            let path = path("endpoints").index(index).child("addresses");
            for (index, address) in list(endpoint, "addresses").iter().enumerate() {
                warnings::ip(&mut warnings, &path.index(index), address.as_str().unwrap_or_default());
            }
        }
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let ports: Vec<String> = list(object, "ports")
            .iter()
            .map(|port| match (at(port, "port").as_i64(), at(port, "name").as_str()) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_owned(),
                (None, None) => "*".to_owned(),
            })
            .collect();
        let addresses: Vec<String> = list(object, "endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let shown = |items: &[String]| -> Value {
            let text = some_of(items, 3, "<unset>");
            if text.is_empty() { "<unset>".into() } else { text.into() }
        };
        Some(vec![
            name(object),
            text(object, "addressType").into(),
            shown(&ports),
            shown(&addresses),
            created(object, now),
        ])
    }
}
