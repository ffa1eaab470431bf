//! `policy/v1`: PodDisruptionBudget.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, has, list, number, set},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("policy/v1", "poddisruptionbudgets")
        .tracks_spec()
        .needs_resource_version()
        .strategy(PodDisruptionBudget);
}

struct PodDisruptionBudget;

fn limit(value: &Value) -> Value {
    match value {
        Value::Null => "N/A".into(),
        Value::String(text) => text.as_str().into(),
        number => number.to_string().into(),
    }
}

fn check(checks: &mut Checks, object: &Value) {
    let (spec, path) = (at(object, "spec"), path("spec"));
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        checks.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        let (value, path) = (at(spec, field), path.child(field));
        checks.int_or_percent(&path, value);
        checks.at_most_all(&path, value);
    }
    checks.label_selector(&path.child("selector"), at(spec, "selector"));
    if let Some(policy) = at(spec, "unhealthyPodEvictionPolicy").as_str() {
        let path = path.child("unhealthyPodEvictionPolicy");
        checks.one_of(&path, policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

impl Strategy for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        let status =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        set(object, "status", status);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update(&self, new: &Object, _old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                let fields = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
                checks.conditions(&path("status").child("conditions"), list(new, "status.conditions"));
                checks.nonnegative_fields(&path("status"), at(new, "status"), &fields);
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![
            name(object),
            limit(at(object, "spec.minAvailable")),
            limit(at(object, "spec.maxUnavailable")),
            number(object, "status.disruptionsAllowed").into(),
            created(object, now),
        ])
    }
}
