//! What is wrong with a PodSpec as a whole.

use std::collections::BTreeSet;

use apimachinery::{FieldPath, names};
use serde_json::Value;

use super::{containers, resources, scheduling, security, volumes, windows};
use crate::{
    checks::Checks,
    object::{at, flag, has, list, number, text},
};

/// Where the spec stands.
#[derive(Clone, Copy)]
pub struct Place<'p> {
    /// In a Pod, not in a template.
    pub is_pod: bool,
    /// The pod's name, where it is known.
    pub pod_name: &'p str,
}

/// A pod template at `path`.
pub fn check_template(checks: &mut Checks, template: &Value, path: &FieldPath) {
    checks.labels(&path.child("labels"), at(template, "metadata.labels"));
    let annotations = at(template, "metadata.annotations");
    checks.annotations(&path.child("annotations"), annotations);
    check_pod_annotations(checks, annotations, at(template, "spec"), &path.child("annotations"));
    check_spec(checks, at(template, "spec"), &path.child("spec"), Place { is_pod: false, pod_name: "" });
    if !list(template, "spec.ephemeralContainers").is_empty() {
        checks.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

/// Annotations that mean something to pods.
pub fn check_pod_annotations(checks: &mut Checks, annotations: &Value, spec: &Value, path: &FieldPath) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    if let Some(value) = annotations[MIRROR].as_str()
        && text(spec, "nodeName").is_empty()
    {
        checks.invalid(&path.key(MIRROR), value, "must set spec.nodeName if mirror pod annotation is set");
    }
    if let Some(cost) = annotations[COST].as_str() {
        // A sign other than minus, and leading zeros, are refused: the value must be as a number is printed.
        let canonical = cost.parse::<i32>().is_ok_and(|number| number.to_string() == cost);
        if !canonical {
            checks.invalid(&path.key(COST), cost, "must be a 32bit integer");
        }
    }
}

/// A PodSpec at `path`.
pub fn check_spec(checks: &mut Checks, spec: &Value, path: &FieldPath, place: Place<'_>) {
    let at_path = |field: &str| path.child(field);
    if !has(spec, "terminationGracePeriodSeconds") {
        checks.required(&at_path("terminationGracePeriodSeconds"), "");
    }
    let names = volumes::check(checks, list(spec, "volumes"), &at_path("volumes"), place);
    check_claims(checks, list(spec, "resourceClaims"), &at_path("resourceClaims"));
    containers::check_all(checks, spec, path, &names);
    resources::check_pod_level(checks, spec, path);
    check_host_ports(checks, spec, path, place);
    checks.required_one_of(
        &at_path("restartPolicy"),
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    checks.required_one_of(
        &at_path("dnsPolicy"),
        text(spec, "dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    checks.labels(&at_path("nodeSelector"), at(spec, "nodeSelector"));
    security::check_pod(checks, spec, path);
    windows::check_host_process(checks, spec, path);
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        checks.invalid(
            &at_path("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    scheduling::check_affinity(checks, at(spec, "affinity"), &at_path("affinity"));
    check_dns_config(checks, spec, &at_path("dnsConfig"));
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        let path = at_path("readinessGates").index(index).child("conditionType");
        checks.qualified_name(&path, text(gate, "conditionType"));
    }
    check_gates(checks, list(spec, "schedulingGates"), &at_path("schedulingGates"));
    scheduling::check_spread(
        checks,
        list(spec, "topologySpreadConstraints"),
        &at_path("topologySpreadConstraints"),
    );
    security::check_user_namespace(checks, spec, path);
    check_host_name(checks, spec, path);
    check_names(checks, spec, path);
    scheduling::check_tolerations(checks, list(spec, "tolerations"), &at_path("tolerations"));
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = at_path("hostAliases").index(index);
        checks.ip(&path.child("ip"), text(alias, "ip"));
        for (index, name) in list(alias, "hostnames").iter().enumerate() {
            checks.dns_subdomain(&path.child("hostnames").index(index), name.as_str().unwrap_or_default());
        }
    }
    let class = text(spec, "priorityClassName");
    if !class.is_empty() {
        checks.dns_subdomain(&at_path("priorityClassName"), class);
    }
    if let Some(name) = at(spec, "runtimeClassName").as_str() {
        checks.dns_subdomain(&at_path("runtimeClassName"), name);
    }
    if let Some(policy) = at(spec, "preemptionPolicy").as_str() {
        checks.required_one_of(&at_path("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    if has(spec, "overhead") {
        resources::check_overhead(checks, at(spec, "overhead"), &at_path("overhead"));
    }
    security::check_os(checks, spec, path);
}

/// With the host's network a container's port is the host's port.
fn check_host_ports(checks: &mut Checks, spec: &Value, path: &FieldPath, place: Place<'_>) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let (host, inner) = (number(port, "hostPort"), number(port, "containerPort"));
            if (place.is_pod || host != 0) && host != inner {
                let path =
                    path.child("containers").index(index).child("ports").index(port_index).child("hostPort");
                checks.invalid(&path, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn check_gates(checks: &mut Checks, gates: &[Value], path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (index, gate) in gates.iter().enumerate() {
        let name = text(gate, "name");
        checks.qualified_name(&path.index(index), name);
        if !seen.insert(name) {
            checks.duplicate(&path.index(index), name);
        }
    }
}

fn check_host_name(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let Some(name) = at(spec, "hostnameOverride").as_str() else { return };
    let path = path.child("hostnameOverride");
    if flag(spec, "setHostnameAsFQDN") {
        checks.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if flag(spec, "hostNetwork") {
        checks.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        checks.errors.push(apimachinery::FieldError::too_long(&path, 64));
    }
    checks.dns_subdomain(&path, name);
}

fn check_names(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let name = text(spec, "serviceAccountName");
    if !name.is_empty() {
        checks.dns_subdomain(&path.child("serviceAccountName"), name);
    }
    let name = text(spec, "nodeName");
    if !name.is_empty() {
        checks.dns_subdomain(&path.child("nodeName"), name);
    }
    if let Some(seconds) = at(spec, "activeDeadlineSeconds").as_i64()
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        checks.invalid(
            &path.child("activeDeadlineSeconds"),
            seconds,
            &names::not_between(1, i64::from(i32::MAX)),
        );
    }
    for field in ["hostname", "subdomain"] {
        let name = text(spec, field);
        if !name.is_empty() {
            checks.dns_label(&path.child(field), name);
        }
    }
}

/// `resourceClaims`: each by its name, with one source.
fn check_claims(checks: &mut Checks, claims: &[Value], path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        match text(claim, "name") {
            "" => checks.required(&path.child("name"), ""),
            name if seen.contains(name) => checks.duplicate(&path.child("name"), name),
            name => {
                checks.dns_label(&path.child("name"), name);
                seen.insert(name);
            }
        }
        let given = ["resourceClaimName", "resourceClaimTemplateName"].map(|field| at(claim, field).as_str());
        match given {
            [Some(_), Some(_)] => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                checks.invalid(&path, claim.clone(), detail);
            }
            [None, None] => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                checks.invalid(&path, claim.clone(), detail);
            }
            _ => {}
        }
        for (field, name) in ["resourceClaimName", "resourceClaimTemplateName"].iter().zip(given) {
            if let Some(name) = name {
                checks.dns_subdomain(&path.child(field), name);
            }
        }
    }
}

fn check_dns_config(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    const MOST_SERVERS: usize = 3;
    const MOST_SEARCHES: usize = 32;
    const SEARCH_CHARACTERS: usize = 2048;
    let config = at(spec, "dnsConfig");
    let servers = list(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            return checks.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return checks.required(&path.child("nameservers"), detail);
        }
    }
    if servers.len() > MOST_SERVERS {
        let detail = format!("must not have more than {MOST_SERVERS} nameservers");
        checks.invalid(&path.child("nameservers"), servers.to_vec(), &detail);
    }
    for (index, server) in servers.iter().enumerate() {
        checks.ip(&path.child("nameservers").index(index), server.as_str().unwrap_or_default());
    }
    let searches: Vec<&str> = list(config, "searches").iter().filter_map(Value::as_str).collect();
    let searches_path = path.child("searches");
    if searches.len() > MOST_SEARCHES {
        let detail = format!("must not have more than {MOST_SEARCHES} search paths");
        checks.invalid(&searches_path, searches.clone(), &detail);
    }
    if searches.join(" ").len() > SEARCH_CHARACTERS {
        let detail = format!(
            "must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list"
        );
        checks.invalid(&searches_path, searches.clone(), &detail);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        checks.each(&searches_path.index(index), search, names::is_dns1123_subdomain_with_underscore(search));
    }
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            checks.required(&path.child("options").index(index), "must not be empty");
        }
    }
}
