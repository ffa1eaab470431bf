//! Pod affinity and anti-affinity.
//!
//! The counts per topology pair are made once a pod ([`Counts::new`]); a node then only looks up its own labels.

use std::collections::HashMap;

use super::Refusal;
use crate::{
    pod::PodInfo,
    snapshot::{NodeInfo, Snapshot},
};

type Pairs<'a> = HashMap<(&'a str, &'a str), i64>;

/// What existing pods mean for one incoming pod, by topology key and value.
pub struct Counts<'a> {
    /// Existing pods whose required anti-affinity the incoming pod would break.
    existing_anti: Pairs<'a>,
    /// Per required affinity term of the pod: matching pods.
    affinity: Vec<Pairs<'a>>,
    /// Per required anti-affinity term of the pod: matching pods.
    anti: Vec<Pairs<'a>>,
    /// Preferred terms in both directions, weighted.
    score: Pairs<'a>,
    /// The pod matches all its own affinity terms: the first of a group may start anywhere.
    matches_itself: bool,
}

impl<'a> Counts<'a> {
    /// Looks at every pod of the snapshot that has terms, and at all if the incoming pod has.
    #[must_use]
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let own = snapshot.namespace_labels(pod.namespace());
        let mut counts = Self {
            existing_anti: Pairs::new(),
            affinity: vec![Pairs::new(); pod.affinity.len()],
            anti: vec![Pairs::new(); pod.anti_affinity.len()],
            score: Pairs::new(),
            matches_itself: pod.affinity.iter().all(|t| t.matches(pod, own)),
        };
        let asks = !(pod.affinity.is_empty() && pod.anti_affinity.is_empty() && pod.preferred.is_empty());
        for (node, other) in snapshot.pods() {
            counts.heed(node, other, pod, own);
            if asks {
                let theirs = snapshot.namespace_labels(other.namespace());
                counts.ask(node, other, pod, theirs);
            }
        }
        counts
    }

    /// What `other` wants of the incoming pod.
    fn heed(&mut self, node: &'a NodeInfo, other: &'a PodInfo, pod: &PodInfo, labels: &crate::pod::Labels) {
        for term in other.anti_affinity.iter().filter(|t| t.matches(pod, labels)) {
            bump(&mut self.existing_anti, node, &term.topology_key, 1);
        }
        // A required affinity of an existing pod draws the incoming one, with upstream's default weight of 1.
        for term in other.affinity.iter().filter(|t| t.matches(pod, labels)) {
            bump(&mut self.score, node, &term.topology_key, 1);
        }
        for (weight, term) in other.preferred.iter().filter(|(_, t)| t.matches(pod, labels)) {
            bump(&mut self.score, node, &term.topology_key, i64::from(*weight));
        }
    }

    /// What the incoming pod wants of `other`.
    fn ask(&mut self, node: &'a NodeInfo, other: &PodInfo, pod: &'a PodInfo, labels: &crate::pod::Labels) {
        // Pods are counted for a required affinity only if they match all of its terms.
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|t| t.matches(other, labels)) {
            for (pairs, term) in self.affinity.iter_mut().zip(&pod.affinity) {
                bump(pairs, node, &term.topology_key, 1);
            }
        }
        for (pairs, term) in self.anti.iter_mut().zip(&pod.anti_affinity) {
            if term.matches(other, labels) {
                bump(pairs, node, &term.topology_key, 1);
            }
        }
        for (weight, term) in pod.preferred.iter().filter(|(_, t)| t.matches(other, labels)) {
            bump(&mut self.score, node, &term.topology_key, i64::from(*weight));
        }
    }

    /// Whether the node takes the pod.
    #[must_use]
    pub fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Option<Refusal> {
        if !self.affinity_holds(pod, node) {
            // Removing pods cannot make an affinity come true.
            return Some(Refusal::final_("node(s) didn't match pod affinity rules"));
        }
        let here = |pairs: &Pairs<'_>, key: &str| {
            node.labels().get(key).and_then(|value| pairs.get(&(key, value.as_str()))).copied().unwrap_or(0)
        };
        if self.anti.iter().zip(&pod.anti_affinity).any(|(pairs, term)| here(pairs, &term.topology_key) > 0) {
            return Some(Refusal::preemptible("node(s) didn't match pod anti-affinity rules"));
        }
        let breaks = |((key, value), count): (&(&str, &str), &i64)| {
            *count > 0 && node.labels().get(*key).is_some_and(|v| v == value)
        };
        if self.existing_anti.iter().any(breaks) {
            return Some(Refusal::preemptible("node(s) didn't satisfy existing pods anti-affinity rules"));
        }
        None
    }

    fn affinity_holds(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        let mut anywhere = false;
        let mut all_here = true;
        for (pairs, term) in self.affinity.iter().zip(&pod.affinity) {
            let Some(value) = node.labels().get(&term.topology_key) else { return false };
            anywhere |= !pairs.is_empty();
            all_here &= pairs.get(&(term.topology_key.as_str(), value.as_str())).is_some_and(|n| *n > 0);
        }
        all_here || (!anywhere && self.matches_itself)
    }

    /// Sum of the weights that speak for the node.
    #[must_use]
    pub fn score(&self, node: &NodeInfo) -> i64 {
        let mine =
            |((key, value), _): &(&(&str, &str), &i64)| node.labels().get(*key).is_some_and(|v| v == value);
        self.score.iter().filter(mine).map(|(_, weight)| *weight).sum()
    }

    /// Nothing speaks for or against any node.
    #[must_use]
    pub fn is_neutral(&self) -> bool {
        self.score.is_empty()
    }
}

fn bump<'a>(pairs: &mut Pairs<'a>, node: &'a NodeInfo, key: &'a str, by: i64) {
    if let Some(value) = node.labels().get(key) {
        *pairs.entry((key, value.as_str())).or_default() += by;
    }
}
