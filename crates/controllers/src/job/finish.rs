//! Whether a Job is over. First an interim condition is told, `FailureTarget` or `SuccessCriteriaMet`; the final one, with the
//! same reason, comes when every pod has ended and is counted.

use k8s_openapi::{
    api::batch::v1::{JobCondition, JobStatus},
    jiff::{SignedDuration, Timestamp},
};

use super::{
    condition, failure_policy, find,
    indexes::Indexes,
    is_suspended,
    pods::is_failed,
    view::{Indexed, View},
};
use crate::pod_state;

/// Interim condition of a failure.
pub const FAILING: &str = "FailureTarget";
/// Interim condition of a success.
pub const SUCCEEDING: &str = "SuccessCriteriaMet";

/// Whether it is over, and when that has to be looked at again.
#[derive(Default)]
pub struct Finish {
    /// The interim condition.
    pub condition: Option<JobCondition>,
    /// The end of the deadline.
    pub again: Option<Timestamp>,
}

/// Decides. What was decided before stays; of what is true at once a failure comes before a success.
pub fn decide(view: &View<'_>, status: &JobStatus) -> Finish {
    for kind in [SUCCEEDING, FAILING] {
        if let Some(told) = find(Some(status), kind).filter(|c| c.status == "True") {
            return Finish { condition: Some(told.clone()), again: None };
        }
    }
    let fail = |reason: &str, text: &str| condition(FAILING, "True", reason, text, view.now);
    let over = |condition| Finish { condition: Some(condition), again: None };
    let failed = view.pods.iter().filter(|pod| is_failed(view.job, pod));
    if let Some(text) = failed.filter_map(|pod| failure_policy::of(view.job, pod).fails_job).next() {
        return over(fail("PodFailurePolicy", &text));
    }
    let spec = view.spec();
    let limit = spec.backoff_limit.unwrap_or(6);
    if view.failed > limit || too_many_restarts(view, limit) {
        return over(fail("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let mut again = None;
    if let Some(end) = deadline(view, status) {
        if end <= view.now {
            return over(fail("DeadlineExceeded", "Job was active longer than specified deadline"));
        }
        again = Some(end);
    }
    let Some(indexed) = &view.indexed else { return Finish { condition: None, again } };
    if let Some(failed) = &indexed.failed {
        let count = failed.count();
        if spec.max_failed_indexes.is_some_and(|most| count > most) {
            let text = "Job has exceeded the specified maximal number of failed indexes";
            return over(fail("MaxFailedIndexesExceeded", text));
        }
        if count > 0 && count + indexed.succeeded.count() >= indexed.completions {
            return over(fail("FailedIndexes", "Job has failed indexes"));
        }
    }
    let met = success_rule(view, indexed);
    let met = met.map(|rule| {
        let text = format!("Matched rules at index {rule}");
        condition(SUCCEEDING, "True", "SuccessPolicy", &text, view.now)
    });
    Finish { condition: met, again }
}

/// With restarts in place it is restarts that are counted.
fn too_many_restarts(view: &View<'_>, limit: i32) -> bool {
    let template = view.spec().template.spec;
    if template.and_then(|s| s.restart_policy).as_deref() != Some("OnFailure") {
        return false;
    }
    let living = view.pods.iter().filter(|pod| matches!(pod_state::phase(pod), "Running" | "Pending"));
    let statuses = living.filter_map(|pod| pod.status.as_ref());
    let restarts: i64 = statuses
        .flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses).flatten())
        .map(|c| i64::from(c.restart_count))
        .sum();
    if limit == 0 { restarts > 0 } else { restarts >= i64::from(limit) }
}

/// When it has been active for too long; never while it is suspended.
fn deadline(view: &View<'_>, status: &JobStatus) -> Option<Timestamp> {
    let seconds = view.spec().active_deadline_seconds.filter(|_| !is_suspended(view.job))?;
    status.start_time.as_ref()?.0.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// The first rule of the success policy that is met.
fn success_rule(view: &View<'_>, indexed: &Indexed) -> Option<usize> {
    let policy = view.spec().success_policy?;
    if indexed.succeeded.count() == 0 {
        return None;
    }
    policy.rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(text), count) => {
            let wanted = Indexes::parse(text, indexed.completions);
            let common = wanted.common(&indexed.succeeded);
            wanted.count() > 0 && (common == wanted.count() || count.is_some_and(|c| common >= c))
        }
        (None, Some(count)) => indexed.succeeded.count() >= count,
        (None, None) => false,
    })
}

/// The interim condition of a Job that has all its successes, if no pod is active (`idle`: and none is to be made).
pub fn completed(view: &View<'_>, active: i32, idle: bool) -> Option<JobCondition> {
    let enough = match view.spec().completions {
        None => view.succeeded > 0,
        Some(wanted) => view.succeeded >= wanted,
    };
    (enough && active == 0 && idle).then(|| {
        let text = "Reached expected number of succeeded pods";
        condition(SUCCEEDING, "True", "CompletionsReached", text, view.now)
    })
}
