//! What is wrong with a HorizontalPodAutoscaler.

use apimachinery::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{
    checks::{Checks, path, quantity},
    object::{at, has, list, number, text},
    podspec::check_container_name,
};

pub fn check(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let (spec, path) = (at(object, "spec"), path("spec"));
        let (least, most) = (at(spec, "minReplicas").as_i64(), number(spec, "maxReplicas"));
        if let Some(least) = least.filter(|least| *least < 0) {
            let detail = "must be greater than or equal to 0";
            checks.declared(|checks| checks.invalid(&path.child("minReplicas"), least, detail));
        }
        checks.declared(|checks| {
            if most == 0 {
                checks.required(&path.child("maxReplicas"), "");
            } else if most < 0 {
                checks.invalid(&path.child("maxReplicas"), most, "must be greater than or equal to 1");
            }
        });
        if least.is_some_and(|least| most < least) {
            let detail = "must be greater than or equal to `minReplicas`";
            checks.invalid(&path.child("maxReplicas"), most, detail);
        }
        check_reference(checks, at(spec, "scaleTargetRef"), &path.child("scaleTargetRef"));
        // An object that is there keeps the target that it was made with.
        if text(object, "metadata.resourceVersion").is_empty() {
            check_target(checks, object);
        }
        check_metrics(checks, spec, least, &path.child("metrics"));
        for direction in ["scaleUp", "scaleDown"] {
            let rules = at(at(spec, "behavior"), direction);
            if !rules.is_null() {
                check_rules(checks, rules, &path.child("behavior").child(direction));
            }
        }
    })
}

fn check_reference(checks: &mut Checks, reference: &Value, path: &FieldPath) {
    for field in ["kind", "name"] {
        match text(reference, field) {
            "" => checks.required(&path.child(field), ""),
            value => checks.each(&path.child(field), value, names::is_path_segment(value)),
        }
    }
}

/// The API version of a reference, which names a group unless `core` is fine.
fn check_version(checks: &mut Checks, reference: &Value, core: bool, path: &FieldPath) {
    let version = text(reference, "apiVersion");
    if version.matches('/').count() > 1 {
        let detail = format!("unexpected GroupVersion string: {version}");
        checks.invalid(&path.child("apiVersion"), version, &detail);
    } else if !core && !version.contains('/') {
        checks.invalid(&path.child("apiVersion"), version, "apiVersion must specify API group");
    }
}

fn check_target(checks: &mut Checks, object: &Value) {
    let target = at(object, "spec.scaleTargetRef");
    let core = text(target, "kind") == "ReplicationController";
    check_version(checks, target, core, &path("spec").child("scaleTargetRef"));
}

/// A target that was changed is looked at as a new one.
pub fn check_target_change(checks: &mut Checks, new: &Value, old: &Value) {
    let changed = |field: &str| text(new, field) != text(old, field);
    if changed("spec.scaleTargetRef.apiVersion") || changed("spec.scaleTargetRef.kind") {
        check_target(checks, new);
    }
}

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

fn check_metrics(checks: &mut Checks, spec: &Value, least: Option<i64>, path: &FieldPath) {
    let metrics = list(spec, "metrics");
    for (index, metric) in metrics.iter().enumerate() {
        check_metric(checks, metric, &path.index(index));
    }
    let wakes = metrics.iter().any(|metric| matches!(text(metric, "type"), "Object" | "External"));
    if least == Some(0) && !wakes {
        checks.forbidden(
            path,
            "must specify at least one Object or External metric to support scaling to zero replicas",
        );
    }
}

fn check_metric(checks: &mut Checks, metric: &Value, path: &FieldPath) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        checks.required(&path.child("type"), "must specify a metric source type");
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    if expected.is_none() {
        let supported = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        checks.one_of(&path.child("type"), kind, &supported);
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| has(metric, field)).collect();
    if let Some(first) = present.first() {
        check_source(checks, at(metric, first), first, &path.child(first));
    }
    if let Some(expected) = expected.filter(|expected| !present.contains(expected)) {
        let detail = "must populate information for the given metric source";
        checks.required(&path.child(expected), detail);
    }
    if present.len() != 1 {
        for field in present.iter().filter(|field| Some(**field) != expected) {
            checks.forbidden(&path.child(field), "must populate the given metric source only");
        }
    }
}

fn check_source(checks: &mut Checks, source: &Value, kind: &str, path: &FieldPath) {
    let (target, target_path) = (at(source, "target"), path.child("target"));
    match kind {
        "object" => {
            let path = path.child("describedObject");
            check_reference(checks, at(source, "describedObject"), &path);
            check_version(checks, at(source, "describedObject"), true, &path);
        }
        "resource" if text(source, "name").is_empty() => {
            checks.required(&path.child("name"), "must specify a resource name");
        }
        "containerResource" => {
            match text(source, "name") {
                "" => checks.required(&path.child("name"), "must specify a resource name"),
                name => check_container_name(checks, name, &path.child("name")),
            }
            match text(source, "container") {
                "" => checks.required(&path.child("container"), "must specify a container"),
                name => checks.dns_label(&path.child("container"), name),
            }
        }
        _ => {}
    }
    if matches!(kind, "object" | "external" | "pods") {
        let path = path.child("metric").child("name");
        match text(source, "metric.name") {
            "" => checks.required(&path, "must specify a metric name"),
            name => checks.each(&path, name, names::is_path_segment(name)),
        }
    }
    check_amounts(checks, target, &target_path);
    let [value, average, share] =
        ["value", "averageValue", "averageUtilization"].map(|field| has(target, field));
    let average_path = target_path.child("averageValue");
    match kind {
        "object" if !value && !average => {
            checks.required(&average_path, "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            let detail = "must set either a target value for metric or a per-pod target";
            checks.required(&average_path, detail);
        }
        "external" if value && average => checks.forbidden(
            &target_path.child("value"),
            "may not set both a target value for metric and a per-pod target",
        ),
        "pods" if !average => {
            checks.required(&average_path, "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !share && !average => checks.required(
            &target_path.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        "resource" | "containerResource" if share && average => {
            let detail = "may not set both a target raw value and a target utilization";
            checks.forbidden(&average_path, detail);
        }
        _ => {}
    }
}

fn check_amounts(checks: &mut Checks, target: &Value, path: &FieldPath) {
    let kind = text(target, "type");
    if kind.is_empty() {
        checks.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        let detail = "must be either Utilization, Value, or AverageValue";
        checks.invalid(&path.child("type"), kind, detail);
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = quantity(at(target, field)).filter(|amount| amount.sign() != 1) {
            checks.invalid(&path.child(field), amount.to_string(), "must be positive");
        }
    }
    if let Some(share) = at(target, "averageUtilization").as_i64().filter(|share| *share < 1) {
        checks.invalid(&path.child("averageUtilization"), share, "must be greater than 0");
    }
}

fn check_rules(checks: &mut Checks, rules: &Value, path: &FieldPath) {
    const LONGEST_WINDOW: i64 = 3600;
    const LONGEST_PERIOD: i64 = 1800;
    if let Some(window) = at(rules, "stabilizationWindowSeconds").as_i64() {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            checks.invalid(&path, window, "must be greater than or equal to zero");
        }
        if window > LONGEST_WINDOW {
            checks.invalid(&path, window, &format!("must be less than or equal to {LONGEST_WINDOW}"));
        }
    }
    if let Some(select) = at(rules, "selectPolicy").as_str() {
        checks.one_of(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let policies = list(rules, "policies");
    if policies.is_empty() {
        checks.required(&path.child("policies"), "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.child("policies").index(index);
        checks.one_of(&path.child("type"), text(policy, "type"), &["Percent", "Pods"]);
        for field in ["value", "periodSeconds"] {
            if number(policy, field) <= 0 {
                checks.invalid(&path.child(field), number(policy, field), "must be greater than zero");
            }
        }
        let period = number(policy, "periodSeconds");
        if period > LONGEST_PERIOD {
            let detail = format!("must be less than or equal to {LONGEST_PERIOD}");
            checks.invalid(&path.child("periodSeconds"), period, &detail);
        }
    }
    if let Some(tolerance) = quantity(at(rules, "tolerance")).filter(|tolerance| tolerance.sign() < 0) {
        let path = path.child("tolerance");
        checks.invalid(&path, tolerance.to_string(), "must be greater than or equal to 0");
    }
}
