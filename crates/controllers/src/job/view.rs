//! What is known about a Job and its pods at one moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, JobStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::Value;

use super::{
    backoff::Record,
    failure_policy,
    indexes::Indexes,
    is_suspended,
    pods::{self, index, is_failed, is_tracked},
};
use crate::pod_state;

/// See the module.
pub struct View<'a> {
    /// The Job.
    pub job: &'a Job,
    /// The time.
    pub now: Timestamp,
    /// Its pods; by index if they have one.
    pub pods: Vec<Arc<Pod>>,
    /// Those that run or will.
    pub active: Vec<Arc<Pod>>,
    /// UIDs in the lists of the status.
    pub uncounted: Uncounted,
    /// Pods that have succeeded, counted or not; indexes, if it has indexes.
    pub succeeded: i32,
    /// Pods whose failure counts, counted or not.
    pub failed: i32,
    /// When new pods may come.
    pub record: Record,
    /// Only if it has indexes.
    pub indexed: Option<Indexed>,
}

/// UIDs of pods that have ended and are not yet in the counters.
#[derive(Default)]
pub struct Uncounted {
    /// Of pods that succeeded.
    pub succeeded: BTreeSet<String>,
    /// Of pods that failed.
    pub failed: BTreeSet<String>,
}

/// What is known about indexes.
pub struct Indexed {
    /// How many there are.
    pub completions: i32,
    /// As in the status.
    pub told: Indexes,
    /// Those and new ones.
    pub succeeded: Indexes,
    /// Only if indexes fail by themselves.
    pub failed: Option<Indexes>,
    /// The last failed pod of each index that waits for another one: it keeps its finalizer until then, because it knows how
    /// often its index has failed.
    pub waiting: BTreeMap<i32, Arc<Pod>>,
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A counter with what is not in it yet.
fn sum(counter: Option<i32>, new: usize, listed: usize) -> i32 {
    counter.unwrap_or(0).saturating_add(count(new)).saturating_add(count(listed))
}

/// The Job's spec. The API server refuses Jobs without one.
fn spec(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

impl<'a> View<'a> {
    /// Puts together what is known.
    pub fn new(job: &'a Job, mut all: Vec<Arc<Pod>>, remembered: &Value, now: Timestamp) -> Self {
        all.sort_by_key(|pod| index(pod));
        let lists = job.status.as_ref().and_then(|s| s.uncounted_terminated_pods.clone()).unwrap_or_default();
        let uncounted = Uncounted {
            succeeded: lists.succeeded.into_iter().flatten().collect(),
            failed: lists.failed.into_iter().flatten().collect(),
        };
        let active: Vec<Arc<Pod>> = all.iter().filter(|pod| pod_state::is_active(pod)).cloned().collect();
        let completions = is_indexed(job).then(|| spec(job).completions.unwrap_or(0));
        // Pods without the finalizer are in the counters, or in the lists.
        let fresh = |known: &BTreeSet<String>, is: &dyn Fn(&Pod) -> bool| -> Vec<&Arc<Pod>> {
            let valid = |pod: &Pod| {
                is_tracked(pod)
                    && !known.contains(uid(pod))
                    && completions.is_none_or(|c| index(pod).is_some_and(|i| i < c))
            };
            all.iter().filter(|pod| valid(pod) && is(pod)).collect()
        };
        let succeeded = fresh(&uncounted.succeeded, &|pod| pod_state::phase(pod) == "Succeeded");
        let failed = fresh(&uncounted.failed, &|pod| is_failed(job, pod));
        let counting = failed.iter().filter(|pod| failure_policy::of(job, pod).counts).count();
        let status = job.status.clone().unwrap_or_default();
        let record =
            Record::next(remembered, job.metadata.uid.as_deref().unwrap_or_default(), &succeeded, &failed);
        let indexed = completions.map(|completions| Indexed::new(job, completions, &all, &active));
        Self {
            succeeded: match &indexed {
                Some(indexed) => indexed.succeeded.count(),
                None => sum(status.succeeded, succeeded.len(), uncounted.succeeded.len()),
            },
            failed: sum(status.failed, counting, uncounted.failed.len()),
            record,
            job,
            now,
            active,
            uncounted,
            indexed,
            pods: all,
        }
    }

    /// The spec.
    pub fn spec(&self) -> JobSpec {
        spec(self.job)
    }

    /// The status as it was told, with a start if it starts now.
    pub fn status_before(&self) -> JobStatus {
        let mut status = self.job.status.clone().unwrap_or_default();
        status.uncounted_terminated_pods.get_or_insert_default();
        if status.start_time.is_none() && !is_suspended(self.job) {
            status.start_time = Some(Time(self.now));
        }
        status
    }

    /// Active, ready and terminating pods.
    pub fn counts(&self) -> (i32, i32, i32) {
        let ready = self.active.iter().filter(|pod| pod_state::is_ready(pod)).count();
        let terminating = self.pods.iter().filter(|pod| pod_state::is_terminating(pod)).count();
        (count(self.active.len()), count(ready), count(terminating))
    }
}

/// Its pods have indexes.
pub fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()) == Some("Indexed")
}

impl Indexed {
    fn new(job: &Job, completions: i32, all: &[Arc<Pod>], active: &[Arc<Pod>]) -> Self {
        let status = job.status.as_ref();
        let valid = |pod: &Pod| index(pod).filter(|i| *i < completions && is_tracked(pod));
        let told = status.and_then(|s| s.completed_indexes.as_deref()).unwrap_or_default();
        let told = Indexes::parse(told, completions);
        let new = all.iter().filter(|pod| pod_state::phase(pod) == "Succeeded").filter_map(|pod| valid(pod));
        let succeeded = told.with(new);
        let limit = spec(job).backoff_limit_per_index;
        let failed = limit.map(|limit| {
            let told = status.and_then(|s| s.failed_indexes.as_deref()).unwrap_or_default();
            let fails = |pod: &Pod| {
                let verdict = failure_policy::of(job, pod);
                is_failed(job, pod) && (verdict.fails_index || verdict.counts && pods::failures(pod) >= limit)
            };
            let new = all.iter().filter(|pod| fails(pod)).filter_map(|pod| valid(pod));
            Indexes::parse(told, completions).with(new)
        });
        let mut waiting: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        if let Some(failed) = &failed {
            let running: BTreeSet<i32> = active.iter().filter_map(|pod| index(pod)).collect();
            for pod in all.iter().filter(|pod| is_failed(job, pod)) {
                let Some(index) = valid(pod) else { continue };
                if succeeded.has(index) || failed.has(index) || running.contains(&index) {
                    continue;
                }
                let key = |pod: &Pod| (pods::all_failures(pod), pods::finished_at(pod));
                if waiting.get(&index).is_none_or(|before| key(before) <= key(pod)) {
                    waiting.insert(index, pod.clone());
                }
            }
        }
        Self { completions, told, succeeded, failed, waiting }
    }
}
