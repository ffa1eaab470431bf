//! Which pods make room for a more important one.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::policy::v1::PodDisruptionBudget, jiff::Timestamp};
use kube::core::{Selector, SelectorExt};

use crate::{plugins::Refusal, pod::PodInfo, schedule::refusals_on, snapshot::Snapshot};

/// The pods that have to go from one node.
#[derive(Clone, Debug)]
pub struct Victims {
    /// Where.
    pub node: String,
    /// Who, the most important first.
    pub pods: Vec<Arc<PodInfo>>,
    /// How many of them break a disruption budget.
    pub violations: usize,
}

/// The best node and its victims; an error is upstream's sentence on why there is none.
pub fn find(
    snapshot: &Snapshot,
    pod: &PodInfo,
    refused: &BTreeMap<&str, Vec<Refusal>>,
) -> Result<Victims, String> {
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let nominated =
        pod.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default();
    if let Some(node) = snapshot.nodes.get(nominated)
        && node.pods.iter().any(|p| p.deleting() && p.priority() < pod.priority())
    {
        return Err("preemption: not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let (mut hopeless, mut without) = (0, 0);
    let mut candidates = Vec::new();
    for (node, refusals) in refused {
        if refusals.iter().any(|r| !r.preemptible) {
            hopeless += 1;
        } else if let Some(victims) = victims_on(snapshot, pod, node) {
            candidates.push(victims);
        } else {
            without += 1;
        }
    }
    candidates.into_iter().min_by_key(cost).ok_or_else(|| {
        let counts = [
            (hopeless, "Preemption is not helpful for scheduling"),
            (without, "No preemption victims found for incoming pod"),
        ];
        let mut texts: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, text)| format!("{n} {text}")).collect();
        texts.sort();
        format!("preemption: 0/{} nodes are available: {}.", snapshot.nodes.len(), texts.join(", "))
    })
}

/// Fewest broken budgets, then the least important most important victim, the smallest sum of priorities, the fewest pods,
/// and the most recently started ones.
fn cost(victims: &Victims) -> (usize, i32, i64, usize, std::cmp::Reverse<Timestamp>) {
    let top = victims.pods.iter().map(|p| p.priority()).max().unwrap_or(i32::MIN);
    // 2^31 more each, so that many pods of negative priority do not look cheaper than one.
    let sum = victims.pods.iter().map(|p| i64::from(p.priority()) + (1 << 31)).sum();
    let earliest = victims.pods.iter().filter(|p| p.priority() == top).map(|p| p.started()).min();
    (victims.violations, top, sum, victims.pods.len(), std::cmp::Reverse(earliest.unwrap_or(Timestamp::MIN)))
}

/// Removes everything less important, then gives back what may stay, the most important first, pods whose removal breaks
/// a budget before the others.
fn victims_on(snapshot: &Snapshot, pod: &PodInfo, name: &str) -> Option<Victims> {
    let node = snapshot.nodes.get(name)?;
    let mut lesser: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|p| p.priority() < pod.priority()).cloned().collect();
    if lesser.is_empty() {
        return None;
    }
    let mut world = snapshot.clone();
    let fits =
        |world: &Snapshot| world.nodes.get(name).is_some_and(|n| refusals_on(world, pod, n).is_empty());
    for victim in &lesser {
        world.nodes.get_mut(name)?.remove(&victim.key);
    }
    if !fits(&world) {
        return None;
    }
    lesser.sort_by_key(|p| (std::cmp::Reverse(p.priority()), p.started()));
    let (breaking, harmless) = split_by_budget(snapshot, lesser);
    let mut gone = Vec::new();
    let mut violations = 0;
    for (victim, breaks) in
        breaking.into_iter().map(|p| (p, true)).chain(harmless.into_iter().map(|p| (p, false)))
    {
        world.nodes.get_mut(name)?.add(Arc::clone(&victim));
        if !fits(&world) {
            world.nodes.get_mut(name)?.remove(&victim.key);
            violations += usize::from(breaks);
            gone.push(victim);
        }
    }
    gone.sort_by_key(|p| (std::cmp::Reverse(p.priority()), p.started()));
    Some(Victims { node: name.to_owned(), pods: gone, violations })
}

fn split_by_budget(snapshot: &Snapshot, pods: Vec<Arc<PodInfo>>) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i32> = snapshot
        .budgets
        .iter()
        .map(|b| b.status.as_ref().and_then(|s| s.disruptions_allowed).unwrap_or(0))
        .collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in snapshot.budgets.iter().zip(&mut left) {
            if covers(budget, pod) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

fn covers(budget: &PodDisruptionBudget, pod: &PodInfo) -> bool {
    let name = pod.pod.metadata.name.as_deref().unwrap_or_default();
    let counted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    if budget.metadata.namespace.as_deref() != Some(pod.namespace())
        || counted.is_some_and(|d| d.contains_key(name))
    {
        return false;
    }
    let selector = budget.spec.as_ref().and_then(|s| s.selector.clone());
    let selector = selector.and_then(|s| Selector::try_from(s).ok());
    selector.is_some_and(|s| s.matches(pod.labels()))
}
