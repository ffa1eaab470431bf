//! What requests a webhook or a policy is about: rules and selectors.

use std::collections::HashSet;

use apimachinery::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, has, list, text},
};

/// Sorted, as they are told.
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MUTABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];

fn words<'v>(rule: &'v Value, field: &str) -> Vec<&'v str> {
    list(rule, field).iter().filter_map(Value::as_str).collect()
}

/// `*` stands alone.
fn check_wildcard(checks: &mut Checks, rule: &Value, field: &str, path: &FieldPath, what: &str) {
    let words = words(rule, field);
    if words.len() > 1 && words.contains(&"*") {
        let detail = format!("if '*' is present, must not specify other {what}");
        checks.invalid(&path.child(field), at(rule, field).clone(), &detail);
    }
}

/// Operations, groups, versions, resources and scope.
pub(super) fn check_rule(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    let required = |checks: &mut Checks, field: &str| {
        if list(rule, field).is_empty() {
            checks.required(&path.child(field), "");
        }
    };
    required(checks, "operations");
    check_wildcard(checks, rule, "operations", path, "operations");
    for (index, operation) in words(rule, "operations").into_iter().enumerate() {
        checks.one_of(&path.child("operations").index(index), operation, &OPERATIONS);
    }
    required(checks, "apiGroups");
    check_wildcard(checks, rule, "apiGroups", path, "API groups");
    required(checks, "apiVersions");
    check_wildcard(checks, rule, "apiVersions", path, "API versions");
    for (index, _) in words(rule, "apiVersions").iter().enumerate().filter(|(_, version)| version.is_empty())
    {
        checks.required(&path.child("apiVersions").index(index), "");
    }
    required(checks, "resources");
    check_resources(checks, rule, &path.child("resources"));
    if let Some(scope) = at(rule, "scope").as_str() {
        checks.one_of(&path.child("scope"), scope, &SCOPES);
    }
}

/// Resources and subresources: no pattern repeats what another one takes.
fn check_resources(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    let resources = words(rule, "resources");
    let all = || at(rule, "resources").clone();
    let (mut resources_whole, mut subresources_whole) = (HashSet::new(), HashSet::new());
    // As upstream: the last resource without a subresource decides.
    let mut plain = false;
    for (index, pattern) in resources.iter().enumerate() {
        if pattern.is_empty() {
            checks.required(&path.index(index), "");
            continue;
        }
        let Some((resource, subresource)) = pattern.split_once('/') else {
            plain = *pattern != "*";
            continue;
        };
        let mut repeats = |by: String| {
            let detail = format!("if '{by}' is present, must not specify {pattern}");
            checks.invalid(&path.index(index), *pattern, &detail);
        };
        if resources_whole.contains(resource) {
            repeats(format!("{resource}/*"));
        }
        if subresources_whole.contains(subresource) {
            repeats(format!("*/{subresource}"));
        }
        if subresource == "*" {
            resources_whole.insert(resource);
        }
        if resource == "*" {
            subresources_whole.insert(subresource);
        }
    }
    if resources.len() > 1 && resources.contains(&"*/*") {
        checks.invalid(path, all(), "if '*/*' is present, must not specify other resources");
    }
    if plain && resources.contains(&"*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        checks.invalid(path, all(), detail);
    }
}

fn check_named_rule(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    let mut seen = HashSet::new();
    for (index, name) in words(rule, "resourceNames").into_iter().enumerate() {
        let path = path.child("resourceNames").index(index);
        checks.each(&path, name, names::is_path_segment(name));
        if !seen.insert(name) {
            checks.duplicate(&path, name);
        }
    }
    check_rule(checks, rule, path);
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub(super) fn check_match_resources(checks: &mut Checks, matching: &Value, path: &FieldPath) {
    checks.required_one_of(&path.child("matchPolicy"), text(matching, "matchPolicy"), &MATCH_POLICIES);
    for field in ["namespaceSelector", "objectSelector"] {
        if has(matching, field) {
            checks.label_selector(&path.child(field), at(matching, field));
        } else {
            checks.required(&path.child(field), "");
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in list(matching, field).iter().enumerate() {
            check_named_rule(checks, rule, &path.child(field).index(index));
        }
    }
}

/// Nothing is left to mutate of what is deleted.
pub(super) fn check_mutable(checks: &mut Checks, matching: &Value, path: &FieldPath) {
    for operation in list(matching, "resourceRules").iter().flat_map(|rule| words(rule, "operations")) {
        checks.one_of(&path.child("resourceRules").child("operations"), operation, &MUTABLE);
    }
}

/// A selector; with `any_values` the values of its requirements may be what they are.
pub(super) fn check_selector(checks: &mut Checks, selector: &Value, any_values: bool, path: &FieldPath) {
    let mut found = Checks::run(|checks| checks.label_selector(path, selector));
    if any_values {
        let values = |error: &FieldError| {
            let field = error.field.as_str();
            field.contains(".matchExpressions[") && field.contains(".values[")
        };
        found.retain(|error| !values(error));
    }
    checks.errors.extend(found);
}
