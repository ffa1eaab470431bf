//! `scheduling.k8s.io/v1`: PriorityClass.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{flag, number, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    // It has no spec, so its generation stays 1, as upstream's does.
    to.resource("scheduling.k8s.io/v1", "priorityclasses").tracks_spec().strategy(PriorityClass);
}

struct PriorityClass;

impl Strategy for PriorityClass {
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
