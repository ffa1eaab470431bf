//! ResourceClaimTemplate: claims that are made for each pod.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::request;
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::at,
    resource::Strategy,
};

const DEVICES: &str = "spec.spec.devices";

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, object: &mut Object) {
        request::default(object, DEVICES);
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        request::drop_disabled(object, DEVICES);
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object, _subresource: &str) {
        request::drop_disabled(new, DEVICES);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            let metadata = path("spec").child("metadata");
            checks.labels(&metadata.child("labels"), at(object, "spec.metadata.labels"));
            checks.annotations(&metadata.child("annotations"), at(object, "spec.metadata.annotations"));
            request::check(checks, at(object, DEVICES), &path(DEVICES));
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| checks.immutable(new, old, "spec"))
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), created(object, now)])
    }
}
