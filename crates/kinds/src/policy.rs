//! `policy/v1`: PodDisruptionBudget.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    declare::Declarer,
    object::{at, number, set},
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

impl Strategy for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        let status =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        set(object, "status", status);
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
