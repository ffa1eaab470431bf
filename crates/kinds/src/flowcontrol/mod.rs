//! `flowcontrol.apiserver.k8s.io/v1`: FlowSchema, PriorityLevelConfiguration.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/flowcontrol`, `pkg/registry/flowcontrol`.

mod bootstrap;
mod flow_schema;
mod priority_level;
mod rules;

use std::collections::HashSet;

use apimachinery::FieldPath;
use serde_json::Value;

pub use bootstrap::objects;

use crate::{
    checks::Checks,
    declare::Declarer,
    object::{list, text},
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("flowcontrol.apiserver.k8s.io/v1", "flowschemas")
        .tracks_spec()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(flow_schema::FlowSchema);
    to.resource("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations")
        .tracks_spec()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(priority_level::PriorityLevelConfiguration);
}

/// Conditions of the group have a type each, and each type once.
fn check_conditions(checks: &mut Checks, object: &Value) {
    let path = FieldPath::from("status").child("conditions");
    let conditions = list(object, "status.conditions");
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let (path, kind) = (path.index(index).child("type"), text(condition, "type"));
        if !seen.insert(kind) {
            checks.duplicate(&path, kind);
        }
        if kind.is_empty() {
            checks.required(&path, "");
        }
    }
}
