//! What a pod's status says, computed from what is seen.

use k8s_openapi::{
    api::core::v1::{
        ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod, PodIP, PodSpec, PodStatus, ResourceRequirements,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    Intent,
    backoff::{Policy, go_duration},
    conditions,
    observed::{Hook, Instance, Life, Observed, Seen, StopReason, Verdict},
    run,
};
use crate::{
    resources,
    spec::{self, Part, Role},
};

/// The status of `pod`. Addresses of the host are the driver's to add.
pub(super) fn compute(
    pod: &Pod,
    seen: &Observed,
    now: Timestamp,
    policy: &Policy,
    intent: &Intent,
) -> PodStatus {
    let spec = spec::spec(pod);
    let parts = spec::parts(&spec);
    let old = pod.status.clone().unwrap_or_default();
    let (verdict, ending) = match intent {
        Intent::Run => (None, false),
        Intent::End { verdict, .. } => (verdict.as_ref(), true),
    };
    let of = |roles: &[Role]| -> Option<Vec<ContainerStatus>> {
        let list: Vec<_> = parts
            .iter()
            .filter(|p| roles.contains(&p.role))
            .map(|p| container(pod, &spec, &parts, p, seen, now, policy, ending))
            .collect();
        (!list.is_empty()).then_some(list)
    };
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        qos_class: Some(old.qos_class.clone().unwrap_or_else(|| resources::qos_class(&spec).to_owned())),
        start_time: seen.start_time.map(Time),
        init_container_statuses: of(&[Role::Init, Role::Sidecar]),
        container_statuses: of(&[Role::Main]),
        ephemeral_container_statuses: of(&[Role::Ephemeral]),
        ..PodStatus::default()
    };
    if seen.rejected.is_some() && !seen.containers.values().any(|s| s.current.is_some()) {
        (status.init_container_statuses, status.container_statuses) = (None, None);
        status.ephemeral_container_statuses = None;
    }
    let quiet = !seen.containers.values().any(Seen::alive);
    let phase = match (verdict, old.phase.as_deref()) {
        // a terminal phase is never left
        (_, Some(over @ ("Succeeded" | "Failed"))) => over,
        (Some(_), _) if quiet => "Failed",
        _ => phase(&spec, &parts, &status, seen, ending && quiet),
    };
    status.phase = Some(phase.to_owned());
    match verdict {
        Some(Verdict { reason, message, .. }) => {
            (status.reason, status.message) = (Some(reason.clone()), Some(message.clone()));
        }
        None => (status.reason, status.message) = (old.reason.clone(), old.message.clone()),
    }
    if !seen.sandbox.ips.is_empty() && seen.rejected.is_none() {
        status.pod_ip = seen.sandbox.ips.first().cloned();
        status.pod_ips = Some(seen.sandbox.ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect());
    }
    status.conditions = Some(conditions::merge(pod, &spec, &status, seen, verdict, now));
    status.allocated_resources = old.allocated_resources;
    status.resources = old.resources;
    status.resource_claim_statuses = old.resource_claim_statuses;
    status.nominated_node_name = old.nominated_node_name;
    status
}

/// The phase that the containers' states add up to.
fn phase(
    spec: &PodSpec,
    parts: &[Part<'_>],
    status: &PodStatus,
    seen: &Observed,
    terminal: bool,
) -> &'static str {
    let again = |p: &Part<'_>, code| match seen.seen(&p.container.name) {
        Some(state) => run::again(spec, p, state, code),
        None => spec::restarts(spec, p, code),
    };
    let find = |p: &Part<'_>| {
        let list =
            if p.role == Role::Main { &status.container_statuses } else { &status.init_container_statuses };
        list.iter().flatten().find(|s| s.name == p.container.name)
    };
    let (mut pending_init, mut failed_init) = (0, 0);
    let (mut running, mut waiting, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut restarting = false;
    let main_made = status.container_statuses.iter().flatten().any(|s| s.container_id.is_some());
    for part in parts {
        let Some(container) = find(part) else { continue };
        let state = container.state.clone().unwrap_or_default();
        let last_code =
            container.last_state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
        match part.role {
            Role::Init => match state.terminated {
                Some(t) if t.exit_code == 0 => {}
                Some(t) if !again(part, t.exit_code) => failed_init += 1,
                _ => pending_init += 1,
            },
            Role::Sidecar => {
                if state.running.is_some() {
                    running += 1;
                    pending_init += i32::from(container.started != Some(true));
                } else if state.waiting.is_some() && last_code.is_none() {
                    pending_init += 1;
                }
            }
            Role::Main => {
                if state.running.is_some() {
                    running += 1;
                } else if let Some(t) = state.terminated {
                    stopped += 1;
                    succeeded += i32::from(t.exit_code == 0);
                    restarting |= again(part, t.exit_code);
                } else if let Some(code) = last_code {
                    stopped += 1;
                    restarting |= again(part, code);
                } else {
                    waiting += 1;
                }
            }
            Role::Ephemeral => {}
        }
    }
    if failed_init > 0 && !main_made {
        return "Failed";
    }
    if pending_init > 0 && !main_made && !terminal {
        return "Pending";
    }
    if waiting > 0 && !terminal {
        return "Pending";
    }
    if running > 0 {
        return "Running";
    }
    if stopped == 0 {
        return if terminal { "Failed" } else { "Pending" };
    }
    if restarting && !terminal {
        return "Running";
    }
    if waiting == 0 && stopped == succeeded { "Succeeded" } else { "Failed" }
}

fn terminated(instance: &Instance) -> Option<ContainerState> {
    let Life::Exited { finished, exit_code, reason, message } = &instance.life else { return None };
    Some(ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{SCHEME}://{}", instance.id)),
            exit_code: *exit_code,
            finished_at: Some(Time(*finished)),
            message: (!message.is_empty()).then(|| message.clone()),
            reason: (!reason.is_empty()).then(|| reason.clone()),
            signal: None,
            started_at: Some(Time(instance.started.unwrap_or(*finished))),
        }),
        ..ContainerState::default()
    })
}

fn waiting_state(reason: &str, message: String) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then_some(message),
        }),
        ..ContainerState::default()
    }
}

/// What stands before `://` in a container's ID.
const SCHEME: &str = "plimsoll";

#[expect(clippy::too_many_arguments, reason = "everything a status is made from")]
fn container(
    pod: &Pod,
    spec: &PodSpec,
    parts: &[Part<'_>],
    part: &Part<'_>,
    seen: &Observed,
    now: Timestamp,
    policy: &Policy,
    ending: bool,
) -> ContainerStatus {
    let name = &part.container.name;
    let empty = Seen::default();
    let state = seen.seen(name).unwrap_or(&empty);
    let old = old_status(pod, part);
    if !ending
        && being_replaced(part, state, now)
        && let Some(old) = old
    {
        return old;
    }
    let mut status = ContainerStatus {
        name: name.clone(),
        image: part.container.image.clone().unwrap_or_default(),
        started: Some(false),
        ..ContainerStatus::default()
    };
    let previous = state.previous.as_ref().and_then(terminated);
    if let Some(instance) = state.current.as_ref().or(state.previous.as_ref()) {
        status.container_id = Some(format!("{SCHEME}://{}", instance.id));
        status.image_id.clone_from(&instance.image_id);
        if !instance.image.is_empty() {
            status.image.clone_from(&instance.image);
        }
        status.restart_count = i32::try_from(instance.attempt).unwrap_or(i32::MAX);
        status.user.clone_from(&instance.user);
    } else if let Some(old) = &old {
        status.restart_count = old.restart_count;
    }
    let hooked = part.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
    let (now_state, last_state) = match &state.current {
        Some(i)
            if i.running()
                && hooked
                && matches!(state.post_start, Hook::Waiting | Hook::Running)
                && !ending =>
        {
            (waiting_state(idle_reason(parts, part, seen), String::new()), previous)
        }
        Some(i) if i.running() => {
            let running = ContainerStateRunning { started_at: i.started.map(Time) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, previous)
        }
        Some(i) if i.exit_code().is_some() => {
            after_exit(pod, spec, part, state, i, previous, policy, now, ending)
        }
        _ if ending && !state.busy => {
            match (&previous, old.and_then(|o| o.state).filter(|s| s.terminated.is_some())) {
                (Some(_), _) => (previous.clone().unwrap_or_default(), None),
                (None, Some(kept)) => (kept, None),
                (None, None) => (waiting(parts, part, state, seen), None),
            }
        }
        _ => (waiting(parts, part, state, seen), previous),
    };
    if now_state.running.is_some() {
        let up = run::started(part, state);
        status.started = Some(up);
        status.ready = up
            && match &part.container.readiness_probe {
                Some(_) => state.readiness.verdict == Some(true),
                None => true,
            };
        if status.ready && ending && state.stop.as_ref().is_some_and(|s| s.told.is_some()) {
            status.ready = part.container.readiness_probe.is_some();
        }
        // there even where nothing is asked for: that it is known is news too
        let resources = state.current.as_ref().and_then(|i| i.resources.clone()).unwrap_or_default();
        status.resources = Some(ResourceRequirements { claims: None, ..resources });
        status.allocated_resources =
            part.container.resources.as_ref().and_then(|r| r.requests.clone()).filter(|r| !r.is_empty());
    }
    // such a one is ready when it has done its work, not while it does it
    if part.role == Role::Init {
        status.ready = now_state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    }
    if part.role == Role::Ephemeral {
        status.started = None;
        status.ready = false;
    }
    status.state = Some(now_state);
    status.last_state = Some(last_state.unwrap_or_default());
    status
}

/// Whether the node ended a container to put another in its place, which starts at once: the moment between the two is
/// not told, as the kubelet does not tell it either.
fn being_replaced(part: &Part<'_>, state: &Seen, now: Timestamp) -> bool {
    matches!(state.again, Some(StopReason::Changed | StopReason::Resized))
        && state.image(&part.container).is_some()
        && state.failure.is_none()
        && (state.busy || run::restart_at(state).is_some_and(|at| at <= now))
}

fn old_status(pod: &Pod, part: &Part<'_>) -> Option<ContainerStatus> {
    let status = pod.status.as_ref()?;
    let list = match part.role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|s| s.name == part.container.name).cloned()
}

/// An ended container: over, or waiting for its next start with its end as the last state.
#[expect(clippy::too_many_arguments, reason = "everything a status is made from")]
fn after_exit(
    pod: &Pod,
    spec: &PodSpec,
    part: &Part<'_>,
    state: &Seen,
    instance: &Instance,
    previous: Option<ContainerState>,
    policy: &Policy,
    now: Timestamp,
    ending: bool,
) -> (ContainerState, Option<ContainerState>) {
    let ended = terminated(instance).unwrap_or_default();
    let again = !ending && run::again(spec, part, state, instance.exit_code().unwrap_or(0));
    if !again {
        return (ended, previous);
    }
    if let Some(failure) = &state.failure {
        return (waiting_state(&failure.reason, failure.message.clone()), Some(ended));
    }
    if run::restart_at(state).is_some_and(|at| at > now) {
        let wait = go_duration(state.crashes.wait().min(policy.crash.max));
        let message = format!(
            "back-off {wait} restarting failed container={} pod={}",
            part.container.name,
            spec::long_name(pod)
        );
        return (waiting_state("CrashLoopBackOff", message), Some(ended));
    }
    (ended, previous)
}

fn waiting(parts: &[Part<'_>], part: &Part<'_>, state: &Seen, seen: &Observed) -> ContainerState {
    match &state.failure {
        Some(failure) if !state.pulling || failure.reason == "ImagePullBackOff" => {
            waiting_state(&failure.reason, failure.message.clone())
        }
        _ => waiting_state(idle_reason(parts, part, seen), String::new()),
    }
}

fn idle_reason(parts: &[Part<'_>], part: &Part<'_>, seen: &Observed) -> &'static str {
    let has_init = parts.iter().any(|p| matches!(p.role, Role::Init | Role::Sidecar));
    let through = run::initialized(parts, seen);
    if has_init && !through && part.role != Role::Ephemeral { "PodInitializing" } else { "ContainerCreating" }
}
