//! What a pod that shall run needs next.

use k8s_openapi::{
    api::core::v1::{Pod, PodSpec},
    jiff::Timestamp,
};

use super::{
    Action, Step,
    observed::{Hook, Life, Observed, SandboxState, Seen, StopReason, Volumes},
    probe::ProbeKind,
    resize, stop,
};
use crate::spec::{self, Part, Role};

/// Whether the init containers are through: main containers were made in this sandbox, or all init containers are done.
pub(super) fn initialized(parts: &[Part<'_>], seen: &Observed) -> bool {
    let state = |p: &Part<'_>| seen.seen(&p.container.name);
    parts.iter().filter(|p| p.role == Role::Main).any(|p| state(p).is_some_and(|s| s.current.is_some()))
        || parts.iter().enumerate().all(|(i, p)| match p.role {
            Role::Init => init_done(parts, i, seen),
            Role::Sidecar => state(p).is_some_and(|s| started(p, s)),
            Role::Main | Role::Ephemeral => true,
        })
}

/// Whether the init container at `index` has done its work: it ended well, or one after it was already made.
fn init_done(parts: &[Part<'_>], index: usize, seen: &Observed) -> bool {
    let state = |p: &Part<'_>| seen.seen(&p.container.name).and_then(|s| s.current.as_ref());
    state(&parts[index]).is_some_and(|i| i.exit_code() == Some(0))
        || parts[index + 1..].iter().filter(|p| p.role != Role::Ephemeral).any(|p| state(p).is_some())
}

/// Whether a running container has come up: postStart is over and the startup probe, if any, has succeeded.
pub(super) fn started(part: &Part<'_>, seen: &Seen) -> bool {
    let hooked = part.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some());
    seen.running()
        && (!hooked || seen.post_start == Hook::Done)
        && (part.container.startup_probe.is_none() || seen.startup.verdict == Some(true))
}

/// Whether a container that ended with `code` is started again: by its policy, or because it was ended for that.
pub(super) fn again(spec: &PodSpec, part: &Part<'_>, state: &Seen, code: i32) -> bool {
    (state.again.is_some() && part.role != Role::Ephemeral) || spec::restarts(spec, part, code)
}

/// Whether the pod has run its course: every main container has ended for good, or an init container has failed for good.
pub(super) fn completed(spec: &PodSpec, seen: &Observed) -> bool {
    let parts = spec::parts(spec);
    let ended = |p: &Part<'_>| {
        let state = seen.seen(&p.container.name).filter(|s| !s.busy)?;
        let code = state.current.as_ref()?.exit_code()?;
        (!again(spec, p, state, code)).then_some(code)
    };
    let mut mains = parts.iter().filter(|p| p.role == Role::Main).peekable();
    let main_over = mains.peek().is_some() && mains.all(|p| ended(p).is_some());
    main_over
        || (!initialized(&parts, seen)
            && parts.iter().any(|p| p.role == Role::Init && ended(p).is_some_and(|code| code != 0)))
}

/// What to do now.
pub(super) fn plan(pod: &Pod, seen: &Observed, now: Timestamp, out: &mut Step) {
    let spec = spec::spec(pod);
    let parts = spec::parts(&spec);
    match seen.sandbox.state {
        SandboxState::Absent
            if seen.may_start && due(seen.sandbox_failure.as_ref().map(|f| f.retry_at), now, out) =>
        {
            out.actions.push(Action::RunSandbox { attempt: seen.sandbox.attempt });
        }
        SandboxState::Dead => {
            for part in &parts {
                stop::end(part, seen, now, (0, now, StopReason::SandboxDied), true, out);
            }
            if !seen.containers.values().any(Seen::alive) {
                out.actions.push(Action::StopSandbox { id: seen.sandbox.id.clone() });
            }
            return;
        }
        _ => {}
    }
    if seen.volumes == Volumes::Absent
        && seen.may_start
        && due(seen.volume_failure.as_ref().map(|f| f.retry_at), now, out)
    {
        out.actions.push(Action::PrepareVolumes);
    }
    // images come while sandbox and volumes are made; containers need both
    let ready = seen.volumes == Volumes::Ready && seen.sandbox.state == SandboxState::Ready;
    let through = initialized(&parts, seen);
    // a container waits until those before it are up as far as their hooks
    let mut clear = true;
    for (index, part) in parts.iter().enumerate() {
        let Some(state) = seen.seen(&part.container.name) else { continue };
        if state.running() {
            attend(pod, part, state, seen, now, out);
        }
        let wanted = match part.role {
            Role::Ephemeral => state.current.is_none(),
            Role::Init => !through && !init_done(&parts, index, seen) && clear,
            Role::Sidecar => clear || through,
            Role::Main => through && clear,
        };
        let before = out.actions.len();
        if wanted {
            start(&spec, part, state, seen, now, ready, out);
        }
        let begins = out.actions[before..].iter().any(|a| matches!(a, Action::Start { .. }));
        match part.role {
            Role::Init => clear &= through || init_done(&parts, index, seen),
            Role::Sidecar => clear &= through || started(part, state),
            Role::Main => clear &= !(begins || (state.busy && !state.pulling) || hook_pending(part, state)),
            Role::Ephemeral => {}
        }
    }
}

fn hook_pending(part: &Part<'_>, seen: &Seen) -> bool {
    part.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some())
        && seen.running()
        && matches!(seen.post_start, Hook::Waiting | Hook::Running)
}

/// Whether `at` has come; if not, asks to be woken then.
pub(super) fn due(at: Option<Timestamp>, now: Timestamp, out: &mut Step) -> bool {
    match at {
        Some(at) if at > now => {
            out.wake(at);
            false
        }
        _ => true,
    }
}

/// When a container that has ended may start again.
pub(super) fn restart_at(seen: &Seen) -> Option<Timestamp> {
    match seen.current.as_ref()?.life {
        Life::Exited { finished, .. } => Some(finished + seen.crashes.wait()),
        _ => None,
    }
}

/// Brings a container to its start, if nothing stands against it.
fn start(
    spec: &PodSpec,
    part: &Part<'_>,
    state: &Seen,
    seen: &Observed,
    now: Timestamp,
    ready: bool,
    out: &mut Step,
) {
    if state.busy || state.stop.is_some() {
        return;
    }
    let name = &part.container.name;
    if let Some(instance) = &state.current {
        match instance.exit_code() {
            None if instance.running() => return,
            // made by an agent that ended before it could start it: make a new one
            None => {}
            Some(code) if !again(spec, part, state, code) => return,
            Some(_) if !due(restart_at(state), now, out) => return,
            Some(_) => {}
        }
    }
    if !due(state.failure.as_ref().map(|f| f.retry_at), now, out) || !seen.may_start {
        return;
    }
    match state.image(&part.container) {
        None => out.actions.push(Action::EnsureImage { container: name.clone() }),
        Some(image) if ready => out.actions.push(Action::Start {
            container: name.clone(),
            attempt: state.next_attempt(),
            image: image.to_owned(),
        }),
        Some(_) => {}
    }
}

/// Hooks, probes and ends of a running container.
fn attend(pod: &Pod, part: &Part<'_>, state: &Seen, seen: &Observed, now: Timestamp, out: &mut Step) {
    let Some(instance) = &state.current else { return };
    let spec = spec::spec(pod);
    let grace = spec::grace_seconds(&spec);
    let (name, id) = (&part.container.name, &instance.id);
    if let Some(stop) = state.stop.clone() {
        stop::end(part, seen, now, (stop.grace, stop.since, stop.reason), true, out);
        // a container on its way out is still asked whether it may get traffic, but no more whether it lives
        probes(part, state, now, &[ProbeKind::Readiness], out);
        return;
    }
    if part.role != Role::Ephemeral && instance.hash != spec::container_hash(&part.container) {
        // it works on until the new image is there, or is known not to come
        if state.image(&part.container).is_some() || state.failure.is_some() {
            stop::end(part, seen, now, (grace, now, StopReason::Changed), true, out);
            return;
        }
        if !state.busy {
            out.actions.push(Action::EnsureImage { container: name.clone() });
        }
    }
    if resize::plan(part, state, seen, grace, now, out) {
        return;
    }
    if part.container.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()) {
        match &state.post_start {
            Hook::Waiting => {
                out.actions.push(Action::PostStart { container: name.clone(), id: id.clone() });
                return;
            }
            Hook::Running => return,
            Hook::Failed(_) => {
                stop::end(part, seen, now, (grace, now, StopReason::PostStart), true, out);
                return;
            }
            Hook::Done => {}
        }
    }
    for kind in [ProbeKind::Startup, ProbeKind::Liveness] {
        if let Some(probe) = kind.of(&part.container)
            && state.probe(kind).verdict == Some(false)
        {
            let grace = probe.termination_grace_period_seconds.unwrap_or(grace);
            stop::end(part, seen, now, (grace, now, StopReason::Probe(kind)), true, out);
            return;
        }
    }
    if part.container.startup_probe.is_some() && state.startup.verdict != Some(true) {
        probes(part, state, now, &[ProbeKind::Startup], out);
    } else {
        probes(part, state, now, &[ProbeKind::Liveness, ProbeKind::Readiness], out);
    }
}

/// Begins the probes that are due.
pub(super) fn probes(part: &Part<'_>, state: &Seen, now: Timestamp, kinds: &[ProbeKind], out: &mut Step) {
    let Some(instance) = &state.current else { return };
    for &kind in kinds {
        let (Some(probe), seen) = (kind.of(&part.container), state.probe(kind)) else { continue };
        if seen.in_flight {
            continue;
        }
        let started = instance.started.unwrap_or(now);
        // once the startup probe has passed, readiness is asked at once: the delay has long been waited for
        if due(Some(seen.due(probe, started)), now, out) {
            out.actions.push(Action::Probe {
                container: part.container.name.clone(),
                id: instance.id.clone(),
                kind,
            });
        }
    }
}
