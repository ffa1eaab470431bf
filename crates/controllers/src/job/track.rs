//! The counting of pods that have ended.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    batch::v1::{JobCondition, JobStatus},
    core::v1::Pod,
};

use super::{
    condition, ensure, failure_policy, find,
    finish::{FAILING, SUCCEEDING},
    pods::{index, is_failed, is_tracked},
    view::{View, uid},
};
use crate::{Note, ownership, pod_state};

/// UIDs in the lists, and finalizers taken off by one plan, at most: about 20 kB of status.
const MOST: usize = 500;

/// Moves UIDs of pods that have lost their finalizer from the lists to the counters, puts those of pods that have ended since
/// into the lists, and gives the pods that may lose their finalizer once the status is written.
pub fn count(view: &View<'_>, status: &mut JobStatus, interim: Option<&JobCondition>) -> Vec<Arc<Pod>> {
    let tracked: BTreeSet<&str> =
        view.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(pod)).collect();
    let mut lists = status.uncounted_terminated_pods.take().unwrap_or_default();
    let settle = |list: &mut Option<Vec<String>>, counter: &mut Option<i32>| {
        let before = list.take().unwrap_or_default();
        let (left, gone): (Vec<String>, Vec<String>) =
            before.into_iter().partition(|uid| tracked.contains(uid.as_str()));
        let sum = counter.unwrap_or(0).saturating_add(i32::try_from(gone.len()).unwrap_or(i32::MAX));
        *counter = (sum > 0).then_some(sum);
        left
    };
    let mut succeeded = settle(&mut lists.succeeded, &mut status.succeeded);
    let mut failed = settle(&mut lists.failed, &mut status.failed);
    let mut indexes = Vec::new();
    let mut released = Vec::new();
    for pod in view.pods.iter().filter(|pod| is_tracked(pod)) {
        if !may_go(view, pod, interim) {
            continue;
        }
        if released.len() >= MOST || indexes.len() + succeeded.len() + failed.len() >= MOST {
            break;
        }
        released.push(pod.clone());
        let own = uid(pod);
        let valid = view.indexed.as_ref().map(|indexed| index(pod).filter(|i| *i < indexed.completions));
        if pod_state::phase(pod) == "Succeeded" && !view.uncounted.failed.contains(own) {
            match (valid, &view.indexed) {
                // The index itself tells that it is counted.
                (Some(Some(index)), Some(indexed)) if !indexed.told.has(index) => indexes.push(index),
                (Some(_), _) => {}
                (None, _) if view.uncounted.succeeded.contains(own) => {}
                (None, _) => succeeded.push(own.to_owned()),
            }
        } else if is_failed(view.job, pod) || interim.is_some_and(|c| c.type_ != SUCCEEDING) {
            let known = view.uncounted.failed.contains(own) || valid == Some(None);
            if !known && failure_policy::of(view.job, pod).counts {
                failed.push(own.to_owned());
            }
        }
    }
    lists.succeeded = (!succeeded.is_empty()).then_some(succeeded);
    lists.failed = (!failed.is_empty()).then_some(failed);
    status.uncounted_terminated_pods = Some(lists);
    if let Some(indexed) = &view.indexed {
        let all = indexed.told.with(indexes);
        status.succeeded = (all.count() > 0).then_some(all.count());
        status.completed_indexes = Some(all.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = indexed.failed.as_ref().map(ToString::to_string);
    }
    released
}

/// The finalizer is no longer needed. That of a failed pod whose index waits for another pod is, to know how often the index
/// has failed.
fn may_go(view: &View<'_>, pod: &Pod, interim: Option<&JobCondition>) -> bool {
    if ownership::deleting(&view.job.metadata) || interim.is_some() || pod_state::phase(pod) == "Succeeded" {
        return true;
    }
    let waits = view.indexed.as_ref().zip(index(pod)).and_then(|(i, index)| i.waiting.get(&index));
    is_failed(view.job, pod) && waits.is_none_or(|waiting| waiting.metadata.uid != pod.metadata.uid)
}

/// Puts the interim condition in; or, when it was told before and every pod has ended and is counted, the final one. What
/// there is to say then.
pub fn conclude(
    view: &View<'_>,
    status: &mut JobStatus,
    interim: Option<JobCondition>,
    released: &[Arc<Pod>],
) -> Vec<Note> {
    let Some(interim) = interim else { return Vec::new() };
    let told = find(view.job.status.as_ref(), &interim.type_).is_some_and(|c| c.status == "True");
    if !told {
        ensure(status, interim);
        return Vec::new();
    }
    let lists = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let counted = lists.succeeded.is_none() && lists.failed.is_none() && released.is_empty();
    if !counted || status.terminating.unwrap_or(0) > 0 || status.active.is_some() {
        return Vec::new();
    }
    let (reason, message) = (interim.reason.unwrap_or_default(), interim.message.unwrap_or_default());
    let complete = interim.type_ != FAILING;
    let kind = if complete { "Complete" } else { "Failed" };
    let last = condition(kind, "True", &reason, &message, view.now);
    if complete {
        status.completion_time.clone_from(&last.last_transition_time);
    }
    ensure(status, last);
    if !complete {
        return vec![Note::warning(view.job, &reason, message)];
    }
    let mut notes = Vec::new();
    if view.spec().completions.is_some_and(|wanted| status.succeeded.unwrap_or(0) > wanted) {
        let text = "Too many succeeded pods running after completion count reached";
        notes.push(Note::warning(view.job, "TooManySucceededPods", text));
    }
    notes.push(Note::normal(view.job, "Completed", "Job completed"));
    notes
}
