//! DeviceTaintRule: a taint for all devices that match.

use apimachinery::{FieldError, Object, time};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::parts::{check_taint, stamp_taint};
use crate::{
    cells::{age, created, name},
    checks::{Checks, path},
    object::{at, at_mut, list, set, text},
    resource::Strategy,
};

/// How many conditions the status may have.
const MOST_CONDITIONS: usize = 8;

pub struct DeviceTaintRule;

fn check(checks: &mut Checks, spec: &Value, old: Option<&Value>) {
    let (selector, selector_path) = (at(spec, "deviceSelector"), path("spec").child("deviceSelector"));
    if let Some(driver) = at(selector, "driver").as_str() {
        checks.driver_name(&selector_path.child("driver"), driver);
    }
    if let Some(pool) = at(selector, "pool").as_str() {
        checks.pool_name(&selector_path.child("pool"), pool);
    }
    if let Some(device) = at(selector, "device").as_str() {
        checks.dns_label(&selector_path.child("device"), device);
    }
    check_taint(checks, at(spec, "taint"), old.map(|old| at(old, "taint")), &path("spec").child("taint"));
}

/// The taint has a time from now on.
fn begin(object: &mut Object, now: DateTime<Utc>) {
    if let Some(taint) = at_mut(object, "spec.taint") {
        stamp_taint(taint, now);
    }
}

impl Strategy for DeviceTaintRule {
    fn prepare_create(&self, object: &mut Object, now: DateTime<Utc>) {
        set(object, "status", json!({}));
        begin(object, now);
    }

    fn prepare_update_at(&self, new: &mut Object, old: &Object, _subresource: &str, now: DateTime<Utc>) {
        // The time is that of the effect: it begins anew with another one, unless the client has said when.
        if text(new, "spec.taint.effect") != text(old, "spec.taint.effect")
            && at(new, "spec.taint.timeAdded") == at(old, "spec.taint.timeAdded")
        {
            set(new, "spec.taint.timeAdded", time::format_time(now));
        }
        begin(new, now);
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            if text(object, "metadata.resourceVersion").is_empty() {
                check(checks, at(object, "spec"), None);
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                let (conditions, path) = (list(new, "status.conditions"), path("status").child("conditions"));
                checks.conditions(&path, conditions);
                checks.too_many(&path, conditions.len(), MOST_CONDITIONS);
            } else {
                check(checks, at(new, "spec"), Some(at(old, "spec")));
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let taint = at(object, "spec.taint");
        let added = at(taint, "timeAdded");
        Some(vec![
            name(object),
            text(taint, "key").into(),
            text(taint, "value").into(),
            text(taint, "effect").into(),
            if added.is_null() { json!("") } else { age(added, now).into() },
            created(object, now),
        ])
    }
}
