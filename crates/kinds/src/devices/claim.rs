//! ResourceClaim: devices that somebody wants, and those that they got.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{request, status};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, has, list, set, text},
    resource::Strategy,
};

pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Object) {
        request::default(object, "spec.devices");
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
        request::drop_disabled(object, "spec.devices");
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        if subresource == "status" {
            status::settle(new, old);
        } else {
            request::drop_disabled(new, "spec.devices");
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        // The spec of an object that is there stays.
        Checks::run(|checks| {
            if text(object, "metadata.resourceVersion").is_empty() {
                request::check(checks, at(object, "spec.devices"), &path("spec").child("devices"));
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                status::check(checks, new, old);
            } else {
                checks.unchanged(new, old, "spec");
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let deleted = has(object, "metadata.deletionTimestamp");
        let allocated = has(object, "status.allocation");
        let reserved = allocated && !list(object, "status.reservedFor").is_empty();
        let states: Vec<&str> = [
            (deleted, "deleted"),
            (!deleted && !allocated, "pending"),
            (allocated, "allocated"),
            (reserved, "reserved"),
        ]
        .into_iter()
        .filter_map(|(is, word)| is.then_some(word))
        .collect();
        Some(vec![name(object), states.join(",").into(), created(object, now)])
    }
}
