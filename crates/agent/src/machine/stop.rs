//! How containers and pods end: hooks first, main containers before sidecars, sidecars in reverse order.

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    Action, Step,
    observed::{Hook, Observed, SandboxState, Seen, StopReason, Volumes},
    probe::ProbeKind,
    run,
};
use crate::spec::{self, Part, Role};

/// After hooks and waiting for its turn a container still has this many seconds.
const LAST_SECONDS: i64 = 2;

/// The next step towards the end of one container: its preStop hook, then the signal once it is its `turn` or its time
/// is up. `how` is (seconds of grace, since when, why).
pub(super) fn end(
    part: &Part<'_>,
    seen: &Observed,
    now: Timestamp,
    how: (i64, Timestamp, StopReason),
    turn: bool,
    out: &mut Step,
) {
    let name = &part.container.name;
    let Some(state) = seen.seen(name) else { return };
    let Some(instance) = state.current.as_ref().filter(|i| i.exit_code().is_none()) else { return };
    let (mut grace, mut since, mut reason) = how;
    let stop = state.stop.as_ref();
    if let Some(stop) = stop {
        // a stop under way can only get shorter
        let earlier =
            stop.since + SignedDuration::from_secs(stop.grace) <= since + SignedDuration::from_secs(grace);
        if earlier {
            grace = stop.grace;
            since = stop.since;
        }
        reason = stop.reason.clone();
    }
    let until = since + SignedDuration::from_secs(grace);
    let hook = part.container.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some())
        && grace > 0
        && instance.running()
        && !matches!(reason, StopReason::SandboxDied);
    let (container, id) = (name.clone(), instance.id.clone());
    let pre_stop = stop.map_or(Hook::Waiting, |s| s.pre_stop.clone());
    if hook && now < until {
        match pre_stop {
            Hook::Waiting => {
                out.actions.push(Action::PreStop { container, id, grace, since, reason });
                out.wake(until);
                return;
            }
            Hook::Running => {
                out.wake(until);
                return;
            }
            Hook::Done | Hook::Failed(_) => {}
        }
    }
    if !turn && now < until {
        out.wake(until);
        return;
    }
    let kill_at = if reason == StopReason::SandboxDied {
        now
    } else {
        until.max(now + SignedDuration::from_secs(LAST_SECONDS.min(grace.max(1))))
    };
    // told once, and again only if there is now less time than was said
    if stop.and_then(|s| s.told).is_none_or(|told| kill_at + SignedDuration::from_secs(1) < told) {
        out.actions.push(Action::Kill { container, id, grace, since, until: kill_at, reason });
    }
}

/// What to do for a pod that ends.
pub(super) fn plan(
    pod: &Pod,
    seen: &Observed,
    now: Timestamp,
    grace: i64,
    since: Option<Timestamp>,
    out: &mut Step,
) {
    let spec = spec::spec(pod);
    let parts = spec::parts(&spec);
    let alive = |p: &Part<'_>| seen.seen(&p.container.name).is_some_and(Seen::alive);
    for (index, part) in parts.iter().enumerate() {
        let Some(state) = seen.seen(&part.container.name) else { continue };
        let turn = part.role != Role::Sidecar
            || !(parts.iter().any(|p| p.role == Role::Main && alive(p))
                || parts[index + 1..].iter().any(|p| p.role == Role::Sidecar && alive(p)));
        let begun = since.or(state.stop.as_ref().map(|s| s.since)).unwrap_or(now);
        // sidecars of a finished pod share one clock: that of the first stop
        end(part, seen, now, (grace, begun, StopReason::PodEnds), turn, out);
        if state.running() {
            run::probes(part, state, now, &[ProbeKind::Readiness], out);
        }
    }
    if seen.containers.values().any(Seen::alive) {
        return;
    }
    let sandbox = seen.sandbox.state;
    if matches!(sandbox, SandboxState::Ready | SandboxState::Dead) {
        out.actions.push(Action::StopSandbox { id: seen.sandbox.id.clone() });
    }
    if seen.volumes == Volumes::Ready {
        out.actions.push(Action::TearDownVolumes);
    }
    let gone =
        matches!(sandbox, SandboxState::Absent | SandboxState::Stopped) && seen.volumes == Volumes::Absent;
    let deleted = seen.removed || pod.metadata.deletion_timestamp.is_some();
    if !gone || !deleted {
        return;
    }
    if !seen.clean {
        if !seen.cleaning {
            out.actions.push(Action::Clean);
        }
    } else if !seen.removed && !seen.deleting_object {
        out.actions.push(Action::DeleteObject);
    }
}
