//! A pod on every node that shall have one, none elsewhere, and not two.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::{SignedDuration, Timestamp},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{HASH, View, rolling};
use crate::{Note, pod_state};

/// The first and the longest wait before a failed pod is replaced.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
const MOST: SignedDuration = SignedDuration::from_mins(15);

/// How long to wait on one node, and since when.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Wait {
    seconds: i64,
    since: Timestamp,
}

impl Wait {
    fn end(&self) -> Timestamp {
        self.since.saturating_add(SignedDuration::from_secs(self.seconds)).unwrap_or(Timestamp::MAX)
    }

    /// After twice the longest wait it starts from the beginning.
    fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.since) > MOST * 2
    }
}

/// What is remembered of failed pods, for one set at one generation.
#[derive(Default, Serialize, Deserialize)]
struct Memory {
    uid: Option<String>,
    generation: Option<i64>,
    waits: BTreeMap<String, Wait>,
}

/// What is to be done.
#[derive(Default)]
pub struct Kept {
    /// Nodes that need a pod.
    pub needed: Vec<String>,
    /// Pods to be deleted.
    pub doomed: Vec<Arc<Pod>>,
    /// What there is to say.
    pub notes: Vec<Note>,
    /// What is to be remembered; null when nothing.
    pub memory: Value,
    /// When a wait ends.
    pub again: Option<Timestamp>,
}

/// What is to be done, given what was remembered.
pub fn keep(view: &View<'_>, remembered: &Value) -> Kept {
    let generation = view.set.status.as_ref().and_then(|s| s.observed_generation);
    let mut memory: Memory = serde_json::from_value(remembered.clone()).unwrap_or_default();
    if memory.uid != view.set.metadata.uid || memory.generation != generation {
        memory = Memory { uid: view.set.metadata.uid.clone(), generation, waits: BTreeMap::new() };
    }
    memory.waits.retain(|_, wait| !wait.is_over(view.now));
    let mut kept = Kept::default();
    for node in &view.nodes {
        on_node(view, node, &mut memory, &mut kept);
    }
    // Pods that wait for a node that is gone: no node will ever tell of them, and nobody collects them.
    let there = |name: &str| view.nodes.iter().any(|n| n.metadata.name.as_deref() == Some(name));
    let lost = view.pods.iter().filter(|(node, _)| !there(node)).flat_map(|(_, pods)| pods);
    kept.doomed.extend(lost.filter(|pod| pod_state::node(pod).is_none()).cloned());
    if !memory.waits.is_empty() {
        kept.memory = serde_json::to_value(&memory).unwrap_or_default();
    }
    kept
}

fn on_node(view: &View<'_>, node: &Node, memory: &mut Memory, kept: &mut Kept) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let fit = view.placement.on(node);
    let pods = view.pods.get(name);
    let staying = || pods.into_iter().flatten().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    if fit.should_run && pods.is_none() {
        kept.needed.push(name.to_owned());
        return;
    }
    if !fit.may_stay {
        kept.doomed.extend(staying().cloned());
        return;
    }
    let mut running = Vec::new();
    for pod in staying() {
        match pod_state::phase(pod) {
            "Failed" => failed(view, name, pod, memory, kept),
            "Succeeded" => {
                let text =
                    format!("Found succeeded daemon pod {} on node {name}, will try to delete it", path(pod));
                kept.notes.push(Note::normal(view.set, "SucceededDaemonPod", text));
                kept.doomed.push(pod.clone());
            }
            _ => running.push(pod.clone()),
        }
    }
    if !rolling::may_surge(view.set) {
        // The first is the one that has its node, or the oldest.
        kept.doomed.extend(running.into_iter().skip(1));
    } else if running.is_empty() && fit.should_run {
        kept.needed.push(name.to_owned());
    } else if running.len() > 1 {
        surplus(view, running, kept);
    }
}

fn path(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// A failed pod is replaced, later each time: the kubelet may be refusing it again and again.
fn failed(view: &View<'_>, node: &str, pod: &Arc<Pod>, memory: &mut Memory, kept: &mut Kept) {
    let before = memory.waits.get(node).copied();
    if let Some(wait) = before
        && view.now < wait.end()
    {
        kept.again = Some(kept.again.map_or(wait.end(), |again| again.min(wait.end())));
        return;
    }
    let seconds = before.map_or(FIRST.as_secs(), |wait| (wait.seconds * 2).min(MOST.as_secs()));
    memory.waits.insert(node.to_owned(), Wait { seconds, since: view.now });
    let text = format!("Found failed daemon pod {} on node {node}, will try to kill it", path(pod));
    kept.notes.push(Note::warning(view.set, "FailedDaemonPod", text));
    kept.doomed.push(pod.clone());
}

/// While surging, an old and a new pod may be on one node, as long as the old one is ready and the new one is not yet
/// available.
fn surplus(view: &View<'_>, running: Vec<Arc<Pod>>, kept: &mut Kept) {
    let is_new = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|l| l.get(HASH)) == Some(&view.hash);
    let (mut new, mut old) = (None, None);
    for pod in running {
        let place = if is_new(&pod) { &mut new } else { &mut old };
        if place.is_none() {
            *place = Some(pod);
        } else {
            kept.doomed.push(pod);
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!pod_state::is_ready(&old) || view.is_available(&new))
    {
        kept.doomed.push(old);
    }
}
