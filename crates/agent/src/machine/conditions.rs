//! The conditions of a pod that a node owns, and how they live beside those of others.

use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    observed::{Observed, SandboxState, Verdict},
    resize,
};
use crate::spec;

struct Condition {
    kind: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Condition {
    fn new(kind: &'static str, status: bool) -> Self {
        Self { kind, status, reason: None, message: None }
    }

    fn because(self, reason: &'static str, message: String) -> Self {
        Self { reason: Some(reason), message: (!message.is_empty()).then_some(message), ..self }
    }
}

/// The pod's conditions: ours renewed, those of others kept. A transition time changes only with the status.
pub(super) fn merge(
    pod: &Pod,
    spec: &PodSpec,
    status: &PodStatus,
    seen: &Observed,
    verdict: Option<&Verdict>,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let containers = containers_ready(spec, status);
    let ready = ready(spec, &containers, &old);
    let mut ours = vec![
        Condition::new("PodReadyToStartContainers", seen.sandbox.state == SandboxState::Ready),
        initialized(spec, status),
        ready,
        containers,
        Condition::new("PodScheduled", true),
    ];
    if let Some(verdict) = verdict.filter(|v| v.disruption) {
        ours.push(
            Condition::new("DisruptionTarget", true).because("TerminationByKubelet", verdict.message.clone()),
        );
    }
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if let Some((reason, message)) = seen.resize_pending.as_ref().filter(|_| !ended) {
        let reason = if reason == "Infeasible" { "Infeasible" } else { "Deferred" };
        ours.push(Condition::new("PodResizePending", true).because(reason, message.clone()));
    }
    if let Some(failed) = resize::in_progress(spec, seen).filter(|_| !ended) {
        let condition = Condition::new("PodResizeInProgress", true);
        ours.push(match failed {
            Some(why) => condition.because("Error", why),
            None => condition,
        });
    }
    let generation = pod.metadata.generation;
    let mut list: Vec<PodCondition> = ours
        .into_iter()
        .map(|c| {
            let value = if c.status { "True" } else { "False" };
            let before = old.iter().find(|o| o.type_ == c.kind);
            let since = before
                .filter(|o| o.status == value)
                .and_then(|o| o.last_transition_time.clone())
                .unwrap_or(Time(now));
            PodCondition {
                type_: c.kind.to_owned(),
                status: value.to_owned(),
                reason: c.reason.map(str::to_owned),
                message: c.message,
                last_probe_time: None,
                last_transition_time: Some(since),
                observed_generation: generation,
            }
        })
        .collect();
    // those of a resize are there only as long as it lasts
    let over = |kind: &str| kind.starts_with("PodResize");
    let foreign: Vec<_> =
        old.into_iter().filter(|o| !over(&o.type_) && !list.iter().any(|c| c.type_ == o.type_)).collect();
    list.extend(foreign);
    list
}

fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn find<'a>(list: &'a Option<Vec<ContainerStatus>>, name: &str) -> Option<&'a ContainerStatus> {
    list.iter().flatten().find(|s| s.name == name)
}

/// "containers with <what> status: [a b]", for what is known to lack and what is not known.
fn shortfall(what: &str, lacking: &[&str], unknown: &[&str]) -> String {
    let mut said = vec![];
    if !unknown.is_empty() {
        said.push(format!("containers with unknown status: {}", names(unknown)));
    }
    if !lacking.is_empty() {
        said.push(format!("containers with {what} status: {}", names(lacking)));
    }
    said.join(", ")
}

fn containers_ready(spec: &PodSpec, status: &PodStatus) -> Condition {
    let condition = Condition::new("ContainersReady", false);
    let (mut unready, mut unknown) = (vec![], vec![]);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| spec::is_sidecar(c));
    let both = sidecars
        .map(|c| (c, &status.init_container_statuses))
        .chain(spec.containers.iter().map(|c| (c, &status.container_statuses)));
    for (container, list) in both {
        match find(list, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if !s.ready => unready.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    match status.phase.as_deref() {
        Some("Succeeded") if unknown.is_empty() => condition.because("PodCompleted", String::new()),
        Some("Failed") if unknown.is_empty() => condition.because("PodFailed", String::new()),
        _ if unready.is_empty() && unknown.is_empty() => Condition::new("ContainersReady", true),
        _ => condition.because("ContainersNotReady", shortfall("unready", &unready, &unknown)),
    }
}

fn ready(spec: &PodSpec, containers: &Condition, old: &[PodCondition]) -> Condition {
    if !containers.status {
        return Condition { kind: "Ready", message: containers.message.clone(), ..*containers };
    }
    let mut missing = vec![];
    for gate in spec.readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match old.iter().find(|c| &c.type_ == kind) {
            None => missing
                .push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some(c) if c.status != "True" => missing.push(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {:?}",
                c.status
            )),
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        Condition::new("Ready", true)
    } else {
        Condition::new("Ready", false).because("ReadinessGatesNotReady", missing.join(", "))
    }
}

fn initialized(spec: &PodSpec, status: &PodStatus) -> Condition {
    let (mut incomplete, mut unknown) = (vec![], vec![]);
    for container in spec.init_containers.iter().flatten() {
        match find(&status.init_container_statuses, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(s) if spec::is_sidecar(container) => {
                if s.started != Some(true) {
                    incomplete.push(container.name.as_str());
                }
            }
            Some(s) if !s.ready => incomplete.push(container.name.as_str()),
            Some(_) => {}
        }
    }
    if status.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
        return Condition::new("Initialized", true).because("PodCompleted", String::new());
    }
    // once a main container runs, a sidecar that restarts does not undo the initialization
    let mains_made = status.container_statuses.iter().flatten().any(|s| s.container_id.is_some());
    if mains_made || (incomplete.is_empty() && unknown.is_empty()) {
        return Condition::new("Initialized", true);
    }
    Condition::new("Initialized", false)
        .because("ContainersNotInitialized", shortfall("incomplete", &incomplete, &unknown))
}
