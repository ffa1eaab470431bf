//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy holds, and with which
//! parameters.

use std::collections::HashSet;

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    check_static_name, is_new,
    matching::{check_match_resources, check_mutable},
    static_name_warnings,
};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, entries, has, list, text},
    resource::Strategy,
};

/// Sorted, as they are told.
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// One of the two kinds.
pub(super) struct PolicyBinding {
    /// Of a MutatingAdmissionPolicy.
    pub mutating: bool,
}

impl PolicyBinding {
    fn check(&self, checks: &mut Checks, object: &Value) {
        let (spec, path) = (at(object, "spec"), path("spec"));
        let policy = text(spec, "policyName");
        if policy.is_empty() {
            checks.required(&path.child("policyName"), "");
        } else {
            checks.each(&path.child("policyName"), policy, names::subdomain_name(policy, false));
        }
        if has(spec, "paramRef") {
            check_param_ref(checks, at(spec, "paramRef"), &path.child("paramRef"));
        }
        if has(spec, "matchResources") {
            let (matching, path) = (at(spec, "matchResources"), path.child("matchResources"));
            check_match_resources(checks, matching, &path);
            if self.mutating {
                check_mutable(checks, matching, &path);
            }
        }
        if !self.mutating {
            check_actions(checks, at(spec, "validationActions"), &path.child("validationActions"));
        }
    }
}

fn check_param_ref(checks: &mut Checks, reference: &Value, path: &FieldPath) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selects) = (text(reference, "name"), has(reference, "selector"));
    if !name.is_empty() {
        checks.each(&path.child("name"), name, names::is_path_segment(name));
        if selects {
            checks.forbidden(&path.child("name"), EXCLUSIVE);
        }
    }
    if selects {
        checks.label_selector(&path.child("selector"), at(reference, "selector"));
        if !name.is_empty() {
            checks.forbidden(&path.child("selector"), EXCLUSIVE);
        }
    }
    if name.is_empty() && !selects {
        checks.required(path, "one of name or selector must be specified");
    }
    let action = text(reference, "parameterNotFoundAction");
    checks.required_one_of(&path.child("parameterNotFoundAction"), action, &["Deny", "Allow"]);
}

fn check_actions(checks: &mut Checks, actions: &Value, path: &FieldPath) {
    let mut seen = HashSet::new();
    let all = actions.as_array().into_iter().flatten().filter_map(Value::as_str);
    for (index, action) in all.enumerate() {
        checks.one_of(&path.index(index), action, &ACTIONS);
        if !seen.insert(action) {
            checks.duplicate(&path.index(index), action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        checks.invalid(path, actions.clone(), detail);
    }
    if seen.is_empty() {
        checks.required(path, "");
    }
}

/// A selector as Go prints the structure; that is what upstream shows in a table.
fn selector_struct(selector: &Value) -> String {
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels: String =
        entries(selector, "matchLabels").map(|(key, value)| format!("{key}: {},", text_of(value))).collect();
    let requirement = |requirement: &Value| {
        let values: Vec<String> = list(requirement, "values").iter().map(text_of).collect();
        let (key, operator) = (text(requirement, "key"), text(requirement, "operator"));
        let values = values.join(" ");
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    };
    let requirements: String = list(selector, "matchExpressions").iter().map(requirement).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

impl Strategy for PolicyBinding {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            self.check(checks, object);
            if is_new(object) {
                check_static_name(checks, object);
            }
        })
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        static_name_warnings(new, old)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let reference = at(object, "spec.paramRef");
        let parameter = match (text(reference, "name"), text(reference, "namespace")) {
            ("", _) if has(reference, "selector") => selector_struct(at(reference, "selector")),
            ("", _) => "<unset>".to_owned(),
            (name, "") => format!("*/{name}"),
            (name, namespace) => format!("{namespace}/{name}"),
        };
        let policy = text(object, "spec.policyName");
        Some(vec![name(object), policy.into(), parameter.into(), created(object, now)])
    }
}
