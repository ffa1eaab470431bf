//! The life of a pod as a pure function: what is wanted, what is seen and the time go in; what to do, when to look again
//! and what to report come out.
//!
//! [`step`] reads and decides; [`Observed::begin`] and [`Observed::happened`] are the only ways in which what is known
//! changes. No clock, no I/O, no async: the driver, the tests and a simulation run the same code.

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    jiff::{SignedDuration, Timestamp},
};

pub mod backoff;
pub mod conditions;
pub mod observed;
pub mod probe;
pub(crate) mod resize;
mod run;
pub mod status;
mod stop;
#[cfg(test)]
mod tests;

pub use backoff::Policy;
pub use observed::{Happening, Image, Instance, Life, Observed, Seen, StopReason, Verdict};
pub use probe::ProbeKind;

use crate::spec;

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Mount the volumes.
    PrepareVolumes,
    /// Make and start the sandbox.
    RunSandbox {
        /// How many were made before it.
        attempt: u32,
    },
    /// See that the container's image is there.
    EnsureImage {
        /// The container.
        container: String,
    },
    /// Make and start a container.
    Start {
        /// The container.
        container: String,
        /// How many were made before it.
        attempt: u32,
        /// What the runtime calls its image.
        image: String,
    },
    /// Run the postStart hook.
    PostStart {
        /// The container.
        container: String,
        /// The runtime's id.
        id: String,
    },
    /// Give a running container the resources that its spec now asks for.
    Resize {
        /// The container.
        container: String,
        /// The runtime's id.
        id: String,
    },
    /// Probe.
    Probe {
        /// The container.
        container: String,
        /// The runtime's id.
        id: String,
        /// Which probe.
        kind: ProbeKind,
    },
    /// Run the preStop hook: the first half of a stop.
    PreStop {
        /// The container.
        container: String,
        /// The runtime's id.
        id: String,
        /// Seconds the whole stop may take from `since` on.
        grace: i64,
        /// When the stop began.
        since: Timestamp,
        /// Why.
        reason: StopReason,
    },
    /// Signal the process, and kill it when its time is over.
    Kill {
        /// The container.
        container: String,
        /// The runtime's id.
        id: String,
        /// Seconds the whole stop may take from `since` on.
        grace: i64,
        /// When the stop began.
        since: Timestamp,
        /// When the runtime shall kill.
        until: Timestamp,
        /// Why.
        reason: StopReason,
    },
    /// Stop the sandbox.
    StopSandbox {
        /// The runtime's id.
        id: String,
    },
    /// Unmount the volumes.
    TearDownVolumes,
    /// Remove containers, sandboxes, cgroup and directories of the pod.
    Clean,
    /// Write the last status and delete the object for good.
    DeleteObject,
}

/// What [`step`] says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// To be done now, all at once.
    pub actions: Vec<Action>,
    /// Look again at this time even if nothing happens.
    pub deadline: Option<Timestamp>,
    /// What to report.
    pub status: PodStatus,
}

impl Step {
    fn wake(&mut self, at: Timestamp) {
        self.deadline = Some(self.deadline.map_or(at, |d| d.min(at)));
    }
}

/// Where a pod is heading.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Intent {
    /// It shall run.
    Run,
    /// It shall end: seconds of grace and since when.
    End { grace: i64, since: Option<Timestamp>, verdict: Option<Verdict> },
}

/// Decides where the pod is heading.
pub(crate) fn intent(pod: &Pod, seen: &Observed, now: Timestamp) -> Intent {
    let spec = spec::spec(pod);
    let default_grace = spec::grace_seconds(&spec);
    let verdict =
        seen.rejected.clone().or_else(|| seen.evicted.clone()).or_else(|| deadline_verdict(pod, seen, now));
    if seen.removed || pod.metadata.deletion_timestamp.is_some() {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(default_grace).max(1);
        return Intent::End { grace, since: seen.deletion_seen, verdict };
    }
    if let Some(verdict) = verdict {
        return Intent::End { grace: verdict.grace, since: None, verdict: Some(verdict) };
    }
    let reported_over = pod
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"));
    if reported_over || run::completed(&spec, seen) {
        return Intent::End { grace: default_grace, since: None, verdict: None };
    }
    Intent::Run
}

/// `activeDeadlineSeconds`, once it is over.
fn deadline_verdict(pod: &Pod, seen: &Observed, now: Timestamp) -> Option<Verdict> {
    let at = active_deadline(pod, seen)?;
    (now >= at).then(|| Verdict {
        reason: "DeadlineExceeded".into(),
        message: "Pod was active on the node longer than the specified deadline".into(),
        grace: spec::grace_seconds(&spec::spec(pod)),
        disruption: false,
    })
}

fn active_deadline(pod: &Pod, seen: &Observed) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(seen.start_time? + SignedDuration::from_secs(seconds.clamp(0, 1 << 32)))
}

/// One step of a pod's life.
pub fn step(pod: &Pod, seen: &Observed, now: Timestamp, policy: &Policy) -> Step {
    let intent = intent(pod, seen, now);
    let mut out = Step::default();
    match &intent {
        Intent::Run => {
            if let Some(at) = active_deadline(pod, seen) {
                out.wake(at);
            }
            run::plan(pod, seen, now, &mut out);
        }
        Intent::End { grace, since, .. } => stop::plan(pod, seen, now, *grace, *since, &mut out),
    }
    out.status = status::compute(pod, seen, now, policy, &intent);
    out
}
