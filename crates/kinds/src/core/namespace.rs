//! Namespace.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    object::{list, map_mut, restore, set, text},
    resource::Strategy,
};

pub struct Namespace;

/// What keeps a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";

impl Strategy for Namespace {
    fn default(&self, object: &mut Object) {
        let name = text(object, "metadata.name").to_owned();
        if !name.is_empty()
            && let Some(labels) = map_mut(object, "metadata.labels")
        {
            labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"phase": "Active"}));
        let mut finalizers = list(object, "spec.finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        set(object, "spec.finalizers", finalizers);
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        match subresource {
            "" => restore(new, old, "spec.finalizers"),
            "finalize" => restore(new, old, "status"),
            _ => {}
        }
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), text(object, "status.phase").into(), created(object, now)])
    }
}
