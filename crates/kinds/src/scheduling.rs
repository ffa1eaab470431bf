//! `scheduling.k8s.io/v1`: PriorityClass.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{flag, has, number, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    // It has no spec, so its generation stays 1, as upstream's does.
    to.resource("scheduling.k8s.io/v1", "priorityclasses").tracks_spec().strategy(PriorityClass);
}

struct PriorityClass;

/// The classes that come with the cluster, and their values.
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const HIGHEST: i64 = 1_000_000_000;

/// Why this is no class of the system.
fn foreign(object: &Value) -> Option<String> {
    let name = text(object, "metadata.name");
    let Some((_, value)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if number(object, "value") != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    flag(object, "globalDefault").then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

impl Strategy for PriorityClass {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            if text(object, "metadata.name").starts_with("system-") {
                if let Some(why) = foreign(object) {
                    let detail = format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                    );
                    checks.forbidden(&path("metadata.name"), &detail);
                }
            } else if number(object, "value") > HIGHEST {
                let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
                checks.forbidden(&path("value"), &detail);
            }
            if has(object, "preemptionPolicy") {
                checks.required_one_of(
                    &path("preemptionPolicy"),
                    text(object, "preemptionPolicy"),
                    &["PreemptLowerPriority", "Never"],
                );
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if number(new, "value") != number(old, "value") {
                checks.forbidden(&path("value"), "may not be changed in an update.");
            }
            checks.immutable(new, old, "preemptionPolicy");
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![
            name(object),
            number(object, "value").into(),
            flag(object, "globalDefault").into(),
            created(object, now),
            text(object, "preemptionPolicy").into(),
        ])
    }
}
