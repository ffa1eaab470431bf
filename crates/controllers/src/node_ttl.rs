//! node-ttl-controller: tells kubelets how long they may trust what they know of Secrets and ConfigMaps, by the number of
//! nodes.

use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use serde_json::json;

use crate::{Change, Controller, Key, Kind, Outcome, PatchKind, Plan, World, Write, about::annotation};

const TTL: &str = "node.alpha.kubernetes.io/ttl";
/// Least nodes to stay in a step, most nodes, seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The loop; one key for all nodes. Its memory is the step.
pub struct NodeTtl;

impl Controller for NodeTtl {
    fn name(&self) -> &'static str {
        "node-ttl-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Node>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let told = |node: Option<&Node>| node.and_then(|n| annotation(&n.metadata, TTL).map(str::to_owned));
        let (before, after) = (change.before::<Node>(), change.after::<Node>());
        let came = before.is_none() != after.is_none();
        let changed = came || told(before.as_deref()) != told(after.as_deref());
        if changed { vec![Key::default()] } else { Vec::new() }
    }

    fn reconcile(&self, _key: &Key, world: &World, last: &Outcome, _now: Timestamp) -> Plan {
        let nodes = world.list::<Node>("");
        let before = last.memory.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let step = step(before, nodes.len());
        let wanted = STEPS.get(step).map_or(0, |s| s.2).to_string();
        let wrong = nodes.iter().filter(|node| annotation(&node.metadata, TTL) != Some(&wanted));
        let body = json!({"metadata": {"annotations": {TTL: wanted}}});
        let mut plan = Plan { memory: Some(json!(step)), ..Plan::none() };
        plan.all(wrong.map(|node| Write::patch(&**node, PatchKind::Merge, body.clone())).collect());
        plan
    }
}

/// The step for so many nodes, coming from another one: the borders overlap, so that it does not go to and fro.
fn step(before: usize, nodes: usize) -> usize {
    let mut step = before.min(STEPS.len() - 1);
    while STEPS.get(step).is_some_and(|s| nodes > s.1) {
        step += 1;
    }
    while step > 0 && STEPS.get(step).is_some_and(|s| nodes < s.0) {
        step -= 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, node, patched, plan, world};

    #[test]
    fn a_node_is_told_once() {
        let mut world = world([node("n", "z")]);
        let first = plan(&NodeTtl, &world, "", "");
        assert_eq!(patched(&first)[0].1["metadata"]["annotations"][TTL], "0");
        let mut told = node("n", "z");
        told["metadata"]["annotations"] = json!({TTL: "0"});
        add(&mut world, told);
        assert!(plan(&NodeTtl, &world, "", "").steps.is_empty());
    }

    #[test]
    fn the_borders_of_the_steps_overlap() {
        assert_eq!((step(0, 100), step(0, 101), step(1, 95), step(1, 89)), (0, 1, 1, 0));
        assert_eq!((step(0, 5000), step(4, 1799), step(4, 1800)), (4, 3, 4));
    }
}
