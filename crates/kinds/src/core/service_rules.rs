//! What is wrong with a Service.

use std::{collections::BTreeSet, net::IpAddr};

use apimachinery::{FieldError, FieldPath};
use serde_json::{Value, json};

use crate::{
    checks::{Checks, path},
    object::{at, has, list, number, text},
};

const LONGEST_AFFINITY_SECONDS: i64 = 86_400;

fn strings<'v>(value: &'v Value, field: &str) -> Vec<&'v str> {
    list(value, field).iter().filter_map(Value::as_str).collect()
}

/// Without an address of its own.
fn is_headless(service: &Value) -> bool {
    strings(service, "spec.clusterIPs") == ["None"] || text(service, "spec.clusterIP") == "None"
}

/// What is wrong with a Service's addresses and their families. Whoever gives out addresses asks before all else.
#[must_use]
pub fn check_addresses(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    Checks::run(|checks| {
        check_cluster_ips(checks, new);
        if let Some(old) = old {
            check_addresses_kept(checks, new, old);
        }
    })
}

/// A Service by itself. `kept` are addresses that were there before and are not looked at again.
pub fn check(service: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let spec = path("spec");
        let kind = text(service, "spec.type");
        let ports = list(service, "spec.ports");
        if ports.is_empty() && !is_headless(service) && kind != "ExternalName" {
            checks.required(&spec.child("ports"), "");
        }
        match kind {
            "LoadBalancer" | "NodePort" if is_headless(service) => {
                let detail = format!("may not be set to 'None' for {kind} services");
                checks.invalid(&spec.child("clusterIPs").index(0), "None", &detail);
            }
            "ExternalName" => check_external_name(checks, service),
            _ => {}
        }
        let mut seen = BTreeSet::new();
        for (index, port) in ports.iter().enumerate() {
            check_port(checks, port, ports.len() > 1, &mut seen, &spec.child("ports").index(index));
        }
        checks.labels(&spec.child("selector"), at(service, "spec.selector"));
        check_affinity(checks, service, &spec);
        check_cluster_ips(checks, service);
        for (index, ip) in strings(service, "spec.externalIPs").iter().enumerate() {
            let path = spec.child("externalIPs").index(index);
            if checks.ip(&path, ip) {
                checks.endpoint_ip(&path, ip);
            }
        }
        let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
        checks.required_one_of(&spec.child("type"), kind, &kinds);
        check_port_numbers(checks, service, &spec);
        check_load_balancer(checks, service, &spec);
        check_traffic(checks, service, &spec);
    })
}

/// Only load balancers have addresses of their own.
#[must_use]
pub fn check_status(service: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let addresses = list(service, "status.loadBalancer.ingress");
        if text(service, "spec.type") != "LoadBalancer" && !addresses.is_empty() {
            let path = path("status").child("loadBalancer").child("ingress");
            checks.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        }
    })
}

fn check_external_name(checks: &mut Checks, service: &Value) {
    let spec = path("spec");
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let value = at(at(service, "spec"), field);
        if !value.is_null() && value != &json!([]) {
            checks.forbidden(&spec.child(field), "may not be set for ExternalName services");
        }
    }
    let name = text(service, "spec.externalName");
    match name.strip_suffix('.').unwrap_or(name) {
        "" => checks.required(&spec.child("externalName"), ""),
        name => checks.dns_subdomain(&spec.child("externalName"), name),
    }
}

fn check_port<'v>(
    checks: &mut Checks,
    port: &'v Value,
    needs_name: bool,
    seen: &mut BTreeSet<&'v str>,
    path: &FieldPath,
) {
    match text(port, "name") {
        "" if needs_name => checks.required(&path.child("name"), ""),
        "" => {}
        name => {
            checks.dns_label(&path.child("name"), name);
            if !seen.insert(name) {
                checks.duplicate(&path.child("name"), name);
            }
        }
    }
    checks.port_number(&path.child("port"), number(port, "port"));
    checks.required_one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    checks.port(&path.child("targetPort"), at(port, "targetPort"));
    if let Some(protocol) = at(port, "appProtocol").as_str() {
        checks.qualified_name(&path.child("appProtocol"), protocol);
    }
}

fn check_affinity(checks: &mut Checks, service: &Value, spec: &FieldPath) {
    let affinity = text(service, "spec.sessionAffinity");
    checks.required_one_of(&spec.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let config = at(service, "spec.sessionAffinityConfig");
    let mut path = spec.child("sessionAffinityConfig");
    match affinity {
        "ClientIP" => {
            let detail = "when session affinity type is ClientIP";
            if config.is_null() {
                return checks.required(&path, detail);
            }
            path = path.child("clientIP");
            if !has(config, "clientIP") {
                return checks.required(&path, detail);
            }
            path = path.child("timeoutSeconds");
            match at(config, "clientIP.timeoutSeconds").as_i64() {
                None => checks.required(&path, detail),
                Some(seconds) if !(1..=LONGEST_AFFINITY_SECONDS).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {LONGEST_AFFINITY_SECONDS}");
                    checks.invalid(&path, seconds, &detail);
                }
                Some(_) => {}
            }
        }
        "None" if !config.is_null() => {
            checks.forbidden(&path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn check_cluster_ips(checks: &mut Checks, service: &Value) {
    if text(service, "spec.type") == "ExternalName" {
        return;
    }
    let path = path("spec").child("clusterIPs");
    let ips = strings(service, "spec.clusterIPs");
    match (text(service, "spec.clusterIP"), ips.first()) {
        ("", None) => {}
        ("", Some(_)) => {
            checks.invalid(&path, ips.clone(), "must be empty when `clusterIP` is not specified")
        }
        (_, None) => checks.required(&path, ""),
        (ip, Some(first)) if ip != *first => {
            checks.invalid(&path, ips.clone(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = strings(service, "spec.ipFamilies");
    let families_path = crate::checks::path("spec").child("ipFamilies");
    let mut seen = BTreeSet::new();
    for (index, family) in families.iter().enumerate() {
        checks.one_of(&families_path.index(index), family, &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            checks.duplicate(&families_path.index(index), *family);
        }
    }
    if let Some(policy) = at(service, "spec.ipFamilyPolicy").as_str() {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        checks.one_of(&crate::checks::path("spec").child("ipFamilyPolicy"), policy, &supported);
    }
    let before = checks.errors.len();
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && *ip == "None" {
            if ips.len() > 1 {
                checks.invalid(&path, ips.clone(), "'None' must be the first and only value");
            }
        } else {
            checks.ip(&path.index(index), ip);
        }
    }
    let faulty = checks.errors.len() > before;
    if ips.len() > 2 {
        checks.invalid(&path, ips.clone(), "may only hold up to 2 values");
    }
    if faulty {
        return;
    }
    let is_v6 = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    if ips.len() > 1 && ips.iter().all(|ip| is_v6(ip) == is_v6(ips[0])) {
        checks.invalid(&path, ips.clone(), "may specify no more than one IP for each IP family");
    }
    if !is_headless(service) {
        for (index, (ip, family)) in ips.iter().zip(&families).enumerate() {
            if (*family == "IPv4" && is_v6(ip)) || (*family == "IPv6" && !is_v6(ip)) {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
                checks.invalid(&path.index(index), *ip, &detail);
            }
        }
    }
}

fn check_port_numbers(checks: &mut Checks, service: &Value, spec: &FieldPath) {
    let ports = list(service, "spec.ports");
    let path = spec.child("ports");
    if text(service, "spec.type") == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| number(port, "nodePort") != 0) {
            let detail = "may not be used when `type` is 'ClusterIP'";
            checks.forbidden(&path.index(index).child("nodePort"), detail);
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let node_port = number(port, "nodePort");
        if node_port != 0 && !seen.insert((text(port, "protocol"), node_port)) {
            checks.duplicate(&path.index(index).child("nodePort"), node_port);
        }
    }
    seen.clear();
    for (index, port) in ports.iter().enumerate() {
        let (protocol, number) = (text(port, "protocol"), number(port, "port"));
        if !seen.insert((protocol, number)) {
            checks.duplicate(
                &path.index(index),
                json!({"port": number, "protocol": protocol, "targetPort": 0}),
            );
        }
    }
}

fn check_load_balancer(checks: &mut Checks, service: &Value, spec: &FieldPath) {
    const DETAIL: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = text(service, "spec.type") == "LoadBalancer";
    let ranges = strings(service, "spec.loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // Upstream's spelling.
        let path = spec.child("LoadBalancerSourceRanges");
        if !balanced {
            checks.forbidden(&path, DETAIL);
        }
        for (index, range) in ranges.iter().enumerate() {
            checks.cidr(&path.index(index), range.trim());
        }
    }
    let allocates = has(service, "spec.allocateLoadBalancerNodePorts");
    if allocates && !balanced {
        checks.forbidden(&spec.child("allocateLoadBalancerNodePorts"), DETAIL);
    }
    if balanced && !allocates {
        checks.required(&path("allocateLoadBalancerNodePorts"), "");
    }
    if let Some(class) = at(service, "spec.loadBalancerClass").as_str() {
        let path = spec.child("loadBalancerClass");
        if balanced {
            checks.qualified_name(&path, class);
        } else {
            checks.forbidden(&path, DETAIL);
        }
    }
}

fn check_traffic(checks: &mut Checks, service: &Value, spec: &FieldPath) {
    let kind = text(service, "spec.type");
    let outside = matches!(kind, "LoadBalancer" | "NodePort")
        || (kind == "ClusterIP" && !list(service, "spec.externalIPs").is_empty());
    let external = text(service, "spec.externalTrafficPolicy");
    let external_path = spec.child("externalTrafficPolicy");
    if outside {
        checks.required_one_of(&external_path, external, &["Cluster", "Local"]);
    } else if !external.is_empty() {
        checks.invalid(&external_path, external, "may only be set for externally-accessible services");
    }
    let health = number(service, "spec.healthCheckNodePort");
    if health != 0 {
        let path = spec.child("healthCheckNodePort");
        if kind == "LoadBalancer" && external == "Local" {
            checks.port_number(&path, health);
        } else {
            let detail =
                "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            checks.invalid(&path, health, detail);
        }
    }
    match at(service, "spec.internalTrafficPolicy").as_str() {
        None if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") => {
            checks.required(&spec.child("internalTrafficPolicy"), "");
        }
        Some(policy) => checks.one_of(&spec.child("internalTrafficPolicy"), policy, &["Cluster", "Local"]),
        None => {}
    }
    if let Some(distribution) = at(service, "spec.trafficDistribution").as_str() {
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        checks.one_of(&spec.child("trafficDistribution"), distribution, &supported);
    }
}

/// Addresses, families and the load balancer's class stay, but for changes from and to ExternalName.
pub fn check_update(new: &Value, old: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        check_addresses_kept(checks, new, old);
        let balanced = |service: &Value| text(service, "spec.type") == "LoadBalancer";
        if balanced(new) && balanced(old) {
            let class = at(new, "spec.loadBalancerClass");
            if class != at(old, "spec.loadBalancerClass") {
                checks.invalid(
                    &path("spec").child("loadBalancerClass"),
                    class.clone(),
                    "may not change once set",
                );
            }
            let local = |service: &Value| text(service, "spec.externalTrafficPolicy") == "Local";
            let port = |service: &Value| number(service, "spec.healthCheckNodePort");
            if local(new) && local(old) && port(new) != port(old) {
                checks.forbidden(&path("spec").child("healthCheckNodePort"), "field is immutable");
            }
        }
    })
}

fn check_addresses_kept(checks: &mut Checks, new: &Value, old: &Value) {
    let external = |service: &Value| text(service, "spec.type") == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    if !(is_headless(new) && is_headless(old)) {
        check_kept(checks, new, old, "clusterIPs", "clusterIP");
    }
    if !is_headless(new) && !is_headless(old) {
        check_kept(checks, new, old, "ipFamilies", "ipFamily");
    }
}

fn check_kept(checks: &mut Checks, new: &Value, old: &Value, field: &str, singular: &str) {
    let path = path("spec").child(field);
    let full = format!("spec.{field}");
    let (new_values, old_values) = (strings(new, &full), strings(old, &full));
    if new_values.len() == old_values.len() {
        for (index, _) in new_values.iter().zip(&old_values).enumerate().filter(|(_, (new, old))| new != old)
        {
            checks.invalid(&path.index(index), new_values.clone(), "may not change once set");
        }
        return;
    }
    if new_values.is_empty() {
        checks.invalid(&path.index(0), new_values.clone(), &format!("primary {singular} can not be unset"));
    } else if old_values.first().is_some_and(|old| *old != new_values[0]) {
        checks.invalid(&path.index(0), new_values.clone(), "may not change once set");
    }
    let policy = at(new, "spec.ipFamilyPolicy");
    if old_values.len() > 1 && new_values.len() == 1 && policy != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {singular}");
        checks.invalid(&crate::checks::path("spec").child("ipFamilyPolicy"), policy.clone(), &detail);
    }
}
