//! Ingress and IngressClass.

use std::{collections::BTreeSet, net::IpAddr};

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::created,
    checks::{Checks, path},
    object::{at, has, list, number, set, text},
    resource::Strategy,
};

const CLASS: &str = "kubernetes.io/ingress.class";

pub struct Ingress;

impl Strategy for Ingress {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"loadBalancer": {}}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            check_spec(checks, at(object, "spec"), &path("spec"));
            let class = at(object, "metadata.annotations").get(CLASS).and_then(Value::as_str);
            let is_new = text(object, "metadata.resourceVersion").is_empty();
            if let (Some(class), Some(field)) = (class, at(object, "spec.ingressClassName").as_str())
                && is_new
                && class != field
            {
                let detail = "must match `ingressClassName` when both are specified";
                checks.invalid(&path("annotations").child(CLASS), class, detail);
            }
        })
    }

    fn validate_update(&self, new: &Object, _old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                let path = path("status").child("loadBalancer").child("ingress");
                for (index, place) in list(new, "status.loadBalancer.ingress").iter().enumerate() {
                    check_place(checks, place, &path.index(index));
                }
            }
        })
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let mut found = vec!["Plimsoll itself has no controller for Ingress yet".to_owned()];
        if at(new, "metadata.annotations").get(CLASS).is_some() && !has(new, "spec.ingressClassName") {
            found.push(format!(
                "annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead"
            ));
        }
        found
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let class = at(object, "spec.ingressClassName").as_str().unwrap_or("<none>");
        let addresses: BTreeSet<&str> = list(object, "status.loadBalancer.ingress")
            .iter()
            .map(
                |place| {
                    if text(place, "ip").is_empty() { text(place, "hostname") } else { text(place, "ip") }
                },
            )
            .filter(|address| !address.is_empty())
            .collect();
        let ports = if list(object, "spec.tls").is_empty() { "80" } else { "80, 443" };
        Some(vec![
            crate::cells::name(object),
            class.into(),
            hosts(list(object, "spec.rules")).into(),
            addresses.into_iter().collect::<Vec<_>>().join(",").into(),
            ports.into(),
            created(object, now),
        ])
    }
}

fn hosts(rules: &[Value]) -> String {
    const MOST: usize = 3;
    let mut shown = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= shown.len() == MOST;
        let host = text(rule, "host");
        if !more && !host.is_empty() {
            shown.push(host);
        }
    }
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - MOST),
    }
}

fn check_place(checks: &mut Checks, place: &Value, path: &FieldPath) {
    let (ip, host) = (text(place, "ip"), text(place, "hostname"));
    if !ip.is_empty() {
        checks.ip(&path.child("ip"), ip);
    }
    if !host.is_empty() {
        let path = path.child("hostname");
        checks.dns_subdomain(&path, host);
        if host.parse::<IpAddr>().is_ok() {
            checks.invalid(&path, host, "must be a DNS name, not an IP address");
        }
    }
}

fn check_spec(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let (rules, backend) = (list(spec, "rules"), at(spec, "defaultBackend"));
    if rules.is_empty() && backend.is_null() {
        let value = at(spec, "rules").clone();
        checks.invalid(path, value, "either `defaultBackend` or `rules` must be specified");
    }
    if !backend.is_null() {
        check_backend(checks, backend, &path.child("defaultBackend"));
    }
    for (index, rule) in rules.iter().enumerate() {
        check_rule(checks, rule, &path.child("rules").index(index));
    }
    for (index, tls) in list(spec, "tls").iter().enumerate() {
        let path = path.child("tls").index(index);
        for (index, host) in list(tls, "hosts").iter().enumerate() {
            check_host(checks, host.as_str().unwrap_or_default(), &path.child("hosts").index(index));
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            checks.dns_subdomain(&path.child("secretName"), secret);
        }
    }
    if let Some(class) = at(spec, "ingressClassName").as_str() {
        checks.dns_subdomain(&path.child("ingressClassName"), class);
    }
}

fn check_host(checks: &mut Checks, host: &str, path: &FieldPath) {
    let messages = if host.contains('*') {
        names::is_wildcard_dns1123_subdomain(host)
    } else {
        names::is_dns1123_subdomain(host)
    };
    checks.each(path, host, messages);
}

fn check_rule(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    let host = text(rule, "host");
    if !host.is_empty() {
        let path = path.child("host");
        if host.parse::<IpAddr>().is_ok() {
            checks.invalid(&path, host, "must be a DNS name, not an IP address");
        }
        check_host(checks, host, &path);
    }
    if has(rule, "http") {
        let (paths, path) = (list(rule, "http.paths"), path.child("http").child("paths"));
        if paths.is_empty() {
            checks.required(&path, "");
        }
        for (index, entry) in paths.iter().enumerate() {
            check_path(checks, entry, &path.index(index));
        }
    }
}

fn check_path(checks: &mut Checks, entry: &Value, path: &FieldPath) {
    let Some(kind) = at(entry, "pathType").as_str() else {
        return checks.required(&path.child("pathType"), "pathType must be specified");
    };
    let (value, value_path) = (text(entry, "path"), path.child("path"));
    let relative = !value.starts_with('/');
    match kind {
        "Exact" | "Prefix" => {
            if relative {
                checks.invalid(&value_path, value, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| value.contains(**part)) {
                checks.invalid(&value_path, value, &format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].iter().filter(|end| value.ends_with(**end)) {
                checks.invalid(&value_path, value, &format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if relative && !value.is_empty() {
                checks.invalid(&value_path, value, "must be an absolute path");
            }
        }
        _ => {
            let supported = ["Exact", "ImplementationSpecific", "Prefix"];
            checks.one_of(&path.child("pathType"), kind, &supported);
        }
    }
    check_backend(checks, at(entry, "backend"), &path.child("backend"));
}

fn check_backend(checks: &mut Checks, backend: &Value, path: &FieldPath) {
    let (resource, service) = (at(backend, "resource"), at(backend, "service"));
    match (resource.is_null(), service.is_null()) {
        (false, false) => checks.invalid(path, "", "cannot set both resource and service backends"),
        (true, true) => checks.invalid(path, "", "resource or service backend is required"),
        (false, true) => check_reference(checks, resource, &path.child("resource")),
        (true, false) => {
            let name = path.child("service").child("name");
            match text(service, "name") {
                "" => checks.required(&name, ""),
                service => checks.dns_label(&name, service),
            }
            let port = path.child("service").child("port");
            match (text(service, "port.name"), number(service, "port.number")) {
                ("", 0) => checks.required(path, "port name or number is required"),
                ("", number) => checks.port_number(&port.child("number"), number),
                (name, 0) => checks.each(&port.child("name"), name, names::is_port_name(name)),
                _ => checks.invalid(path, "", "cannot set both port name & port number"),
            }
        }
    }
}

/// An object of some kind, by group, kind and name.
fn check_reference(checks: &mut Checks, reference: &Value, path: &FieldPath) {
    if let Some(group) = at(reference, "apiGroup").as_str() {
        checks.dns_subdomain(&path.child("apiGroup"), group);
    }
    for field in ["kind", "name"] {
        match text(reference, field) {
            "" => checks.required(&path.child(field), ""),
            value => checks.each(&path.child(field), value, names::is_path_segment(value)),
        }
    }
}

pub struct IngressClass;

impl Strategy for IngressClass {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        const LONGEST: usize = 250;
        Checks::run(|checks| {
            let (controller, path) = (text(object, "spec.controller"), path("spec"));
            if controller.len() > LONGEST {
                checks.errors.push(FieldError::too_long(&path.child("controller"), LONGEST));
            }
            checks.domain_path(&path.child("controller"), controller);
            let parameters = at(object, "spec.parameters");
            if !parameters.is_null() {
                check_parameters(checks, parameters, &path.child("parameters"));
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            let (after, before) = (text(new, "spec.controller"), text(old, "spec.controller"));
            if after != before {
                checks.invalid(&path("spec").child("controller"), after, "field is immutable");
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let is_default =
            at(object, "metadata.annotations").get("ingressclass.kubernetes.io/is-default-class");
        let mark = if is_default.is_some_and(|value| value == "true") { " (default)" } else { "" };
        let parameters = at(object, "spec.parameters");
        let shown = if parameters.is_null() {
            "<none>".to_owned()
        } else {
            let group =
                at(parameters, "apiGroup").as_str().map_or(String::new(), |group| format!(".{group}"));
            format!("{}{group}/{}", text(parameters, "kind"), text(parameters, "name"))
        };
        Some(vec![
            format!("{}{mark}", text(object, "metadata.name")).into(),
            text(object, "spec.controller").into(),
            shown.into(),
            created(object, now),
        ])
    }
}

fn check_parameters(checks: &mut Checks, parameters: &Value, path: &FieldPath) {
    check_reference(checks, parameters, path);
    let namespace = at(parameters, "namespace").as_str();
    match (text(parameters, "scope"), namespace) {
        ("Namespace", None) => {
            checks.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", Some(namespace)) => checks.dns_label(&path.child("namespace"), namespace),
        ("Cluster", Some(_)) => {
            checks.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        ("Cluster", None) => {}
        (scope, _) => checks.one_of(&path.child("scope"), scope, &["Cluster", "Namespace"]),
    }
}
