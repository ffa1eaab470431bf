//! The decision: where a pod goes, or why it goes nowhere.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::{
    plugins::{Refusal, interpod::Counts, node, spread::Domains, volumes::Claims},
    pod::PodInfo,
    preemption::{self, Victims},
    resources::Resources,
    snapshot::{NodeInfo, Snapshot},
};

/// What makes a machine a good place when several fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Fill machines up to the line before the next one is used, keeping CPU and memory in step so that neither is stranded.
    #[default]
    Pack,
    /// Keep machines equally empty, as kube-scheduler does.
    Spread,
}

/// What to do with a pod.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Bind it to `node`. `claims` have to be told the node first and be bound before the pod is.
    Bind { node: String, claims: Vec<Arc<PersistentVolumeClaim>> },
    /// Nominate it for `victims.node` and remove the victims.
    Preempt { victims: Victims, message: String },
    /// Leave it. `message` is upstream's; `help` says what would mend it.
    Unschedulable { message: String, help: String },
}

/// Places one pod. Pods that were nominated to a node count there for pods of the same or lower priority.
#[must_use]
pub fn schedule(snapshot: &Snapshot, pod: &PodInfo, policy: Policy) -> Decision {
    if snapshot.nodes.is_empty() {
        return Decision::Unschedulable {
            message: "no nodes available to schedule pods".to_owned(),
            help: "Add a node to the cluster.".to_owned(),
        };
    }
    let total = snapshot.nodes.len();
    let claims = match Claims::new(pod, snapshot) {
        Ok(claims) => claims,
        Err(why) => {
            return Decision::Unschedulable {
                message: format!("0/{total} nodes are available: {why}."),
                help: "Create the claim, or give its StorageClass a provisioner.".to_owned(),
            };
        }
    };
    let context =
        Context { counts: Counts::new(pod, snapshot), domains: Domains::new(pod, snapshot), claims };
    let mut fitting = Vec::new();
    let mut refused: BTreeMap<&str, Vec<Refusal>> = BTreeMap::new();
    for info in snapshot.nodes.values() {
        let refusals = context.refusals(snapshot, pod, info);
        if refusals.is_empty() {
            fitting.push(info);
        } else {
            refused.insert(info.name(), refusals);
        }
    }
    if let Some(best) = context.best(pod, &fitting, policy) {
        return Decision::Bind { node: best.name().to_owned(), claims: context.claims.late };
    }
    let mut message = histogram(total, refused.values());
    let help = help(snapshot, pod, &refused);
    match preemption::find(snapshot, pod, &refused) {
        Ok(victims) => Decision::Preempt { victims, message },
        Err(why) => {
            message.push(' ');
            message.push_str(&why);
            Decision::Unschedulable { message, help }
        }
    }
}

/// Why `info` does not take the pod; empty if it does. For preemption's what-if, where other nodes matter as well.
#[must_use]
pub(crate) fn refusals_on(snapshot: &Snapshot, pod: &PodInfo, info: &NodeInfo) -> Vec<Refusal> {
    let Ok(claims) = Claims::new(pod, snapshot) else {
        return vec![Refusal::final_("node(s) didn't find available persistent volumes to bind")];
    };
    let context =
        Context { counts: Counts::new(pod, snapshot), domains: Domains::new(pod, snapshot), claims };
    context.refusals(snapshot, pod, info)
}

struct Context<'a> {
    counts: Counts<'a>,
    domains: Domains<'a>,
    claims: Claims,
}

impl Context<'_> {
    fn refusals(&self, snapshot: &Snapshot, pod: &PodInfo, info: &NodeInfo) -> Vec<Refusal> {
        let nominated = nominated_on(snapshot, pod, info);
        let own = match &nominated {
            Some(with) => node::filter(pod, with),
            None => node::filter(pod, info),
        };
        if !own.is_empty() {
            return own;
        }
        let rest = [
            self.claims.filter(info, snapshot),
            self.domains.filter(pod, info),
            self.counts.filter(pod, info),
        ];
        rest.into_iter().flatten().take(1).collect()
    }

    /// The node with the best sum of scores, each normalised to 0..=100 and weighted as upstream weighs them; the first by
    /// name among equals, so that a decision can be repeated.
    fn best<'n>(&self, pod: &PodInfo, nodes: &[&'n NodeInfo], policy: Policy) -> Option<&'n NodeInfo> {
        if nodes.len() <= 1 {
            return nodes.first().copied();
        }
        let taints: Vec<f64> = nodes.iter().map(|n| node::disliked_taints(pod, n) as f64).collect();
        let affinity: Vec<f64> = nodes.iter().map(|n| node::preferred_affinity(pod, n) as f64).collect();
        let interpod: Vec<f64> = nodes.iter().map(|n| self.counts.score(n) as f64).collect();
        let crowding: Vec<Option<f64>> = nodes.iter().map(|n| self.domains.crowding(n)).collect();
        let siblings: Vec<f64> = nodes.iter().map(|n| siblings(pod, n) as f64).collect();
        let (taints, affinity, interpod, siblings) =
            (Scale::of(&taints), Scale::of(&affinity), Scale::of(&interpod), Scale::of(&siblings));
        let soft: Vec<f64> = crowding.iter().flatten().copied().collect();
        let soft = Scale::of(&soft);
        let mut best: Option<(f64, &NodeInfo)> = None;
        for (i, info) in nodes.iter().enumerate() {
            let mut score = 3.0 * taints.low(node::disliked_taints(pod, info) as f64);
            score += 2.0 * affinity.high(node::preferred_affinity(pod, info) as f64);
            if !self.counts.is_neutral() {
                score += 2.0 * interpod.high(self.counts.score(info) as f64);
            }
            match crowding[i] {
                Some(value) => score += 2.0 * soft.low(value),
                // Replicas of one owner keep apart when nothing else is said, as upstream's default constraints have it.
                None if pod.spread.is_empty() => score += 2.0 * siblings.low(siblings_of(pod, info)),
                None => {}
            }
            score += fit(pod, info, policy);
            if best.is_none_or(|(top, _)| score > top) {
                best = Some((score, info));
            }
        }
        best.map(|(_, info)| info)
    }
}

/// The node with the pods that were promised room there and go before this one; `None` if there are none.
fn nominated_on(snapshot: &Snapshot, pod: &PodInfo, info: &NodeInfo) -> Option<NodeInfo> {
    let promised = snapshot.nominated.values().filter(|(node, other)| {
        node == info.name() && other.priority() >= pod.priority() && other.key != pod.key
    });
    let mut with: Option<NodeInfo> = None;
    for (_, other) in promised {
        with.get_or_insert_with(|| info.clone()).add(Arc::clone(other));
    }
    with
}

/// Maps raw values to 0..=100 by their range.
struct Scale {
    min: f64,
    max: f64,
}

impl Scale {
    fn of(values: &[f64]) -> Self {
        let min = values.iter().copied().fold(f64::INFINITY, f64::min);
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { min, max }
    }

    /// More is better; 0 when all are the same.
    fn high(&self, value: f64) -> f64 {
        if self.max > self.min { 100.0 * (value - self.min) / (self.max - self.min) } else { 0.0 }
    }

    /// Less is better.
    fn low(&self, value: f64) -> f64 {
        if self.max > self.min { 100.0 * (self.max - value) / (self.max - self.min) } else { 0.0 }
    }
}

fn owner_uid(pod: &PodInfo) -> Option<&str> {
    let owners = pod.pod.metadata.owner_references.iter().flatten();
    owners.filter(|o| o.controller == Some(true)).map(|o| o.uid.as_str()).next()
}

/// Pods of the same controller on the node.
fn siblings(pod: &PodInfo, info: &NodeInfo) -> usize {
    let Some(owner) = owner_uid(pod) else { return 0 };
    info.pods.iter().filter(|p| owner_uid(p) == Some(owner) && !p.deleting()).count()
}

fn siblings_of(pod: &PodInfo, info: &NodeInfo) -> f64 {
    siblings(pod, info) as f64
}

/// Requests assumed for scoring where a container names none, so that such pods weigh something: 100m and 200 MiB.
fn weight(requests: &Resources) -> (f64, f64) {
    let cpu = if requests.milli_cpu == 0 { 100 } else { requests.milli_cpu };
    let memory = if requests.memory == 0 { 200 << 20 } else { requests.memory };
    (cpu as f64, memory as f64)
}

/// 0..=200: how full the node is afterwards (or how empty, for [`Policy::Spread`]) and how evenly.
fn fit(pod: &PodInfo, info: &NodeInfo, policy: Policy) -> f64 {
    let (mut cpu, mut memory) = weight(&pod.requests);
    for other in &info.pods {
        let (c, m) = weight(&other.requests);
        cpu += c;
        memory += m;
    }
    let share = |used: f64, have: i64| if have > 0 { (used / have as f64).min(1.0) } else { 1.0 };
    let (cpu, memory) = (share(cpu, info.allocatable.milli_cpu), share(memory, info.allocatable.memory));
    let full = 100.0 * (cpu + memory) / 2.0;
    let even = 100.0 * (1.0 - (cpu - memory).abs() / 2.0);
    match policy {
        Policy::Pack => full + even,
        Policy::Spread => 100.0 - full + even,
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn histogram<'a>(total: usize, refused: impl Iterator<Item = &'a Vec<Refusal>>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for refusal in refused.flatten() {
        *counts.entry(&refusal.reason).or_default() += 1;
    }
    let mut texts: Vec<String> = counts.into_iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    texts.sort();
    format!("0/{total} nodes are available: {}.", texts.join(", "))
}

/// One sentence on what would let the pod run, from the most frequent reason.
fn help(snapshot: &Snapshot, pod: &PodInfo, refused: &BTreeMap<&str, Vec<Refusal>>) -> String {
    let has = |text: &str| refused.values().flatten().any(|r| r.reason.contains(text));
    let free = |of: fn(&Resources) -> i64| {
        snapshot.nodes.values().map(|n| of(&n.allocatable) - of(&n.requested)).max().unwrap_or(0).max(0)
    };
    if has("Insufficient cpu") {
        let (want, most) = (pod.requests.milli_cpu, free(|r| r.milli_cpu));
        return format!(
            "It requests {want}m CPU and the node with most left has {most}m: request less, or add a node."
        );
    }
    if has("Insufficient memory") {
        let mib = |bytes: i64| bytes >> 20;
        let (want, most) = (mib(pod.requests.memory), mib(free(|r| r.memory)));
        return format!(
            "It requests {want} MiB of memory and the node with most left has {most} MiB: request less, or add a node."
        );
    }
    let repelling =
        |node: &NodeInfo| node::untolerated(pod.tolerations(), node.taints(), node::REPELLING).cloned();
    if has("untolerated taint")
        && let Some((name, taint)) =
            snapshot.nodes.iter().find_map(|(name, node)| Some((name, repelling(node)?)))
    {
        return match taint.key.strip_prefix("node.kubernetes.io/") {
            Some("disk-pressure") => format!("The disk of node {name} is nearly full: make room on it."),
            Some(state) => format!("Node {name} is {state}: `kubectl describe node {name}` says why."),
            None => format!(
                "Add a toleration for the taint {key}, or remove it: `kubectl taint nodes {name} {key}-`.",
                key = taint.key
            ),
        };
    }
    let advice = [
        ("Insufficient ", "No node has enough of the resource it requests: check the node's allocatable."),
        ("Too many pods", "Every node that fits runs its full number of pods: add a node."),
        ("free ports", "The host port is taken on every node that fits: drop hostPort, or add a node."),
        ("unschedulable", "The node is cordoned: `kubectl uncordon NODE` opens it again."),
        (
            "node affinity/selector",
            "No node has the labels it asks for: `kubectl label nodes NODE KEY=VALUE`.",
        ),
        ("pod affinity rules", "No node runs the pods that its affinity asks for."),
        (
            "anti-affinity",
            "Its anti-affinity needs one more node, or a preferred rule instead of a required one.",
        ),
        (
            "topology spread",
            "Its spread constraint needs one more domain, a larger maxSkew, or ScheduleAnyway.",
        ),
        ("persistent", "Its volume cannot be reached from any node that fits."),
    ];
    advice.iter().find(|(word, _)| has(word)).map_or(String::new(), |(_, text)| (*text).to_owned())
}

#[cfg(test)]
mod tests;
