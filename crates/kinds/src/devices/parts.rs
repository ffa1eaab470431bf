//! Parts that several of the kinds have: selectors, configuration, taints, tolerations, conditions to wait for.

use std::collections::BTreeSet;

use apimachinery::{FieldPath, cel, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, list, set, text},
};

/// What a taint does to pods, in upstream's order.
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
/// How many selectors one request or class may have.
const MOST_SELECTORS: usize = 32;
/// Bytes of one CEL expression, and of one driver's parameters.
const TEXT_LIMIT: usize = 10 * 1024;
/// How many conditions a device may have to wait for before it is bound, and how many may stop that.
const MOST_BINDING_CONDITIONS: usize = 4;

/// Each item of a list once: tells those that are there again. `key` is what counts.
pub fn unique<'v, K: Ord>(
    checks: &mut Checks,
    items: &'v [Value],
    path: &FieldPath,
    key: impl Fn(&'v Value) -> K,
) {
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if !seen.insert(key(item)) {
            checks.duplicate(&path.index(index), item.clone());
        }
    }
}

/// `selectors`: expressions that say of a device whether it is a wanted one.
pub fn check_selectors(checks: &mut Checks, selectors: &[Value], path: &FieldPath) {
    if checks.too_many(path, selectors.len(), MOST_SELECTORS) {
        return;
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index).child("cel");
        if at(selector, "cel").is_null() {
            checks.required(&path, "");
        } else {
            check_expression(checks, text(selector, "cel.expression"), &path.child("expression"));
        }
    }
}

fn check_expression(checks: &mut Checks, expression: &str, path: &FieldPath) {
    if expression.len() > TEXT_LIMIT {
        return checks.longest(path, expression, TEXT_LIMIT);
    }
    if let Err(why) = cel::Program::cached(expression) {
        checks.invalid(path, expression, &format!("compilation failed: {why}"));
    }
}

/// `config`: what a driver is told, and which one. `kept`: it is as it was, and may be longer than is allowed now.
pub fn check_config(checks: &mut Checks, config: &Value, kept: bool, path: &FieldPath) {
    let (opaque, path) = (at(config, "opaque"), path.child("opaque"));
    if opaque.is_null() {
        return checks.required(&path, "");
    }
    checks.driver_name_declared(&path.child("driver"), text(opaque, "driver"));
    check_raw(checks, at(opaque, "parameters"), kept, &path.child("parameters"));
}

/// A JSON object of somebody else's making.
pub fn check_raw(checks: &mut Checks, value: &Value, kept: bool, path: &FieldPath) {
    if value.is_null() {
        checks.required(path, "");
    } else if !kept && value.to_string().len() > TEXT_LIMIT {
        checks.errors.push(apimachinery::FieldError::too_long(path, TEXT_LIMIT));
    } else if !value.is_object() {
        checks.invalid(path, "<value omitted>", "must be a valid JSON object");
    }
}

/// A taint. `old`: what it was; an effect that stays is not looked at again.
pub fn check_taint(checks: &mut Checks, taint: &Value, old: Option<&Value>, path: &FieldPath) {
    checks.qualified_name(&path.child("key"), text(taint, "key"));
    let (value, effect) = (text(taint, "value"), text(taint, "effect"));
    if !value.is_empty() {
        checks.each(&path.child("value"), value, names::is_label_value(value));
    }
    if old.is_none_or(|old| text(old, "effect") != effect) {
        checks.required_one_of(&path.child("effect"), effect, &EFFECTS);
    }
}

/// Gives a taint the time it begins at, if it has none.
pub fn stamp_taint(taint: &mut Value, now: DateTime<Utc>) {
    if taint.is_object() && at(taint, "timeAdded").is_null() {
        set(taint, "timeAdded", apimachinery::time::format_time(now));
    }
}

/// `tolerations`
pub fn check_tolerations(checks: &mut Checks, tolerations: &[Value], path: &FieldPath) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let [key, operator, value, effect] =
            ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
        if !key.is_empty() {
            checks.qualified_name(&path.child("key"), key);
        }
        match operator {
            "Exists" if !value.is_empty() => {
                checks.invalid(&path.child("value"), value, "must be empty for operator `Exists`");
            }
            "Exists" => {}
            "Equal" => checks.each(&path.child("value"), value, names::is_label_value(value)),
            other => checks.required_one_of(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            checks.one_of(&path.child("effect"), effect, &EFFECTS);
        }
    }
}

/// `bindingConditions` and `bindingFailureConditions` of a device.
pub fn check_binding(checks: &mut Checks, device: &Value, path: &FieldPath) {
    const FIELDS: [&str; 2] = ["bindingConditions", "bindingFailureConditions"];
    let [wait, stop] = FIELDS.map(|field| list(device, field));
    for (field, conditions) in FIELDS.into_iter().zip([wait, stop]) {
        let path = path.child(field);
        if checks.too_many(&path, conditions.len(), MOST_BINDING_CONDITIONS) {
            continue;
        }
        for (index, condition) in conditions.iter().filter_map(Value::as_str).enumerate() {
            checks.qualified_name(&path.index(index), condition);
        }
    }
    let [wait_path, stop_path] = FIELDS.map(|field| path.child(field));
    unique(checks, wait, &wait_path, Value::as_str);
    unique(checks, stop, &stop_path, Value::as_str);
    let awaited: BTreeSet<&str> = wait.iter().filter_map(Value::as_str).collect();
    let overlaps =
        |condition: &Value| condition.as_str().is_some_and(|condition| awaited.contains(condition));
    for (index, condition) in stop.iter().enumerate().filter(|(_, condition)| overlaps(condition)) {
        let detail = "bindingFailureConditions must not overlap with bindingConditions";
        checks.invalid(&stop_path.index(index), condition.clone(), detail);
    }
    match (wait.is_empty(), stop.is_empty()) {
        (true, false) => checks.invalid(
            &wait_path,
            at(device, FIELDS[0]).clone(),
            "bindingConditions are required to use bindingFailureConditions",
        ),
        (false, true) => checks.invalid(
            &stop_path,
            at(device, FIELDS[1]).clone(),
            "bindingFailureConditions are required to use bindingConditions",
        ),
        _ => {}
    }
}
