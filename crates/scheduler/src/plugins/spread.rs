//! Topology spread constraints. KEP-895, KEP-3022 (minDomains), KEP-3094 (node inclusion policies).

use std::collections::HashMap;

use kube::core::SelectorExt;

use super::{Refusal, node};
use crate::{
    pod::{PodInfo, Spread},
    snapshot::{NodeInfo, Snapshot},
};

/// Matching pods per domain, one map a constraint.
pub struct Domains<'a> {
    constraints: Vec<(&'a Spread, HashMap<&'a str, i64>)>,
}

impl<'a> Domains<'a> {
    /// Counts the pods of the incoming pod's namespace that each constraint selects, over the nodes that count for it.
    #[must_use]
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let all_keys = |n: &NodeInfo, hard: bool| {
            pod.spread.iter().filter(|c| c.hard == hard).all(|c| n.labels().contains_key(&c.topology_key))
        };
        let constraints = pod.spread.iter().map(|constraint| {
            let mut domains: HashMap<&str, i64> = HashMap::new();
            for node in snapshot.nodes.values() {
                // As upstream: a node counts only if it has the keys of all constraints of the same sort.
                let Some(value) = node.labels().get(&constraint.topology_key) else { continue };
                if !counts(constraint, pod, node) || !all_keys(node, constraint.hard) {
                    continue;
                }
                *domains.entry(value).or_default() += matching(constraint, pod, node);
            }
            (constraint, domains)
        });
        Self { constraints: constraints.collect() }
    }

    /// Whether the node keeps every hard constraint.
    #[must_use]
    pub fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Option<Refusal> {
        for (constraint, domains) in self.constraints.iter().filter(|(c, _)| c.hard) {
            let Some(value) = node.labels().get(&constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Some(Refusal::final_(reason));
            };
            let fewest = if (domains.len() as i64) < constraint.min_domains {
                0
            } else {
                domains.values().copied().min().unwrap_or(0)
            };
            let itself = i64::from(constraint.selector.as_ref().is_some_and(|s| s.matches(pod.labels())));
            let here = domains.get(value.as_str()).copied().unwrap_or(0);
            if here + itself - fewest > constraint.max_skew {
                return Some(Refusal::preemptible("node(s) didn't match pod topology spread constraints"));
            }
        }
        None
    }

    /// How crowded the node's domains are for the soft constraints; lower is better. `None`: there are no soft ones, or the
    /// node lacks a key.
    #[must_use]
    pub fn crowding(&self, node: &NodeInfo) -> Option<f64> {
        let mut soft = self.constraints.iter().filter(|(c, _)| !c.hard).peekable();
        soft.peek()?;
        let mut sum = 0.0;
        for (constraint, domains) in soft {
            let value = node.labels().get(&constraint.topology_key)?;
            let here = domains.get(value.as_str()).copied().unwrap_or(0) as f64;
            sum += here * (domains.len() as f64 + 2.0).ln() + (constraint.max_skew - 1) as f64;
        }
        Some(sum)
    }
}

fn counts(constraint: &Spread, pod: &PodInfo, info: &NodeInfo) -> bool {
    let affine = !constraint.honor_affinity || node::matches_affinity(pod, info);
    affine
        && !(constraint.honor_taints
            && node::untolerated(pod.tolerations(), info.taints(), node::REPELLING).is_some())
}

fn matching(constraint: &Spread, pod: &PodInfo, node: &NodeInfo) -> i64 {
    let Some(selector) = &constraint.selector else { return 0 };
    let mine = |p: &&std::sync::Arc<PodInfo>| {
        p.namespace() == pod.namespace() && !p.deleting() && selector.matches(p.labels())
    };
    node.pods.iter().filter(mine).count() as i64
}
