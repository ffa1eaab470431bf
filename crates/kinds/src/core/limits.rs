//! LimitRange and ResourceQuota.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::{
    cells::{created, name, stamped},
    object::{at, entries, items_mut, map_mut, set, text},
    resource::Strategy,
};

pub struct LimitRange;

/// Fills `into` of a limit with what `from` has and it has not.
fn inherit(limit: &mut Value, into: &str, from: &str) {
    let found: Map<String, Value> = at(limit, from).as_object().cloned().unwrap_or_default();
    if let Some(map) = map_mut(limit, into) {
        for (resource, quantity) in found {
            map.entry(resource).or_insert(quantity);
        }
    }
}

impl Strategy for LimitRange {
    fn default(&self, object: &mut Object) {
        for limit in items_mut(object, "spec.limits") {
            if text(limit, "type") == "Container" {
                inherit(limit, "default", "max");
                inherit(limit, "defaultRequest", "default");
                inherit(limit, "defaultRequest", "min");
                // Go leaves empty maps out.
                for field in ["default", "defaultRequest"] {
                    if limit[field] == json!({}) {
                        crate::object::remove(limit, field);
                    }
                }
            }
        }
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(stamped(object))
    }
}

pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, hard) in entries(object, "status.hard") {
            let used = at(object, "status.used").get(resource).and_then(Value::as_str).unwrap_or("0");
            let part = format!("{resource}: {used}/{}", hard.as_str().unwrap_or("0"));
            if resource.starts_with("limits.") { limits.push(part) } else { requests.push(part) }
        }
        Some(vec![name(object), requests.join(", ").into(), limits.join(", ").into(), created(object, now)])
    }
}
