//! One node: heard of or not.
//!
//! Clocks of nodes are not trusted: what counts is when, by our own clock, the lease or the heartbeat was last seen to
//! change. That is the key's memory. Before a node is given up, its lease is compared with the server's, so that a watch
//! that has fallen behind condemns nobody.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, ObjectReference},
    },
    jiff::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{LEASES, NodeLifecycle, condition, readiness, taints};
use crate::{Kind, Note, Outcome, Plan, World, Write, plan::PatchKind, pod_state};

/// What is remembered of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Heard {
    /// The node's UID.
    uid: String,
    /// Its lease's `renewTime`.
    renewed: Option<Timestamp>,
    /// `lastHeartbeatTime` of its Ready condition.
    heartbeat: Option<Timestamp>,
    /// When one of these was last seen to change.
    at: Timestamp,
    /// UIDs of the pods that were marked not ready since the node is silent. Each is marked once: a kubelet that lives and
    /// cannot renew its lease would say otherwise for ever.
    marked: BTreeSet<String>,
}

fn reference(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

fn note(about: ObjectReference, reason: &str, message: String) -> Note {
    Note { about, warning: false, reason: reason.to_owned(), message }
}

/// The node object is gone.
pub(super) fn removed(name: &str, last: &Outcome) -> Plan {
    let mut plan = Plan::none();
    if let Ok(heard) = serde_json::from_value::<Heard>(last.memory.clone()) {
        let message = format!("Node {name} event: Removing Node {name} from Controller");
        plan.notes.push(note(reference(name, &heard.uid), "RemovingNode", message));
        plan.memory = Some(Value::Null);
    }
    plan
}

pub(super) fn reconcile(
    lifecycle: &NodeLifecycle,
    node: &Node,
    world: &World,
    last: &Outcome,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::none();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let uid = node.metadata.uid.clone().unwrap_or_default();
    let lease = world.get::<Lease>(LEASES, name);
    let known = serde_json::from_value::<Heard>(last.memory.clone()).ok().filter(|h| h.uid == uid);
    let mut heard = listen(node, &uid, lease.as_deref(), known.as_ref(), now);
    if known.is_none() {
        let message = format!("Node {name} event: Registered Node {name} in Controller");
        plan.notes.push(note(reference(name, &uid), "RegisteredNode", message));
    }
    let grace = if condition(node, "Ready").is_some() { lifecycle.grace } else { lifecycle.startup_grace };
    let lost_at = heard.at.saturating_add(grace).unwrap_or(Timestamp::MAX);
    let lost = lost_at <= now;
    if !lost {
        plan.wake(lost_at);
    }
    if readiness(node) == "Unknown" {
        mark_pods(name, world, now, &mut heard.marked, &mut plan);
    } else {
        heard.marked.clear();
    }
    plan.memory = serde_json::to_value(&heard).ok();
    if lost && let Some(unknown) = unknown(node, now) {
        if readiness(node) == "True" {
            let message = format!("Node {name} status is now: NodeNotReady");
            plan.notes.push(note(reference(name, &uid), "NodeNotReady", message));
        }
        // changes nothing; refused if the server has seen a renewal that we have not
        plan.steps
            .extend(lease.map(|l| vec![Write::patch_read(&Kind::of::<Lease>(), &l.metadata, json!({}))]));
        plan.then(unknown);
        return plan;
    }
    let node_write = labels(node).or_else(|| taints::no_schedule(node, now));
    plan.steps.extend(node_write.map(|write| vec![write]));
    plan
}

/// When the node was last heard of. Seen for the first time, it was heard of just now; one that has never said how it is,
/// when it was made.
fn listen(node: &Node, uid: &str, lease: Option<&Lease>, known: Option<&Heard>, now: Timestamp) -> Heard {
    let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.as_ref()).map(|t| t.0);
    let ready = condition(node, "Ready");
    let heartbeat = ready.and_then(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0);
    let at = match known {
        Some(known) if (known.renewed, known.heartbeat) == (renewed, heartbeat) => known.at,
        None if renewed.is_none() && ready.is_none() => {
            node.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0.min(now))
        }
        _ => now,
    };
    let marked = known.map(|k| k.marked.clone()).unwrap_or_default();
    Heard { uid: uid.to_owned(), renewed, heartbeat, at, marked }
}

/// What is no longer known of a node, if anything still is.
fn unknown(node: &Node, now: Timestamp) -> Option<Write> {
    let mut conditions = Vec::new();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match condition(node, kind) {
            Some(found) if found.status == "Unknown" => {}
            Some(_) => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.", "lastTransitionTime": seconds(now),
            })),
            None => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.", "lastTransitionTime": seconds(now),
                "lastHeartbeatTime": node.metadata.creation_timestamp,
            })),
        }
    }
    let body = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
        "status": {"conditions": conditions}});
    (!conditions.is_empty()).then(|| Write::Patch {
        target: crate::Target::of(node),
        patch: PatchKind::Strategic,
        body,
        subresource: Some("status"),
    })
}

/// API times have no fractions.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The old names of the labels for system and architecture follow the new ones.
fn labels(node: &Node) -> Option<Write> {
    let labels = node.metadata.labels.as_ref()?;
    let mut missing = BTreeMap::new();
    for (old, new) in
        [("beta.kubernetes.io/os", "kubernetes.io/os"), ("beta.kubernetes.io/arch", "kubernetes.io/arch")]
    {
        if let Some(value) = labels.get(new).filter(|v| labels.get(old) != Some(v)) {
            missing.insert(old, value);
        }
    }
    let body = json!({"metadata": {"labels": missing}});
    (!missing.is_empty()).then(|| Write::patch(node, PatchKind::Merge, body))
}

/// Pods of a node that is not heard of are not ready: services must not send anything there.
fn mark_pods(node: &str, world: &World, now: Timestamp, marked: &mut BTreeSet<String>, plan: &mut Plan) {
    let mut writes = Vec::new();
    let pods = world.pods_on(node);
    marked.retain(|uid| pods.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid)));
    for pod in pods.iter().filter(|pod| pod_state::is_ready(pod)) {
        if !marked.insert(pod.metadata.uid.clone().unwrap_or_default()) {
            continue;
        }
        let body = json!({"status": {"conditions": [{
            "type": "Ready", "status": "False", "lastTransitionTime": seconds(now),
            "observedGeneration": pod.metadata.generation,
        }]}});
        writes.push(Write::patch_status(&**pod, body));
        plan.notes.push(Note::warning(&**pod, "NodeNotReady", "Node is not ready"));
    }
    plan.all(writes);
}
