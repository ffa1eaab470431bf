//! `coordination.k8s.io/v1`: Lease.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, remove, restore, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("coordination.k8s.io/v1", "leases")
        .created_by_update()
        .needs_resource_version()
        .strategy(Lease);
}

struct Lease;

impl Strategy for Lease {
    /// Coordinated leader election is off by default upstream.
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        remove(object, "spec.strategy");
        remove(object, "spec.preferredHolder");
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, _subresource: &str) {
        restore(new, old, "spec.strategy");
        restore(new, old, "spec.preferredHolder");
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            let (spec, path) = (at(object, "spec"), path("spec"));
            if let Some(seconds) = at(spec, "leaseDurationSeconds").as_i64() {
                checks.positive(&path.child("leaseDurationSeconds"), seconds);
            }
            checks.nonnegative_fields(&path, spec, &["leaseTransitions"]);
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), text(object, "spec.holderIdentity").into(), created(object, now)])
    }
}
