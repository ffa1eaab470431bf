//! What a Deployment tells about itself.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    numbers,
    sets::{REVISION, Set, Sets},
};
use crate::Write;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const FAILURE: &str = "ReplicaFailure";

const DONE: &str = "NewReplicaSetAvailable";
const UPDATED: &str = "ReplicaSetUpdated";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const RESUMED: &str = "DeploymentResumed";

/// What is known about the progress of a rollout.
pub enum Progress {
    /// It is not rolled out at the moment: paused, scaled, being deleted.
    Untouched,
    /// To be seen from the numbers.
    Estimated,
    /// The new ReplicaSet is made now.
    Made(String),
    /// It could not be made; what is to be told.
    NotMade(String),
}

type Conditions = Vec<DeploymentCondition>;

fn find<'a>(conditions: &'a [DeploymentCondition], kind: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|c| c.type_.as_deref() == Some(kind))
}

fn told(deployment: &Deployment) -> &[DeploymentCondition] {
    deployment.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn reason(condition: &DeploymentCondition) -> &str {
    condition.reason.as_deref().unwrap_or_default()
}

/// Puts a condition in. One with the same status and reason stays as it is; the transition is when the status changed.
fn set(conditions: &mut Conditions, kind: &str, status: &str, reason: &str, message: String, now: Timestamp) {
    let before = find(conditions, kind);
    if before.is_some_and(|b| b.status.as_deref() == Some(status) && b.reason.as_deref() == Some(reason)) {
        return;
    }
    let since = before.filter(|b| b.status.as_deref() == Some(status));
    let since = since.and_then(|b| b.last_transition_time.clone()).unwrap_or(Time(now));
    conditions.retain(|c| c.type_.as_deref() != Some(kind));
    conditions.push(DeploymentCondition {
        type_: Some(kind.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: Some(since),
        last_update_time: Some(Time(now)),
    });
}

fn remove(conditions: &mut Conditions, kind: &str) {
    conditions.retain(|c| c.type_.as_deref() != Some(kind));
}

/// Zero is told by leaving the number out.
fn some(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

fn sum(sets: &Sets, of: impl Fn(&Set) -> i32) -> i32 {
    sets.all().map(of).fold(0, i32::saturating_add)
}

/// The numbers, and whether enough pods are available.
fn count(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
    let available = sets.available();
    let terminating: Option<i32> = sets
        .all()
        .map(|set| set.seen.status.as_ref().and_then(|s| s.terminating_replicas))
        .try_fold(0_i32, |sum, one| Some(sum.saturating_add(one?)));
    let mut conditions = told(deployment).to_vec();
    let (status, reason, text) =
        if available >= numbers::replicas(deployment) - numbers::max_unavailable(deployment) {
            ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
        };
    set(&mut conditions, AVAILABLE, status, reason, text.to_owned(), now);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(sets, Set::actual)),
        updated_replicas: some(sets.new.as_ref().map_or(0, Set::actual)),
        ready_replicas: some(sum(sets, |set| {
            set.seen.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
        })),
        available_replicas: some(available),
        unavailable_replicas: some(sets.total().saturating_sub(available).max(0)),
        terminating_replicas: terminating,
        collision_count: deployment.status.as_ref().and_then(|s| s.collision_count),
        conditions: Some(conditions),
    }
}

/// All pods are new and available, and nothing was changed since.
fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = some(numbers::replicas(deployment));
    status.updated_replicas.and_then(some) == wanted
        && status.replicas.and_then(some) == wanted
        && status.available_replicas.and_then(some) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// It was told to be complete.
pub fn was_complete(deployment: &Deployment) -> bool {
    deployment.status.as_ref().is_some_and(|status| is_complete(deployment, status))
}

/// More pods are updated, ready or available than before, or fewer are old.
fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let number = |n: Option<i32>| n.unwrap_or(0);
    let old = |s: &DeploymentStatus| number(s.replicas) - number(s.updated_replicas);
    number(after.updated_replicas) > number(before.updated_replicas)
        || old(after) < old(before)
        || number(after.ready_replicas) > number(before.ready_replicas)
        || number(after.available_replicas) > number(before.available_replicas)
}

/// When the rollout counts as stuck if nothing moves: the deadline after the last progress.
fn stuck_at(deployment: &Deployment, condition: &DeploymentCondition) -> Option<Timestamp> {
    let deadline = SignedDuration::from_secs(numbers::progress_deadline(deployment)?);
    condition.last_update_time.as_ref()?.0.checked_add(deadline).ok()
}

fn estimate(deployment: &Deployment, sets: &Sets, status: &mut DeploymentStatus, now: Timestamp) {
    let before = deployment.status.clone().unwrap_or_default();
    let complete = is_complete(deployment, status);
    let progressed = has_progressed(&before, status);
    let all_new = status.replicas == status.updated_replicas;
    let conditions = status.conditions.get_or_insert_default();
    let current = find(conditions, PROGRESSING).cloned();
    // Once everything is available nothing is estimated until there is a new ReplicaSet.
    if all_new && current.as_ref().is_some_and(|c| reason(c) == DONE) {
        return;
    }
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let what = match &sets.new {
        Some(new) => format!("ReplicaSet {:?}", new.name()),
        None => format!("Deployment {name:?}"),
    };
    let stuck = current.as_ref().is_some_and(|c| match reason(c) {
        DONE => false,
        TIMED_OUT => true,
        _ => stuck_at(deployment, c).is_some_and(|at| at < now),
    });
    if complete {
        set(conditions, PROGRESSING, "True", DONE, format!("{what} has successfully progressed."), now);
    } else if progressed {
        // Put in anew, so that the time of the last progress moves; the transition stays.
        let since = current.filter(|c| c.status.as_deref() == Some("True"));
        remove(conditions, PROGRESSING);
        set(conditions, PROGRESSING, "True", UPDATED, format!("{what} is progressing."), now);
        if let (Some(since), Some(put)) = (since.and_then(|c| c.last_transition_time), conditions.last_mut())
        {
            put.last_transition_time = Some(since);
        }
    } else if stuck {
        set(conditions, PROGRESSING, "False", TIMED_OUT, format!("{what} has timed out progressing."), now);
    }
}

/// Tells that it was paused or goes on, unless it is stuck already.
fn pause(deployment: &Deployment, conditions: &mut Conditions, now: Timestamp) {
    let current = find(conditions, PROGRESSING).map(reason);
    if current == Some(TIMED_OUT) {
        return;
    }
    let paused = deployment.spec.paused == Some(true);
    if paused && current != Some(PAUSED) {
        set(conditions, PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned(), now);
    } else if !paused && current == Some(PAUSED) {
        set(conditions, PROGRESSING, "Unknown", RESUMED, "Deployment is resumed".to_owned(), now);
    }
}

/// The failure of the new ReplicaSet, else of any.
fn failure(sets: &Sets) -> Option<DeploymentCondition> {
    let of = |set: &Set| {
        let conditions = set.seen.status.as_ref()?.conditions.as_ref()?;
        let found = conditions.iter().find(|c| c.type_.as_deref() == Some(FAILURE))?;
        Some(DeploymentCondition {
            type_: found.type_.clone(),
            status: found.status.clone(),
            reason: found.reason.clone(),
            message: found.message.clone(),
            last_transition_time: found.last_transition_time.clone(),
            last_update_time: found.last_transition_time.clone(),
        })
    };
    sets.new.as_ref().and_then(of).or_else(|| sets.old.iter().find_map(of))
}

/// The write that tells the new status and the revision, if anything is new.
pub fn write(
    deployment: &Deployment,
    sets: &Sets,
    revision: Option<&str>,
    progress: &Progress,
    now: Timestamp,
) -> Option<Write> {
    let mut told_now = deployment.clone();
    let mut status = count(deployment, sets, now);
    let timed = numbers::progress_deadline(deployment).is_some();
    if timed && deployment.metadata.deletion_timestamp.is_none() {
        let conditions = status.conditions.get_or_insert_default();
        pause(deployment, conditions, now);
        if let Some(new) = &sets.new
            && find(conditions, PROGRESSING).is_none()
        {
            let text = format!("Found new replica set {:?}", new.name());
            set(conditions, PROGRESSING, "True", "FoundNewReplicaSet", text, now);
        }
        match progress {
            Progress::Untouched => {}
            Progress::Estimated => estimate(deployment, sets, &mut status, now),
            Progress::Made(name) => {
                let text = format!("Created new replica set {name:?}");
                set(conditions, PROGRESSING, "True", "NewReplicaSetCreated", text, now);
            }
            Progress::NotMade(text) => {
                set(conditions, PROGRESSING, "False", "ReplicaSetCreateError", text.clone(), now);
            }
        }
    }
    let conditions = status.conditions.get_or_insert_default();
    if !timed {
        remove(conditions, PROGRESSING);
    }
    if matches!(progress, Progress::Estimated) {
        match failure(sets) {
            Some(found) => {
                let text = |t: Option<String>| t.unwrap_or_default();
                let message = text(found.message);
                set(conditions, FAILURE, &text(found.status), &text(found.reason), message, now);
            }
            None => remove(conditions, FAILURE),
        }
    }
    told_now.status = Some(status);
    if let Some(revision) = revision {
        let annotations = told_now.metadata.annotations.get_or_insert_default();
        annotations.insert(REVISION.to_owned(), revision.to_owned());
    }
    (told_now != *deployment).then(|| Write::status(&told_now))
}

/// When to see whether a rollout is stuck, if nothing is told now.
pub fn look_again(deployment: &Deployment, told_now: &Option<Write>, now: Timestamp) -> Option<Timestamp> {
    if told_now.is_some() || was_complete(deployment) {
        return None;
    }
    let condition = find(told(deployment), PROGRESSING).filter(|c| reason(c) != TIMED_OUT)?;
    let at = stuck_at(deployment, condition)?.checked_add(SignedDuration::from_secs(1)).ok()?;
    (at > now).then_some(at)
}
