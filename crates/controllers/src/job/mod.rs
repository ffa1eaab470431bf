//! Job: pods that end.
//!
//! Source: `pkg/controller/job`. Every pod is counted exactly once, whatever fails in between: it has a finalizer until its
//! UID stands in `status.uncountedTerminatedPods`; only then is the finalizer taken off, and only when that is seen does the
//! UID leave the list and the counter rise. A plan never does two of these at once.
//!
//! Reading order: `pods`, `indexes`, `failure_policy`, `backoff` → `view` (what is known) → `finish` (is it over?) → `manage`
//! (pods to be made or deleted) → `track` (the counting) → `orphan` (finalizers nobody would take off).

mod backoff;
mod failure_policy;
mod finish;
mod indexes;
mod manage;
mod orphan;
mod pods;
#[cfg(test)]
mod tests;
mod track;
mod view;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::Value;

use self::view::View;
use crate::{Backoff, Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership};

/// The controller of Jobs that name none.
const OURSELVES: &str = "kubernetes.io/job-controller";

/// The loop.
pub struct Jobs;

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Job>(), Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        let selector = |job: &Job| {
            let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
            selector.map_or_else(apimachinery::selector::LabelSelector::nothing, ownership::selector)
        };
        if let Some(job) = change.object::<Job>() {
            let mut keys = vec![Key::of(&job.metadata)];
            if change.after.is_none() || is_finished(&job) {
                keys.extend(orphan::of_job(&job, world));
            }
            return keys;
        }
        let mut keys = ownership::owners::<Job, Pod>(change, world, selector);
        keys.extend(change.after::<Pod>().and_then(|pod| orphan::key(&pod, world)));
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        if let Some(name) = orphan::pod_of(key) {
            return orphan::reconcile(&key.namespace, name, world);
        }
        let forget = || Plan { memory: (!last.memory.is_null()).then_some(Value::Null), ..Plan::none() };
        match world.get::<Job>(&key.namespace, &key.name) {
            Some(job) if !is_ours(&job) => Plan::none(),
            Some(job) if !is_finished(&job) => reconcile(&job, world, last, now),
            _ => forget(),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff { first: SignedDuration::from_secs(1), most: SignedDuration::from_mins(1) }
    }

    /// Never: on a world that does not hold its own writes it might count a pod twice.
    fn patience(&self) -> Option<SignedDuration> {
        None
    }
}

/// No other controller is named.
fn is_ours(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.managed_by.as_deref()).is_none_or(|name| name == OURSELVES)
}

fn find<'a>(status: Option<&'a JobStatus>, kind: &str) -> Option<&'a JobCondition> {
    status?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

fn is_true(status: Option<&JobStatus>, kind: &str) -> bool {
    find(status, kind).is_some_and(|c| c.status == "True")
}

/// It is complete or has failed.
fn is_finished(job: &Job) -> bool {
    is_true(job.status.as_ref(), "Complete") || is_true(job.status.as_ref(), "Failed")
}

fn is_suspended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.suspend) == Some(true)
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Puts a condition in if it says something new; one that is false is not put in where there was none. Whether it was.
fn ensure(status: &mut JobStatus, wanted: JobCondition) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(found)
            if found.status == wanted.status
                && found.reason == wanted.reason
                && found.message == wanted.message =>
        {
            false
        }
        Some(found) => {
            *found = wanted;
            true
        }
        None if wanted.status == "False" => false,
        None => {
            conditions.push(wanted);
            true
        }
    }
}

fn reconcile(job: &Job, world: &World, last: &Outcome, now: Timestamp) -> Plan {
    let mode = job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()).unwrap_or("NonIndexed");
    if !matches!(mode, "NonIndexed" | "Indexed") {
        let text = "Skipped Job sync because completion mode is unknown";
        return Plan { notes: vec![Note::warning(job, "UnknownCompletionMode", text)], ..Plan::none() };
    }
    let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref()).map(ownership::selector);
    let claim = ownership::claim(&job.metadata, ownership::candidates::<Pod>(world, &job.metadata), |pod| {
        selector.as_ref().is_some_and(|s| ownership::matches(s, &pod.metadata))
    });
    if let Some(plan) = claim.plan_with(job, &[pods::TRACKING]) {
        return plan;
    }
    let view = View::new(job, claim.kept, &last.memory, now);
    let mut plan = Plan::none();
    let memory = view.record.to_value();
    plan.memory = (memory != last.memory).then_some(memory);
    let mut status = view.status_before();
    let finish = finish::decide(&view, &status);
    plan.again = finish.again;
    let (mut active, mut ready, mut terminating) = view.counts();
    let (mut created, mut interim) = (Vec::new(), finish.condition);
    if interim.is_some() {
        // It is over: what still runs has to go. The finalizers are taken off with the counting.
        plan.all(view.active.iter().map(|pod| crate::pod_control::delete(job, pod)).collect());
        (active, ready, terminating) = (0, 0, terminating + active);
    } else {
        let leaving = ownership::deleting(&job.metadata);
        let managed = if leaving { manage::Managed::default() } else { manage::manage(&view) };
        let doomed = managed.doomed.iter();
        let tracked = doomed.clone().filter(|pod| pods::is_tracked(pod));
        plan.all(tracked.map(|pod| pods::untrack(pod)).collect());
        plan.all(doomed.map(|pod| crate::pod_control::delete(job, pod)).collect());
        let gone = i32::try_from(managed.doomed.len()).unwrap_or(i32::MAX);
        let serving = managed.doomed.iter().filter(|pod| crate::pod_state::is_ready(pod)).count();
        active -= gone;
        terminating += gone;
        ready -= i32::try_from(serving).unwrap_or(i32::MAX);
        if let Some(at) = managed.again {
            plan.wake(at);
        }
        interim = finish::completed(&view, active, managed.made.is_empty());
        if interim.is_none() && !leaving {
            created = managed.made;
            plan.notes.extend(manage::tell_suspension(&view, &mut status));
        }
    }
    status.active = (active > 0).then_some(active);
    status.ready = Some(ready.max(0));
    status.terminating = Some(terminating);
    let tracked = track::count(&view, &mut status, interim.as_ref());
    let over = track::conclude(&view, &mut status, interim, &tracked);
    let told = Job { status: Some(status), ..job.clone() };
    if told.status != job.status {
        plan.then(Write::status(&told));
    }
    plan.all(tracked.iter().map(|pod| pods::untrack(pod)).collect());
    plan.all(created);
    plan.success_notes = over;
    plan
}
