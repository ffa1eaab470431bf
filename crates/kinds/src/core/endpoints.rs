//! Endpoints.

use apimachinery::{FieldError, FieldPath, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name, some_of},
    checks::{Checks, PROTOCOLS, path},
    object::{at, list, number, text},
    resource::Strategy,
    warnings,
};

pub struct Endpoints;

/// `10.0.0.1:80`, `[fd00::1]:80`
fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn check(checks: &mut Checks, object: &Value) {
    for (index, subset) in list(object, "subsets").iter().enumerate() {
        let path = path("subsets").index(index);
        let groups = ["addresses", "notReadyAddresses"];
        if groups.iter().all(|group| list(subset, group).is_empty()) {
            checks.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for group in groups {
            for (index, address) in list(subset, group).iter().enumerate() {
                check_address(checks, address, &path.child(group).index(index));
            }
        }
        let ports = list(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            check_port(checks, port, ports.len() > 1, &path.child("ports").index(index));
        }
    }
}

fn check_address(checks: &mut Checks, address: &Value, path: &FieldPath) {
    let ip = text(address, "ip");
    checks.ip(&path.child("ip"), ip);
    if !text(address, "hostname").is_empty() {
        checks.dns_label(&path.child("hostname"), text(address, "hostname"));
    }
    if let Some(node) = at(address, "nodeName").as_str() {
        checks.dns_subdomain(&path.child("nodeName"), node);
    }
    checks.endpoint_ip(&path.child("ip"), ip);
}

fn check_port(checks: &mut Checks, port: &Value, named: bool, path: &FieldPath) {
    match text(port, "name") {
        "" if named => checks.required(&path.child("name"), ""),
        "" => {}
        name => checks.dns_label(&path.child("name"), name),
    }
    checks.port_number(&path.child("port"), number(port, "port"));
    checks.required_one_of(&path.child("protocol"), text(port, "protocol"), &PROTOCOLS);
    if let Some(protocol) = at(port, "appProtocol").as_str() {
        checks.qualified_name(&path.child("appProtocol"), protocol);
    }
}

impl Strategy for Endpoints {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut warnings = Vec::new();
        if at(new, "metadata.labels")["endpoints.kubernetes.io/managed-by"] == "endpoint-controller" {
            return warnings;
        }
        for (index, subset) in list(new, "subsets").iter().enumerate() {
            for field in ["addresses", "notReadyAddresses"] {
                let path = path("subsets").index(index).child(field);
                for (index, address) in list(subset, field).iter().enumerate() {
                    warnings::ip(&mut warnings, &path.index(index).child("ip"), text(address, "ip"));
                }
            }
        }
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let mut places = Vec::new();
        for subset in list(object, "subsets") {
            let addresses = || list(subset, "addresses").iter().map(|address| text(address, "ip"));
            let ports = list(subset, "ports");
            if ports.is_empty() {
                places.extend(addresses().map(str::to_owned));
            }
            for port in ports {
                places.extend(addresses().map(|ip| host_port(ip, number(port, "port"))));
            }
        }
        Some(vec![
            name(object),
            some_of(&places, 3, if list(object, "subsets").is_empty() { "<none>" } else { "" }).into(),
            created(object, now),
        ])
    }
}
