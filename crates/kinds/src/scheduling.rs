//! `scheduling.k8s.io/v1`: PriorityClass.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name},
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
