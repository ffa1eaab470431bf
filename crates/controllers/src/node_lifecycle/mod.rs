//! node-lifecycle-controller: notices nodes that are no longer heard of, and says so in conditions, taints and pods.
//!
//! The key of a node is its name; [`health`] looks at it. The key with an empty name stands for all zones together; [`zones`]
//! decides there which nodes lose their pods, and how fast. Source: `pkg/controller/nodelifecycle`.

mod health;
mod taints;
#[cfg(test)]
mod tests;
mod zones;

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod},
    },
    jiff::{SignedDuration, Timestamp},
};

use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, pod_state};

/// Where nodes renew their leases.
const LEASES: &str = "kube-node-lease";

/// The loop. Times are upstream's defaults, see [`NodeLifecycle::default`].
pub struct NodeLifecycle {
    /// A node that is not heard of for so long is not known to be well.
    pub grace: SignedDuration,
    /// The same for a node that has never said how it is.
    pub startup_grace: SignedDuration,
    /// In a zone, so much time passes between two nodes that lose their pods.
    pub eviction_interval: SignedDuration,
    /// The same while most of a large zone is not ready.
    pub slow_eviction_interval: SignedDuration,
    /// A zone of more nodes is large.
    pub large_zone: usize,
    /// The share of nodes not ready, of 100, from which a zone is in trouble.
    pub unhealthy_percent: usize,
}

impl Default for NodeLifecycle {
    fn default() -> Self {
        Self {
            grace: SignedDuration::from_secs(50),
            startup_grace: SignedDuration::from_secs(60),
            eviction_interval: SignedDuration::from_secs(10),
            slow_eviction_interval: SignedDuration::from_secs(100),
            large_zone: 50,
            unhealthy_percent: 55,
        }
    }
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Node>(), Kind::of::<Lease>(), Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let Some(meta) = change.meta() else { return Vec::new() };
        if change.kind == Kind::of::<Lease>() {
            let name = meta.name.clone().filter(|_| meta.namespace.as_deref() == Some(LEASES));
            return name.map(|name| Key { namespace: String::new(), name }).into_iter().collect();
        }
        if let Some(pod) = change.object::<Pod>() {
            let node = pod_state::node(&pod).filter(|_| pod_state::is_ready(&pod));
            let silent =
                |name: &&str| world.get::<Node>("", name).is_some_and(|n| readiness(&n) == "Unknown");
            let node = node.filter(silent);
            return node.map(|n| Key { namespace: String::new(), name: n.to_owned() }).into_iter().collect();
        }
        let mut keys = vec![Key::of(meta)];
        let seen_by_zones = |node: Option<&Node>| {
            node.map(|n| (readiness(n).to_owned(), taints::of(n).to_vec(), n.metadata.labels.clone()))
        };
        let (before, after) = (change.before::<Node>(), change.after::<Node>());
        if seen_by_zones(before.as_deref()) != seen_by_zones(after.as_deref()) {
            keys.push(Key::default());
        }
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        if key.name.is_empty() {
            return zones::reconcile(self, world, now);
        }
        match world.get::<Node>("", &key.name) {
            Some(node) => health::reconcile(self, &node, world, last, now),
            None => health::removed(&key.name, last),
        }
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// `True`, `False`, `Unknown`, or nothing when the node has never said.
fn readiness(node: &Node) -> &str {
    condition(node, "Ready").map_or("", |c| c.status.as_str())
}
