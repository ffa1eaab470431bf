//! Containers, init containers and ephemeral containers.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath, names};
use serde_json::Value;

use super::{
    handlers::{check_lifecycle, check_probes},
    resources, security,
    volumes::{Named, check_mounts},
};
use crate::{
    checks::Checks,
    object::{at, has, list, number, text},
};

/// What the checks of one container need to know of its pod.
struct Pod<'s> {
    spec: &'s Value,
    volumes: &'s Named<'s>,
    /// The names of its resource claims.
    claims: BTreeSet<&'s str>,
    /// `None`: invalid, which is told elsewhere.
    grace: Option<i64>,
}

/// All three lists of a spec.
pub fn check_all(checks: &mut Checks, spec: &Value, path: &FieldPath, volumes: &Named<'_>) {
    let claims = list(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).collect();
    let pod = Pod { spec, volumes, claims, grace: at(spec, "terminationGracePeriodSeconds").as_i64() };
    check_regular(checks, &pod, &path.child("containers"));
    check_init(checks, &pod, &path.child("initContainers"));
    check_ephemeral(checks, &pod, &path.child("ephemeralContainers"));
}

fn check_regular(checks: &mut Checks, pod: &Pod<'_>, path: &FieldPath) {
    let containers = list(pod.spec, "containers");
    if containers.is_empty() {
        return checks.required(path, "");
    }
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        check_common(checks, container, pod, &path);
        if !seen.insert(text(container, "name")) {
            checks.duplicate(&path.child("name"), text(container, "name"));
        }
        check_lifecycle(checks, container, pod.spec, pod.grace, &path);
        check_probes(checks, container, pod.grace, &path);
        check_restart_policy(checks, container, &path);
    }
    check_host_ports(checks, containers, path);
}

fn check_init(checks: &mut Checks, pod: &Pod<'_>, path: &FieldPath) {
    let mut seen: BTreeSet<&str> = list(pod.spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (index, container) in list(pod.spec, "initContainers").iter().enumerate() {
        let list_path = path;
        let path = path.index(index);
        check_common(checks, container, pod, &path);
        check_restart_policy(checks, container, &path);
        let name = text(container, "name");
        if seen.contains(name) {
            checks.duplicate(&path.child("name"), name);
        } else if !name.is_empty() {
            seen.insert(name);
        }
        check_host_ports(checks, std::slice::from_ref(container), list_path);
        if text(container, "restartPolicy") == "Always" {
            check_lifecycle(checks, container, pod.spec, pod.grace, &path);
            check_probes(checks, container, pod.grace, &path);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if has(container, field) {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    checks.forbidden(&path.child(field), detail);
                }
            }
            for (index, policy) in list(container, "resizePolicy").iter().enumerate() {
                if text(policy, "restartPolicy") == "RestartContainer" {
                    checks.invalid(
                        &path.child("resizePolicy").index(index).child("restartPolicy"),
                        "RestartContainer",
                        "must not be set to 'RestartContainer' for non-sidecar initContainers",
                    );
                }
            }
        }
    }
}

fn check_ephemeral(checks: &mut Checks, pod: &Pod<'_>, path: &FieldPath) {
    const MESSAGE: &str = "cannot be set for an Ephemeral Container";
    // In the order of the Go struct, as upstream finds them.
    const FORBIDDEN: [&str; 9] = [
        "ports",
        "resources",
        "resizePolicy",
        "restartPolicy",
        "restartPolicyRules",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    ];
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|group| list(pod.spec, group))
        .map(|container| text(container, "name"))
        .collect();
    let mut seen = others.clone();
    for (index, container) in list(pod.spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(index);
        check_common(checks, container, pod, &path);
        check_image_space(checks, container, &path);
        if !seen.insert(text(container, "name")) {
            checks.duplicate(&path.child("name"), text(container, "name"));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(target) {
            checks.not_found(&path.child("targetContainerName"), target);
        }
        for field in FORBIDDEN {
            let value = at(container, field);
            let empty = value.is_null()
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(|map| field == "resources" && map.is_empty());
            if !empty {
                checks.forbidden(&path.child(field), MESSAGE);
            }
        }
        for (index, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, field).is_empty() {
                    checks.forbidden(&path.child("volumeMounts").index(index).child(field), MESSAGE);
                }
            }
        }
    }
}

/// Only in pods: a template's image may be anything, others fill it in.
pub fn check_image_space(checks: &mut Checks, container: &Value, path: &FieldPath) {
    let image = text(container, "image");
    if image.trim() != image {
        checks.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

fn check_common(checks: &mut Checks, container: &Value, pod: &Pod<'_>, path: &FieldPath) {
    let name = text(container, "name");
    if name.is_empty() {
        checks.required(&path.child("name"), "");
    } else {
        checks.dns_label(&path.child("name"), name);
    }
    if text(container, "image").is_empty() {
        checks.required(&path.child("image"), "");
    }
    checks.required_one_of(
        &path.child("terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    check_ports(checks, list(container, "ports"), &path.child("ports"));
    check_env(checks, list(container, "env"), &path.child("env"));
    check_env_from(checks, list(container, "envFrom"), &path.child("envFrom"));
    check_mounts(checks, container, pod.volumes, path);
    checks.required_one_of(
        &path.child("imagePullPolicy"),
        text(container, "imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    resources::check_container(checks, at(container, "resources"), &pod.claims, &path.child("resources"));
    check_resize_policy(checks, list(container, "resizePolicy"), pod.spec, &path.child("resizePolicy"));
    security::check_container(
        checks,
        at(container, "securityContext"),
        pod.spec,
        &path.child("securityContext"),
    );
}

fn check_ports(checks: &mut Checks, ports: &[Value], path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let messages = names::is_port_name(name);
            if !messages.is_empty() {
                checks.each(&path.child("name"), name, messages);
            } else if !seen.insert(name) {
                checks.duplicate(&path.child("name"), name);
            }
        }
        match number(port, "containerPort") {
            0 => checks.required(&path.child("containerPort"), ""),
            number => checks.port_number(&path.child("containerPort"), number),
        }
        if number(port, "hostPort") != 0 {
            checks.port_number(&path.child("hostPort"), number(port, "hostPort"));
        }
        checks.required_one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn check_host_ports(checks: &mut Checks, containers: &[Value], path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (port_index, port) in list(container, "ports").iter().enumerate() {
            let host = number(port, "hostPort");
            if host == 0 {
                continue;
            }
            let key = format!("{}/{}/{host}", text(port, "protocol"), text(port, "hostIP"));
            if !seen.insert(key.clone()) {
                checks.duplicate(&path.index(index).child("ports").index(port_index).child("hostPort"), key);
            }
        }
    }
}

/// Printable ASCII but for `=`.
fn check_env_name(checks: &mut Checks, name: &str, path: &FieldPath) {
    if name.is_empty() {
        checks.invalid(path, name, "environment variable name must not be empty");
    }
    if !name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        let detail = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        checks.invalid(path, name, detail);
    }
}

fn check_env(checks: &mut Checks, env: &[Value], path: &FieldPath) {
    for (index, variable) in env.iter().enumerate() {
        let path = path.index(index);
        match text(variable, "name") {
            "" => checks.required(&path.child("name"), ""),
            name => check_env_name(checks, name, &path.child("name")),
        }
        let from = at(variable, "valueFrom");
        if from.is_null() {
            continue;
        }
        let path = path.child("valueFrom");
        let mut sources = 0;
        if has(from, "fieldRef") {
            sources += 1;
            super::projected::check_field_ref(checks, at(from, "fieldRef"), true, &path.child("fieldRef"));
        }
        if has(from, "resourceFieldRef") {
            sources += 1;
            let path = path.child("resourceFieldRef");
            super::projected::check_resource_ref(checks, at(from, "resourceFieldRef"), false, &path);
        }
        for field in ["configMapKeyRef", "secretKeyRef"] {
            if has(from, field) {
                sources += 1;
                check_key_selector(checks, at(from, field), &path.child(field));
            }
        }
        if has(from, "fileKeyRef") {
            sources += 1;
        }
        if sources == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            checks.invalid(&path, "", detail);
        } else if !text(variable, "value").is_empty() {
            checks.invalid(&path, "", "may not be specified when `value` is not empty");
        } else if sources > 1 {
            checks.invalid(&path, "", "may not have more than one field specified at a time");
        }
    }
}

fn check_key_selector(checks: &mut Checks, selector: &Value, path: &FieldPath) {
    checks.dns_subdomain(&path.child("name"), text(selector, "name"));
    match text(selector, "key") {
        "" => checks.required(&path.child("key"), ""),
        key => checks.each(&path.child("key"), key, names::is_config_map_key(key)),
    }
}

fn check_env_from(checks: &mut Checks, sources: &[Value], path: &FieldPath) {
    for (index, source) in sources.iter().enumerate() {
        let item = path.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            check_env_name(checks, prefix, &item.child("prefix"));
        }
        let mut count = 0;
        for field in ["configMapRef", "secretRef"] {
            if has(source, field) {
                count += 1;
                let path = item.child(field).child("name");
                match text(at(source, field), "name") {
                    "" => checks.required(&path, ""),
                    name => checks.each(&path, name, names::subdomain_name(name, true)),
                }
            }
        }
        match count {
            0 => checks.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => checks.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
}

fn check_resize_policy(checks: &mut Checks, policies: &[Value], spec: &Value, path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for (index, policy) in policies.iter().enumerate() {
        let resource = text(policy, "resourceName");
        if !seen.insert(resource) {
            checks.duplicate(&path.index(index), resource);
        }
        checks.required_one_of(path, resource, &["cpu", "memory"]);
        let restart = text(policy, "restartPolicy");
        checks.required_one_of(path, restart, &["NotRequired", "RestartContainer"]);
        if text(spec, "restartPolicy") == "Never" && restart != "NotRequired" {
            checks.invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}

/// The restart policy of one container, with rules by exit code.
fn check_restart_policy(checks: &mut Checks, container: &Value, path: &FieldPath) {
    const MOST_RULES: usize = 20;
    const MOST_CODES: usize = 255;
    let rules = list(container, "restartPolicyRules");
    match at(container, "restartPolicy").as_str() {
        None if rules.is_empty() => return,
        None => checks
            .required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used"),
        Some(policy) => {
            checks.one_of(&path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"])
        }
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > MOST_RULES {
        checks.errors.push(FieldError::too_many(&path, rules.len(), MOST_RULES));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        checks.one_of(&path.child("action"), text(rule, "action"), &["Restart", "RestartAllContainers"]);
        let codes = at(rule, "exitCodes");
        let path = path.child("exitCodes");
        if codes.is_null() {
            checks.required(&path, "must be specified");
            continue;
        }
        checks.one_of(&path.child("operator"), text(codes, "operator"), &["In", "NotIn"]);
        let values = list(codes, "values").len();
        if values > MOST_CODES {
            checks.errors.push(FieldError::too_many(&path.child("values"), values, MOST_CODES));
        }
    }
}
