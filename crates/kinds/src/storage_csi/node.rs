//! CSINode: the drivers of a node, and how many volumes of each it takes.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, has, list, same, set, text},
    resource::Strategy,
};

/// The longest id that a driver may give a node, in bytes.
const LONGEST_ID: usize = 256;

pub struct CsiNode;

fn check_driver(checks: &mut Checks, driver: &Value, path: &FieldPath) {
    checks.driver_name(&path.child("name"), text(driver, "name"));
    let id = text(driver, "nodeID");
    if id.is_empty() {
        checks.required(&path.child("nodeID"), "");
    }
    if id.len() > LONGEST_ID {
        checks.invalid(&path.child("nodeID"), id, &format!("must be {LONGEST_ID} characters or less"));
    }
    if has(driver, "allocatable") {
        checks.nonnegative_fields(&path.child("allocatable"), at(driver, "allocatable"), &["count"]);
    }
}

/// The labels by which the driver tells places apart.
fn check_keys(checks: &mut Checks, driver: &Value, path: &FieldPath) {
    let mut seen = BTreeSet::new();
    for key in list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
        if key.is_empty() {
            checks.required(path, "");
        }
        if !seen.insert(key) {
            checks.duplicate(path, key);
        }
        checks.qualified_name(path, key);
    }
}

impl Strategy for CsiNode {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object, subresource: &str) {
        // `storageHealth`, all that there is, belongs to a feature (CSIVolumeHealth) that is off.
        if subresource == "status" {
            set(new, "status", json!({}));
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            let mut names = BTreeSet::new();
            for (index, driver) in list(object, "spec.drivers").iter().enumerate() {
                let path = path("spec").child("drivers").index(index);
                check_driver(checks, driver, &path);
                let name = text(driver, "name");
                if !names.insert(name) {
                    checks.duplicate(&path.child("name"), name);
                }
                check_keys(checks, driver, &path);
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        // All of a driver stays, but for how many volumes it takes.
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver["allocatable"] = Value::Null;
            driver
        };
        Checks::run(|checks| {
            for before in list(old, "spec.drivers") {
                let same_name =
                    list(new, "spec.drivers").iter().filter(|now| text(now, "name") == text(before, "name"));
                for now in same_name.filter(|now| !same(&fixed(now), &fixed(before))) {
                    checks.invalid(&path("spec").child("drivers"), fixed(now), "field is immutable");
                }
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), list(object, "spec.drivers").len().into(), created(object, now)])
    }
}
