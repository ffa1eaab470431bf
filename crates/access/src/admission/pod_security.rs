//! PodSecurity: pods ask for no more than their namespace allows.
//!
//! Source: `k8s.io/pod-security-admission/admission`.

use std::collections::{BTreeMap, HashSet};

use apimachinery::{ApiError, FieldError};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::forbidden;
use crate::{
    Admission, AdmissionRequest, Reader,
    pod_security::{Level, Policy, Standard, Violation, evaluate},
};

/// How many pods are looked at when a namespace grows stricter.
const MOST_PODS: usize = 3000;

/// What annotations of the audit log begin with.
const PREFIX: &str = "pod-security.kubernetes.io/";

/// Ways to use a pod that do not change what it may do.
const IGNORED: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// See the module.
pub struct PodSecurity;

/// `host namespaces (hostNetwork=true), privileged (…)`
fn told(violations: &[Violation]) -> String {
    let one = |v: &Violation| {
        if v.detail.is_empty() { v.reason.to_owned() } else { format!("{} ({})", v.reason, v.detail) }
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Several errors as one text.
fn all(errors: &[FieldError]) -> String {
    let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
    if let [one] = list.as_slice() { one.clone() } else { format!("[{}]", list.join(", ")) }
}

/// Where the template of pods is in an object of a resource that has one.
fn template(group: &str, resource: &str) -> Option<&'static str> {
    match (group, resource) {
        ("", "podtemplates") => Some("/template"),
        ("", "replicationcontrollers") => Some("/spec/template"),
        ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets") => Some("/spec/template"),
        ("batch", "jobs") => Some("/spec/template"),
        ("batch", "cronjobs") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// A change of a pod that changes what runs.
fn matters(new: &Value, old: &Value) -> bool {
    let list = |pod: &Value, field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    for field in ["containers", "initContainers"] {
        let (now, before) = (list(new, field), list(old, field));
        let changed = now.iter().zip(&before).any(|(now, before)| now["image"] != before["image"]);
        if now.len() != before.len() || changed {
            return true;
        }
    }
    let before = list(old, "ephemeralContainers");
    let images: BTreeMap<Option<&str>, &Value> =
        before.iter().rev().map(|before| (before["name"].as_str(), &before["image"])).collect();
    list(new, "ephemeralContainers")
        .iter()
        .any(|now| images.get(&now["name"].as_str()).is_none_or(|image| **image != now["image"]))
}

/// What a namespace's pods have that its new standard forbids.
fn existing(reader: &dyn Reader, namespace: &str, standard: Standard) -> Vec<String> {
    let pods = reader.list("", "pods", namespace);
    let total = pods.len();
    // One pod of each controller first: its others are like it.
    let mut seen = HashSet::new();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for pod in pods {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let new = controller.is_none_or(|owner| seen.insert(owner["uid"].to_string()));
        if new { first.push(pod) } else { later.push(pod) }
    }
    first.extend(later);
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.iter().take(MOST_PODS) {
        let violations = evaluate(standard, pod);
        if violations.is_empty() {
            continue;
        }
        let reasons = violations.iter().map(|v| v.reason).collect::<Vec<_>>().join(", ");
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let entry = found.entry(reasons).or_insert_with(|| (name.to_owned(), 0));
        if name < entry.0.as_str() {
            name.clone_into(&mut entry.0);
        }
        entry.1 += 1;
    }
    let mut warnings = Vec::new();
    if total > MOST_PODS {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST_PODS} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut lines: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort();
    warnings.extend(lines);
    warnings
}

/// The labels of a namespace can be read, and what a stricter one finds is told.
fn check_namespace(request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
    let name = request.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let (new, errors) = Policy::of_labels(&request.object["metadata"]["labels"]);
    let old = request.old.map(|old| Policy::of_labels(&old["metadata"]["labels"]));
    let kept = old.as_ref().is_some_and(|(_, before)| !before.is_empty() && *before == errors);
    if !errors.is_empty() && !kept {
        return Err(ApiError::invalid("", "Namespace", &name, &errors));
    }
    let Some((old, _)) = old else { return Ok(()) };
    let (now, before) = (new.enforce, old.enforce);
    let relaxed = now.version == before.version && now.level <= before.level;
    if now != before && now.level != Level::Privileged && !relaxed {
        request.warnings.extend(existing(reader, &name, now));
    }
    Ok(())
}

#[async_trait]
impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        if !matches!(request.operation, "CREATE" | "UPDATE") {
            return Ok(());
        }
        if at.group.is_empty() && at.resource == "namespaces" {
            return if at.subresource.is_empty() { check_namespace(request, reader) } else { Ok(()) };
        }
        let is_pod = at.group.is_empty() && at.resource == "pods";
        let place = template(&at.group, &at.resource).filter(|_| at.subresource.is_empty());
        if !is_pod && place.is_none() || is_pod && IGNORED.contains(&at.subresource.as_str()) {
            return Ok(());
        }
        let Some(namespace) = reader.get("", "namespaces", "", &at.namespace) else { return Ok(()) };
        let (policy, errors) = Policy::of_labels(&namespace["metadata"]["labels"]);
        let annotate = |key: &str, value: &dyn Fn() -> String| {
            if let Some(audit) = request.audit {
                audit.annotate(&format!("{PREFIX}{key}"), value());
            }
        };
        if errors.is_empty() && policy.is_open() {
            if is_pod {
                annotate("enforce-policy", &|| policy.enforce.to_string());
            }
            return Ok(());
        }
        let none = json!({});
        let pod = match place {
            Some(place) => request.object.pointer(place).unwrap_or(&none),
            None if request.old.is_some_and(|old| !matters(request.object, old)) => return Ok(()),
            None => &*request.object,
        };
        if !errors.is_empty() {
            annotate("error", &|| format!("Failed to parse policy: {}", all(&errors)));
        }
        let enforced = if is_pod { evaluate(policy.enforce, pod) } else { Vec::new() };
        if is_pod {
            annotate("enforce-policy", &|| policy.enforce.to_string());
        }
        if request.audit.is_some() {
            let violations = evaluate(policy.audit, pod);
            if !violations.is_empty() {
                let words =
                    || format!("would violate PodSecurity \"{}\": {}", policy.audit, told(&violations));
                annotate("audit-violations", &words);
            }
        }
        if !enforced.is_empty() {
            let why = format!("violates PodSecurity \"{}\": {}", policy.enforce, told(&enforced));
            return Err(forbidden(request, &why));
        }
        let violations = evaluate(policy.warn, pod);
        if !violations.is_empty() {
            let words = format!("would violate PodSecurity \"{}\": {}", policy.warn, told(&violations));
            if !request.warnings.contains(&words) {
                request.warnings.push(words);
            }
        }
        Ok(())
    }
}
