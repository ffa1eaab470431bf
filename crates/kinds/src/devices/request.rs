//! What a claim asks for: requests, what their devices have in common, and what drivers are told.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::FieldPath;
use serde_json::Value;

use super::parts::{check_config, check_selectors, check_tolerations, unique};
use crate::{
    checks::Checks,
    object::{at, fill, has, items_mut, list, number, remove, text},
};

/// How many requests a claim may have, how many constraints, how many configurations, and how many requests each of
/// those may name.
pub const MOST: usize = 32;
/// How many alternatives a request may have.
const MOST_ALTERNATIVES: usize = 8;

/// The names of the requests of a claim, each with those of its alternatives.
pub struct Requests<'c>(BTreeMap<&'c str, BTreeSet<&'c str>>);

impl<'c> Requests<'c> {
    /// Of `spec.devices`.
    pub fn of(devices: &'c Value) -> Self {
        let alternatives = |request: &'c Value| {
            list(request, "firstAvailable").iter().map(|alternative| text(alternative, "name")).collect()
        };
        Self(
            list(devices, "requests")
                .iter()
                .map(|request| (text(request, "name"), alternatives(request)))
                .collect(),
        )
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, alternative)) => {
                self.0.get(request).is_some_and(|names| names.contains(alternative))
            }
        }
    }

    /// A reference to a request or one of its alternatives.
    pub fn check(&self, checks: &mut Checks, name: &str, path: &FieldPath) {
        let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated \
                      by '/'";
        if name.matches('/').count() > 1 {
            return checks.invalid(path, name, detail);
        }
        name.split('/').for_each(|segment| checks.dns_label(path, segment));
        if !self.has(name) {
            checks.invalid(path, name, detail);
        }
    }

    /// `requests` of a constraint or a configuration.
    pub fn check_all(&self, checks: &mut Checks, names: &[Value], path: &FieldPath) {
        if checks.too_many(path, names.len(), MOST) {
            return;
        }
        for (index, name) in names.iter().filter_map(Value::as_str).enumerate() {
            self.check(checks, name, &path.index(index));
        }
        unique(checks, names, path, Value::as_str);
    }
}

fn parts_of(request: &mut Value) -> impl Iterator<Item = &mut Value> {
    let Some(map) = request.as_object_mut() else { return Vec::new().into_iter() };
    let mut parts = Vec::new();
    for (name, value) in map {
        match name.as_str() {
            "exactly" if value.is_object() => parts.push(value),
            "firstAvailable" => parts.extend(value.as_array_mut().into_iter().flatten()),
            _ => {}
        }
    }
    parts.into_iter()
}

/// One device, unless the request says otherwise. `devices` is the path of a claim's `devices`.
pub fn default(object: &mut Value, devices: &str) {
    for request in items_mut(object, &format!("{devices}.requests")) {
        for part in parts_of(request) {
            fill(part, "allocationMode", "ExactCount");
            if text(part, "allocationMode") == "ExactCount" && number(part, "count") == 0 {
                remove(part, "count");
                fill(part, "count", 1);
            }
        }
    }
}

/// Takes away what belongs to features that are off.
pub fn drop_disabled(object: &mut Value, devices: &str) {
    for request in items_mut(object, &format!("{devices}.requests")) {
        parts_of(request).for_each(|part| remove(part, "derivedAttributes"));
    }
}

/// `spec.devices` of a claim.
pub fn check(checks: &mut Checks, devices: &Value, path: &FieldPath) {
    let known = Requests::of(devices);
    let (requests, requests_path) = (list(devices, "requests"), path.child("requests"));
    if !checks.too_many(&requests_path, requests.len(), MOST) {
        for (index, request) in requests.iter().enumerate() {
            check_request(checks, request, &requests_path.index(index));
        }
        unique(checks, requests, &requests_path, |request| text(request, "name"));
    }
    let (constraints, constraints_path) = (list(devices, "constraints"), path.child("constraints"));
    if !checks.too_many(&constraints_path, constraints.len(), MOST) {
        for (index, constraint) in constraints.iter().enumerate() {
            check_constraint(checks, constraint, &known, &constraints_path.index(index));
        }
    }
    let (configs, configs_path) = (list(devices, "config"), path.child("config"));
    if !checks.too_many(&configs_path, configs.len(), MOST) {
        for (index, config) in configs.iter().enumerate() {
            let path = configs_path.index(index);
            known.check_all(checks, list(config, "requests"), &path.child("requests"));
            check_config(checks, config, false, &path);
        }
    }
}

fn check_request(checks: &mut Checks, request: &Value, path: &FieldPath) {
    checks.dns_label(&path.child("name"), text(request, "name"));
    let alternatives = list(request, "firstAvailable");
    match (has(request, "exactly"), !alternatives.is_empty()) {
        (false, false) => {
            checks.required(path, "exactly one of `exactly` or `firstAvailable` is required");
        }
        (true, true) => checks.invalid(
            path,
            Value::Null,
            "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
        ),
        (true, false) => check_wish(checks, at(request, "exactly"), &path.child("exactly")),
        (false, true) => {
            let path = path.child("firstAvailable");
            if checks.too_many(&path, alternatives.len(), MOST_ALTERNATIVES) {
                return;
            }
            for (index, alternative) in alternatives.iter().enumerate() {
                let path = path.index(index);
                checks.dns_label(&path.child("name"), text(alternative, "name"));
                check_wish(checks, alternative, &path);
            }
            unique(checks, alternatives, &path, |alternative| text(alternative, "name"));
        }
    }
}

/// Which devices, and how many of them.
fn check_wish(checks: &mut Checks, wish: &Value, path: &FieldPath) {
    match text(wish, "deviceClassName") {
        "" => checks.required(&path.child("deviceClassName"), ""),
        class => checks.dns_subdomain(&path.child("deviceClassName"), class),
    }
    check_selectors(checks, list(wish, "selectors"), &path.child("selectors"));
    let count = number(wish, "count");
    match text(wish, "allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            checks.invalid(&path.child("count"), count, detail);
        }
        "ExactCount" if count <= 0 => {
            checks.invalid(&path.child("count"), count, "must be greater than zero");
        }
        "All" | "ExactCount" => {}
        other => checks.one_of(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    check_tolerations(checks, list(wish, "tolerations"), &path.child("tolerations"));
}

fn check_constraint(checks: &mut Checks, constraint: &Value, known: &Requests<'_>, path: &FieldPath) {
    known.check_all(checks, list(constraint, "requests"), &path.child("requests"));
    let mut named = false;
    for field in ["matchAttribute", "distinctAttribute"] {
        if let Some(name) = at(constraint, field).as_str() {
            named = true;
            checks.attribute_reference(&path.child(field), name);
        }
    }
    if !named {
        let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                      are set";
        checks.required(path, detail);
    }
}
