//! `node.k8s.io/v1`: RuntimeClass.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/node/validation`, `pkg/registry/node/runtimeclass`.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    declare::Declarer,
    object::{at, entries, has, list, text},
    podspec::{check_overhead, check_tolerations},
    resource::Strategy,
    warnings::node_label,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("node.k8s.io/v1", "runtimeclasses")
        .created_by_update()
        .needs_resource_version()
        .strategy(RuntimeClass);
}

struct RuntimeClass;

fn check_places(checks: &mut Checks, scheduling: &Value, path: &FieldPath) {
    checks.labels(&path.child("nodeSelector"), at(scheduling, "nodeSelector"));
    let (tolerations, path) = (list(scheduling, "tolerations"), path.child("tolerations"));
    check_tolerations(checks, tolerations, &path);
    let mut seen = BTreeSet::new();
    for (index, toleration) in tolerations.iter().enumerate() {
        if !seen.insert(["key", "operator", "value", "effect"].map(|field| text(toleration, field))) {
            checks.duplicate(&path.index(index), toleration.clone());
        }
    }
}

impl Strategy for RuntimeClass {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            // The handler of an object that is there was looked at when it was made, and stays.
            if text(object, "metadata.resourceVersion").is_empty() {
                match text(object, "handler") {
                    "" => checks.required(&path("handler"), ""),
                    handler => checks.dns_label(&path("handler"), handler),
                }
            }
            if has(object, "overhead") {
                check_overhead(checks, at(object, "overhead.podFixed"), &path("overhead"));
            }
            if has(object, "scheduling") {
                check_places(checks, at(object, "scheduling"), &path("scheduling"));
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if text(new, "handler").is_empty() {
                checks.required(&path("handler"), "");
            }
            checks.unchanged(new, old, "handler");
        })
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        entries(new, "scheduling.nodeSelector")
            .filter_map(|(key, _)| node_label(key))
            .map(|words| format!("scheduling.nodeSelector: {words}"))
            .collect()
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), text(object, "handler").into(), created(object, now)])
    }
}
