//! What is wrong with a rule of a FlowSchema: whose requests it takes, and which.

use apimachinery::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, flag, has, list, text},
};

/// Sorted, as they are told.
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// Kind of a subject, and the field that names it. Sorted by kind, as they are told; checked in upstream's order.
const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

pub(super) fn check_rule(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    let [subjects, resources, others] =
        ["subjects", "resourceRules", "nonResourceRules"].map(|field| (list(rule, field), path.child(field)));
    if subjects.0.is_empty() {
        checks.required(&subjects.1, "subjects must contain at least one value");
    }
    for (index, subject) in subjects.0.iter().enumerate() {
        check_subject(checks, subject, &subjects.1.index(index));
    }
    if resources.0.is_empty() && others.0.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        checks.required(path, detail);
    }
    for (index, rule) in resources.0.iter().enumerate() {
        check_resource_rule(checks, rule, &resources.1.index(index));
    }
    for (index, rule) in others.0.iter().enumerate() {
        check_other_rule(checks, rule, &others.1.index(index));
    }
}

fn check_subject(checks: &mut Checks, subject: &Value, path: &FieldPath) {
    let kind = text(subject, "kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        return checks.one_of(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
    };
    let own_path = path.child(own);
    if has(subject, own) {
        check_subject_name(checks, own, at(subject, own), &own_path);
    } else {
        checks.required(&own_path, &format!("{own} is required when subject kind is '{kind}'"));
    }
    for (other, field) in SUBJECTS.iter().filter(|(_, field)| field != own && has(subject, field)) {
        let detail = format!("{field} is forbidden when subject kind is not '{other}'");
        checks.forbidden(&path.child(field), &detail);
    }
}

fn check_subject_name(checks: &mut Checks, field: &str, subject: &Value, path: &FieldPath) {
    let (name, account) = (text(subject, "name"), field == "serviceAccount");
    if name.is_empty() {
        checks.required(&path.child("name"), "");
    } else if account && name != "*" {
        checks.each(&path.child("name"), name, names::subdomain_name(name, false));
    }
    if account {
        let (namespace, path) = (text(subject, "namespace"), path.child("namespace"));
        if namespace.is_empty() {
            checks.required(&path, "must specify namespace for service account");
        } else {
            checks.each(&path, namespace, names::label_name(namespace, false));
        }
    }
}

fn words<'v>(rule: &'v Value, field: &str) -> Vec<&'v str> {
    list(rule, field).iter().filter_map(Value::as_str).collect()
}

/// A list that is not empty, and in which `*` stands alone. Whether its words are still to be looked at.
fn check_list(
    checks: &mut Checks,
    rule: &Value,
    field: &str,
    path: &FieldPath,
    empty: &str,
    what: &str,
) -> bool {
    let words = words(rule, field);
    let every = words.contains(&"*");
    if words.is_empty() {
        checks.required(&path.child(field), empty);
    } else if every && words.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {what}");
        checks.invalid(&path.child(field), at(rule, field).clone(), &detail);
    }
    !words.is_empty() && !every
}

fn check_verbs(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    let listed = check_list(checks, rule, "verbs", path, "verbs must contain at least one value", "verbs");
    if listed && words(rule, "verbs").iter().any(|verb| !VERBS.contains(verb)) {
        let error = FieldError::not_supported(&path.child("verbs"), at(rule, "verbs").clone(), &VERBS);
        checks.errors.push(error);
    }
}

fn check_resource_rule(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    check_verbs(checks, rule, path);
    let empty = "resource rules must supply at least one api group";
    check_list(checks, rule, "apiGroups", path, empty, "api groups");
    let empty = "resource rules must supply at least one resource";
    check_list(checks, rule, "resources", path, empty, "resources");
    let namespaces = words(rule, "namespaces");
    if namespaces.is_empty() && flag(rule, "clusterScope") {
        return;
    }
    let empty = "resource rules that are not cluster scoped must supply at least one namespace";
    if check_list(checks, rule, "namespaces", path, empty, "namespaces") {
        for (index, namespace) in namespaces.into_iter().enumerate() {
            for fault in names::label_name(namespace, false) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {fault}");
                checks.invalid(&path.child("namespaces").index(index), namespace, &detail);
            }
        }
    }
}

fn check_other_rule(checks: &mut Checks, rule: &Value, path: &FieldPath) {
    check_verbs(checks, rule, path);
    let empty = "nonResourceURLs must contain at least one value";
    if check_list(checks, rule, "nonResourceURLs", path, empty, "non-resource URLs") {
        for (index, url) in words(rule, "nonResourceURLs").into_iter().enumerate() {
            if let Some(fault) = url_fault(url) {
                checks.invalid(&path.child("nonResourceURLs").index(index), url, fault);
            }
        }
    }
}

/// A path without blanks and empty segments; `*` may be its last segment.
fn url_fault(url: &str) -> Option<&'static str> {
    let wildcards = url.matches('*').count();
    if url.is_empty() {
        Some("must not be empty")
    } else if url == "/" {
        None
    } else if !url.starts_with('/') {
        Some("must start with slash")
    } else if url.contains(' ') {
        Some("must not contain white-space")
    } else if url.contains("//") {
        Some("must not contain double slash")
    } else if wildcards > 1 || (wildcards == 1 && !url.ends_with("/*")) {
        Some("wildcard can only do suffix matching")
    } else {
        None
    }
}
