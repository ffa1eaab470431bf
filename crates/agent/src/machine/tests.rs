//! The life of a pod, told as stories: a world where every action succeeds at once unless a test says otherwise.

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use super::{
    Action, Happening, Observed, Policy, Step,
    observed::{Image, Instance, Life, SandboxState, Volumes},
    probe::ProbeKind,
    step,
};
use crate::spec;

struct World {
    pod: Pod,
    seen: Observed,
    now: Timestamp,
    policy: Policy,
    log: Vec<String>,
    made: u32,
    /// Actions that are not carried out: the test does.
    held: Vec<&'static str>,
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

impl World {
    fn new(spec: Value) -> Self {
        let mut world = Self {
            pod: pod(spec),
            seen: Observed { may_start: true, ..Observed::default() },
            now: Timestamp::UNIX_EPOCH,
            policy: Policy::default(),
            log: vec![],
            made: 0,
            held: vec![],
        };
        world.seen.update(&world.pod, world.now);
        world
    }

    fn step(&self) -> Step {
        step(&self.pod, &self.seen, self.now, &self.policy)
    }

    fn happen(&mut self, happening: Happening) {
        self.seen.happened(&self.pod, happening, self.now, &self.policy);
    }

    /// Runs until nothing more is to be done now.
    fn settle(&mut self) -> &mut Self {
        for _ in 0..100 {
            let actions = self.step().actions;
            if actions.is_empty() {
                return self;
            }
            for action in actions {
                self.seen.begin(&action, self.now, &self.policy);
                self.act(action);
            }
        }
        panic!("does not settle: {:?}", self.log);
    }

    fn note(&mut self, text: String) -> bool {
        let verb = text.split(' ').next().unwrap_or_default().to_owned();
        self.log.push(text);
        self.held.iter().any(|h| *h == verb)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::PrepareVolumes => {
                if !self.note("volumes".into()) {
                    self.happen(Happening::VolumesPrepared(Ok(())));
                }
            }
            Action::RunSandbox { attempt } => {
                if !self.note(format!("sandbox {attempt}")) {
                    self.happen(Happening::SandboxStarted(Ok((
                        format!("s{attempt}"),
                        vec!["10.0.0.1".into()],
                    ))));
                }
            }
            Action::EnsureImage { container } => {
                if !self.note(format!("image {container}")) {
                    let image = self.image(&container);
                    self.happen(Happening::Image(container, Ok(image)));
                }
            }
            Action::Start { container, attempt, .. } => {
                if !self.note(format!("start {container} {attempt}")) {
                    let instance = self.instance(&container, attempt);
                    self.happen(Happening::Started(container, Ok(Box::new(instance))));
                }
            }
            Action::PostStart { container, .. } => {
                if !self.note(format!("postStart {container}")) {
                    self.happen(Happening::PostStart(container, Ok(())));
                }
            }
            Action::PreStop { container, .. } => {
                if !self.note(format!("preStop {container}")) {
                    self.happen(Happening::PreStop(container, Ok(())));
                }
            }
            Action::Kill { container, until, .. } => {
                let left = until.duration_since(self.now).as_secs();
                if !self.note(format!("kill {container} {left}")) {
                    self.exit(&container, 143);
                }
            }
            Action::Resize { container, id } => {
                if !self.note(format!("resize {container}")) {
                    let spec = spec::spec(&self.pod);
                    let part = spec::part(&spec, &container).expect("the container");
                    let resources = part.container.resources.clone();
                    self.happen(Happening::Resized(container, id, Ok(resources)));
                }
            }
            Action::Probe { container, kind, .. } => {
                self.note(format!("{} {container}", kind.as_str().to_lowercase()));
            }
            Action::StopSandbox { .. } => {
                self.note("stopSandbox".into());
                if matches!(super::intent(&self.pod, &self.seen, self.now), super::Intent::Run) {
                    self.seen.sandbox_replaced();
                } else {
                    self.happen(Happening::SandboxStopped);
                }
            }
            Action::TearDownVolumes => {
                self.note("unmount".into());
                self.happen(Happening::VolumesGone);
            }
            Action::Clean => {
                self.note("clean".into());
                self.happen(Happening::Cleaned);
            }
            Action::DeleteObject => {
                self.note("delete".into());
            }
        }
    }

    fn image(&self, container: &str) -> Image {
        let spec = spec::spec(&self.pod);
        let asked = spec::part(&spec, container).and_then(|p| p.container.image.clone());
        Image { asked: asked.expect("an image"), id: "sha256:1".into() }
    }

    fn instance(&mut self, container: &str, attempt: u32) -> Instance {
        self.made += 1;
        let spec = spec::spec(&self.pod);
        let part = spec::part(&spec, container);
        let hash = part.as_ref().map_or(0, |p| spec::container_hash(&p.container));
        Instance {
            id: format!("c{}", self.made),
            attempt,
            life: Life::Running,
            started: Some(self.now),
            image: "busybox".into(),
            image_id: "sha256:1".into(),
            user: None,
            hash,
            resources: part.and_then(|p| p.container.resources.clone()),
        }
    }

    fn exit(&mut self, container: &str, exit_code: i32) -> &mut Self {
        let mut instance = self.seen.containers[container].current.clone().expect("an instance");
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        let (reason, message) = (reason.into(), String::new());
        instance.life = Life::Exited { finished: self.now, exit_code, reason, message };
        self.happen(Happening::Instance(container.into(), Box::new(instance)));
        self
    }

    fn answer(&mut self, container: &str, kind: ProbeKind, success: bool) -> &mut Self {
        let id = self.seen.containers[container].current.clone().expect("an instance").id;
        self.happen(Happening::Probed(container.into(), id, kind, Some(success)));
        self
    }

    fn pass(&mut self, seconds: i64) -> &mut Self {
        self.now += SignedDuration::from_secs(seconds);
        self
    }

    fn delete(&mut self, grace: i64) -> &mut Self {
        self.pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.seen.update(&self.pod.clone(), self.now);
        self
    }

    fn told(&mut self) -> String {
        std::mem::take(&mut self.log).join(", ")
    }

    fn ready(&self, container: &str) -> bool {
        self.state(container).contains("ready=true")
    }

    fn phase(&self) -> String {
        self.step().status.phase.unwrap_or_default()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.step().status.conditions.unwrap_or_default();
        let c = conditions.into_iter().find(|c| c.type_ == kind).expect("the condition");
        assert_eq!(c.observed_generation, Some(3));
        (c.status, c.reason.unwrap_or_default())
    }

    fn state(&self, container: &str) -> String {
        let status = self.step().status;
        let all =
            [status.init_container_statuses, status.container_statuses, status.ephemeral_container_statuses];
        let s = all.into_iter().flatten().flatten().find(|s| s.name == container).expect("the status");
        let state = s.state.unwrap_or_default();
        let text = if state.running.is_some() {
            "running".to_owned()
        } else if let Some(t) = state.terminated {
            format!("ended {}", t.exit_code)
        } else {
            state.waiting.and_then(|w| w.reason).unwrap_or_default()
        };
        format!("{text} ready={} restarts={}", s.ready, s.restart_count)
    }

    fn status(&self, container: &str) -> k8s_openapi::api::core::v1::ContainerStatus {
        let list = self.step().status.container_statuses.unwrap_or_default();
        list.into_iter().find(|s| s.name == container).expect("the status")
    }
}

fn c(name: &str) -> Value {
    json!({"name": name, "image": "busybox"})
}

fn with(mut base: Value, more: Value) -> Value {
    for (k, v) in more.as_object().unwrap() {
        base[k] = v.clone();
    }
    base
}

fn sidecar(name: &str) -> Value {
    with(c(name), json!({"restartPolicy": "Always"}))
}

#[test]
fn a_plain_pod_gets_volumes_sandbox_and_image_at_once_and_then_its_container() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    assert_eq!(
        (w.phase().as_str(), w.state("a").as_str()),
        ("Pending", "ContainerCreating ready=false restarts=0")
    );
    let first = w.step().actions;
    assert_eq!(first.len(), 3, "{first:?}");
    w.settle();
    assert_eq!(w.told(), "sandbox 0, volumes, image a, start a 0");
    assert_eq!((w.phase().as_str(), w.state("a").as_str()), ("Running", "running ready=true restarts=0"));
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "Ready", "PodReadyToStartContainers"] {
        assert_eq!(w.condition(kind).0, "True", "{kind}");
    }
    let status = w.step().status;
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!((status.qos_class.as_deref(), status.observed_generation), (Some("BestEffort"), Some(3)));
    assert_eq!(w.step().deadline, None, "a healthy pod without probes never wakes");
}

#[test]
fn nothing_starts_before_the_services_are_known() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.seen.may_start = false;
    w.settle();
    assert_eq!(w.told(), "");
}

#[test]
fn a_failing_container_restarts_at_once_then_after_ten_seconds_and_then_twice_as_long() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle().exit("a", 1).settle();
    assert_eq!(w.state("a"), "running ready=true restarts=1");
    w.exit("a", 1).settle();
    assert_eq!(w.state("a"), "CrashLoopBackOff ready=false restarts=1");
    assert_eq!(w.phase(), "Running");
    let waiting = w.status("a").state.unwrap().waiting.unwrap();
    assert_eq!(waiting.message.unwrap(), "back-off 10s restarting failed container=a pod=p_ns(u)");
    assert_eq!(w.status("a").last_state.unwrap().terminated.unwrap().exit_code, 1);
    assert_eq!(w.step().deadline, Some(w.now + SignedDuration::from_secs(10)));
    w.pass(9).settle();
    assert_eq!(w.state("a"), "CrashLoopBackOff ready=false restarts=1");
    w.pass(1).settle().exit("a", 1);
    assert_eq!(w.step().deadline, Some(w.now + SignedDuration::from_secs(20)));
}

#[test]
fn a_job_like_pod_succeeds_when_all_containers_end_well_and_its_sandbox_is_stopped() {
    let mut w = World::new(json!({"restartPolicy": "Never", "containers": [c("a"), c("b")]}));
    w.settle().exit("a", 0).settle();
    assert_eq!(w.phase(), "Running");
    w.told();
    w.exit("b", 0).settle();
    assert_eq!(w.told(), "stopSandbox, unmount");
    assert_eq!((w.phase().as_str(), w.state("b").as_str()), ("Succeeded", "ended 0 ready=false restarts=0"));
    assert_eq!(w.condition("Ready"), ("False".into(), "PodCompleted".into()));
    assert_eq!(w.condition("Initialized"), ("True".into(), "PodCompleted".into()));
}

#[test]
fn one_failure_under_never_fails_the_pod_once_all_have_ended() {
    let mut w = World::new(json!({"restartPolicy": "Never", "containers": [c("a"), c("b")]}));
    w.settle().exit("a", 7).settle();
    assert_eq!(w.phase(), "Running");
    w.exit("b", 0).settle();
    assert_eq!((w.phase().as_str(), w.condition("Ready").1.as_str()), ("Failed", "PodFailed"));
}

#[test]
fn on_failure_restarts_what_failed_only() {
    let mut w = World::new(json!({"restartPolicy": "OnFailure", "containers": [c("a"), c("b")]}));
    w.settle().exit("a", 0).exit("b", 1).settle();
    assert_eq!(w.state("a"), "ended 0 ready=false restarts=0");
    assert_eq!(w.state("b"), "running ready=true restarts=1");
    w.exit("b", 0).settle();
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn restart_rules_go_before_policies() {
    let rule = json!({"restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
    let mut w = World::new(json!({"restartPolicy": "Always", "containers": [with(c("a"), rule)]}));
    w.settle().exit("a", 42).settle();
    assert_eq!(w.state("a"), "running ready=true restarts=1");
    w.exit("a", 1).settle();
    assert_eq!(w.phase(), "Failed");
}

#[test]
fn init_containers_run_one_after_another_and_never_again() {
    let mut w = World::new(json!({"initContainers": [c("i"), c("j")], "containers": [c("a")]}));
    w.settle();
    assert_eq!(w.told(), "sandbox 0, volumes, image i, start i 0");
    assert_eq!(w.state("a"), "PodInitializing ready=false restarts=0");
    assert_eq!(w.state("i"), "running ready=false restarts=0");
    assert_eq!(w.condition("Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    w.exit("i", 0).settle();
    assert_eq!(w.told(), "image j, start j 0");
    assert_eq!(w.phase(), "Pending");
    w.exit("j", 0).settle();
    assert_eq!(w.told(), "image a, start a 0");
    w.exit("a", 1).settle();
    assert_eq!(w.told(), "start a 1");
    assert_eq!(w.state("i"), "ended 0 ready=true restarts=0");
}

#[test]
fn an_agent_that_starts_anew_takes_main_containers_as_proof_of_the_init_containers() {
    let mut w = World::new(json!({"initContainers": [c("i"), c("j")], "containers": [c("a")]}));
    w.seen.sandbox.state = SandboxState::Ready;
    w.seen.volumes = Volumes::Ready;
    let instance = w.instance("a", 0);
    w.happen(Happening::Instance("a".into(), Box::new(instance)));
    w.settle();
    assert_eq!(w.told(), "");
    assert_eq!(w.phase(), "Running");
}

#[test]
fn a_later_init_container_proves_the_earlier_ones() {
    let mut w = World::new(json!({"initContainers": [c("i"), c("j")], "containers": [c("a")]}));
    w.seen.sandbox.state = SandboxState::Ready;
    w.seen.volumes = Volumes::Ready;
    let instance = w.instance("j", 0);
    w.happen(Happening::Instance("j".into(), Box::new(instance)));
    w.exit("j", 0).settle();
    assert_eq!(w.told(), "image a, start a 0");
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts_and_backs_off_otherwise() {
    let mut w =
        World::new(json!({"restartPolicy": "Never", "initContainers": [c("i")], "containers": [c("a")]}));
    w.settle().exit("i", 1).settle();
    assert_eq!((w.phase().as_str(), w.told().contains("start a")), ("Failed", false));
    let mut w = World::new(json!({"initContainers": [c("i")], "containers": [c("a")]}));
    w.settle().exit("i", 1).settle().exit("i", 1).settle();
    assert_eq!(
        (w.phase().as_str(), w.state("i").as_str()),
        ("Pending", "CrashLoopBackOff ready=false restarts=1")
    );
}

#[test]
fn a_sidecar_that_has_come_up_lets_the_next_one_start() {
    let probe = json!({"startupProbe": {"exec": {"command": ["x"]}, "periodSeconds": 1}});
    let mut w =
        World::new(json!({"initContainers": [with(sidecar("s"), probe), c("i")], "containers": [c("a")]}));
    w.settle();
    assert_eq!(w.told(), "sandbox 0, volumes, image s, start s 0, startup s");
    w.answer("s", ProbeKind::Startup, true).settle();
    assert_eq!(w.told(), "image i, start i 0");
    w.exit("i", 0).settle();
    assert_eq!(w.told(), "image a, start a 0");
    w.exit("s", 1).settle();
    assert_eq!(w.told(), "start s 1, startup s", "a sidecar restarts while the pod runs");
}

#[test]
fn sidecars_end_after_the_main_containers_in_reverse_order() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [sidecar("s"), sidecar("t")], "containers": [c("a")]});
    let mut w = World::new(spec);
    w.settle();
    w.told();
    w.exit("a", 0).settle();
    assert_eq!(w.told(), "kill t 30, kill s 30, stopSandbox, unmount");
    assert_eq!(w.phase(), "Succeeded", "how a sidecar ends does not matter");
}

#[test]
fn deleting_runs_all_hooks_at_once_and_kills_sidecars_last() {
    let hook = json!({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}});
    let mut w = World::new(
        json!({"initContainers": [with(sidecar("s"), hook.clone())], "containers": [with(c("a"), hook)]}),
    );
    w.settle();
    w.told();
    w.held = vec!["preStop", "kill"];
    w.delete(30).settle();
    assert_eq!(w.told(), "preStop s, preStop a");
    w.pass(4);
    w.happen(Happening::PreStop("a".into(), Ok(())));
    w.happen(Happening::PreStop("s".into(), Ok(())));
    w.settle();
    assert_eq!(w.told(), "kill a 26");
    w.exit("a", 0).settle();
    assert_eq!(w.told(), "kill s 26");
    w.exit("s", 0).settle();
    assert_eq!(w.told(), "stopSandbox, unmount, clean, delete");
    assert_eq!(w.phase(), "Succeeded");
}

#[test]
fn a_hook_that_outlasts_the_grace_period_leaves_two_seconds() {
    let hook = json!({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}});
    let mut w = World::new(json!({"containers": [with(c("a"), hook)]}));
    w.settle();
    w.held = vec!["preStop"];
    w.told();
    w.delete(5).settle();
    assert_eq!(w.step().deadline, Some(w.now + SignedDuration::from_secs(5)));
    w.pass(5).settle();
    assert_eq!(w.told(), "preStop a, kill a 2, stopSandbox, unmount, clean, delete");
}

#[test]
fn a_shortened_grace_period_is_told_to_the_runtime_and_a_longer_one_is_not() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.held = vec!["kill"];
    w.told();
    w.delete(60).settle();
    w.delete(90).settle();
    w.pass(2).delete(5).settle();
    assert_eq!(w.told(), "kill a 60, kill a 3");
}

#[test]
fn a_pod_deleted_while_its_sandbox_is_made_waits_for_it_and_takes_it_down() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["sandbox", "image"];
    w.settle().delete(30).settle();
    assert_eq!(w.told(), "sandbox 0, volumes, image a, unmount");
    w.happen(Happening::SandboxStarted(Ok(("s0".into(), vec![]))));
    w.settle();
    assert_eq!(w.told(), "stopSandbox, clean, delete");
    assert_eq!(w.phase(), "Failed", "a pod that never ran has not succeeded");
}

#[test]
fn a_container_without_readiness_probe_is_ready_and_one_with_it_waits_for_success() {
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 2}});
    let mut w = World::new(json!({"containers": [with(c("a"), probe)]}));
    w.settle();
    assert_eq!(w.state("a"), "running ready=false restarts=0");
    assert_eq!(w.condition("ContainersReady"), ("False".into(), "ContainersNotReady".into()));
    w.answer("a", ProbeKind::Readiness, true);
    assert_eq!(
        (w.state("a").as_str(), w.condition("Ready").0.as_str()),
        ("running ready=true restarts=0", "True")
    );
    assert_eq!(w.step().deadline, Some(w.now + SignedDuration::from_secs(2)));
    for _ in 0..3 {
        w.pass(2).settle().answer("a", ProbeKind::Readiness, false);
    }
    assert_eq!(w.condition("Ready").0, "False");
}

#[test]
fn liveness_waits_for_startup_and_kills_with_the_probes_own_grace() {
    let probes = json!({
        "startupProbe": {"exec": {"command": ["x"]}},
        "livenessProbe": {"exec": {"command": ["x"]}, "failureThreshold": 1, "terminationGracePeriodSeconds": 7}
    });
    let mut w = World::new(json!({"containers": [with(c("a"), probes)]}));
    w.settle();
    assert_eq!(w.told(), "sandbox 0, volumes, image a, start a 0, startup a");
    w.answer("a", ProbeKind::Startup, true).settle();
    assert_eq!(w.told(), "liveness a");
    w.answer("a", ProbeKind::Liveness, false).settle();
    assert_eq!(w.told(), "kill a 7, start a 1, startup a");
}

#[test]
fn a_probe_result_of_a_former_instance_counts_for_nothing() {
    let probe = json!({"livenessProbe": {"exec": {"command": ["x"]}, "failureThreshold": 1}});
    let mut w = World::new(json!({"containers": [with(c("a"), probe)]}));
    w.settle();
    let old = w.seen.containers["a"].current.clone().unwrap().id;
    w.exit("a", 1).settle();
    w.happen(Happening::Probed("a".into(), old, ProbeKind::Liveness, Some(false)));
    w.told();
    w.settle();
    assert_eq!(w.told(), "");
}

#[test]
fn a_running_container_is_shown_as_waiting_until_its_post_start_hook_is_over() {
    let hook = json!({"lifecycle": {"postStart": {"exec": {"command": ["x"]}}}});
    let mut w = World::new(json!({"containers": [with(c("a"), hook), c("b")]}));
    w.held = vec!["postStart"];
    w.settle();
    assert_eq!(
        w.told(),
        "sandbox 0, volumes, image a, image b, start a 0, postStart a",
        "b waits for a's hook"
    );
    assert_eq!(w.state("a"), "ContainerCreating ready=false restarts=0");
    w.happen(Happening::PostStart("a".into(), Ok(())));
    w.settle();
    assert_eq!(w.told(), "start b 0");
    assert_eq!(w.state("a"), "running ready=true restarts=0");
}

#[test]
fn a_failed_post_start_hook_ends_the_container() {
    let hook = json!({"lifecycle": {"postStart": {"exec": {"command": ["x"]}}}});
    let mut w = World::new(json!({"restartPolicy": "Never", "containers": [with(c("a"), hook)]}));
    w.held = vec!["postStart"];
    w.settle();
    w.happen(Happening::PostStart("a".into(), Err("no".into())));
    w.settle();
    assert!(w.told().ends_with("kill a 30, stopSandbox, unmount"));
    assert_eq!(w.phase(), "Failed");
}

#[test]
fn an_image_that_does_not_come_is_tried_again_with_back_off() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["image"];
    w.settle();
    w.happen(Happening::Image("a".into(), Err(("ErrImagePull".into(), "no such host".into()))));
    w.settle();
    assert_eq!(
        (w.phase().as_str(), w.state("a").as_str()),
        ("Pending", "ErrImagePull ready=false restarts=0")
    );
    assert_eq!(w.step().deadline, Some(w.now + SignedDuration::from_secs(10)));
    w.told();
    w.pass(10).settle();
    assert_eq!(w.told(), "image a");
}

#[test]
fn policy_always_asks_for_the_image_at_every_start() {
    let mut w = World::new(json!({"containers": [with(c("a"), json!({"imagePullPolicy": "Always"}))]}));
    w.settle();
    w.told();
    w.exit("a", 1).settle();
    assert_eq!(w.told(), "image a, start a 1");
}

#[test]
fn a_container_that_cannot_be_made_says_why_and_is_tried_again() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["start"];
    w.settle();
    let why = "configmap \"x\" not found".to_owned();
    w.happen(Happening::Started("a".into(), Err(("CreateContainerConfigError".into(), why))));
    assert_eq!(w.state("a"), "CreateContainerConfigError ready=false restarts=0");
    w.told();
    w.pass(1).settle();
    assert_eq!(w.told(), "start a 0");
}

#[test]
fn a_sandbox_that_dies_is_replaced_and_init_containers_run_again() {
    let mut w = World::new(json!({"initContainers": [c("i")], "containers": [c("a")]}));
    w.settle().exit("i", 0).settle();
    w.told();
    w.happen(Happening::SandboxDied("s0".into()));
    w.settle();
    assert_eq!(w.told(), "kill a 0, stopSandbox, sandbox 1, start i 1");
}

#[test]
fn a_pod_the_node_cannot_take_fails_without_starting_anything() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.seen.rejected = Some(super::Verdict {
        reason: "OutOfcpu".into(),
        message: "Node didn't have enough resource: cpu".into(),
        grace: 0,
        disruption: false,
    });
    w.settle();
    let status = w.step().status;
    assert_eq!(
        (w.told().as_str(), w.phase().as_str(), status.reason.as_deref()),
        ("", "Failed", Some("OutOfcpu"))
    );
    assert!(status.container_statuses.is_none());
    w.delete(0).settle();
    assert_eq!(w.told(), "clean, delete");
}

#[test]
fn an_evicted_pod_fails_with_its_reason_and_a_disruption_condition() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.seen.evicted = Some(super::Verdict {
        reason: "Evicted".into(),
        message: "The node was low on resource: memory. ".into(),
        grace: 0,
        disruption: true,
    });
    w.settle();
    let status = w.step().status;
    assert_eq!((w.phase().as_str(), status.reason.as_deref()), ("Failed", Some("Evicted")));
    assert_eq!(w.condition("DisruptionTarget"), ("True".into(), "TerminationByKubelet".into()));
}

#[test]
fn the_active_deadline_ends_a_pod_at_its_second() {
    let mut w = World::new(json!({"activeDeadlineSeconds": 20, "containers": [c("a")]}));
    w.settle();
    assert_eq!(w.step().deadline, Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(20)));
    w.pass(20).settle();
    assert_eq!((w.phase().as_str(), w.step().status.reason.as_deref()), ("Failed", Some("DeadlineExceeded")));
}

#[test]
fn a_changed_image_restarts_the_container() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.told();
    let changed: Container = serde_json::from_value(json!({"name": "a", "image": "busybox:2"})).unwrap();
    w.pod.spec.as_mut().unwrap().containers[0] = changed;
    w.settle();
    assert_eq!(w.told(), "image a, kill a 30, start a 1");
}

fn with_image(w: &mut World, image: &str) {
    let changed = serde_json::from_value(json!({"name": "a", "image": image})).unwrap();
    w.pod.spec.as_mut().unwrap().containers[0] = changed;
}

#[test]
fn a_container_works_on_until_its_new_image_is_there_and_the_change_is_not_told_as_an_outage() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.told();
    w.held = vec!["image", "kill", "start"];
    with_image(&mut w, "busybox:2");
    w.settle();
    assert_eq!((w.told().as_str(), w.ready("a")), ("image a", true));
    w.happen(Happening::Image("a".into(), Ok(w.image("a"))));
    w.settle();
    assert_eq!(w.told(), "kill a 30");
    w.pod.status = Some(w.step().status);
    w.exit("a", 143).settle();
    assert_eq!((w.told().as_str(), w.ready("a")), ("start a 1", true));
    let instance = w.instance("a", 1);
    w.happen(Happening::Started("a".into(), Ok(Box::new(instance))));
    assert_eq!(w.state("a"), "running ready=true restarts=1");
}

#[test]
fn a_new_image_that_does_not_come_ends_the_old_container_and_says_why() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.held = vec!["image"];
    with_image(&mut w, "busybox:2");
    w.settle();
    w.pod.status = Some(w.step().status);
    w.told();
    w.happen(Happening::Image("a".into(), Err(("ErrImagePull".into(), "no such host".into()))));
    w.settle();
    assert_eq!((w.told().as_str(), w.ready("a")), ("kill a 30", false));
    assert_eq!(w.state("a"), "ErrImagePull ready=false restarts=0");
}

#[test]
fn an_image_that_was_asked_for_before_the_change_is_not_taken_for_the_new_one() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["image"];
    w.settle();
    let old = w.image("a");
    with_image(&mut w, "busybox:2");
    w.told();
    w.happen(Happening::Image("a".into(), Ok(old)));
    w.settle();
    assert_eq!(w.told(), "image a");
}

#[test]
fn a_pod_that_waits_for_an_image_ends_without_it() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["image"];
    w.settle();
    w.told();
    w.delete(30).settle();
    assert_eq!(w.told(), "stopSandbox, unmount, clean, delete");
}

#[test]
fn an_ephemeral_container_starts_in_a_running_pod_and_never_restarts() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.told();
    let e = serde_json::from_value(json!([{"name": "debug", "image": "busybox"}])).unwrap();
    w.pod.spec.as_mut().unwrap().ephemeral_containers = e;
    w.seen.update(&w.pod.clone(), w.now);
    w.settle().exit("debug", 1).settle();
    assert_eq!(w.told(), "image debug, start debug 0");
    assert_eq!(
        (w.phase().as_str(), w.state("debug").as_str()),
        ("Running", "ended 1 ready=false restarts=0")
    );
}

#[test]
fn readiness_gates_hold_a_pod_back_until_someone_sets_them() {
    let mut w = World::new(json!({"readinessGates": [{"conditionType": "x/y"}], "containers": [c("a")]}));
    w.settle();
    assert_eq!(w.condition("Ready"), ("False".into(), "ReadinessGatesNotReady".into()));
    w.pod.status =
        Some(serde_json::from_value(json!({"conditions": [{"type": "x/y", "status": "True"}]})).unwrap());
    assert_eq!(w.condition("Ready").0, "True");
    let kept = w.step().status.conditions.unwrap().iter().any(|c| c.type_ == "x/y");
    assert!(kept, "conditions of others are kept");
}

#[test]
fn a_terminal_phase_is_never_left_and_nothing_is_started_again() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.pod.status = Some(serde_json::from_value(json!({"phase": "Failed", "reason": "Evicted"})).unwrap());
    w.settle();
    assert_eq!((w.told().as_str(), w.phase().as_str()), ("", "Failed"));
    assert_eq!(w.step().status.reason.as_deref(), Some("Evicted"));
}

#[test]
fn failed_mounts_are_tried_again_and_hold_the_containers_back() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["volumes"];
    w.settle();
    w.happen(Happening::VolumesPrepared(Err("configmap \"x\" not found".into())));
    w.settle();
    assert_eq!(w.told(), "sandbox 0, volumes, image a");
    w.held.clear();
    w.pass(1).settle();
    assert_eq!(w.told(), "volumes, start a 0");
}

#[test]
fn a_probe_that_could_not_ask_counts_for_nothing_and_is_asked_again() {
    let probe =
        json!({"livenessProbe": {"exec": {"command": ["x"]}, "failureThreshold": 1, "periodSeconds": 5}});
    let mut w = World::new(json!({"containers": [with(c("a"), probe)]}));
    w.settle();
    let id = w.seen.containers["a"].current.clone().unwrap().id;
    w.happen(Happening::Probed("a".into(), id, ProbeKind::Liveness, None));
    w.told();
    w.settle();
    assert_eq!(w.told(), "");
    w.pass(5).settle();
    assert_eq!(w.told(), "liveness a");
}

#[test]
fn a_container_that_the_runtime_lost_has_ended_and_is_started_again() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    let id = w.seen.containers["a"].current.clone().unwrap().id;
    w.happen(Happening::Lost("a".into(), "another".into()));
    assert_eq!(w.state("a"), "running ready=true restarts=0");
    w.happen(Happening::Lost("a".into(), id));
    w.settle();
    let last = w.status("a").last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
    assert_eq!(w.state("a"), "running ready=true restarts=1");
}

#[test]
fn what_waited_for_a_config_map_goes_on_when_one_changes() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.held = vec!["start"];
    w.settle();
    let why = "configmap \"x\" not found".to_owned();
    w.happen(Happening::Started("a".into(), Err(("CreateContainerConfigError".into(), why))));
    w.settle();
    w.told();
    w.happen(Happening::InputsChanged);
    w.settle();
    assert_eq!(w.told(), "start a 0");
}

fn cpu(amount: &str) -> Value {
    json!({"resources": {"requests": {"cpu": amount}}})
}

#[test]
fn a_resize_reaches_the_running_container_and_its_condition_lasts_as_long() {
    let mut w = World::new(json!({"containers": [with(c("a"), cpu("1"))]}));
    w.settle();
    w.told();
    w.held = vec!["resize"];
    w.pod.spec.as_mut().unwrap().containers[0] = serde_json::from_value(with(c("a"), cpu("2"))).unwrap();
    w.settle();
    assert_eq!(w.told(), "resize a");
    assert_eq!(w.condition("PodResizeInProgress").0, "True");
    let id = w.seen.containers["a"].current.clone().unwrap().id;
    w.happen(Happening::Resized("a".into(), id.clone(), Err("busy".into())));
    assert_eq!(w.condition("PodResizeInProgress").1, "Error");
    let requests = w.status("a").resources.unwrap().requests.unwrap();
    assert_eq!(requests["cpu"].0, "1", "what it runs with, not what it shall have");
    w.pass(1).settle();
    assert_eq!(w.told(), "resize a");
    w.held.clear();
    let spec = w.pod.spec.clone().unwrap();
    w.happen(Happening::Resized("a".into(), id, Ok(spec.containers[0].resources.clone())));
    w.settle();
    assert_eq!(w.told(), "");
    assert!(!w.step().status.conditions.unwrap().iter().any(|c| c.type_.starts_with("PodResize")));
    assert_eq!(w.state("a"), "running ready=true restarts=0");
}

#[test]
fn a_resize_policy_may_ask_for_a_restart_whatever_the_exit_code() {
    let policy = json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
    let container = |amount| with(with(c("a"), policy.clone()), cpu(amount));
    let mut w = World::new(json!({"restartPolicy": "OnFailure", "containers": [container("1")]}));
    w.settle();
    w.told();
    w.held = vec!["kill"];
    w.pod.spec.as_mut().unwrap().containers[0] = serde_json::from_value(container("2")).unwrap();
    w.settle();
    assert_eq!(w.told(), "kill a 30");
    w.exit("a", 0).settle();
    assert_eq!(w.told(), "start a 1");
    assert_eq!(w.state("a"), "running ready=true restarts=1");
}

#[test]
fn a_container_ended_by_its_liveness_probe_is_started_again_even_if_it_ends_well() {
    let probe = json!({"livenessProbe": {"exec": {"command": ["x"]}, "failureThreshold": 1}});
    for (policy, phase, told) in
        [("OnFailure", "Running", "start a 1, liveness a"), ("Never", "Succeeded", "stopSandbox, unmount")]
    {
        let mut w = World::new(json!({"restartPolicy": policy, "containers": [with(c("a"), probe.clone())]}));
        w.settle();
        w.held = vec!["kill"];
        w.answer("a", ProbeKind::Liveness, false).settle();
        w.told();
        w.exit("a", 0).settle();
        assert_eq!((w.phase().as_str(), w.told().as_str()), (phase, told));
    }
}

#[test]
fn a_pending_resize_shows_why() {
    let mut w = World::new(json!({"containers": [c("a")]}));
    w.settle();
    w.seen.resize_pending = Some(("Deferred".into(), "not enough".into()));
    assert_eq!(w.condition("PodResizePending"), ("True".into(), "Deferred".into()));
}
