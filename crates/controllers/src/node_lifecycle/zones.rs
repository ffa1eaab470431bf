//! Which nodes lose their pods, and how fast.
//!
//! A zone in which a node fails loses it; a zone in which most fail is more likely cut off than broken, and then haste does
//! harm. The time of the newest eviction in a zone is read off the taints, so nothing has to be remembered.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::Node,
    jiff::{SignedDuration, Timestamp},
};

use super::{NodeLifecycle, condition, readiness, taints};
use crate::{Plan, World, Write, about::label};

/// Nodes with this label are not counted.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// How a zone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    Normal,
    /// More than two nodes and most of the zone are not ready.
    Partial,
    /// No node is ready.
    Full,
}

fn zone_of(node: &Node) -> (String, String) {
    let get = |key| label(&node.metadata, key).unwrap_or_default().to_owned();
    (get("topology.kubernetes.io/region"), get("topology.kubernetes.io/zone"))
}

fn state(lifecycle: &NodeLifecycle, nodes: &[Arc<Node>]) -> Zone {
    let counted = || nodes.iter().filter(|n| label(&n.metadata, EXCLUDED).is_none());
    let counted = || counted().filter(|n| condition(n, "Ready").is_some());
    let all = counted().count();
    let bad = counted().filter(|n| readiness(n) != "True").count();
    if bad > 0 && bad == all {
        Zone::Full
    } else if bad > 2 && bad * 100 >= lifecycle.unhealthy_percent * all {
        Zone::Partial
    } else {
        Zone::Normal
    }
}

pub(super) fn reconcile(lifecycle: &NodeLifecycle, world: &World, now: Timestamp) -> Plan {
    let mut zones: BTreeMap<(String, String), Vec<Arc<Node>>> = BTreeMap::new();
    for node in world.list::<Node>("") {
        zones.entry(zone_of(&node)).or_default().push(node);
    }
    let states: Vec<Zone> = zones.values().map(|nodes| state(lifecycle, nodes)).collect();
    let mut plan = Plan::none();
    if states.iter().all(|state| *state == Zone::Full) {
        // everything at once: it is us who are cut off
        let all = zones.values().flatten().filter(|node| taints::evicting(node).is_some());
        plan.all(all.map(|node| taints::no_execute(node, None, now)).collect());
        return plan;
    }
    let mut writes = Vec::new();
    for (nodes, state) in zones.values().zip(states) {
        let interval = match state {
            Zone::Normal | Zone::Full => Some(lifecycle.eviction_interval),
            Zone::Partial if nodes.len() > lifecycle.large_zone => Some(lifecycle.slow_eviction_interval),
            Zone::Partial => None,
        };
        zone(nodes, interval, now, &mut writes, &mut plan);
    }
    plan.all(writes);
    plan
}

/// Frees the nodes of a zone that are well again, and begins with at most one of the others, if the last one was begun
/// `interval` ago. Without an interval none is begun.
fn zone(
    nodes: &[Arc<Node>],
    interval: Option<SignedDuration>,
    now: Timestamp,
    writes: &mut Vec<Write>,
    plan: &mut Plan,
) {
    let mut newest: Option<Timestamp> = None;
    let mut waiting: Vec<(&Arc<Node>, &'static str)> = Vec::new();
    for node in nodes {
        let wanted = match readiness(node) {
            "False" => Some(taints::NOT_READY),
            "Unknown" => Some(taints::UNREACHABLE),
            "True" => None,
            _ => continue,
        };
        match (taints::evicting(node), wanted) {
            (Some(_), None) => writes.push(taints::no_execute(node, None, now)),
            (Some(has), Some(key)) => {
                newest = newest.max(has.time_added.as_ref().map(|t| t.0));
                if has.key != key {
                    writes.push(taints::no_execute(node, Some(key), now));
                }
            }
            (None, Some(key)) => waiting.push((node, key)),
            (None, None) => {}
        }
    }
    let since =
        |node: &Node| condition(node, "Ready").and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    waiting.sort_by_key(|(node, _)| (since(node), node.metadata.name.clone()));
    let (Some((node, key)), Some(interval)) = (waiting.first(), interval) else { return };
    let free_at = newest.and_then(|newest| newest.saturating_add(interval).ok());
    match free_at.filter(|at| *at > now) {
        Some(at) => {
            plan.wake(at);
        }
        None => {
            writes.push(taints::no_execute(node, Some(key), now));
            if waiting.len() > 1 {
                plan.wake(now.saturating_add(interval).unwrap_or(now));
            }
        }
    }
}
