//! CSIStorageCapacity: how much a driver can still make in one part of the cluster.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::stamped,
    checks::{Checks, path, quantity},
    object::{at, entries, list, text},
    resource::Strategy,
    warnings::node_label,
};

pub struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            checks.label_selector(&path("nodeTopology"), at(object, "nodeTopology"));
            checks.dns_subdomain(&path("storageClassName"), text(object, "storageClassName"));
            if let Some(capacity) = quantity(at(object, "capacity")).filter(|amount| amount.sign() < 0) {
                let detail = "must be greater than or equal to 0";
                checks.invalid(&path("capacity"), capacity.to_string(), detail);
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            checks.immutable(new, old, "nodeTopology");
            checks.immutable(new, old, "storageClassName");
        })
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let topology = path("nodeTopology");
        for (index, expression) in list(new, "nodeTopology.matchExpressions").iter().enumerate() {
            let key = text(expression, "key");
            if let Some(words) = node_label(key) {
                let path = topology.child("matchExpressions").index(index).child("key");
                found.push(format!("{path}: {key} is {words}"));
            }
        }
        for (label, _) in entries(new, "nodeTopology.matchLabels") {
            if let Some(words) = node_label(label) {
                found.push(format!("{}: {words}", topology.child("matchLabels").child(label)));
            }
        }
        found
    }

    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(stamped(object))
    }
}
