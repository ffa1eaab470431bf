//! LimitRange and ResourceQuota.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::limits_rules as rules;
use crate::{
    cells::{created, name, stamped},
    checks::Checks,
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

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        if text(object, "metadata.name").is_empty() {
            // Any name that nobody has: upstream makes another UUID.
            let name = text(object, "metadata.uid").to_owned();
            set(object, "metadata.name", name);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| rules::check_limits(checks, object))
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

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| rules::check_quota(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| match subresource {
            "status" => rules::check_quota_status(checks, new),
            _ => rules::check_quota_update(checks, new, old),
        })
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        if old.is_none() { rules::quota_warnings(new) } else { Vec::new() }
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
