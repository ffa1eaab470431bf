//! What is wrong with the kinds of `apps/v1`.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath};
use serde_json::Value;

use crate::{
    checks::{Checks, not_decremented, path, percent, selects, selects_all},
    object::{at, has, list, number, text},
    podspec::check_template,
};

/// The selector of a workload and whether it matches the template's labels. `kind` names the kind in the text.
fn check_selector(checks: &mut Checks, object: &Value, kind: &str) {
    let selector = at(object, "spec.selector");
    let path = path("spec").child("selector");
    if selector.is_null() {
        return checks.required(&path, "");
    }
    checks.label_selector(&path, selector);
    if selects_all(selector) {
        checks.invalid(&path, selector.clone(), &format!("empty selector is invalid for {kind}"));
    }
}

/// The template of a Deployment, ReplicaSet or StatefulSet; `kind` names the kind in the text.
fn check_workload_template(checks: &mut Checks, object: &Value, template: &Value, kind: &str) {
    let path = path("spec").child("template");
    let selector = at(object, "spec.selector");
    if selector.is_null() {
        // Upstream reads a missing selector as one that matches nothing.
        let labels = at(template, "metadata.labels").clone();
        checks.invalid(
            &path.child("metadata").child("labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    } else if !selects_all(selector) && !selects(selector, at(template, "metadata.labels")) {
        let labels = at(template, "metadata.labels").clone();
        checks.invalid(
            &path.child("metadata").child("labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
    check_template(checks, template, &path);
    check_always_running(checks, template, &path, kind);
}

/// Pods of these kinds are always restarted and have no deadline.
fn check_always_running(checks: &mut Checks, template: &Value, path: &FieldPath, kind: &str) {
    let path = path.child("spec");
    checks.one_of(&path.child("restartPolicy"), text(template, "spec.restartPolicy"), &["Always"]);
    if has(template, "spec.activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        checks.forbidden(&path.child("activeDeadlineSeconds"), &detail);
    }
}

/// 0, or `0%`.
fn is_zero(value: &Value) -> bool {
    value.as_i64().or_else(|| percent(value)).unwrap_or(0) == 0
}

pub fn check_deployment(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let spec = path("spec");
        checks.nonnegative(&spec.child("replicas"), number(object, "spec.replicas"));
        check_selector(checks, object, "deployment");
        check_workload_template(checks, object, at(object, "spec.template"), "ReplicaSet");
        check_deployment_strategy(checks, at(object, "spec.strategy"), &spec.child("strategy"));
        let fields = ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"];
        checks.nonnegative_fields(&spec, at(object, "spec"), &fields);
        if let Some(deadline) = at(object, "spec.progressDeadlineSeconds").as_i64()
            && deadline <= number(object, "spec.minReadySeconds")
        {
            let detail = "must be greater than minReadySeconds";
            checks.invalid(&spec.child("progressDeadlineSeconds"), deadline, detail);
        }
    })
}

fn check_deployment_strategy(checks: &mut Checks, strategy: &Value, path: &FieldPath) {
    let rolling = at(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            checks.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let [unavailable, surge] = ["maxUnavailable", "maxSurge"].map(|field| at(rolling, field));
            let path = rolling_path.child("maxUnavailable");
            checks.int_or_percent(&path, unavailable);
            checks.int_or_percent(&rolling_path.child("maxSurge"), surge);
            if is_zero(unavailable) && is_zero(surge) {
                checks.invalid(&path, unavailable.clone(), "may not be 0 when `maxSurge` is 0");
            }
            checks.at_most_all(&path, unavailable);
        }
        _ => {
            let supported = ["Recreate", "RollingUpdate"];
            checks.errors.push(FieldError::not_supported(path, strategy.clone(), &supported));
        }
    }
}

pub fn check_replica_set(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        checks.nonnegative_fields(&path("spec"), at(object, "spec"), &["replicas", "minReadySeconds"]);
        check_selector(checks, object, "deployment");
        check_workload_template(checks, object, at(object, "spec.template"), "ReplicaSet");
    })
}

pub fn check_stateful_set(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let spec = path("spec");
        let policy = text(object, "spec.podManagementPolicy");
        if !matches!(policy, "OrderedReady" | "Parallel") {
            checks.invalid(
                &spec.child("podManagementPolicy"),
                policy,
                "must be 'OrderedReady' or 'Parallel'",
            );
        }
        check_stateful_strategy(checks, at(object, "spec.updateStrategy"), &spec.child("updateStrategy"));
        let retention = spec.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            let value = text(at(object, "spec.persistentVolumeClaimRetentionPolicy"), field);
            checks.one_of(&retention.child(field), value, &["Retain", "Delete"]);
        }
        for (index, claim) in list(object, "spec.volumeClaimTemplates").iter().enumerate() {
            let path = spec.child("volumeClaimTemplates").index(index).child("spec");
            crate::core::check_claim_spec(checks, at(claim, "spec"), &path);
        }
        checks.nonnegative_fields(&spec, at(object, "spec"), &["replicas", "minReadySeconds"]);
        if let Some(start) = at(object, "spec.ordinals.start").as_i64() {
            checks.nonnegative(&spec.child("ordinals.start"), start);
        }
        let service = text(object, "spec.serviceName");
        if !service.is_empty() {
            checks.dns_label(&spec.child("serviceName"), service);
        }
        check_selector(checks, object, "statefulset");
        check_workload_template(checks, object, &template_with_claims(object), "StatefulSet");
    })
}

/// The template as the controller will make pods of it: claims are volumes, host names are the controller's.
fn template_with_claims(object: &Value) -> Value {
    let mut template = at(object, "spec.template").clone();
    for field in ["spec.subdomain", "spec.hostname"] {
        crate::object::remove(&mut template, field);
    }
    let claims = list(object, "spec.volumeClaimTemplates");
    if !claims.is_empty() {
        let names: Vec<&str> = claims.iter().map(|claim| text(claim, "metadata.name")).collect();
        let mut volumes: Vec<Value> = names
            .iter()
            .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
            .collect();
        let names: BTreeSet<&str> = names.into_iter().collect();
        let others =
            list(&template, "spec.volumes").iter().filter(|volume| !names.contains(text(volume, "name")));
        volumes.extend(others.cloned());
        crate::object::set(&mut template, "spec.volumes", volumes);
    }
    template
}

fn check_stateful_strategy(checks: &mut Checks, strategy: &Value, path: &FieldPath) {
    let rolling = at(strategy, "rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "" => checks.required(path, ""),
        "OnDelete" if !rolling.is_null() => {
            checks.invalid(&rolling_path, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            checks.nonnegative(&rolling_path.child("partition"), number(rolling, "partition"));
            let unavailable = at(rolling, "maxUnavailable");
            let path = rolling_path.child("maxUnavailable");
            if !unavailable.is_null() {
                checks.int_or_percent(&path, unavailable);
                if is_zero(unavailable) {
                    checks.invalid(&path, unavailable.clone(), "cannot be 0");
                }
                checks.at_most_all(&path, unavailable);
            }
        }
        _ => checks.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

pub fn check_daemon_set(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let spec = path("spec");
        let selector = at(object, "spec.selector");
        let template = at(object, "spec.template");
        checks.label_selector(&spec.child("selector"), selector);
        if !selects(selector, at(template, "metadata.labels")) {
            let path = spec.child("template").child("metadata").child("labels");
            let labels = at(template, "metadata.labels").clone();
            checks.invalid(&path, labels, "`selector` does not match template `labels`");
        }
        if !selector.is_null() && selects_all(selector) {
            checks.invalid(
                &spec.child("selector"),
                selector.clone(),
                "empty selector is invalid for daemonset",
            );
        }
        check_template(checks, template, &spec.child("template"));
        check_always_running(checks, template, &spec.child("template"), "DaemonSet");
        checks.nonnegative_fields(&spec, at(object, "spec"), &["minReadySeconds"]);
        check_daemon_strategy(checks, at(object, "spec.updateStrategy"), &spec.child("updateStrategy"));
        checks.nonnegative_fields(&spec, at(object, "spec"), &["revisionHistoryLimit"]);
    })
}

fn check_daemon_strategy(checks: &mut Checks, strategy: &Value, path: &FieldPath) {
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = at(strategy, "rollingUpdate");
            let path = path.child("rollingUpdate");
            let [unavailable, surge] = ["maxUnavailable", "maxSurge"].map(|field| at(rolling, field));
            for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                checks.int_or_percent(&path.child(field), value);
            }
            for (field, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                checks.at_most_all(&path.child(field), value);
            }
            match (is_zero(unavailable), is_zero(surge)) {
                (false, false) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    checks.invalid(&path.child("maxSurge"), surge.clone(), detail);
                }
                (true, true) => {
                    checks.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0")
                }
                _ => {}
            }
        }
        _ => {
            let supported = ["RollingUpdate", "OnDelete"];
            checks.errors.push(FieldError::not_supported(path, strategy.clone(), &supported));
        }
    }
}

pub fn check_controller_revision(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        checks.nonnegative(&path("revision"), number(object, "revision"));
        match at(object, "data") {
            // Upstream's decoder makes something of nothing where there was data before.
            Value::Null if !text(object, "metadata.resourceVersion").is_empty() => {}
            Value::Null => checks.required(&path("data"), "data is mandatory"),
            Value::Object(_) => {}
            _ => checks.required(&path("data"), "data must be a valid JSON object"),
        }
    })
}

/// Counters of a workload's status: none below zero, none of `parts` above the whole.
pub fn check_status(new: &Value, old: &Value, counters: &[&str], parts: &[&str]) -> Vec<FieldError> {
    Checks::run(|checks| {
        let status = path("status");
        checks.nonnegative_fields(&status, at(new, "status"), counters);
        let replicas = number(new, "status.replicas");
        for part in parts {
            let value = number(at(new, "status"), part);
            if value > replicas {
                checks.invalid(&status.child(part), value, "cannot be greater than status.replicas");
            }
        }
        let (available, ready) =
            (number(new, "status.availableReplicas"), number(new, "status.readyReplicas"));
        if !parts.is_empty() && available > ready {
            checks.invalid(
                &status.child("availableReplicas"),
                available,
                "cannot be greater than readyReplicas",
            );
        }
        not_decremented(checks, new, old, "status.collisionCount");
    })
}
