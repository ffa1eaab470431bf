//! Pod.

use std::collections::BTreeSet;

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{age, created, name, parse},
    checks::{Checks, path},
    object::{at, flag, has, list, number, remove, restore, set, text},
    podspec::{
        Place, check_ephemeral_update, check_image_space, check_pod_annotations, check_resize, check_spec,
        check_update, default_pod, pod_warnings, quality_of_service,
    },
    resource::Strategy,
};

pub struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Object) {
        default_pod(object);
    }

    fn prepare_create(&self, object: &mut Object, now: DateTime<Utc>) {
        let mut status = json!({"phase": "Pending"});
        if !list(object, "spec.schedulingGates").is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null, "lastTransitionTime": apimachinery::time::format_time(now),
            }]);
        }
        status["qosClass"] = quality_of_service(at(object, "spec")).into();
        set(object, "status", status);
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        match subresource {
            "" if !has(new, "spec.resources") => restore(new, old, "spec.resources"),
            "status" => {
                // Old kubelets corrupt owner references and leave out what they do not know.
                remove(new, "metadata.deletionTimestamp");
                restore(new, old, "metadata.deletionTimestamp");
                restore(new, old, "metadata.ownerReferences");
                for field in [
                    "qosClass",
                    "resourceClaimStatuses",
                    "extendedResourceClaimStatus",
                    "nodeAllocatableResourceClaimStatuses",
                ] {
                    let path = format!("status.{field}");
                    if !has(new, &path) {
                        restore(new, old, &path);
                    }
                }
            }
            "ephemeralcontainers" => keep_all_but(new, old, |kept, new| {
                copy(kept, new, "spec.ephemeralContainers");
            }),
            // Another number of containers is for the validation to refuse.
            "resize" if count_of_containers(new) != count_of_containers(old) => {}
            "resize" => keep_all_but(new, old, |kept, new| {
                copy(kept, new, "spec.resources");
                for group in ["containers", "initContainers"] {
                    copy_resources(kept, new, group);
                }
            }),
            _ => {}
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check_pod(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| match subresource {
            "" => check_update(checks, new, old),
            "ephemeralcontainers" => {
                check_pod(checks, new);
                check_ephemeral_update(checks, new, old);
            }
            "resize" => {
                check_pod(checks, new);
                check_resize(checks, new, old);
            }
            "status" => checks.immutable(new, old, "status.qosClass"),
            _ => {}
        })
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        // Upstream looks at pods that are created only.
        if old.is_none() { pod_warnings(new) } else { Vec::new() }
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(row(object, now))
    }
}

/// A pod as a whole. What only a new pod may not have is told apart by its missing resourceVersion.
fn check_pod(checks: &mut Checks, pod: &Value) {
    let spec_path = path("spec");
    let spec = at(pod, "spec");
    let annotations = path("metadata").child("annotations");
    check_pod_annotations(checks, at(pod, "metadata.annotations"), spec, &annotations);
    check_spec(checks, spec, &spec_path, Place { is_pod: true, pod_name: text(pod, "metadata.name") });
    if text(spec, "serviceAccountName").is_empty() {
        for (index, volume) in list(spec, "volumes").iter().enumerate() {
            for (source_index, source) in list(volume, "projected.sources").iter().enumerate() {
                if has(source, "serviceAccountToken") {
                    let path = spec_path.child("volumes").index(index).child("projected").child("sources");
                    let path = path.index(source_index).child("serviceAccountToken");
                    checks.forbidden(&path, "must not be specified when serviceAccountName is not set");
                }
            }
        }
    }
    checks.nonnegative_fields(&spec_path, spec, &["terminationGracePeriodSeconds"]);
    for group in ["containers", "initContainers"] {
        for (index, container) in list(spec, group).iter().enumerate() {
            check_image_space(checks, container, &spec_path.child(group).index(index));
        }
    }
    if text(pod, "metadata.resourceVersion").is_empty() {
        if !list(spec, "ephemeralContainers").is_empty() {
            checks.forbidden(&spec_path.child("ephemeralContainers"), "cannot be set on create");
        }
        if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            checks.forbidden(&spec_path.child("nodeName"), detail);
        }
    }
}

fn copy(kept: &mut Value, new: &Value, path: &str) {
    match at(new, path) {
        Value::Null => remove(kept, path),
        value => set(kept, path, value.clone()),
    }
}

/// The update may change only what `change` takes from the new object, and managedFields.
fn keep_all_but(new: &mut Object, old: &Object, change: impl FnOnce(&mut Value, &Value)) {
    let mut kept = old.clone();
    copy(&mut kept, new, "metadata.managedFields");
    copy(&mut kept, new, "metadata.resourceVersion");
    copy(&mut kept, new, "metadata.name");
    copy(&mut kept, new, "metadata.uid");
    change(&mut kept, new);
    *new = kept;
}

fn count_of_containers(pod: &Value) -> [usize; 2] {
    ["spec.containers", "spec.initContainers"].map(|group| list(pod, group).len())
}

/// Resources and resize policies; the containers as they were sent where they have other names, which is refused later.
fn copy_resources(kept: &mut Value, new: &Value, group: &str) {
    let path = format!("spec.{group}");
    let wanted = list(new, &path);
    if !wanted.iter().zip(list(kept, &path)).all(|(new, old)| new["name"] == old["name"]) {
        set(kept, &path, wanted);
        return;
    }
    for (container, found) in crate::object::items_mut(kept, &path).zip(wanted) {
        copy(container, found, "resources");
        copy(container, found, "resizePolicy");
    }
}

fn condition<'c>(pod: &'c Value, kind: &str) -> Option<&'c Value> {
    list(pod, "status.conditions").iter().find(|condition| condition["type"] == kind)
}

/// What is counted over a group of container statuses.
#[derive(Default)]
struct Restarts {
    count: i64,
    last: Option<DateTime<Utc>>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += number(status, "restartCount");
        self.last = self.last.max(parse(at(status, "lastState.terminated.finishedAt")));
    }
}

fn exit_text(terminated: &Value) -> String {
    match (text(terminated, "reason"), number(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", number(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// The STATUS column and what is counted on the way.
fn row(pod: &Object, now: DateTime<Utc>) -> Vec<Value> {
    let phase = text(pod, "status.phase");
    let mut reason = match text(pod, "status.reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    if condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        reason = "SchedulingGated".to_owned();
    }
    let init_specs = list(pod, "spec.initContainers");
    let always = || init_specs.iter().filter(|c| c["restartPolicy"] == "Always");
    let sidecars: BTreeSet<&str> = always().map(|container| text(container, "name")).collect();
    let total = list(pod, "spec.containers").len() + always().count();
    let mut ready = 0;
    let (mut restarts, mut sidecar_restarts) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    for (index, status) in list(pod, "status.initContainerStatuses").iter().enumerate() {
        restarts.add(status);
        let is_sidecar = sidecars.contains(text(status, "name"));
        if is_sidecar {
            sidecar_restarts.add(status);
        }
        let terminated = at(status, "state.terminated");
        let waiting = text(status, "state.waiting.reason");
        if !terminated.is_null() && number(terminated, "exitCode") == 0 {
            continue;
        }
        if is_sidecar && flag(status, "started") {
            ready += usize::from(flag(status, "ready"));
            continue;
        }
        reason = if !terminated.is_null() {
            format!("Init:{}", exit_text(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{index}/{}", init_specs.len())
        };
        initializing = true;
        break;
    }
    if !initializing || condition(pod, "Initialized").is_some_and(|c| c["status"] == "True") {
        restarts = sidecar_restarts;
        let (mut running, mut error) = (false, None);
        for status in list(pod, "status.containerStatuses").iter().rev() {
            restarts.add(status);
            let terminated = at(status, "state.terminated");
            let waiting = text(status, "state.waiting.reason");
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if !terminated.is_null() {
                reason = exit_text(terminated);
                if number(terminated, "exitCode") != 0 {
                    error = Some(reason.clone());
                }
            } else if flag(status, "ready") && has(status, "state.running") {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" {
            let pod_ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
            reason = match (running && pod_ready, error) {
                (true, _) => "Running".to_owned(),
                (false, Some(error)) => error,
                (false, None) if running => "NotReady".to_owned(),
                (false, None) => reason,
            };
        }
    }
    if has(pod, "metadata.deletionTimestamp") {
        if text(pod, "status.reason") == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }
    let restarts = match restarts.last {
        Some(last) if restarts.count != 0 => {
            format!("{} ({} ago)", restarts.count, age(&last.to_rfc3339().into(), now))
        }
        _ => restarts.count.to_string(),
    };
    let or_none = |text: &str| if text.is_empty() { "<none>".into() } else { Value::from(text) };
    let ip = list(pod, "status.podIPs").first().map_or("", |ip| text(ip, "ip"));
    vec![
        name(pod),
        format!("{ready}/{total}").into(),
        reason.into(),
        restarts.into(),
        created(pod, now),
        or_none(ip),
        or_none(text(pod, "spec.nodeName")),
        or_none(text(pod, "status.nominatedNodeName")),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates
        .iter()
        .filter(|gate| condition(pod, text(gate, "conditionType")).is_some_and(|c| c["status"] == "True"))
        .count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(status: Value) -> Vec<Value> {
        let pod = json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "init"}]},
            "status": status,
        });
        row(&pod, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_failing_init_container_is_the_status() {
        let cells = cells(json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "init", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}));
        assert_eq!(cells[1..4], [json!("0/2"), json!("Init:CrashLoopBackOff"), json!("3")]);
    }

    #[test]
    fn a_pod_with_one_container_done_and_one_ready_is_not_ready() {
        let cells = cells(json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "b", "ready": true, "state": {"running": {}}}]}));
        assert_eq!(cells[1..3], [json!("1/2"), json!("NotReady")]);
    }

    #[test]
    fn ephemeral_containers_are_all_that_their_subresource_changes() {
        let old = json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"nodeName": "n"}});
        let mut new = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "m", "ephemeralContainers": [{"name": "d"}]}});
        Pod.prepare_update(&mut new, &old, "ephemeralcontainers");
        assert_eq!(new["spec"], json!({"nodeName": "n", "ephemeralContainers": [{"name": "d"}]}));
        assert_eq!(new["metadata"]["labels"]["x"], "1");
    }
}
