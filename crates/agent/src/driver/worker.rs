//! One task a pod: takes what happens, asks the state machine what to do, has it done, writes the status.

mod perform;
mod resizing;
mod writing;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus, ResourceRequirements},
    jiff::Timestamp,
};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    act::{Job, container, hooks, image, object, sandbox, volumes},
    admission, cgroup,
    context::Context,
    events::Kind,
    objects::{self, Inputs},
    probes,
    registry::Shown,
    retry, status,
};
use crate::{
    machine::{
        self, Action, Happening, Intent, Observed, Verdict,
        observed::{SandboxState, Volumes},
        resize,
    },
    spec,
    view::Pods as _,
    volumes::Place,
};

use self::{
    perform::{Surroundings, perform},
    writing::Writing,
};

/// What a worker is told.
pub(crate) enum Note {
    /// The API server's newest view of the pod.
    Pod(Arc<Pod>),
    /// The API server has it no more; its last view, if that is known.
    Removed(Option<Arc<Pod>>),
    /// A container or sandbox of this id may have ended.
    Stopped(String),
    /// Events may have been missed: look at everything.
    Relist,
    /// A ConfigMap or Secret has changed.
    InputsChanged,
    /// The node ends the pod.
    Evict(Verdict),
}

/// What a job has to say when it is done.
enum Done {
    Happened(Happening),
    Volumes(Result<volumes::Ready, String>),
    Renewed(Option<Timestamp>),
    SandboxStopped { replace: bool },
    Looked(Vec<Happening>),
    Written(object::Written),
    Nothing,
}

/// A pod's worker.
pub(crate) struct Worker {
    cx: Arc<Context>,
    uid: String,
    /// The pod: as the API server has it, but with the status last decided and the resources that the node has given it.
    pod: Arc<Pod>,
    /// What it asks for, where the node cannot give it yet.
    wanted: Option<Arc<Pod>>,
    seen: Observed,
    /// The status that the API server is known to have.
    base: PodStatus,
    writing: Writing,
    inputs: Arc<Inputs>,
    places: Arc<BTreeMap<String, Place>>,
    kept: Arc<volumes::Kept>,
    renewal: Renewal,
    jobs: JoinSet<Done>,
    notes: mpsc::UnboundedSender<Note>,
    inbox: mpsc::UnboundedReceiver<Note>,
}

/// Renewal of volumes.
#[derive(Default)]
struct Renewal {
    at: Option<Timestamp>,
    running: bool,
    again: bool,
}

impl Worker {
    pub(crate) fn new(
        cx: Arc<Context>,
        pod: Arc<Pod>,
        mut seen: Observed,
    ) -> (Self, mpsc::UnboundedSender<Note>) {
        let (notes, inbox) = mpsc::unbounded_channel();
        seen.update(&pod, Timestamp::now());
        let worker = Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            wanted: None,
            base: pod.status.clone().unwrap_or_default(),
            seen,
            writing: Writing::default(),
            inputs: Arc::default(),
            places: Arc::default(),
            kept: Arc::default(),
            renewal: Renewal::default(),
            jobs: JoinSet::new(),
            notes: notes.clone(),
            inbox,
            pod,
            cx,
        };
        worker.show();
        (worker.with_running_resources(), notes)
    }

    /// Works until nothing of the pod is left, here or in the API; or until `shutdown`, which leaves the pod running.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> String {
        let mut services = self.cx.services.listed();
        let mut freed = self.cx.freed.subscribe();
        self.hold_inputs();
        self.try_resize();
        loop {
            self.seen.may_start = *services.borrow_and_update();
            let deadline = self.turn();
            if self.seen.removed && self.seen.clean {
                return self.uid;
            }
            let alarm = sleep_until(deadline);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.uid,
                Some(note) = self.inbox.recv() => self.take(note),
                Some(done) = self.jobs.join_next() => self.finished(done),
                changed = services.changed(), if !self.seen.may_start => {
                    if changed.is_err() {
                        return self.uid;
                    }
                }
                changed = freed.changed(), if self.wanted.is_some() => {
                    if changed.is_err() {
                        return self.uid;
                    }
                    self.try_resize();
                }
                () = alarm => {}
            }
        }
    }

    /// Decides and begins what is to be done, until nothing more is to be done now. When to look again.
    fn turn(&mut self) -> Option<Timestamp> {
        loop {
            let now = Timestamp::now();
            let step = machine::step(&self.pod, &self.seen, now, &self.cx.config.policy);
            self.decide(step.status);
            let mut begun = false;
            for action in step.actions {
                begun |= self.begin(action, now);
            }
            if !begun {
                let renewal = self.renewal.at.filter(|_| self.seen.volumes == Volumes::Ready);
                if renewal.is_some_and(|at| at <= now) {
                    self.renew();
                    continue;
                }
                return [step.deadline, renewal].into_iter().flatten().min();
            }
        }
    }

    fn take(&mut self, note: Note) {
        let now = Timestamp::now();
        match note {
            Note::Pod(pod) => self.update(pod, now),
            Note::Removed(last) => {
                if let Some(last) = last {
                    self.update(last, now);
                }
                self.seen.removed = true;
                self.writing.over = true;
            }
            Note::Stopped(id) => self.look(vec![id]),
            Note::Relist => {
                let ids = self.seen.containers.values().filter_map(|s| s.current.as_ref());
                let mut ids: Vec<String> =
                    ids.filter(|i| i.exit_code().is_none()).map(|i| i.id.clone()).collect();
                if self.seen.sandbox.state == SandboxState::Ready {
                    ids.push(self.seen.sandbox.id.clone());
                }
                self.look(ids);
            }
            Note::InputsChanged => {
                self.happened(Happening::InputsChanged);
                self.renew();
            }
            Note::Evict(verdict) => {
                self.seen.evicted.get_or_insert(verdict);
            }
        }
    }

    /// Takes the API server's newest view; an older one than is known is ignored.
    fn update(&mut self, incoming: Arc<Pod>, now: Timestamp) {
        if older(&incoming, &self.pod) {
            return;
        }
        let mut pod = (*incoming).clone();
        self.base = pod.status.take().unwrap_or_default();
        pod.status = Some(match &self.pod.status {
            Some(decided) => status::join(&self.base, decided),
            None => self.base.clone(),
        });
        let (old, new) = (spec::spec(&self.pod), spec::spec(&pod));
        let names_changed = objects::names(&self.pod) != objects::names(&pod);
        let tell =
            |p: &Pod| (p.metadata.labels.clone(), p.metadata.annotations.clone(), p.metadata.generation);
        let told_changed = tell(&self.pod) != tell(&pod);
        self.wanted = None;
        if !resize::same_resources(&new, &old) {
            let allocated = old.into_owned();
            drop(new);
            self.wanted = Some(Arc::new(pod.clone()));
            resize::with_resources_of(&mut pod, &allocated);
        } else {
            self.seen.resize_pending = None;
        }
        self.pod = Arc::new(pod);
        self.seen.update(&self.pod, now);
        self.try_resize();
        if names_changed {
            self.hold_inputs();
        }
        if told_changed {
            self.renew();
        }
    }

    fn hold_inputs(&mut self) {
        let notes = self.notes.clone();
        let changed = move || drop(notes.send(Note::InputsChanged));
        let inputs =
            Inputs::of(&self.pod, &self.cx.config_maps, &self.cx.secrets, &self.cx.trust_bundles, changed);
        self.inputs = Arc::new(inputs);
    }

    fn finished(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(uid = self.uid, %error, "a job of a pod broke");
                return;
            }
        };
        match done {
            Done::Happened(happening) => self.happened(happening),
            Done::Looked(happenings) => happenings.into_iter().for_each(|h| self.happened(h)),
            Done::Volumes(Ok((places, next))) => {
                (self.places, self.renewal.at) = (Arc::new(places), next);
                self.happened(Happening::VolumesPrepared(Ok(())));
                if self.renewal.again {
                    self.renew();
                }
            }
            Done::Volumes(Err(why)) => self.happened(Happening::VolumesPrepared(Err(why))),
            Done::Renewed(next) => {
                (self.renewal.running, self.renewal.at) = (false, next);
                if self.renewal.again {
                    self.renew();
                }
            }
            Done::SandboxStopped { replace: true } => self.seen.sandbox_replaced(),
            Done::SandboxStopped { replace: false } => self.happened(Happening::SandboxStopped),
            Done::Written(written) => self.written(written),
            Done::Nothing => {}
        }
    }

    fn happened(&mut self, happening: Happening) {
        let ended = matches!(&happening, Happening::Instance(_, i) if i.exit_code().is_some());
        let resized = matches!(&happening, Happening::Resized(..));
        self.seen.happened(&self.pod, happening, Timestamp::now(), &self.cx.config.policy);
        if resized {
            cgroup::widen(&self.cx.config, &self.pod, &self.running_resources());
        }
        if ended {
            self.cx.disk_changed();
        }
    }

    fn show(&self) {
        self.cx.registry.show(&self.uid, Shown::new(&self.cx.config, Arc::clone(&self.pod), &self.seen));
    }

    fn renew(&mut self) {
        self.renewal.again = self.renewal.running || self.seen.volumes == Volumes::Preparing;
        if self.renewal.running || self.seen.volumes != Volumes::Ready {
            return;
        }
        (self.renewal.running, self.renewal.at) = (true, None);
        let job = self.job();
        self.jobs.spawn(async move { Done::Renewed(volumes::renew(&job).await) });
    }

    /// Asks the runtime what has become of containers or the sandbox.
    fn look(&mut self, ids: Vec<String>) {
        if ids.is_empty() {
            return;
        }
        let names: BTreeMap<String, String> = self
            .seen
            .containers
            .iter()
            .filter_map(|(name, s)| Some((s.current.as_ref()?.id.clone(), name.clone())))
            .collect();
        let (job, sandbox) = (self.job(), self.seen.sandbox.id.clone());
        self.jobs.spawn(async move {
            let mut found = vec![];
            for id in ids {
                let happening = if id == sandbox {
                    sandbox::died(&job, &id).await
                } else {
                    container::seen(&job, &id, names.get(&id).map(String::as_str)).await
                };
                found.extend(happening);
            }
            Done::Looked(found)
        });
    }

    fn job(&self) -> Job {
        Job {
            cx: Arc::clone(&self.cx),
            pod: Arc::clone(&self.pod),
            inputs: Arc::clone(&self.inputs),
            places: Arc::clone(&self.places),
            kept: Arc::clone(&self.kept),
            sandbox: (self.seen.sandbox.id.clone(), self.seen.sandbox.attempt),
            ips: self.seen.sandbox.ips.clone(),
        }
    }

    /// Begins an action; false if it has to wait for a write.
    fn begin(&mut self, action: Action, now: Timestamp) -> bool {
        if action == Action::DeleteObject {
            // the last status first: who waits for the object's end reads it
            let want = self.pod.status.clone().unwrap_or_default();
            let unwritten = self.writing.sent.is_some() || status::patch(&self.base, &want).is_some();
            if unwritten && !self.writing.over {
                return false;
            }
        }
        let job = self.job();
        let running = match &action {
            Action::Resize { .. } => self.running_resources(),
            _ => BTreeMap::new(),
        };
        let seen = match &action {
            Action::EnsureImage { container } | Action::Start { container, .. } => {
                self.seen.seen(container).cloned()
            }
            Action::Kill { container, .. } | Action::PreStop { container, .. } => {
                self.say_killing(container, &action);
                None
            }
            _ => None,
        };
        let target = match &action {
            Action::Start { container, .. } => self.target(container),
            _ => None,
        };
        let replace = matches!(machine::intent(&self.pod, &self.seen, now), Intent::Run);
        self.seen.begin(&action, now, &self.cx.config.policy);
        let work =
            perform(job, action, Surroundings { seen: seen.unwrap_or_default(), target, replace, running });
        self.jobs.spawn(work);
        true
    }

    /// Says once that a container is being stopped, before its hook or its signal, whichever comes first.
    fn say_killing(&self, container: &str, action: &Action) {
        let (Action::Kill { reason, .. } | Action::PreStop { reason, .. }) = action else { return };
        if self.seen.seen(container).is_some_and(|s| s.stop.is_some()) {
            return;
        }
        let spec = spec::spec(&self.pod);
        let again = spec::part(&spec, container).is_some_and(|p| spec::restarts(&spec, &p, 137));
        let note = container::killing(container, reason, again);
        self.cx.events.container(&self.pod, container, Kind::Normal, "Killing", "Stopping", note);
    }

    /// The container whose processes an ephemeral container sees.
    fn target(&self, container: &str) -> Option<String> {
        let spec = spec::spec(&self.pod);
        let ephemeral = spec.ephemeral_containers.iter().flatten().find(|e| e.name == container)?;
        let target = ephemeral.target_container_name.as_deref().filter(|t| !t.is_empty())?;
        self.seen.seen(target)?.current.as_ref().map(|i| i.id.clone())
    }
}

fn over(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether `one` is an older view of the object than `other`.
fn older(one: &Pod, other: &Pod) -> bool {
    let version = |p: &Pod| p.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
    matches!((version(one), version(other)), (Some(one), Some(other)) if one < other)
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            // the clock may be set meanwhile: look again after a day
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default().min(Duration::from_secs(86_400)))
                .await;
        }
        None => std::future::pending().await,
    }
}
