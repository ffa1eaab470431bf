//! What may change in a pod once it is there.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{FieldPath, names};
use serde_json::{Value, json};

use super::scheduling::check_tolerations;
use crate::{
    checks::{Checks, path},
    object::{at, entries, has, list, number, remove, same, set, text},
};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set \
to 1 if it was previously negative)";

/// A change of a pod's spec by an update of the pod itself.
pub fn check_update(checks: &mut Checks, new: &Value, old: &Value) {
    for group in ["containers", "initContainers"] {
        let at_group = path("spec").child(group);
        let field = format!("spec.{group}");
        if list(new, &field).len() != list(old, &field).len() {
            return checks.forbidden(&at_group, "pod updates may not add or remove containers");
        }
    }
    if check_deadline(checks, new, old) {
        return;
    }
    let spec = path("spec");
    check_added_tolerations(checks, new, old, &spec.child("tolerations"));
    let old_gates = list(old, "spec.schedulingGates");
    let old_names: BTreeSet<&str> = old_gates.iter().map(|gate| text(gate, "name")).collect();
    for (index, gate) in list(new, "spec.schedulingGates").iter().enumerate() {
        if !old_names.contains(text(gate, "name")) {
            let detail =
                format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
            checks.forbidden(&spec.child("schedulingGates").index(index).child("name"), &detail);
        }
    }
    let mut munged = at(new, "spec").clone();
    let before = at(old, "spec");
    if same(&munged, before) {
        return;
    }
    for group in ["containers", "initContainers"] {
        for (index, container) in crate::object::items_mut(&mut munged, group).enumerate() {
            set(container, "image", list(before, group)[index]["image"].clone());
        }
    }
    let mut keep = |field: &str| crate::object::restore(&mut munged, before, field);
    keep("activeDeadlineSeconds");
    keep("schedulingGates");
    keep("tolerations");
    if number(before, "terminationGracePeriodSeconds") < 0
        && number(new, "spec.terminationGracePeriodSeconds") == 1
    {
        keep("terminationGracePeriodSeconds");
    }
    if !old_gates.is_empty() {
        check_gated(checks, &mut munged, before, &spec);
    }
    if !same(&munged, before) {
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            differences(&munged, before)
        );
        checks.forbidden(&spec, &detail);
    }
}

/// Which top-level fields of the spec differ, a line each.
fn differences(new: &Value, old: &Value) -> String {
    let fields = new.as_object().into_iter().flatten().chain(old.as_object().into_iter().flatten());
    let mut names: Vec<&String> =
        fields.map(|(name, _)| name).filter(|name| !same(&new[name.as_str()], &old[name.as_str()])).collect();
    names.sort_unstable();
    names.dedup();
    names
        .iter()
        .map(|name| format!("- {name}: {}\n+ {name}: {}\n", old[name.as_str()], new[name.as_str()]))
        .collect()
}

/// True when nothing more is worth telling.
fn check_deadline(checks: &mut Checks, new: &Value, old: &Value) -> bool {
    let at_path = path("spec").child("activeDeadlineSeconds");
    let seconds = |pod: &Value| at(pod, "spec.activeDeadlineSeconds").as_i64();
    match (seconds(new), seconds(old)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            checks.invalid(&at_path, new, &names::not_between(0, i64::from(i32::MAX)));
            true
        }
        (Some(new), Some(old)) if old < new => {
            checks.invalid(&at_path, new, "must be less than or equal to previous value");
            true
        }
        (None, Some(_)) => {
            checks.invalid(&at_path, Value::Null, "must not update from a positive integer to nil value");
            false
        }
        _ => false,
    }
}

fn check_added_tolerations(checks: &mut Checks, new: &Value, old: &Value, path: &FieldPath) {
    // All of a toleration but for how long it lasts.
    let id = |toleration| ["key", "operator", "value", "effect"].map(|field| text(toleration, field));
    let tolerations = list(new, "spec.tolerations");
    let kept: BTreeSet<[&str; 4]> = tolerations.iter().map(id).collect();
    for old in list(old, "spec.tolerations") {
        if !kept.contains(&id(old)) {
            return checks
                .forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
        }
    }
    check_tolerations(checks, tolerations, path);
}

/// While a gate holds the pod back, its node selector may grow and its node affinity narrow.
fn check_gated(checks: &mut Checks, munged: &mut Value, before: &Value, spec: &FieldPath) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    if !same(at(munged, "nodeSelector"), at(before, "nodeSelector")) {
        for (key, value) in entries(before, "nodeSelector") {
            if at(munged, "nodeSelector").get(key) != Some(value) {
                let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
                checks.invalid(&spec.child("nodeSelector"), at(munged, "nodeSelector").clone(), detail);
                break;
            }
        }
        crate::object::restore(munged, before, "nodeSelector");
    }
    if same(at(munged, "affinity.nodeAffinity"), at(before, "affinity.nodeAffinity")) {
        return;
    }
    let terms =
        |spec: &Value| list(spec, &format!("affinity.nodeAffinity.{REQUIRED}.nodeSelectorTerms")).to_vec();
    let (new_terms, old_terms) = (terms(munged), terms(before));
    let path = spec.child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    if !old_terms.is_empty() {
        let value = Value::Array(new_terms.clone());
        if new_terms.len() != old_terms.len() {
            checks.invalid(
                &path,
                value,
                "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
            );
        } else {
            for (index, (new, old)) in new_terms.iter().zip(&old_terms).enumerate() {
                let holds = |field: &str| list(new, field).starts_with(list(old, field));
                let empty = list(old, "matchExpressions").is_empty() && list(old, "matchFields").is_empty();
                if !(holds("matchExpressions") && holds("matchFields")) || (empty && new != old) {
                    let detail = "only additions are allowed (no mutations or deletions)";
                    checks.invalid(&path.index(index), new.clone(), detail);
                }
            }
        }
    }
    crate::object::restore(munged, before, "affinity.nodeAffinity");
    if at(munged, "affinity") == &json!({}) && !has(before, "affinity") {
        remove(munged, "affinity");
    }
}

/// A change through `/ephemeralcontainers`: only additions.
pub fn check_ephemeral_update(checks: &mut Checks, new: &Value, old: &Value) {
    let at_path = path("spec").child("ephemeralContainers");
    let containers = list(new, "spec.ephemeralContainers").iter().rev();
    let by_name: BTreeMap<&str, &Value> = containers.map(|new| (text(new, "name"), new)).collect();
    for old in list(old, "spec.ephemeralContainers") {
        let name = text(old, "name");
        match by_name.get(name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                checks.forbidden(&at_path, &detail);
            }
            Some(new) if !same(new, old) => {
                let detail = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    differences(new, old)
                );
                checks.forbidden(&at_path, &detail);
            }
            Some(_) => {}
        }
    }
}

/// A change through `/resize`: only cpu and memory of containers, and never the quality of service.
///
/// Source: `ValidatePodResize` in `k8s.io/kubernetes/pkg/apis/core/validation`.
pub fn check_resize(checks: &mut Checks, new: &Value, old: &Value) {
    let spec = path("spec");
    let class = match text(old, "status.qosClass") {
        "" => super::quality_of_service(at(old, "spec")),
        class => class,
    };
    if super::quality_of_service(at(new, "spec")) != class {
        let detail = "Pod QOS Class may not change as a result of resizing";
        checks.invalid(&spec, text(new, "status.qosClass"), detail);
    }
    let before = checks.errors.len();
    for group in ["containers", "initContainers"] {
        check_same_containers(checks, new, old, group);
    }
    if checks.errors.len() > before {
        return;
    }
    for group in ["initContainers", "containers"] {
        let field = format!("spec.{group}");
        for (index, (new, old)) in list(new, &field).iter().zip(list(old, &field)).enumerate() {
            let path = spec.child(group).index(index).child("resources");
            for kind in ["requests", "limits"] {
                let field = format!("resources.{kind}");
                if entries(old, &field).any(|(name, _)| at(new, &field).get(name).is_none()) {
                    checks.forbidden(&path.child(kind), &format!("resource {kind} cannot be removed"));
                }
            }
        }
    }
    for group in ["containers", "initContainers"] {
        let field = format!("spec.{group}");
        for (index, (new, old)) in list(new, &field).iter().zip(list(old, &field)).enumerate() {
            if same(&without_cpu_and_memory(new), &without_cpu_and_memory(old)) {
                continue;
            }
            if group == "containers" {
                checks.forbidden(&spec, "only cpu and memory resources are mutable");
            } else {
                let detail = "only cpu and memory resources for init or sidecar containers are mutable";
                checks.forbidden(&spec.child(group).index(index), detail);
            }
        }
    }
}

fn check_same_containers(checks: &mut Checks, new: &Value, old: &Value, group: &str) {
    let path = path("spec").child(group);
    let field = format!("spec.{group}");
    let (new, old) = (list(new, &field), list(old, &field));
    if new.len() != old.len() {
        return checks.forbidden(&path, &format!("{group} may not be added or removed on resize"));
    }
    for (index, (new, old)) in new.iter().zip(old).enumerate() {
        if text(new, "name") != text(old, "name") {
            let detail = format!("{group} may not be renamed or reordered on resize");
            checks.forbidden(&path.index(index).child("name"), &detail);
        }
    }
}

/// The container but for what may be resized.
fn without_cpu_and_memory(container: &Value) -> Value {
    let mut rest = container.clone();
    let Some(fields) = rest.as_object_mut() else { return rest };
    let resources = fields.entry("resources").or_insert_with(|| json!({}));
    for kind in ["requests", "limits"] {
        if let Some(amounts) = resources.get_mut(kind).and_then(Value::as_object_mut) {
            amounts.retain(|name, _| !matches!(name.as_str(), "cpu" | "memory"));
        }
    }
    // No amounts and none left are one.
    if let Some(resources) = resources.as_object_mut() {
        resources.retain(|_, amounts| !amounts.as_object().is_some_and(|amounts| amounts.is_empty()));
    }
    rest
}
