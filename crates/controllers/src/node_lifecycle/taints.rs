//! The taints that this loop keeps.

use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::json;

use super::condition;
use crate::{Write, plan::PatchKind};

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Condition, the status that is bad, the taint.
const OF_CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// A node's taints.
pub(super) fn of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
}

fn taint(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), time_added: Some(Time(now)), value: None }
}

/// The write of all of a node's taints, if the node is still as it was read.
fn write(node: &Node, taints: Vec<Taint>) -> Write {
    let body = json!({
        "metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints},
    });
    Write::patch(node, PatchKind::Merge, body)
}

/// Brings the `NoSchedule` taints in line with conditions and `spec.unschedulable`, if they are not.
pub(super) fn no_schedule(node: &Node, now: Timestamp) -> Option<Write> {
    let bad = |kind: &str, status: &str| condition(node, kind).is_some_and(|c| c.status == status);
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true);
    let mut wanted: Vec<&str> =
        OF_CONDITIONS.iter().filter(|(kind, status, _)| bad(kind, status)).map(|(_, _, key)| *key).collect();
    wanted.extend(cordoned.then_some(UNSCHEDULABLE));
    let ours = |t: &Taint| {
        let known = t.key == UNSCHEDULABLE || OF_CONDITIONS.iter().any(|(_, _, key)| *key == t.key);
        known && t.effect == "NoSchedule"
    };
    let has: Vec<&str> = of(node).iter().filter(|t| ours(t)).map(|t| t.key.as_str()).collect();
    if wanted.len() == has.len() && wanted.iter().all(|key| has.contains(key)) {
        return None;
    }
    let mut taints: Vec<Taint> =
        of(node).iter().filter(|t| !ours(t) || wanted.contains(&t.key.as_str())).cloned().collect();
    taints.extend(wanted.iter().filter(|key| !has.contains(key)).map(|key| taint(key, "NoSchedule", now)));
    Some(write(node, taints))
}

fn evicts(taint: &Taint) -> bool {
    matches!(taint.key.as_str(), NOT_READY | UNREACHABLE) && taint.effect == "NoExecute"
}

/// The taint that evicts a node's pods, if it has one.
pub(super) fn evicting(node: &Node) -> Option<&Taint> {
    of(node).iter().find(|t| evicts(t))
}

/// Makes `key` the only taint that evicts a node's pods, or takes all such taints off.
pub(super) fn no_execute(node: &Node, key: Option<&str>, now: Timestamp) -> Write {
    let mut taints: Vec<Taint> = of(node).iter().filter(|t| !evicts(t)).cloned().collect();
    taints.extend(key.map(|key| taint(key, "NoExecute", now)));
    write(node, taints)
}
