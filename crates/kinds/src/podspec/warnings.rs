//! What a PodSpec is warned for: things that are allowed and do not do what they look like.
//!
//! Source: `k8s.io/kubernetes/pkg/api/pod/warnings.go`.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::FieldPath;
use serde_json::Value;

use crate::{
    object::{at, has, list, number, text},
    warnings::{claim, fraction, ip, node_label, node_selector_term},
};

/// The template at `path`, `spec.template`.
pub fn template_warnings(template: &Value, path: &FieldPath) -> Vec<String> {
    warnings(template, path, true)
}

/// Pods will be called like the new object, hosts like the pods.
pub fn name_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    unlike_host(new, old, "Pod names and hostnames").into_iter().collect()
}

fn unlike_host(new: &Value, old: Option<&Value>, used: &str) -> Option<String> {
    let messages = apimachinery::names::is_dns1123_label(text(new, "metadata.name"));
    (old.is_none() && !messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            messages.join(" ")
        )
    })
}

/// The template at a dotted path of an object, when the object is new or its generation rose.
pub fn changed_template_warnings(new: &Value, old: Option<&Value>, template: &str) -> Vec<String> {
    if is_changed(new, old) {
        template_warnings(at(new, template), &FieldPath::from(template))
    } else {
        Vec::new()
    }
}

fn is_changed(new: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| number(new, "metadata.generation") != number(old, "metadata.generation"))
}

/// A new pod.
pub fn pod_warnings(pod: &Value) -> Vec<String> {
    let mut found: Vec<String> = unlike_host(pod, None, "the Pod's hostname").into_iter().collect();
    found.extend(warnings(pod, &FieldPath::root(), false));
    found
}

fn warnings(pod: &Value, path: &FieldPath, template: bool) -> Vec<String> {
    let mut found = Vec::new();
    let spec_path = path.child("spec");
    let spec = at(pod, "spec");
    let annotations = at(pod, "metadata.annotations");
    let annotations_path = path.child("metadata").child("annotations");
    node_selection(&mut found, spec, &spec_path);
    for (key, words) in ANNOTATIONS {
        if annotations.get(key).is_some() {
            found.push(format!("{}: {words}", annotations_path.key(key)));
        }
    }
    volumes(&mut found, list(spec, "volumes"), &spec_path.child("volumes"));
    super::overlaps::warn(&mut found, list(spec, "volumes"));
    names(&mut found, spec, &spec_path);
    for resource in BYTES {
        fraction(&mut found, at(spec, "overhead"), resource, &spec_path.child("overhead"));
    }
    let seccomp = |key: &str| {
        let path = annotations_path.key(key);
        format!(r#"{path}: non-functional in v1.27+; use the "seccompProfile" field instead"#)
    };
    const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
    if !has(spec, "securityContext.seccompProfile") && annotations.get(SECCOMP).is_some() {
        found.push(seccomp(SECCOMP));
    }
    let all = containers(spec, &spec_path);
    for (container, path) in &all {
        let name = text(container, "name");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if !has(container, "securityContext.seccompProfile") && annotations.get(&key).is_some() {
            found.push(seccomp(&key));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        if template && !has(container, "securityContext.appArmorProfile") && annotations.get(&key).is_some() {
            let path = annotations_path.key(&key);
            found.push(format!(r#"{path}: deprecated since v1.30; use the "appArmorProfile" field instead"#));
        }
        for resource in BYTES {
            for field in ["limits", "requests"] {
                let path = path.child("resources").child(field);
                fraction(&mut found, at(at(container, "resources"), field), resource, &path);
            }
        }
        environment(&mut found, container, path);
    }
    ports(&mut found, &all);
    if number(spec, "terminationGracePeriodSeconds") < 0 {
        found.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            spec_path.child("terminationGracePeriodSeconds")
        ));
    }
    affinity(&mut found, spec, &spec_path);
    let servers = spec_path.child("dnsConfig").child("nameservers");
    for (index, server) in list(spec, "dnsConfig.nameservers").iter().enumerate() {
        ip(&mut found, &servers.index(index), server.as_str().unwrap_or_default());
    }
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        ip(&mut found, &spec_path.child("hostAliases").index(index).child("ip"), text(alias, "ip"));
    }
    found
}

/// Pairs are looked at only up to so many, whatever the object holds.
pub(super) const MOST: usize = 256;

const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

const ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];

/// Volumes of plugins that are gone.
const VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

/// Every container with its place: init containers, containers, ephemeral ones.
fn containers<'v>(spec: &'v Value, path: &FieldPath) -> Vec<(&'v Value, FieldPath)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .flat_map(|group| {
            let path = path.child(group);
            list(spec, group).iter().enumerate().map(move |(index, container)| (container, path.index(index)))
        })
        .collect()
}

fn node_selection(found: &mut Vec<String>, spec: &Value, path: &FieldPath) {
    for key in at(spec, "nodeSelector").as_object().into_iter().flatten().map(|(key, _)| key) {
        if let Some(words) = node_label(key) {
            found.push(format!("{}: {words}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity = at(spec, "affinity.nodeAffinity");
    let affinity_path = path.child("affinity").child("nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in list(at(affinity, required), "nodeSelectorTerms").iter().enumerate() {
        let path = affinity_path.child(required).child("nodeSelectorTerms").index(index);
        node_selector_term(found, term, false, &path);
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (index, term) in list(affinity, preferred).iter().enumerate() {
        let path = affinity_path.child(preferred).index(index).child("preference");
        node_selector_term(found, at(term, "preference"), true, &path);
    }
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        let key = text(constraint, "topologyKey");
        if let Some(words) = node_label(key) {
            found.push(format!("{}: {key} is {words}", path.child("topologyKey")));
        }
        no_selector(found, constraint, &path);
    }
}

/// A selector that is not there selects nothing.
fn no_selector(found: &mut Vec<String>, term: &Value, path: &FieldPath) {
    if !has(term, "labelSelector") {
        let path = path.child("labelSelector");
        found.push(format!("{path}: a null labelSelector results in matching no pod"));
    }
}

fn affinity(found: &mut Vec<String>, spec: &Value, path: &FieldPath) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (at(at(spec, "affinity"), kind), path.child("affinity").child(kind));
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in list(affinity, required).iter().enumerate() {
            no_selector(found, term, &path.child(required).index(index));
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (index, term) in list(affinity, preferred).iter().enumerate() {
            let path = path.child(preferred).index(index).child("podAffinityTerm");
            no_selector(found, at(term, "podAffinityTerm"), &path);
        }
    }
}

fn volumes(found: &mut Vec<String>, volumes: &[Value], path: &FieldPath) {
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        for (plugin, words) in VOLUMES {
            if has(volume, plugin) {
                // Upstream writes this one as its Go field is called.
                let shown = if plugin == "storageos" { "storageOS" } else { plugin };
                found.push(format!("{}: {words}", path.child(shown)));
            }
        }
        let template = at(volume, "ephemeral.volumeClaimTemplate");
        let path = path.child("ephemeral").child("volumeClaimTemplate").child("spec");
        claim(found, at(template, "spec"), &path);
    }
}

/// Names that should be there once.
fn names(found: &mut Vec<String>, spec: &Value, path: &FieldPath) {
    for (field, key) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let mut seen = BTreeSet::new();
        for (index, item) in list(spec, field).iter().enumerate() {
            let value = text(item, key);
            if !seen.insert(value) {
                found.push(format!(
                    "{}: duplicate {key} {value:?}",
                    path.child(field).index(index).child(key)
                ));
            }
        }
    }
    for (index, item) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(item, "name").is_empty() {
            let path = path.child("imagePullSecrets").index(index).child("name");
            found.push(format!("{path}: invalid empty name \"\""));
        }
    }
}

fn environment(found: &mut Vec<String>, container: &Value, path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (index, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        if seen.insert(name) {
            continue;
        }
        // A second value is fine when it adds to the first.
        let before = format!("$({name})");
        if has(variable, "valueFrom") || value == before || !value.contains(&before) {
            let path = path.child("env").index(index);
            found.push(format!(
                "{path}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

fn ports(found: &mut Vec<String>, containers: &[(&Value, FieldPath)]) {
    let all: Vec<(&Value, FieldPath)> = containers
        .iter()
        .flat_map(|(container, path)| {
            let path = path.child("ports");
            let ports = list(container, "ports").iter().enumerate();
            ports.map(move |(index, port)| (port, path.index(index)))
        })
        .collect();
    let mut seen: BTreeMap<(i64, &str), Vec<usize>> = BTreeMap::new();
    for (index, (port, path)) in all.iter().enumerate() {
        let (host, address) = (number(port, "hostPort"), text(port, "hostIP"));
        if !address.is_empty() && host == 0 {
            // As Go prints the structure.
            found.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{address}}}",
                text(port, "name"),
                number(port, "containerPort"),
                text(port, "protocol")
            ));
        }
        let others = seen.entry((number(port, "containerPort"), text(port, "protocol"))).or_default();
        for other in others.iter().take(MOST) {
            let (before, place) = &all[*other];
            let (other_host, other_address) = (number(before, "hostPort"), text(before, "hostIP"));
            let words = if address == other_address && host == other_host {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && address.is_empty() != other_address.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            if found.len() < MOST {
                found.push(format!("{path}: {words} port definition with {place}"));
            }
        }
        others.push(index);
    }
    let mut by_name: BTreeMap<&str, &FieldPath> = BTreeMap::new();
    for (port, path) in all.iter().filter(|(port, _)| !text(port, "name").is_empty()) {
        let name = text(port, "name");
        match by_name.get(name) {
            Some(other) => found.push(format!(
                "{path}: duplicate port name {name:?} with {other}, services and probes that select ports by name \
                 will use {other}"
            )),
            None => {
                by_name.insert(name, path);
            }
        }
    }
}

/// What the JobSpec at a dotted path of an object is warned for.
pub fn job_warnings(new: &Value, old: Option<&Value>, path: &str) -> Vec<String> {
    let mut found = name_warnings(new, old);
    if !is_changed(new, old) {
        return found;
    }
    let (spec, path) = (at(new, path), &FieldPath::from(path));
    if text(spec, "completionMode") == "Indexed"
        && number(spec, "completions") > 100_000
        && number(spec, "parallelism") > 10_000
    {
        found.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than \
             10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    found.extend(template_warnings(at(spec, "template"), &path.child("template")));
    found
}
