//! A Job's pods: what they say about themselves, new ones.

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod},
    },
    jiff::{SignedDuration, Timestamp},
};
use serde_json::json;

use super::failure_policy;
use crate::{PatchKind, Write, ownership, pod_state, pod_template};

/// The finalizer that keeps a pod until it is counted.
pub const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// What stays of a name that five letters are added to.
const PREFIX_LIMIT: usize = 58;

/// It has the finalizer: it is not counted yet, or at least not known to be.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == TRACKING)
}

/// The patch that takes the finalizer off.
pub fn untrack(pod: &Pod) -> Write {
    let body = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [TRACKING]}});
    Write::patch(pod, PatchKind::Strategic, body)
}

/// The number in an annotation; `None` when there is none that is one.
fn number(pod: &Pod, key: &str) -> Option<i32> {
    let value = pod.metadata.annotations.as_ref()?.get(key)?;
    value.parse().ok().filter(|n| *n >= 0)
}

/// The completion index.
pub fn index(pod: &Pod) -> Option<i32> {
    number(pod, INDEX)
}

/// How often its index had failed before it.
pub fn failures(pod: &Pod) -> i32 {
    number(pod, FAILURES).unwrap_or(0)
}

/// The same with the failures that do not count.
pub fn all_failures(pod: &Pod) -> i32 {
    failures(pod).saturating_add(number(pod, IGNORED).unwrap_or(0))
}

/// New pods come only for pods that have ended, not for those that are only being deleted.
pub fn replaces_only_ended(job: &Job) -> bool {
    job.spec.as_ref().and_then(|s| s.pod_replacement_policy.as_deref()) == Some("Failed")
}

/// It has failed, or counts as if it had because it is being deleted.
pub fn is_failed(job: &Job, pod: &Pod) -> bool {
    match pod_state::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.deletion_timestamp.is_some() && !replaces_only_ended(job),
    }
}

/// When it ended: as its containers say, else since it is not ready, else when its deletion was asked for, else when it was
/// made.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let from_containers = || containers_finished_at(pod);
    let from_ready = || {
        let ready = pod_state::condition(pod, "Ready").filter(|c| c.status == "False")?;
        Some(ready.last_transition_time.as_ref()?.0)
    };
    let from_deletion = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    from_containers().or_else(from_ready).or_else(from_deletion).or_else(created).unwrap_or(Timestamp::MIN)
}

/// When the last of the containers, sidecars included, ended; `None` while one of them has not.
fn containers_finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let inits = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    let sidecars: Vec<&str> =
        inits.filter(|c| c.restart_policy.as_deref() == Some("Always")).map(|c| c.name.as_str()).collect();
    let own = status.container_statuses.iter().flatten();
    let beside =
        status.init_container_statuses.iter().flatten().filter(|c| sidecars.contains(&c.name.as_str()));
    let mut last = None;
    for container in own.chain(beside) {
        let end = container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0;
        last = last.max(Some(end));
    }
    last
}

/// A pod to be made; for an index, after a pod of the same index that has failed.
pub fn new(job: &Job, index: Option<i32>, before: Option<&Pod>) -> Pod {
    let namespace = job.metadata.namespace.as_deref().unwrap_or_default();
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let empty = k8s_openapi::api::core::v1::PodTemplateSpec::default();
    let template = job.spec.as_ref().map_or(&empty, |s| &s.template);
    let mut pod = pod_template::pod(template, namespace, ownership::controller_reference(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let Some(index) = index else { return pod };
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if job.spec.as_ref().is_some_and(|s| s.backoff_limit_per_index.is_some()) {
        let (failed, ignored) = before.map_or((0, 0), |before| failures_after(job, before));
        annotations.insert(FAILURES.to_owned(), failed.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED.to_owned(), ignored.to_string());
        }
    }
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(INDEX.to_owned(), index.to_string());
    let suffix = format!("-{index}-");
    let mut end = name.len().min(PREFIX_LIMIT.saturating_sub(suffix.len()));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    pod.metadata.generate_name = Some(format!("{}{suffix}", &name[..end]));
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(format!("{name}-{index}"));
    spec.containers.iter_mut().for_each(tell_index);
    spec.init_containers.iter_mut().flatten().for_each(tell_index);
    pod
}

/// Counted and ignored failures of an index after this pod of it has failed.
fn failures_after(job: &Job, before: &Pod) -> (i32, i32) {
    let (failed, ignored) = (failures(before), number(before, IGNORED).unwrap_or(0));
    if failure_policy::of(job, before).counts {
        (failed.saturating_add(1), ignored)
    } else {
        (failed, ignored.saturating_add(1))
    }
}

fn tell_index(container: &mut Container) {
    let variables = container.env.get_or_insert_default();
    if variables.iter().any(|v| v.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    variables.push(EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    });
}
