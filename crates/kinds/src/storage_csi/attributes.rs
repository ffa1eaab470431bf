//! VolumeAttributesClass: named settings of volumes that may change while they are used.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, text},
    resource::Strategy,
    storage::check_parameters,
};

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            match text(object, "driverName") {
                "" => checks.required(&path("driverName"), ""),
                driver => checks.qualified_name(&path("driverName"), &driver.to_lowercase()),
            }
            let fits = check_parameters(checks, object);
            if fits && at(object, "parameters").as_object().is_none_or(serde_json::Map::is_empty) {
                checks.required(&path("parameters"), "must contain at least one key/value pair");
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            for field in ["driverName", "parameters"] {
                if at(new, field) != at(old, field) {
                    checks.forbidden(&path(field), &format!("updates to {field} are forbidden."));
                }
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), text(object, "driverName").into(), created(object, now)])
    }
}
