//! The scheduler at work: watches the API, asks the core, binds.
//!
//! One task owns the cache and the queue, so decisions are made one after another on a state that includes every earlier
//! decision. Bindings run beside it; their failures come back as messages.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
        storage::v1::StorageClass,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{
        WatchStreamExt,
        events::{Event as Note, EventType, Recorder, Reporter},
        wait::await_condition,
        watcher::{self, watcher},
    },
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    cache::{Cache, PodChange},
    plugins::volumes::SELECTED_NODE,
    pod::PodInfo,
    preemption::Victims,
    queue::Queue,
    schedule::{Decision, Policy, schedule},
    tracked::Tracked,
};

/// The name that pods ask for by `spec.schedulerName`.
pub const NAME: &str = "default-scheduler";
/// How long the binding of volumes may take.
const VOLUME_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(600);
/// Longest note of an event, in bytes.
const NOTE_LIMIT: usize = 1024;

enum Change {
    Pod(Box<watcher::Event<Pod>>),
    Node(Box<watcher::Event<Node>>),
    Namespace(Box<watcher::Event<Namespace>>),
    Claim(Box<watcher::Event<PersistentVolumeClaim>>),
    Volume(Box<watcher::Event<PersistentVolume>>),
    Class(Box<watcher::Event<StorageClass>>),
    Budget(Box<watcher::Event<PodDisruptionBudget>>),
}

type Changes = Pin<Box<dyn Stream<Item = Change> + Send>>;

/// What a binding task says when it failed.
struct Failed {
    key: String,
    why: String,
}

#[derive(Default)]
struct Kinds {
    pods: Tracked,
    nodes: Tracked,
    namespaces: Tracked,
    claims: Tracked,
    volumes: Tracked,
    classes: Tracked,
    budgets: Tracked,
}

impl Kinds {
    fn synced(&self) -> bool {
        self.pods.synced()
            && self.nodes.synced()
            && self.namespaces.synced()
            && self.claims.synced()
            && self.volumes.synced()
            && self.classes.synced()
            && self.budgets.synced()
    }
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    policy: Policy,
    kinds: Kinds,
    cache: Cache,
    queue: Queue,
    failures: mpsc::UnboundedSender<Failed>,
}

/// Schedules until the future is dropped. A lost connection is taken up again by the watches.
pub async fn run(client: Client, policy: Policy) {
    let (failures, mut failed) = mpsc::unbounded_channel();
    let reporter = Reporter { controller: NAME.to_owned(), instance: None };
    let mut changes = changes(&client);
    let mut scheduler = Scheduler {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        policy,
        kinds: Kinds::default(),
        cache: Cache::default(),
        queue: Queue::default(),
        failures,
    };
    loop {
        let deadline = scheduler.queue.next_deadline();
        tokio::select! {
            Some(change) = changes.next() => scheduler.take(change),
            Some(failure) = failed.recv() => scheduler.give_back(failure),
            () = until(deadline) => {}
        }
        // Take in all that is already there before deciding, so that a burst is decided on its whole.
        while let Some(Some(change)) = futures::FutureExt::now_or_never(changes.next()) {
            scheduler.take(change);
        }
        if scheduler.kinds.synced() {
            while let Some(pod) = scheduler.queue.pop(Timestamp::now()) {
                scheduler.place(pod);
            }
        }
    }
}

/// Resolves at `deadline`, never if there is none.
async fn until(deadline: Option<Timestamp>) {
    match deadline {
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            tokio::time::sleep(std::time::Duration::try_from(wait).unwrap_or_default()).await;
        }
        None => std::future::pending().await,
    }
}

fn changes(client: &Client) -> stream::SelectAll<Changes> {
    fn of<K>(client: &Client, wrap: fn(Box<watcher::Event<K>>) -> Change) -> Changes
    where
        K: Resource<DynamicType = ()>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug
            + Send
            + 'static,
    {
        let events = watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff();
        events
            .filter_map(move |event| async move {
                event
                    .map(|event| wrap(Box::new(event)))
                    .inspect_err(|e| tracing::debug!(error = %e, "a watch of the scheduler broke off"))
                    .ok()
            })
            .boxed()
    }
    stream::select_all([
        of(client, Change::Node),
        of(client, Change::Namespace),
        of(client, Change::Claim),
        of(client, Change::Volume),
        of(client, Change::Class),
        of(client, Change::Budget),
        of(client, Change::Pod),
    ])
}

impl Scheduler {
    fn take(&mut self, change: Change) {
        let now = Timestamp::now();
        match change {
            Change::Pod(event) => {
                for delta in self.kinds.pods.apply(*event) {
                    match self.cache.pod(delta, NAME) {
                        PodChange::Wants(pod) => self.queue.put(pod, now),
                        PodChange::Settled(key) => {
                            self.queue.remove(&key);
                            self.queue.cluster_changed(now);
                        }
                    }
                }
                return;
            }
            Change::Node(event) => {
                self.kinds.nodes.apply(*event).into_iter().for_each(|d| self.cache.node(d))
            }
            Change::Namespace(event) => {
                self.kinds.namespaces.apply(*event).into_iter().for_each(|d| self.cache.namespace(d));
            }
            Change::Claim(event) => {
                self.kinds.claims.apply(*event).into_iter().for_each(|d| self.cache.claim(d))
            }
            Change::Volume(event) => {
                self.kinds.volumes.apply(*event).into_iter().for_each(|d| self.cache.volume(d))
            }
            Change::Class(event) => {
                self.kinds.classes.apply(*event).into_iter().for_each(|d| self.cache.class(d))
            }
            Change::Budget(event) => {
                self.kinds.budgets.apply(*event).into_iter().for_each(|d| self.cache.budget(d))
            }
        }
        self.queue.cluster_changed(now);
    }

    fn give_back(&mut self, failure: Failed) {
        tracing::warn!(pod = failure.key, why = failure.why, "a pod could not be bound");
        self.cache.forget(&failure.key);
        self.queue.failed(&failure.key, Timestamp::now(), true);
    }

    fn place(&mut self, pod: Arc<PodInfo>) {
        match schedule(&self.cache.snapshot, &pod, self.policy) {
            Decision::Bind { node, claims } => {
                self.cache.assume(&pod, &node);
                self.bind(pod, node, claims);
            }
            Decision::Preempt { victims, message } => {
                self.cache
                    .snapshot
                    .nominated
                    .insert(pod.key.clone(), (victims.node.clone(), Arc::clone(&pod)));
                self.queue.failed(&pod.key, Timestamp::now(), false);
                self.preempt(pod, victims, message);
            }
            Decision::Unschedulable { message, help } => {
                self.queue.failed(&pod.key, Timestamp::now(), false);
                self.refuse(pod, message, help);
            }
        }
    }

    fn bind(&self, pod: Arc<PodInfo>, node: String, claims: Vec<Arc<PersistentVolumeClaim>>) {
        let (client, recorder, failures) =
            (self.client.clone(), self.recorder.clone(), self.failures.clone());
        tokio::spawn(async move {
            let result = async {
                bind_claims(&client, &claims, &node).await?;
                bind_pod(&client, &pod, &node).await
            };
            match result.await {
                Ok(()) => {
                    let note = format!("Successfully assigned {} to {node}", pod.key);
                    publish(&recorder, &pod, EventType::Normal, "Scheduled", "Binding", note, None).await;
                }
                // The pod is gone: the watch says so too.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    let _ = failures.send(Failed { key: pod.key.clone(), why: error.to_string() });
                }
            }
        });
    }

    fn refuse(&self, pod: Arc<PodInfo>, message: String, help: String) {
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        tokio::spawn(async move {
            let note = if help.is_empty() { message.clone() } else { format!("{message} {help}") };
            publish(&recorder, &pod, EventType::Warning, "FailedScheduling", "Scheduling", note, None).await;
            if let Err(error) = condition(&client, &pod, &message, None).await {
                tracing::debug!(pod = pod.key, %error, "the PodScheduled condition was not written");
            }
        });
    }

    fn preempt(&self, pod: Arc<PodInfo>, victims: Victims, message: String) {
        let (client, recorder) = (self.client.clone(), self.recorder.clone());
        tokio::spawn(async move {
            if let Err(error) = condition(&client, &pod, &message, Some(&victims.node)).await {
                tracing::warn!(pod = pod.key, %error, "a nomination was not written");
                return;
            }
            publish(&recorder, &pod, EventType::Warning, "FailedScheduling", "Scheduling", message, None)
                .await;
            for victim in &victims.pods {
                if let Err(error) = evict(&client, &recorder, &pod, victim, &victims.node).await {
                    tracing::warn!(pod = victim.key, %error, "a victim was not deleted");
                }
            }
        });
    }
}

/// Tells the binder and provisioner the node, and waits until every claim is bound.
async fn bind_claims(client: &Client, claims: &[Arc<PersistentVolumeClaim>], node: &str) -> kube::Result<()> {
    for claim in claims {
        let name = claim.name_any();
        let api =
            Api::<PersistentVolumeClaim>::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
        let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let bound = |c: Option<&PersistentVolumeClaim>| {
            c.and_then(|c| c.status.as_ref()).and_then(|s| s.phase.as_deref()) == Some("Bound")
        };
        let wait = await_condition(api, &name, bound);
        match tokio::time::timeout(VOLUME_TIMEOUT, wait).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(kube::Error::Service(Box::new(error))),
            Err(elapsed) => return Err(kube::Error::Service(Box::new(elapsed))),
        }
    }
    Ok(())
}

async fn bind_pod(client: &Client, pod: &PodInfo, node: &str) -> kube::Result<()> {
    let name = pod.pod.name_any();
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": name, "namespace": pod.namespace(), "uid": pod.pod.uid()},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let path = format!("/api/v1/namespaces/{}/pods/{name}/binding", pod.namespace());
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(binding.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request::<serde_json::Value>(request).await.map(|_| ())
}

/// Writes the PodScheduled condition, and the nomination if there is one. An unchanged condition is not written again.
async fn condition(
    client: &Client,
    pod: &PodInfo,
    message: &str,
    nominated: Option<&str>,
) -> kube::Result<()> {
    let old =
        pod.pod.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == "PodScheduled");
    let same = old.is_some_and(|c| {
        c.status == "False"
            && c.reason.as_deref() == Some("Unschedulable")
            && c.message.as_deref() == Some(message)
    });
    if same && nominated.is_none() {
        return Ok(());
    }
    let since = old.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let since = since.map_or_else(Timestamp::now, |t| t.0);
    let mut status = json!({"conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "observedGeneration": pod.pod.metadata.generation, "lastProbeTime": null,
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }]});
    if let Some(node) = nominated {
        status["nominatedNodeName"] = json!(node);
    }
    let api = Api::<Pod>::namespaced(client.clone(), pod.namespace());
    let patch = json!({"metadata": {"uid": pod.pod.uid()}, "status": status});
    api.patch_status(&pod.pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await.map(|_| ())
}

/// Marks the victim, then deletes it with its own grace period.
async fn evict(
    client: &Client,
    recorder: &Recorder,
    preemptor: &PodInfo,
    victim: &PodInfo,
    node: &str,
) -> kube::Result<()> {
    let api = Api::<Pod>::namespaced(client.clone(), victim.namespace());
    let name = victim.pod.name_any();
    let condition = json!({"metadata": {"uid": victim.pod.uid()}, "status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
        "observedGeneration": victim.pod.metadata.generation, "lastProbeTime": null,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }]}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(condition)).await?;
    let preconditions = Preconditions { uid: victim.pod.uid(), resource_version: None };
    api.delete(&name, &DeleteParams::default().preconditions(preconditions)).await?;
    let note = format!("Preempted by pod {} on node {node}", preemptor.pod.uid().unwrap_or_default());
    let by = preemptor.pod.object_ref(&());
    publish(recorder, victim, EventType::Normal, "Preempted", "Preempting", note, Some(by)).await;
    Ok(())
}

async fn publish(
    recorder: &Recorder,
    pod: &PodInfo,
    kind: EventType,
    reason: &str,
    action: &str,
    mut note: String,
    secondary: Option<ObjectReference>,
) {
    if note.len() > NOTE_LIMIT {
        let mut cut = NOTE_LIMIT - 4;
        while !note.is_char_boundary(cut) {
            cut -= 1;
        }
        note.truncate(cut);
        note.push_str(" ...");
    }
    let event = Note {
        type_: kind,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary,
    };
    if let Err(error) = recorder.publish(&event, &pod.pod.object_ref(&())).await {
        tracing::debug!(pod = pod.key, %error, "an event was not recorded");
    }
}
