//! A scheduler and kubelets that are not there: they give pods nodes, make them run, end and go, under a virtual clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use super::api::{Api, Deletion};
use crate::{
    node_fit,
    plan::PatchKind,
    pod_state,
    world::{Key, Kind},
};

/// What becomes of a pod once it is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it is ready; never if absent (it runs all the same).
    pub ready_after: Option<SignedDuration>,
    /// When its containers end by themselves, and with which exit code.
    pub ends_after: Option<(SignedDuration, i32)>,
    /// How long it takes to stop.
    pub stops_in: SignedDuration,
}

impl Life {
    /// Ready after a second, runs for ever, stops in a second.
    #[must_use]
    pub fn long() -> Self {
        let second = SignedDuration::from_secs(1);
        Self { ready_after: Some(second), ends_after: None, stops_in: second }
    }

    /// Never ready.
    #[must_use]
    pub fn broken() -> Self {
        Self { ready_after: None, ..Self::long() }
    }

    /// Runs for some seconds, then ends with an exit code.
    #[must_use]
    pub fn ends(seconds: i64, code: i32) -> Self {
        Self { ends_after: Some((SignedDuration::from_secs(seconds), code)), ..Self::long() }
    }
}

/// Decides on the life of a pod.
pub type Fate = Arc<dyn Fn(&Pod) -> Life + Send + Sync>;

struct Tended {
    pod: Arc<Pod>,
    life: Life,
    /// When it was first seen on its node.
    bound: Option<Timestamp>,
    /// When it was first seen being deleted.
    leaving: Option<Timestamp>,
    timer: Option<Timestamp>,
}

/// All nodes and the scheduler.
pub struct Nodes {
    fate: Fate,
    /// Removes the pods of nodes that are gone, as pod garbage collection would.
    pub collects: bool,
    nodes: BTreeMap<String, Arc<Node>>,
    pods: BTreeMap<Key, Tended>,
    /// Pods that found no node.
    stuck: BTreeSet<Key>,
    timers: BTreeSet<(Timestamp, Key)>,
    seen_nodes: usize,
    seen_pods: usize,
}

impl Default for Nodes {
    /// Pods that are restarted live long, others end well after five seconds.
    fn default() -> Self {
        Self::new(Arc::new(|pod| {
            let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
            if policy.unwrap_or("Always") == "Always" { Life::long() } else { Life::ends(5, 0) }
        }))
    }
}

impl Nodes {
    /// None yet.
    #[must_use]
    pub fn new(fate: Fate) -> Self {
        Self {
            fate,
            collects: true,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            stuck: BTreeSet::new(),
            timers: BTreeSet::new(),
            seen_nodes: 0,
            seen_pods: 0,
        }
    }

    /// From now on new pods live like this.
    pub fn set_fate(&mut self, fate: Fate) {
        self.fate = fate;
    }

    /// When something happens by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// There is something to take in or to do.
    #[must_use]
    pub fn behind(&self, api: &Api, now: Timestamp) -> bool {
        self.seen_pods < api.count(&Kind::of::<Pod>())
            || self.seen_nodes < api.count(&Kind::of::<Node>())
            || self.deadline().is_some_and(|at| at <= now)
    }

    /// Takes in what changed and does what is due. Whether there was anything.
    pub fn act(&mut self, api: &Api, now: Timestamp) -> bool {
        let mut due = self.take_nodes(api);
        for event in api.changes(&Kind::of::<Pod>(), self.seen_pods) {
            self.seen_pods += 1;
            let Ok(pod) = serde_json::from_value::<Pod>(Value::clone(&event.object)) else { continue };
            let key = Key::of(&pod.metadata);
            if event.gone {
                self.forget(&key);
            } else {
                self.take_pod(key.clone(), Arc::new(pod), now);
                due.insert(key);
            }
        }
        while let Some((at, _)) = self.timers.first()
            && *at <= now
        {
            due.extend(self.timers.pop_first().map(|(_, key)| key));
        }
        for key in &due {
            self.tend(api, key, now);
        }
        !due.is_empty()
    }

    fn take_nodes(&mut self, api: &Api) -> BTreeSet<Key> {
        let events = api.changes(&Kind::of::<Node>(), self.seen_nodes);
        self.seen_nodes += events.len();
        if events.is_empty() {
            return BTreeSet::new();
        }
        let mut changed = BTreeSet::new();
        for event in events {
            let Ok(node) = serde_json::from_value::<Node>(Value::clone(&event.object)) else { continue };
            let name = node.metadata.name.clone().unwrap_or_default();
            if event.gone {
                self.nodes.remove(&name);
            } else {
                self.nodes.insert(name.clone(), Arc::new(node));
            }
            changed.insert(name);
        }
        let concerned = |t: &Tended| pod_state::node(&t.pod).is_some_and(|n| changed.contains(n));
        let mut due: BTreeSet<Key> =
            self.pods.iter().filter(|(_, t)| concerned(t)).map(|(k, _)| k.clone()).collect();
        due.append(&mut self.stuck);
        due
    }

    fn take_pod(&mut self, key: Key, pod: Arc<Pod>, now: Timestamp) {
        let known = self.pods.remove(&key).filter(|t| t.pod.metadata.uid == pod.metadata.uid);
        let mut tended = known.unwrap_or_else(|| Tended {
            life: (self.fate)(&pod),
            pod: pod.clone(),
            bound: None,
            leaving: None,
            timer: None,
        });
        if pod_state::node(&pod).is_some() {
            tended.bound.get_or_insert(now);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            tended.leaving.get_or_insert(now);
        }
        tended.pod = pod;
        self.pods.insert(key, tended);
    }

    fn forget(&mut self, key: &Key) {
        self.stuck.remove(key);
        if let Some(timer) = self.pods.remove(key).and_then(|t| t.timer) {
            self.timers.remove(&(timer, key.clone()));
        }
    }

    fn set_timer(&mut self, key: &Key, at: Timestamp) {
        if let Some(tended) = self.pods.get_mut(key) {
            if let Some(before) = tended.timer.replace(at) {
                self.timers.remove(&(before, key.clone()));
            }
            self.timers.insert((at, key.clone()));
        }
    }

    fn tend(&mut self, api: &Api, key: &Key, now: Timestamp) {
        let Some(tended) = self.pods.get(key) else { return };
        let (pod, life) = (tended.pod.clone(), tended.life);
        let after = |since: Option<Timestamp>, wait: SignedDuration| {
            since.unwrap_or(now).saturating_add(wait).unwrap_or(now)
        };
        let place = (&Kind::of::<Pod>(), &*key.namespace, &*key.name);
        let Some(node) = pod_state::node(&pod) else { return self.schedule(api, key, &pod) };
        if !self.nodes.contains_key(node) {
            if self.collects {
                tell(api, key, &pod, &status("Failed", false, None, now));
                // A second look at a pod that is gone already finds nothing to do.
                let _ = api.delete(place, &Deletion { grace: Some(0), ..Deletion::default() });
            }
            return;
        }
        if tended.leaving.is_some() {
            let stopped = after(tended.leaving, life.stops_in);
            if now < stopped {
                return self.set_timer(key, stopped);
            }
            if !pod_state::is_terminal(&pod) {
                tell(api, key, &pod, &status("Failed", false, Some(137), now));
            }
            let uid = pod.metadata.uid.as_deref();
            let _ = api.delete(place, &Deletion { grace: Some(0), uid, ..Deletion::default() });
            return;
        }
        if pod_state::is_terminal(&pod) {
            return;
        }
        let ends = life.ends_after.map(|(wait, code)| (after(tended.bound, wait), code));
        if let Some((at, code)) = ends
            && at <= now
        {
            return end(api, key, &pod, code, now);
        }
        let ready = life.ready_after.map(|wait| after(tended.bound, wait));
        let is_ready = ready.is_some_and(|at| at <= now);
        if pod_state::phase(&pod) != "Running" || is_ready != pod_state::is_ready(&pod) {
            tell(api, key, &pod, &status("Running", is_ready, None, now));
        }
        if let Some(at) = [ready, ends.map(|e| e.0)].into_iter().flatten().filter(|at| *at > now).min() {
            self.set_timer(key, at);
        }
    }

    fn schedule(&mut self, api: &Api, key: &Key, pod: &Pod) {
        if pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let Some(spec) = &pod.spec else { return };
        let load = |name: &str| self.pods.values().filter(|t| pod_state::node(&t.pod) == Some(name)).count();
        let fitting = self.nodes.iter().filter(|(_, node)| {
            let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
            let effects = ["NoSchedule", "NoExecute"];
            node_fit::matches_node(spec, node)
                && node_fit::untolerated(taints, spec.tolerations.as_ref(), &effects).is_none()
        });
        let Some(node) = fitting.map(|(name, _)| name).min_by_key(|name| load(name)).cloned() else {
            self.stuck.insert(key.clone());
            return;
        };
        api.bind(key, pod.metadata.uid.as_deref().unwrap_or_default(), &node);
        // Not seen bound yet, but counted so for the next pod.
        if let Some(tended) = self.pods.get_mut(key) {
            let mut bound = Pod::clone(pod);
            bound.spec.get_or_insert_default().node_name = Some(node);
            tended.pod = Arc::new(bound);
        }
    }
}

/// The containers of a pod have ended by themselves.
fn end(api: &Api, key: &Key, pod: &Pod, code: i32, now: Timestamp) {
    let policy = pod.spec.as_ref().and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always");
    match (policy, code) {
        ("Never" | "OnFailure", 0) => tell(api, key, pod, &status("Succeeded", false, Some(0), now)),
        ("Never", _) => tell(api, key, pod, &status("Failed", false, Some(code), now)),
        _ => {
            let mut status = status("Running", false, None, now);
            status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
                "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
            tell(api, key, pod, &status);
        }
    }
}

fn status(phase: &str, ready: bool, exit: Option<i32>, now: Timestamp) -> Value {
    let text = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: bool| json!({"type": kind, "status": if status { "True" } else { "False" }, "lastTransitionTime": text});
    let containers: Vec<Value> = exit
        .into_iter()
        .map(|code| {
            json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "finishedAt": text, "reason": "Error"}}})
        })
        .collect();
    json!({"phase": phase, "startTime": text, "containerStatuses": containers,
        "conditions": [condition("PodScheduled", true), condition("Ready", ready)]})
}

fn tell(api: &Api, key: &Key, pod: &Pod, status: &Value) {
    let mut status = status.clone();
    // Conditions that others have written stay.
    let ours = ["PodScheduled", "Ready"];
    let others = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let others = others.filter(|c| !ours.contains(&c.type_.as_str()));
    if let Some(list) = status["conditions"].as_array_mut() {
        list.extend(others.filter_map(|c| serde_json::to_value(c).ok()));
    }
    let body = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    let place = (&Kind::of::<Pod>(), &*key.namespace, &*key.name);
    // A pod that is gone by now needs no status.
    let _ = api.patch(place, PatchKind::Merge, &body, "status");
}
