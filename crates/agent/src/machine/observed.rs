//! What is known about one pod on this node: filled by what the runtime and the probes tell, read by [`super::step`].

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, ContainerUser, Pod, ResourceRequirements},
    jiff::{SignedDuration, Timestamp},
};

use super::{
    Action,
    backoff::{Backoff, Policy},
    probe::{ProbeKind, ProbeState},
};
use crate::spec;

/// Why something did not work, and when it is tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// A reason in one word, as it stands in a container's waiting state.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// The next attempt.
    pub retry_at: Timestamp,
}

/// Whether the pod's volumes are mounted.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Volumes {
    /// Not yet, or no more.
    #[default]
    Absent,
    /// Being mounted.
    Preparing,
    /// Mounted.
    Ready,
    /// Being unmounted.
    TearingDown,
}

/// Whether the pod's sandbox is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxState {
    /// There is none.
    #[default]
    Absent,
    /// Being made.
    Starting,
    /// Up.
    Ready,
    /// It died by itself.
    Dead,
    /// Being stopped.
    Stopping,
    /// Stopped by us.
    Stopped,
}

/// The sandbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    /// Whether it is there.
    pub state: SandboxState,
    /// The runtime's id of the newest one.
    pub id: String,
    /// How many were made before it.
    pub attempt: u32,
    /// Addresses, primary first; empty in the host's network.
    pub ips: Vec<String>,
}

/// How far an instance of a container is.
#[derive(Clone, Debug, PartialEq)]
pub enum Life {
    /// Made, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended.
    Exited {
        /// When.
        finished: Timestamp,
        /// With what; 128 + n for signal n.
        exit_code: i32,
        /// `Completed`, `Error`, `OOMKilled`, `ContainerStatusUnknown`, …
        reason: String,
        /// The termination message.
        message: String,
    },
}

/// One container of the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// The runtime's id, without its scheme.
    pub id: String,
    /// Counts the containers of this name, from 0: also the restart count.
    pub attempt: u32,
    /// How far it is.
    pub life: Life,
    /// When its process began.
    pub started: Option<Timestamp>,
    /// The image as the status shows it.
    pub image: String,
    /// Digest reference of the image.
    pub image_id: String,
    /// Who the process runs as.
    pub user: Option<ContainerUser>,
    /// [`spec::container_hash`] of what it was made from.
    pub hash: u32,
    /// Resources it runs with.
    pub resources: Option<ResourceRequirements>,
}

impl Life {
    /// An end that nobody saw, noticed at `finished`.
    pub fn lost(finished: Timestamp) -> Self {
        Self::Exited {
            finished,
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when the pod was terminated".to_owned(),
        }
    }
}

impl Instance {
    /// Whether its process runs.
    pub fn running(&self) -> bool {
        self.life == Life::Running
    }

    /// The exit code, once it has one.
    pub fn exit_code(&self) -> Option<i32> {
        match self.life {
            Life::Exited { exit_code, .. } => Some(exit_code),
            _ => None,
        }
    }
}

/// How far a lifecycle hook is.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Hook {
    /// Not begun.
    #[default]
    Waiting,
    /// Running.
    Running,
    /// Over.
    Done,
    /// Over, and it failed.
    Failed(String),
}

/// Why a container is stopped.
#[derive(Clone, Debug, PartialEq)]
pub enum StopReason {
    /// The pod ends.
    PodEnds,
    /// A probe of this kind failed too often.
    Probe(ProbeKind),
    /// Its postStart hook failed.
    PostStart,
    /// The spec asks for another image.
    Changed,
    /// The spec asks for other resources, and its resize policy for a restart.
    Resized,
    /// The sandbox it lives in is dead.
    SandboxDied,
}

/// A stop under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// When it began.
    pub since: Timestamp,
    /// Seconds the container has from then on.
    pub grace: i64,
    /// Why.
    pub reason: StopReason,
    /// Its preStop hook.
    pub pre_stop: Hook,
    /// Until when the runtime was told to wait before it kills, once it was told.
    pub told: Option<Timestamp>,
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// How the container asked for it.
    pub asked: String,
    /// What the runtime calls it.
    pub id: String,
}

/// What is known about one container of the spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The newest instance.
    pub current: Option<Instance>,
    /// The one before it.
    pub previous: Option<Instance>,
    /// An image is being looked for, or a container made and started.
    pub busy: bool,
    /// The image is being looked for or pulled.
    pub pulling: bool,
    /// The image that is there for the next start.
    pub image: Option<Image>,
    /// Why the last attempt to get it running failed.
    pub failure: Option<Failure>,
    /// Attempts that failed in a row.
    pub failures: Backoff,
    /// Waits between restarts.
    pub crashes: Backoff,
    /// postStart of the current instance.
    pub post_start: Hook,
    /// Its end, once decided on.
    pub stop: Option<Stop>,
    /// Why the current instance was ended to be started again, whatever its exit code says.
    pub again: Option<StopReason>,
    /// Its resources are being changed.
    pub resizing: bool,
    /// Why changing them failed last.
    pub resize_failure: Option<Failure>,
    /// Waits of failed changes of resources.
    pub resize_backoff: Backoff,
    /// Probes of the current instance.
    pub startup: ProbeState,
    /// See `startup`.
    pub liveness: ProbeState,
    /// See `startup`.
    pub readiness: ProbeState,
}

impl Seen {
    /// The state of one kind of probe.
    pub fn probe(&self, kind: ProbeKind) -> &ProbeState {
        match kind {
            ProbeKind::Startup => &self.startup,
            ProbeKind::Liveness => &self.liveness,
            ProbeKind::Readiness => &self.readiness,
        }
    }

    fn probe_mut(&mut self, kind: ProbeKind) -> &mut ProbeState {
        match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        }
    }

    /// Whether a process of it runs.
    pub fn running(&self) -> bool {
        self.current.as_ref().is_some_and(Instance::running)
    }

    /// Whether something of it is alive or about to be. An image on its way is nothing that has to end.
    pub fn alive(&self) -> bool {
        (self.busy && !self.pulling) || self.current.as_ref().is_some_and(|i| i.exit_code().is_none())
    }

    /// What the runtime calls the image that `container` asks for, if it is there for the next start.
    pub fn image(&self, container: &Container) -> Option<&str> {
        let asked = container.image.as_deref().unwrap_or_default();
        self.image.as_ref().filter(|image| image.asked == asked).map(|image| image.id.as_str())
    }

    /// The number the next instance gets.
    pub fn next_attempt(&self) -> u32 {
        self.current.as_ref().or(self.previous.as_ref()).map_or(0, |i| i.attempt.saturating_add(1))
    }

    fn forget_instance(&mut self) {
        self.post_start = Hook::Waiting;
        self.stop = None;
        self.again = None;
        (self.resizing, self.resize_failure) = (false, None);
        self.resize_backoff.reset();
        (self.startup, self.liveness, self.readiness) = Default::default();
    }
}

/// Why the node itself ends a pod, or never begins it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `status.reason`: `Evicted`, `OutOfcpu`, `DeadlineExceeded`, …
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// Seconds its containers get.
    pub grace: i64,
    /// Whether the condition `DisruptionTarget` (reason `TerminationByKubelet`) tells of it.
    pub disruption: bool,
}

/// What is known about a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// When the node took the pod in.
    pub start_time: Option<Timestamp>,
    /// When its end was first asked for.
    pub deletion_seen: Option<Timestamp>,
    /// The API server no longer has the pod.
    pub removed: bool,
    /// The node cannot take it.
    pub rejected: Option<Verdict>,
    /// The node ends it.
    pub evicted: Option<Verdict>,
    /// The spec asks for resources that the node cannot give: (reason, message). The pod runs with what it has.
    pub resize_pending: Option<(String, String)>,
    /// Services are known (their variables go into the environment), so containers may be made.
    pub may_start: bool,
    /// Volumes.
    pub volumes: Volumes,
    /// Why mounting failed last.
    pub volume_failure: Option<Failure>,
    /// Waits of failed mounts.
    pub volume_backoff: Backoff,
    /// Sandbox.
    pub sandbox: Sandbox,
    /// Why making it failed last.
    pub sandbox_failure: Option<Failure>,
    /// Waits of failed sandboxes.
    pub sandbox_backoff: Backoff,
    /// Containers by name.
    pub containers: BTreeMap<String, Seen>,
    /// Everything on the node is being taken away.
    pub cleaning: bool,
    /// Everything on the node has been taken away.
    pub clean: bool,
    /// The object is being deleted from the API.
    pub deleting_object: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening {
    /// Volumes are mounted, or why not.
    VolumesPrepared(Result<(), String>),
    /// Volumes are unmounted.
    VolumesGone,
    /// A sandbox is up (id, addresses), or why not.
    SandboxStarted(Result<(String, Vec<String>), String>),
    /// A sandbox died by itself.
    SandboxDied(String),
    /// The sandbox is stopped.
    SandboxStopped,
    /// A container's image is there, or (reason, message) why not.
    Image(String, Result<Image, (String, String)>),
    /// A container runs (or has already ended), or (reason, message) why not.
    Started(String, Result<Box<Instance>, (String, String)>),
    /// The runtime's view of an instance.
    Instance(String, Box<Instance>),
    /// A postStart hook is over.
    PostStart(String, Result<(), String>),
    /// A preStop hook is over.
    PreStop(String, Result<(), String>),
    /// The resources of the instance with this id were changed to these, or why not.
    Resized(String, String, Result<Option<ResourceRequirements>, String>),
    /// The runtime refused to stop it: it will be told again.
    StopFailed(String),
    /// A probe of the instance with this id answered; `None`: it could not be asked, which counts for nothing.
    Probed(String, String, ProbeKind, Option<bool>),
    /// The runtime has no container of this id any more.
    Lost(String, String),
    /// Something that is needed and was not there may be there now: what failed for it is tried at once.
    InputsChanged,
    /// Everything on the node is gone.
    Cleaned,
    /// Taking it away, or deleting the object, has to be tried again.
    CleanFailed,
}

impl Observed {
    /// What is known about a container.
    pub fn seen(&self, name: &str) -> Option<&Seen> {
        self.containers.get(name)
    }

    /// Notes what the API server says of the pod.
    pub fn update(&mut self, pod: &Pod, now: Timestamp) {
        self.start_time.get_or_insert_with(|| {
            pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(now, |t| t.0)
        });
        if pod.metadata.deletion_timestamp.is_some() {
            self.deletion_seen.get_or_insert(now);
        }
        for part in spec::parts(&spec::spec(pod)) {
            self.containers.entry(part.container.name.clone()).or_default();
        }
    }

    /// Notes that an action is about to be done.
    pub fn begin(&mut self, action: &Action, now: Timestamp, policy: &Policy) {
        match action {
            Action::PrepareVolumes => self.volumes = Volumes::Preparing,
            Action::RunSandbox { attempt } => {
                self.sandbox =
                    Sandbox { state: SandboxState::Starting, attempt: *attempt, ..Sandbox::default() };
            }
            Action::EnsureImage { container } => {
                let seen = self.containers.entry(container.clone()).or_default();
                (seen.busy, seen.pulling) = (true, true);
            }
            Action::Start { container, .. } => {
                let seen = self.containers.entry(container.clone()).or_default();
                seen.busy = true;
                if let Some(Life::Exited { finished, .. }) = seen.current.as_ref().map(|i| i.life.clone()) {
                    seen.crashes.attempt(policy.crash, finished, now);
                }
            }
            Action::PostStart { container, .. } => self.touch(container, |s| s.post_start = Hook::Running),
            Action::PreStop { container, grace, since, reason, .. } => self.touch(container, |s| {
                let stop = s.stop.get_or_insert_with(|| Stop::new(*since, *grace, reason.clone()));
                stop.pre_stop = Hook::Running;
                stop.grace = *grace;
            }),
            Action::Kill { container, grace, since, reason, until, .. } => self.touch(container, |s| {
                let stop = s.stop.get_or_insert_with(|| Stop::new(*since, *grace, reason.clone()));
                stop.told = Some(*until);
                stop.grace = *grace;
            }),
            Action::Resize { container, .. } => self.touch(container, |s| s.resizing = true),
            Action::Probe { container, kind, .. } => self.touch(container, |s| s.probe_mut(*kind).begin(now)),
            Action::StopSandbox { .. } => self.sandbox.state = SandboxState::Stopping,
            Action::TearDownVolumes => self.volumes = Volumes::TearingDown,
            Action::Clean => self.cleaning = true,
            Action::DeleteObject => self.deleting_object = true,
        }
    }

    fn touch(&mut self, container: &str, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.containers.get_mut(container) {
            change(seen);
        }
    }

    /// Notes what happened.
    pub fn happened(&mut self, pod: &Pod, happening: Happening, now: Timestamp, policy: &Policy) {
        match happening {
            Happening::VolumesPrepared(Ok(())) => {
                self.volumes = Volumes::Ready;
                self.volume_failure = None;
                self.volume_backoff.reset();
            }
            Happening::VolumesPrepared(Err(message)) => {
                self.volumes = Volumes::Absent;
                self.volume_failure =
                    Some(failure(&mut self.volume_backoff, policy, "FailedMount", message, now));
            }
            Happening::VolumesGone => self.volumes = Volumes::Absent,
            Happening::SandboxStarted(Ok((id, ips))) => {
                (self.sandbox.state, self.sandbox.id, self.sandbox.ips) = (SandboxState::Ready, id, ips);
                self.sandbox_failure = None;
                self.sandbox_backoff.reset();
            }
            Happening::SandboxStarted(Err(message)) => {
                self.sandbox.state = SandboxState::Absent;
                self.sandbox.attempt += 1;
                self.sandbox_failure =
                    Some(failure(&mut self.sandbox_backoff, policy, "FailedCreatePodSandBox", message, now));
            }
            Happening::SandboxDied(id) => {
                if self.sandbox.id == id && self.sandbox.state == SandboxState::Ready {
                    self.sandbox.state = SandboxState::Dead;
                }
            }
            Happening::SandboxStopped => self.sandbox.state = SandboxState::Stopped,
            Happening::Image(name, result) => self.touch(&name, |seen| {
                (seen.busy, seen.pulling) = (false, false);
                match result {
                    Ok(image) => seen.image = Some(image),
                    Err((reason, message)) => {
                        let curve = Policy { retry: policy.pull, ..*policy };
                        let failed = failure(&mut seen.failures, &curve, &reason, message, now);
                        seen.failure = Some(failed);
                    }
                }
            }),
            Happening::Started(name, Ok(instance)) => {
                let spec = spec::spec(pod);
                // such an image is asked for at every start
                let once = spec::part(&spec, &name)
                    .is_some_and(|p| p.container.image_pull_policy.as_deref() == Some("Always"));
                self.touch(&name, |seen| {
                    (seen.busy, seen.failure) = (false, None);
                    seen.failures.reset();
                    seen.image.take_if(|_| once);
                });
                self.instance(pod, &name, *instance);
            }
            Happening::Started(name, Err((reason, message))) => self.touch(&name, |seen| {
                seen.busy = false;
                seen.failure = Some(failure(&mut seen.failures, policy, &reason, message, now));
            }),
            Happening::Instance(name, instance) => self.instance(pod, &name, *instance),
            Happening::PostStart(name, result) => self.touch(&name, |seen| {
                seen.post_start = result.map_or_else(Hook::Failed, |()| Hook::Done);
            }),
            Happening::PreStop(name, result) => self.touch(&name, |seen| {
                if let Some(stop) = &mut seen.stop {
                    stop.pre_stop = result.map_or_else(Hook::Failed, |()| Hook::Done);
                }
            }),
            Happening::Resized(name, id, result) => self.touch(&name, |seen| {
                let Some(current) = seen.current.as_mut().filter(|i| i.id == id) else { return };
                seen.resizing = false;
                match result {
                    Ok(resources) => {
                        current.resources = resources;
                        seen.resize_failure = None;
                        seen.resize_backoff.reset();
                    }
                    Err(why) => {
                        let failed = failure(&mut seen.resize_backoff, policy, "Error", why, now);
                        seen.resize_failure = Some(failed);
                    }
                }
            }),
            Happening::StopFailed(name) => self.touch(&name, |seen| {
                if let Some(stop) = &mut seen.stop {
                    stop.told = None;
                }
            }),
            Happening::Probed(name, id, kind, success) => {
                let spec = spec::spec(pod);
                let Some(part) = spec::part(&spec, &name) else { return };
                let Some(probe) = kind.of(&part.container) else { return };
                self.touch(&name, |seen| {
                    if seen.current.as_ref().is_some_and(|i| i.id == id) {
                        seen.probe_mut(kind).record(probe, success);
                    }
                });
            }
            Happening::Lost(name, id) => {
                let current = self.containers.get(&name).and_then(|s| s.current.clone());
                if let Some(mut instance) = current.filter(|i| i.id == id && i.exit_code().is_none()) {
                    instance.life = Life::lost(now);
                    self.instance(pod, &name, instance);
                }
            }
            Happening::InputsChanged => {
                let wanting = ["FailedMount", "CreateContainerConfigError"];
                let failures = self.containers.values_mut().filter_map(|s| s.failure.as_mut());
                for failure in failures.chain(self.volume_failure.as_mut()) {
                    if wanting.contains(&failure.reason.as_str()) {
                        failure.retry_at = failure.retry_at.min(now);
                    }
                }
            }
            Happening::Cleaned => (self.cleaning, self.clean) = (false, true),
            Happening::CleanFailed => (self.cleaning, self.deleting_object) = (false, false),
        }
    }

    /// Takes the runtime's view of an instance, never a step backwards.
    fn instance(&mut self, pod: &Pod, name: &str, instance: Instance) {
        let not_never = spec::restart_policy(&spec::spec(pod)) != "Never";
        self.touch(name, |seen| {
            match &mut seen.current {
                Some(current) if current.id == instance.id => {
                    if matches!(current.life, Life::Exited { .. }) {
                        return;
                    }
                    // the runtime does not tell what it was given; that is known here
                    let resources = current.resources.take();
                    *current = Instance { resources, ..instance };
                }
                Some(current) if current.attempt > instance.attempt => {
                    if seen.previous.as_ref().is_none_or(|p| p.attempt <= instance.attempt) {
                        seen.previous = Some(instance);
                    }
                    return;
                }
                _ => {
                    seen.previous = seen.current.replace(instance).or(seen.previous.take());
                    seen.forget_instance();
                }
            }
            if seen.current.as_ref().is_some_and(|i| i.exit_code().is_some()) {
                let reason = seen.stop.take().map(|stop| stop.reason);
                seen.again = reason.filter(|reason| match reason {
                    StopReason::Changed | StopReason::Resized => true,
                    StopReason::Probe(_) | StopReason::PostStart => not_never,
                    StopReason::PodEnds | StopReason::SandboxDied => false,
                });
                if seen.again == Some(StopReason::Changed) {
                    // another program: what the one before it did counts for nothing
                    seen.crashes.reset();
                }
            }
        });
    }

    /// Makes ready for a new sandbox: every container has to be made again, so what there was becomes the past.
    pub fn sandbox_replaced(&mut self) {
        self.sandbox.state = SandboxState::Absent;
        self.sandbox.attempt += 1;
        for seen in self.containers.values_mut() {
            if let Some(instance) = seen.current.take() {
                seen.previous = Some(instance);
            }
            seen.forget_instance();
        }
    }
}

impl Stop {
    fn new(since: Timestamp, grace: i64, reason: StopReason) -> Self {
        Self { since, grace, reason, pre_stop: Hook::Waiting, told: None }
    }
}

fn failure(backoff: &mut Backoff, policy: &Policy, reason: &str, message: String, now: Timestamp) -> Failure {
    backoff.attempt(policy.retry, now, now);
    let wait = backoff.wait();
    Failure { reason: reason.to_owned(), message, retry_at: now + wait.max(SignedDuration::ZERO) }
}
