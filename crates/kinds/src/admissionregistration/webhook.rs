//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration: services that are asked about writes.

use std::collections::HashSet;

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    check_static_name,
    expressions::{Scope, check_match_conditions},
    is_new,
    matching::{FAILURE_POLICIES, MATCH_POLICIES, check_rule, check_selector},
    static_name_warnings,
};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, has, list, same, text},
    resource::Strategy,
    webhook_client::check_client,
};

const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
pub(super) const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];

/// Resources that webhooks are never asked about: without them nobody could be authenticated or authorized.
const EXCLUDED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Both kinds: what only one has (`reinvocationPolicy`), the other's schema does not let in.
pub(super) struct WebhookConfiguration;

/// Faults that are tolerated because the configuration had them before.
#[derive(Default)]
struct Tolerated {
    match_conditions: bool,
    side_effects: bool,
    review_versions: bool,
    repeated_names: bool,
    selector_values: bool,
}

impl Tolerated {
    fn of(new: &Value, old: &Value) -> Self {
        let (hooks, before) = (list(new, "webhooks"), list(old, "webhooks"));
        let conditions = |hook: &Value| at(hook, "matchConditions").clone();
        let known = |hook: &Value| {
            let versions = list(hook, "admissionReviewVersions");
            versions.is_empty() || versions.iter().any(|v| REVIEW_VERSIONS.iter().any(|known| v == known))
        };
        let faulty = |hook: &Value| {
            let fields = ["namespaceSelector", "objectSelector"];
            let root = FieldPath::root();
            fields.iter().any(|f| !Checks::run(|c| c.label_selector(&root, at(hook, f))).is_empty())
        };
        let mut names = HashSet::new();
        Self {
            match_conditions: hooks.len() == before.len()
                && hooks.iter().zip(before).all(|(a, b)| same(&conditions(a), &conditions(b))),
            side_effects: !before.iter().all(|h| NO_SIDE_EFFECTS.contains(&text(h, "sideEffects"))),
            review_versions: !before.iter().all(known),
            repeated_names: !before.iter().all(|hook| names.insert(text(hook, "name"))),
            selector_values: before.iter().any(faulty),
        }
    }
}

fn check(checks: &mut Checks, object: &Value, tolerated: &Tolerated) {
    let mut names = HashSet::new();
    for (index, hook) in list(object, "webhooks").iter().enumerate() {
        let path = path("webhooks").index(index);
        check_hook(checks, hook, tolerated, &path);
        check_versions(checks, hook, tolerated, &path.child("admissionReviewVersions"));
        let name = text(hook, "name");
        if !tolerated.repeated_names && !name.is_empty() && !names.insert(name) {
            checks.duplicate(&path.child("name"), name);
        }
    }
}

fn check_hook(checks: &mut Checks, hook: &Value, tolerated: &Tolerated, path: &FieldPath) {
    check_qualified(checks, text(hook, "name"), &path.child("name"));
    for (index, rule) in list(hook, "rules").iter().enumerate() {
        check_rule(checks, rule, &path.child("rules").index(index));
    }
    let optional = |checks: &mut Checks, field: &str, supported: &[&str]| {
        if let Some(value) = at(hook, field).as_str() {
            checks.one_of(&path.child(field), value, supported);
        }
    };
    optional(checks, "failurePolicy", &FAILURE_POLICIES);
    optional(checks, "matchPolicy", &MATCH_POLICIES);
    let effects: &[&str] = if tolerated.side_effects { &SIDE_EFFECTS } else { &NO_SIDE_EFFECTS };
    if has(hook, "sideEffects") {
        optional(checks, "sideEffects", effects);
    } else {
        checks.required(&path.child("sideEffects"), &format!("must specify one of {}", effects.join(", ")));
    }
    if let Some(seconds) = at(hook, "timeoutSeconds").as_i64().filter(|s| !(1..=30).contains(s)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        checks.invalid(&path.child("timeoutSeconds"), seconds, detail);
    }
    for field in ["namespaceSelector", "objectSelector"] {
        check_selector(checks, at(hook, field), tolerated.selector_values, &path.child(field));
    }
    optional(checks, "reinvocationPolicy", &REINVOCATION_POLICIES);
    check_client(checks, at(hook, "clientConfig"), &path.child("clientConfig"));
    if !tolerated.match_conditions {
        let conditions = list(hook, "matchConditions");
        check_match_conditions(checks, &Scope::of_webhook(), conditions, &path.child("matchConditions"));
    }
}

/// `hook.example.com`: a DNS name of three labels at least.
fn check_qualified(checks: &mut Checks, name: &str, path: &FieldPath) {
    if name.is_empty() {
        return checks.required(path, "");
    }
    let faults = names::is_dns1123_subdomain(name);
    if faults.is_empty() && name.split('.').count() < 3 {
        checks.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
    checks.together(path, name, &faults);
}

/// Versions of AdmissionReview that the webhook takes; one of them has to be known to the server.
fn check_versions(checks: &mut Checks, hook: &Value, tolerated: &Tolerated, path: &FieldPath) {
    let versions: Vec<&str> =
        list(hook, "admissionReviewVersions").iter().filter_map(Value::as_str).collect();
    if versions.is_empty() {
        return checks.required(path, &format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
    }
    let mut seen = HashSet::new();
    for (index, version) in versions.iter().enumerate() {
        if !seen.insert(version) {
            checks.invalid(&path.index(index), *version, "duplicate version");
            continue;
        }
        checks.each(&path.index(index), version, names::is_dns1035_label(version));
    }
    if !tolerated.review_versions && !versions.iter().any(|v| REVIEW_VERSIONS.contains(v)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        checks.invalid(path, at(hook, "admissionReviewVersions").clone(), &detail);
    }
}

/// Rules that name resources of which webhooks are never asked.
fn excluded_warnings(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for (hook, webhook) in list(object, "webhooks").iter().enumerate() {
        for (index, rule) in list(webhook, "rules").iter().enumerate() {
            let (groups, resources) = (list(rule, "apiGroups"), list(rule, "resources"));
            if groups.iter().chain(resources).any(|word| word == "*") {
                continue;
            }
            let mut told = Vec::new();
            for (group, resource) in groups.iter().flat_map(|g| resources.iter().map(move |r| (g, r))) {
                let named = EXCLUDED.iter().find(|(g, r)| group == g && resource == r);
                if let Some((group, resource)) = named.filter(|named| !told.contains(named)) {
                    told.extend(named);
                    warnings.push(format!(
                        "webhooks[{hook}].rules[{index}]: {resource}.{group} is excluded from admission webhooks; this rule will have no effect"
                    ));
                }
            }
        }
    }
    warnings
}

impl Strategy for WebhookConfiguration {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        if !is_new(object) {
            return Vec::new();
        }
        Checks::run(|checks| {
            check(checks, object, &Tolerated::default());
            check_static_name(checks, object);
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, new, &Tolerated::of(new, old)))
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut warnings = static_name_warnings(new, old);
        warnings.extend(excluded_warnings(new));
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), list(object, "webhooks").len().into(), created(object, now)])
    }
}
