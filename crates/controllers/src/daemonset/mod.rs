//! DaemonSet: a pod on every node that fits.
//!
//! Source: `pkg/controller/daemon`. Reading order: `nodes` (which node shall have a pod, which node a pod is for) → `history`
//! → `keep` (a pod where one should be) → `rolling` (old pods give way to new ones) → `status`.

mod history;
mod keep;
mod nodes;
mod rolling;
mod status;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::{Node, Pod, PodTemplateSpec},
    },
    jiff::Timestamp,
};
use serde_json::Value;

use self::nodes::Placement;
use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership, pod_control, pod_state,
    pod_template,
};

/// The label with the hash of a pod's revision, on pods and on revisions.
const HASH: &str = "controller-revision-hash";
/// On pods: which change of the template they are of, as counted by the API server in [`GENERATION_ANNOTATION`].
const GENERATION: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
/// Pods made, and pods deleted, by one plan at most.
const BURST: usize = 250;

/// The loop.
pub struct DaemonSets;

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<DaemonSet>(), Kind::of::<Pod>(), Kind::of::<ControllerRevision>(), Kind::of::<Node>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let selector = |set: &DaemonSet| ownership::selector(&set.spec.selector);
        if let Some(set) = change.object::<DaemonSet>() {
            return vec![Key::of(&set.metadata)];
        }
        if change.object::<Node>().is_some() {
            return concerned(change, world);
        }
        if let Some(revision) = change.object::<ControllerRevision>() {
            // An owned revision that is new is no reason to look: somebody may have put a second one of the same content
            // beside the first, and that stays until there is another reason (a conformance test sees to it).
            let new = change.before.is_none() && ownership::controller_of(&revision.metadata).is_some();
            return if new {
                Vec::new()
            } else {
                ownership::owners::<DaemonSet, ControllerRevision>(change, world, selector)
            };
        }
        ownership::owners::<DaemonSet, Pod>(change, world, selector)
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        match world.get::<DaemonSet>(&key.namespace, &key.name) {
            Some(set) => reconcile(&set, world, last, now),
            None => Plan { memory: (!last.memory.is_null()).then_some(Value::Null), ..Plan::none() },
        }
    }
}

/// The sets that have to do something, or to tell something else, because of what has changed at a node.
fn concerned(change: &Change, world: &World) -> Vec<Key> {
    let (before, after) = (change.before::<Node>(), change.after::<Node>());
    if let (Some(before), Some(after)) = (&before, &after) {
        let taints = |node: &Node| node.spec.as_ref().and_then(|s| s.taints.clone());
        if before.metadata.labels == after.metadata.labels && taints(before) == taints(after) {
            return Vec::new();
        }
    }
    let sets = world.list::<DaemonSet>("");
    let Some(node) = after else { return sets.iter().map(|set| Key::of(&set.metadata)).collect() };
    let pods = world.pods_on(node.metadata.name.as_deref().unwrap_or_default());
    let concerns = |set: &DaemonSet| {
        let placement = Placement::of(set).on(&node);
        let scheduled =
            pods.iter().any(|pod| crate::world::controller_uid(&pod.metadata) == set.metadata.uid.as_deref());
        let misscheduled = set.status.as_ref().is_some_and(|s| s.number_misscheduled > 0);
        match scheduled {
            true => !placement.may_stay || misscheduled,
            false => placement.should_run,
        }
    };
    sets.iter().filter(|set| concerns(set)).map(|set| Key::of(&set.metadata)).collect()
}

/// What is known when a set is looked at.
struct View<'a> {
    set: &'a DaemonSet,
    nodes: Vec<Arc<Node>>,
    /// The pods by the node they are for; terminal ones that are being deleted are left out.
    pods: BTreeMap<String, Vec<Arc<Pod>>>,
    /// Those left out too.
    all: Vec<Arc<Pod>>,
    placement: Placement,
    /// Of the wanted revision.
    hash: String,
    now: Timestamp,
}

impl View<'_> {
    fn min_ready(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod_state::is_available(pod, self.min_ready(), self.now)
    }

    /// The pod is of the wanted revision, by either of its labels.
    fn is_updated(&self, pod: &Pod) -> bool {
        let label = |key: &str| pod.metadata.labels.as_ref().and_then(|l| l.get(key));
        let generation = generation(self.set);
        label(HASH) == Some(&self.hash) || generation.is_some() && label(GENERATION) == generation.as_ref()
    }

    /// Makes pods for these nodes, and deletes these pods.
    fn writes(&self, nodes: &[String], pods: &[Arc<Pod>]) -> Vec<Write> {
        let mut template = self.set.spec.template.clone();
        label(&mut template, self.set, &self.hash);
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        let owner = ownership::controller_reference(self.set);
        let mut writes = Vec::new();
        for node in nodes.iter().take(BURST) {
            let mut pod = pod_template::pod(&template, namespace, owner.clone());
            nodes::pin(pod.spec.get_or_insert_default(), node);
            writes.push(pod_control::create(self.set, &pod));
        }
        writes.extend(pods.iter().take(BURST).map(|pod| pod_control::delete(self.set, pod)));
        writes
    }
}

/// The number that the API server has given to the template.
fn generation(set: &DaemonSet) -> Option<String> {
    let text = set.metadata.annotations.as_ref()?.get(GENERATION_ANNOTATION)?;
    text.parse::<i64>().ok().map(|number| number.to_string())
}

fn label(template: &mut PodTemplateSpec, set: &DaemonSet, hash: &str) {
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION.to_owned(), generation);
    }
    labels.insert(HASH.to_owned(), hash.to_owned());
}

fn reconcile(set: &DaemonSet, world: &World, last: &Outcome, now: Timestamp) -> Plan {
    let selector = ownership::selector(&set.spec.selector);
    if selector.is_everything() {
        let text = "This daemon set is selecting all pods. A non-empty selector is required.";
        return Plan { notes: vec![Note::warning(set, "SelectingAll", text)], ..Plan::none() };
    }
    if ownership::deleting(&set.metadata) {
        // Its history may be gone before its pods are: nothing true could be told.
        return Plan::none();
    }
    let hash = match history::current(set, &selector, world, now) {
        Ok(hash) => hash,
        Err(plan) => return *plan,
    };
    let candidates = ownership::candidates::<Pod>(world, &set.metadata);
    let claim =
        ownership::claim(&set.metadata, candidates, |pod| ownership::matches(&selector, &pod.metadata));
    if let Some(plan) = claim.plan(set) {
        return plan;
    }
    let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in &claim.kept {
        let ended = pod_state::is_terminal(pod) && ownership::deleting(&pod.metadata);
        if let Some(node) = nodes::target(pod).filter(|_| !ended) {
            pods.entry(node.to_owned()).or_default().push(pod.clone());
        }
    }
    for pods in pods.values_mut() {
        nodes::oldest_first(pods);
    }
    let view = View {
        set,
        nodes: world.list::<Node>(""),
        pods,
        all: claim.kept,
        placement: Placement::of(set),
        hash,
        now,
    };
    let mut plan = Plan::none();
    let kept = keep::keep(&view, &last.memory);
    plan.notes = kept.notes;
    plan.memory = (kept.memory != last.memory).then_some(kept.memory);
    plan.again = kept.again;
    let mut writes = view.writes(&kept.needed, &kept.doomed);
    if writes.is_empty() && rolling::is_rolling(set) {
        let (needed, doomed) = rolling::roll(&view);
        writes = view.writes(&needed, &doomed);
    }
    writes.extend(status::write(&view));
    plan.all(writes);
    plan.all(history::forgotten(&view, &selector, world));
    if let Some(at) = pod_state::next_available(view.all.iter().map(|p| &**p), view.min_ready(), now) {
        plan.wake(at);
    }
    plan
}
