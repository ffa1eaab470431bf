//! Namespace.

use apimachinery::{FieldError, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{has, list, map_mut, restore, set, text},
    resource::Strategy,
};

pub struct Namespace;

/// What keeps a namespace until everything in it is gone.
const FINALIZER: &str = "kubernetes";

fn check_finalizers(checks: &mut Checks, object: &Value) {
    let finalizers = list(object, "spec.finalizers").iter().filter_map(Value::as_str);
    for (index, finalizer) in finalizers.enumerate() {
        let path = path("spec").child("finalizers").index(index);
        checks.each(&path, finalizer, names::is_qualified_name(finalizer));
        if !finalizer.contains('/') && !matches!(finalizer, FINALIZER | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            checks.invalid(&path, finalizer, detail);
        }
    }
}

/// Upstream writes the field's Go name.
fn check_phase(checks: &mut Checks, object: &Value) {
    let (wanted, when) = if has(object, "metadata.deletionTimestamp") {
        ("Terminating", "is not empty")
    } else {
        ("Active", "is empty")
    };
    let phase = text(object, "status.phase");
    if phase != wanted {
        let detail = format!("may only be '{wanted}' if `deletionTimestamp` {when}");
        checks.invalid(&path("status").child("Phase"), phase, &detail);
    }
}

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

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check_finalizers(checks, object))
    }

    fn validate_update(&self, new: &Object, _old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| match subresource {
            "status" => check_phase(checks, new),
            "finalize" => check_finalizers(checks, new),
            _ => {}
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), text(object, "status.phase").into(), created(object, now)])
    }
}
