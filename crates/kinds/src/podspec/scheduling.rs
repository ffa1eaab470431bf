//! Affinity, tolerations and topology spread.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{FieldPath, names};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, entries, list, number, text},
};

const WEIGHT_DETAIL: &str = "must be in the range 1-100";

/// `spec.affinity`
pub fn check_affinity(checks: &mut Checks, affinity: &Value, path: &FieldPath) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let node = at(affinity, "nodeAffinity");
    let node_path = path.child("nodeAffinity");
    if !at(node, REQUIRED).is_null() {
        check_node_selector(checks, at(node, REQUIRED), &node_path.child(REQUIRED));
    }
    for (index, term) in list(node, PREFERRED).iter().enumerate() {
        let path = node_path.child(PREFERRED).index(index);
        check_weight(checks, term, &path);
        check_node_term(checks, at(term, "preference"), true, &path.child("preference"));
    }
    for field in ["podAffinity", "podAntiAffinity"] {
        let pods = at(affinity, field);
        let path = path.child(field);
        for (index, term) in list(pods, REQUIRED).iter().enumerate() {
            check_pod_term(checks, term, &path.child(REQUIRED).index(index));
        }
        for (index, term) in list(pods, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            check_weight(checks, term, &path);
            check_pod_term(checks, at(term, "podAffinityTerm"), &path.child("podAffinityTerm"));
        }
    }
}

fn check_weight(checks: &mut Checks, term: &Value, path: &FieldPath) {
    let weight = number(term, "weight");
    if !(1..=100).contains(&weight) {
        checks.invalid(&path.child("weight"), weight, WEIGHT_DETAIL);
    }
}

/// A NodeSelector.
pub fn check_node_selector(checks: &mut Checks, selector: &Value, path: &FieldPath) {
    let terms = list(selector, "nodeSelectorTerms");
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        return checks.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        check_node_term(checks, term, false, &path.index(index));
    }
}

/// `any_value`: preferred terms may ask for what no label can be.
fn check_node_term(checks: &mut Checks, term: &Value, any_value: bool, path: &FieldPath) {
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = list(requirement, "values");
        let values_path = path.child("values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                checks.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                checks.forbidden(
                    &values_path,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if values.len() != 1 => {
                checks
                    .required(&values_path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => checks.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        checks.qualified_name(&path.child("key"), text(requirement, "key"));
        if !any_value {
            for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
                checks.each(&values_path.index(index), value, names::is_label_value(value));
            }
        }
    }
    for (index, requirement) in list(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(index);
        let values = list(requirement, "values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.len() == 1 => {}
            "In" | "NotIn" => checks.required(
                &path.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            other => checks.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        match text(requirement, "key") {
            "metadata.name" => {
                for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
                    checks.dns_subdomain(&path.child("values").index(index), value);
                }
            }
            other => checks.invalid(&path.child("key"), other, "not a valid field selector key"),
        }
    }
}

fn check_pod_term(checks: &mut Checks, term: &Value, path: &FieldPath) {
    for field in ["labelSelector", "namespaceSelector"] {
        checks.label_selector(&path.child(field), at(term, field));
    }
    for name in list(term, "namespaces").iter().filter_map(Value::as_str) {
        checks.dns_label(&path.child("namespace"), name);
    }
    check_label_keys(checks, term, path);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        checks.required(&path.child("topologyKey"), "can not be empty");
    }
    checks.qualified_name(&path.child("topologyKey"), key);
}

/// `matchLabelKeys` and `mismatchLabelKeys` against the selector that the server has merged them into.
fn check_label_keys(checks: &mut Checks, term: &Value, path: &FieldPath) {
    let selector = at(term, "labelSelector");
    let keys = |field: &str| -> Vec<&str> { list(term, field).iter().filter_map(Value::as_str).collect() };
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = keys(field);
        if !keys.is_empty() && selector.is_null() {
            checks.forbidden(&path.child(field), "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys.iter().enumerate() {
            checks.qualified_name(&path.child(field).index(index), key);
        }
    }
    let (same, other) = (keys("matchLabelKeys"), keys("mismatchLabelKeys"));
    // The place of each key; the first one counts.
    let places: BTreeMap<&str, usize> = same.iter().enumerate().rev().map(|(i, key)| (*key, i)).collect();
    let other: BTreeSet<&str> = other.into_iter().collect();
    let mut known: BTreeSet<&str> = entries(selector, "matchLabels").map(|(key, _)| key.as_str()).collect();
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        if !known.insert(key)
            && let Some(index) = places.get(key)
        {
            checks.invalid(&path.index(*index), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
    for (index, key) in same.iter().enumerate().filter(|(_, key)| other.contains(*key)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        checks.invalid(&path.child("matchLabelKeys").index(index), *key, detail);
    }
}

/// `spec.tolerations`
pub fn check_tolerations(checks: &mut Checks, tolerations: &[Value], path: &FieldPath) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !key.is_empty() {
            checks.qualified_name(&path.child("key"), key);
        } else if operator != "Exists" {
            checks.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if at(toleration, "tolerationSeconds").is_number() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            checks.invalid(&path.child("effect"), effect, detail);
        }
        match operator {
            "" | "Equal" => {
                let messages = names::is_label_value(value);
                if !messages.is_empty() {
                    checks.invalid(&path.child("operator"), value, &messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                checks.invalid(
                    &path.child("operator"),
                    value,
                    "value must be empty when `operator` is 'Exists'",
                );
            }
            "Exists" => {}
            other => checks.one_of(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            check_effect(checks, effect, &path.child("effect"));
        }
    }
}

/// The effect of a taint.
fn check_effect(checks: &mut Checks, effect: &str, path: &FieldPath) {
    checks.one_of(path, effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
}

/// What a constraint spreads over, and what is done where it does not hold.
fn domain(constraint: &Value) -> [&str; 2] {
    ["topologyKey", "whenUnsatisfiable"].map(|field| text(constraint, field))
}

/// `spec.topologySpreadConstraints`
pub fn check_spread(checks: &mut Checks, constraints: &[Value], path: &FieldPath) {
    let last: BTreeMap<[&str; 2], usize> =
        constraints.iter().enumerate().map(|(index, constraint)| (domain(constraint), index)).collect();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let skew = number(constraint, "maxSkew");
        if skew <= 0 {
            checks.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        let [key, action] = domain(constraint);
        if key.is_empty() {
            checks.required(&path.child("topologyKey"), "can not be empty");
        }
        checks.one_of(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        if last.get(&[key, action]).is_some_and(|last| *last > index) {
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            checks.duplicate(&path, format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = at(constraint, "minDomains").as_i64() {
            checks.positive(&path.child("minDomains"), domains);
            if action != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                checks.invalid(&path.child("minDomains"), domains, &detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = at(constraint, field).as_str() {
                checks.one_of(&path.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        check_label_keys(checks, constraint, &path);
        checks.label_selector(&path.child("labelSelector"), at(constraint, "labelSelector"));
    }
}
