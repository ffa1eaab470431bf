//! How many pods shall run, and which.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{batch::v1::JobStatus, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{
    backoff, condition, ensure, is_suspended,
    pods::{self, index, replaces_only_ended},
    view::{Indexed, View},
};
use crate::{Note, Write, pod_control, pod_state, replicaset::ranking};

/// Pods made or deleted by one plan at most.
const BURST: usize = 500;

/// What is to be done.
#[derive(Default)]
pub struct Managed {
    /// Pods to be made.
    pub made: Vec<Write>,
    /// Pods to be deleted.
    pub doomed: Vec<Arc<Pod>>,
    /// When more may be made.
    pub again: Option<Timestamp>,
}

/// Decides; either pods are deleted or pods are made.
pub fn manage(view: &View<'_>) -> Managed {
    if is_suspended(view.job) {
        return Managed { doomed: view.active.clone(), ..Managed::default() };
    }
    let spec = view.spec();
    let active = view.active.len();
    let parallelism = usize::try_from(spec.parallelism.unwrap_or(1)).unwrap_or(0);
    let wanted = match spec.completions {
        // One success is enough; the others may end.
        None if view.succeeded > 0 => active,
        None => parallelism,
        Some(completions) => {
            usize::try_from(completions.saturating_sub(view.succeeded)).unwrap_or(0).min(parallelism)
        }
    };
    let mut doomed = surplus(view, active.saturating_sub(wanted));
    if !doomed.is_empty() {
        doomed.truncate(BURST);
        return Managed { doomed, ..Managed::default() };
    }
    let ending = view.pods.iter().filter(|pod| pod_state::is_terminating(pod)).count();
    let kept = active + if replaces_only_ended(view.job) { ending } else { 0 };
    let missing = wanted.saturating_sub(kept).min(BURST);
    if missing == 0 {
        return Managed::default();
    }
    let per_index = spec.backoff_limit_per_index.is_some();
    let wait = view.record.end();
    if !per_index && wait > view.now {
        return Managed { again: Some(wait), ..Managed::default() };
    }
    let Some(indexed) = &view.indexed else {
        let pod = pod_control::create(view.job, &pods::new(view.job, None, None));
        return Managed { made: vec![pod; missing], ..Managed::default() };
    };
    let mut managed = Managed::default();
    for index in pending(view, indexed, missing) {
        let before = indexed.waiting.get(&index).map(|pod| &**pod);
        let wait = before.map_or(Timestamp::MIN, backoff::end_for_index);
        if per_index && wait > view.now {
            managed.again = Some(managed.again.map_or(wait, |again| again.min(wait)));
            continue;
        }
        managed.made.push(pod_control::create(view.job, &pods::new(view.job, Some(index), before)));
    }
    managed
}

/// The lowest indexes that have neither ended nor a pod.
fn pending(view: &View<'_>, indexed: &Indexed, most: usize) -> Vec<i32> {
    let mut taken = indexed.succeeded.with(view.active.iter().filter_map(|pod| index(pod)));
    if replaces_only_ended(view.job) {
        let ending = view.pods.iter().filter(|pod| pod_state::is_terminating(pod));
        taken = taken.with(ending.filter_map(|pod| index(pod)));
    }
    if let Some(failed) = &indexed.failed {
        taken = taken.union(failed);
    }
    taken.missing(indexed.completions, most)
}

/// At least so many active pods, those that are missed least; and all whose index is another's, too high or missing.
fn surplus(view: &View<'_>, least: usize) -> Vec<Arc<Pod>> {
    let mut doomed = Vec::new();
    let mut left = Vec::new();
    match &view.indexed {
        None => left.clone_from(&view.active),
        Some(indexed) => {
            let mut by_index: BTreeMap<i32, Vec<Arc<Pod>>> = BTreeMap::new();
            for pod in &view.active {
                match index(pod).filter(|i| *i < indexed.completions) {
                    Some(index) => by_index.entry(index).or_default().push(pod.clone()),
                    None => doomed.push(pod.clone()),
                }
            }
            for same in by_index.into_values() {
                let mut same = ranking::least_wanted(same, &[], view.now);
                left.extend(same.pop());
                doomed.extend(same);
            }
        }
    }
    if doomed.len() < least {
        let more = least - doomed.len();
        doomed.extend(ranking::least_wanted(left, &[], view.now).into_iter().take(more));
    }
    doomed
}

/// Tells that the Job was suspended or goes on. Time does not count while it is suspended.
pub fn tell_suspension(view: &View<'_>, status: &mut JobStatus) -> Option<Note> {
    let told =
        |status: &str, reason: &str, text: &str| condition("Suspended", status, reason, text, view.now);
    if is_suspended(view.job) {
        let new = ensure(status, told("True", "JobSuspended", "Job suspended"));
        if new {
            status.start_time = None;
        }
        new.then(|| Note::normal(view.job, "Suspended", "Job suspended"))
    } else {
        let new = ensure(status, told("False", "JobResumed", "Job resumed"));
        if new {
            status.start_time = Some(Time(view.now));
        }
        new.then(|| Note::normal(view.job, "Resumed", "Job resumed"))
    }
}
