//! The node's pods: which there are, one worker for each, and what the runtime tells them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{StreamExt, stream::BoxStream};
use k8s_cri::v1 as cri;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use super::{
    act::{Job, container},
    admission,
    adopt::{self, Held},
    cgroup,
    context::Context,
    events::Kind,
    retry::{Waits, persist},
    worker::{Note, Worker},
};
use crate::{
    machine::{Observed, Verdict},
    resources, spec,
    view::Pods as _,
    volumes,
};

/// Runtime events waiting at most.
const RUNTIME_QUEUE: usize = 1024;

/// What the runtime's event stream says.
pub(super) enum Said {
    /// It is there (again): what was missed has to be looked up.
    Connected,
    Event(Box<cri::ContainerEventResponse>),
}

/// The stream of container events, taken up again whenever it breaks; `up` says whether it is there.
pub(super) fn runtime_events(
    cx: Arc<Context>,
    up: watch::Sender<bool>,
) -> (mpsc::Receiver<Said>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(RUNTIME_QUEUE);
    let pump = async move {
        let mut waits = Waits::new();
        loop {
            match cx.config.runtime.get_container_events(Request::new(cri::GetEventsRequest {})).await {
                Ok(response) => {
                    let mut stream = response.into_inner();
                    up.send_if_modified(|up| !std::mem::replace(up, true));
                    if sender.send(Said::Connected).await.is_err() {
                        return;
                    }
                    while let Some(event) = stream.next().await {
                        let event = match event {
                            Ok(event) => event,
                            Err(error) => {
                                tracing::warn!(%error, "the runtime gives no more events");
                                break;
                            }
                        };
                        waits.reset();
                        if sender.send(Said::Event(Box::new(event))).await.is_err() {
                            return;
                        }
                    }
                    tracing::warn!("the runtime's event stream broke off, taking it up again");
                }
                Err(error) => tracing::warn!(%error, "the runtime does not give events, trying again"),
            }
            up.send_if_modified(|up| std::mem::replace(up, false));
            waits.pause().await;
        }
    };
    (receiver, pump)
}

struct Handle {
    notes: mpsc::UnboundedSender<Note>,
    namespace: String,
    name: String,
}

/// Owner of the workers.
pub(super) struct Pods {
    cx: Arc<Context>,
    workers: HashMap<String, Handle>,
    running: JoinSet<String>,
    /// What the runtime held at the start, until the API server has told which pods there are.
    held: HashMap<String, Held>,
    shutdown: CancellationToken,
    listing: Vec<Pod>,
    listed: bool,
}

impl Pods {
    pub(super) fn new(cx: Arc<Context>, shutdown: CancellationToken) -> Self {
        Self {
            cx,
            workers: HashMap::new(),
            running: JoinSet::new(),
            held: HashMap::new(),
            shutdown,
            listing: vec![],
            listed: false,
        }
    }

    /// Runs the node's pods until `shutdown`; they go on running without it.
    pub(super) async fn run(
        mut self,
        mut said: mpsc::Receiver<Said>,
        mut evicted: mpsc::Receiver<(String, Verdict)>,
    ) {
        // events first, then the list: so nothing falls between
        let connected = tokio::select! {
            first = said.recv() => first,
            () = self.shutdown.cancelled() => return,
        };
        if connected.is_none() {
            return;
        }
        let runtime = self.cx.config.runtime.clone();
        tokio::select! {
            held = persist("the runtime does not list what it has", || adopt::list(&runtime)) => self.held = held,
            () = self.shutdown.cancelled() => return,
        }
        let mut node = self.cx.node.clone();
        tokio::select! {
            known = node.wait_for(Option::is_some) => if known.is_err() { return },
            () = self.shutdown.cancelled() => return,
        }
        let mut events = pods_of(&self.cx.config.client, &self.cx.config.node_name);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                event = events.next() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
                event = said.recv() => match event {
                    Some(event) => self.runtime_said(event),
                    None => break,
                },
                Some(ended) = self.running.join_next() => self.ended(ended),
                Some((uid, verdict)) = evicted.recv() => self.evict(&uid, verdict),
            }
        }
        while self.running.join_next().await.is_some() {}
        cgroup::remove_classes(&self.cx.config);
    }

    fn take(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pod) => self.listing.push(pod),
            Event::InitDone => self.all(),
            Event::Apply(pod) => self.put(pod),
            Event::Delete(pod) => {
                if let Some(handle) = pod.metadata.uid.as_ref().and_then(|uid| self.workers.get(uid)) {
                    let _ = handle.notes.send(Note::Removed(Some(Arc::new(slim(pod)))));
                }
            }
        }
    }

    /// A complete list: what it does not name is gone.
    fn all(&mut self) {
        let mut list = std::mem::take(&mut self.listing);
        let named: HashSet<String> = list.iter().filter_map(|p| p.metadata.uid.clone()).collect();
        for (uid, handle) in &self.workers {
            if !named.contains(uid) {
                let _ = handle.notes.send(Note::Removed(None));
            }
        }
        // what already runs keeps its place before what is new
        list.sort_by_key(|p| (!self.known(p), p.metadata.creation_timestamp.as_ref().map(|t| t.0)));
        list.into_iter().for_each(|pod| self.put(pod));
        if !std::mem::replace(&mut self.listed, true) {
            self.end_orphans();
        }
    }

    /// Whether this node has taken the pod in before.
    fn known(&self, pod: &Pod) -> bool {
        pod.metadata.uid.as_ref().is_some_and(|uid| self.held.contains_key(uid))
            || pod.status.as_ref().is_some_and(|s| s.start_time.is_some())
    }

    fn put(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(slim(pod));
        if let Some(handle) = self.workers.get(&uid) {
            let _ = handle.notes.send(Note::Pod(pod));
            return;
        }
        // a pod of the same name and another UID has been deleted behind our back
        let (namespace, name, _) = spec::identity(&pod);
        for handle in self.workers.values().filter(|h| h.namespace == namespace && h.name == name) {
            let _ = handle.notes.send(Note::Removed(None));
        }
        let known = self.known(&pod);
        let cx = Arc::clone(&self.cx);
        let _counted = cx.room.lock();
        let mut seen = self.adopted(&uid, &pod);
        if !known && !over(&pod) && pod.metadata.deletion_timestamp.is_none() {
            seen.rejected = self.judge(&pod).err();
        }
        self.start(uid, pod, seen);
    }

    fn start(&mut self, uid: String, pod: Arc<Pod>, seen: Observed) {
        let (namespace, name, _) = spec::identity(&pod);
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let (worker, notes) = Worker::new(Arc::clone(&self.cx), pod, seen);
        self.running.spawn(worker.run(self.shutdown.clone()));
        self.workers.insert(uid, Handle { notes, namespace, name });
        self.weigh();
    }

    /// What is known of a pod from before this agent.
    fn adopted(&mut self, uid: &str, pod: &Arc<Pod>) -> Observed {
        let held = self.held.remove(uid).unwrap_or_default();
        let job = Job {
            cx: Arc::clone(&self.cx),
            pod: Arc::clone(pod),
            inputs: Arc::default(),
            places: Arc::default(),
            kept: Arc::default(),
            sandbox: (String::new(), 0),
            ips: vec![],
        };
        let mut seen = held.observed(pod, Timestamp::now(), |status| container::read(&job, status));
        if spec::spec(pod).host_network == Some(true) && !seen.sandbox.id.is_empty() {
            seen.sandbox.ips = self.cx.host_ips();
        }
        if over(pod) && self.cx.config.pod_dir(uid).join("volumes").exists() {
            // so that what is still mounted gets unmounted
            seen.volumes = crate::machine::observed::Volumes::Ready;
        }
        seen
    }

    fn judge(&self, pod: &Pod) -> Result<(), Verdict> {
        let all = self.cx.registry.list();
        let others: Vec<&Pod> = all.iter().map(|p| &**p).filter(|p| !over(p)).collect();
        let node = self.cx.node.borrow().clone().unwrap_or_default();
        let verdict = admission::admit(pod, &others, &node, &self.cx.allocatable.read());
        if let Err(refused) = &verdict {
            let note = refused.message.trim_start_matches("Pod was rejected: ").to_owned();
            self.cx.events.pod(pod, Kind::Warning, &refused.reason, "Admitting", note);
        }
        verdict
    }

    /// Ends what the runtime still runs of pods that the API server no longer has, and removes what they left.
    fn end_orphans(&mut self) {
        for (uid, held) in std::mem::take(&mut self.held) {
            tracing::info!(uid, held.namespace, held.name, "ending a pod that the API server no longer has");
            let pod = Arc::new(held.orphan(&uid));
            self.held.insert(uid.clone(), held);
            let mut seen = self.adopted(&uid, &pod);
            (seen.removed, seen.volumes) = (true, crate::machine::observed::Volumes::Ready);
            self.start(uid, pod, seen);
        }
        for uid in adopt::directories(&self.cx.config) {
            if self.workers.contains_key(&uid) {
                continue;
            }
            let dir = self.cx.config.pod_dir(&uid);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = volumes::remove(&dir) {
                    tracing::warn!(uid, %error, "what a former pod left was not removed");
                }
            });
        }
    }

    fn runtime_said(&mut self, said: Said) {
        match said {
            Said::Connected => {
                for handle in self.workers.values() {
                    let _ = handle.notes.send(Note::Relist);
                }
            }
            Said::Event(event) => {
                let ended = [
                    cri::ContainerEventType::ContainerStoppedEvent,
                    cri::ContainerEventType::ContainerDeletedEvent,
                ];
                if !ended.iter().any(|t| *t as i32 == event.container_event_type) {
                    return;
                }
                let id = event.container_id.clone();
                match uid_of(&event).and_then(|uid| self.workers.get(&uid)) {
                    Some(handle) => drop(handle.notes.send(Note::Stopped(id))),
                    // whose it is is not said: those who know it will look
                    None => {
                        for handle in self.workers.values() {
                            let _ = handle.notes.send(Note::Stopped(id.clone()));
                        }
                    }
                }
            }
        }
    }

    fn ended(&mut self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => {
                self.workers.remove(&uid);
                self.cx.registry.remove(&uid);
                self.cx.room_made();
                self.weigh();
                self.cx.disk_changed();
            }
            Err(error) => tracing::error!(%error, "a pod's worker broke"),
        }
    }

    fn evict(&self, uid: &str, verdict: Verdict) {
        let Some(handle) = self.workers.get(uid) else { return };
        if let Some(pod) = self.cx.registry.get(&handle.namespace, &handle.name, Some(uid)) {
            self.cx.events.pod(&pod, Kind::Warning, &verdict.reason, "Evicting", verdict.message.clone());
        }
        let _ = handle.notes.send(Note::Evict(verdict));
    }

    /// Gives the class of burstable pods the weight that its pods ask for.
    fn weigh(&self) {
        let asks = |pod: &Pod| resources::pod_total(&spec::spec(pod), "cpu", |r| r.requests.as_ref());
        let pods = self.cx.registry.list();
        let burstable = pods
            .iter()
            .filter(|p| !over(p) && resources::qos_class(&spec::spec(p)) == "Burstable")
            .map(|p| asks(p))
            .fold(0, i64::saturating_add);
        cgroup::classes(&self.cx.config, burstable);
    }
}

/// The pods bound to this node.
fn pods_of(client: &Client, node: &str) -> BoxStream<'static, Event<Pod>> {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    watcher(Api::<Pod>::all(client.clone()), config)
        .default_backoff()
        .filter_map(|event| async {
            event.inspect_err(|error| tracing::warn!(%error, "the watch of pods broke off")).ok()
        })
        .boxed()
}

/// A pod without what is large and of no use here.
fn slim(mut pod: Pod) -> Pod {
    pod.metadata.managed_fields = None;
    pod
}

fn over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// The pod that a runtime's event is about.
fn uid_of(event: &cri::ContainerEventResponse) -> Option<String> {
    let sandbox = event.pod_sandbox_status.as_ref().and_then(|s| s.metadata.as_ref()).map(|m| m.uid.clone());
    let labelled = || {
        let status = event.containers_statuses.iter().find(|c| c.id == event.container_id)?;
        status.labels.get(crate::translate::labels::POD_UID).cloned()
    };
    sandbox.filter(|uid| !uid.is_empty()).or_else(labelled)
}
