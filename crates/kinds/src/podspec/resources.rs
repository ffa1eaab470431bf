//! Requests and limits, and the quality of service that follows from them.

use std::collections::BTreeSet;

use apimachinery::{FieldPath, names, quantity::Quantity};
use serde_json::Value;

use crate::{
    checks::{Checks, quantity},
    object::{at, entries, has, list, text},
};

const QOS_RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Names that may stand without a domain, besides huge pages.
const STANDARD: [&str; 18] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
];
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// More of it may be promised than there is.
pub fn is_overcommitted(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// A name of a resource anywhere. Whether it is fine so far.
pub fn check_name(checks: &mut Checks, name: &str, path: &FieldPath) -> bool {
    let messages = names::is_qualified_name(name);
    if !messages.is_empty() {
        checks.each(path, name, messages);
        return false;
    }
    let counted = COUNTED.contains(&name) || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !STANDARD.contains(&name) && !counted && !is_huge(name) {
        checks.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// A name of a resource that a container may ask for.
pub fn check_container_name(checks: &mut Checks, name: &str, path: &FieldPath) {
    check_name(checks, name, path);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge(name) {
            checks.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        checks.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// A quantity of a resource: not negative, and whole where things are counted.
pub fn quantity_value(checks: &mut Checks, name: &str, value: &Value, path: &FieldPath) {
    let Some(amount) = quantity(value) else { return };
    if amount.sign() < 0 {
        checks.invalid(path, amount.to_string(), "must be greater than or equal to 0");
    }
    if (COUNTED.contains(&name) || is_extended(name)) && amount.milli() % 1000 != 0 {
        checks.invalid(path, value.clone(), "must be an integer");
    }
}

/// `resources` of one container; `claims` are the names of the pod's resource claims.
pub fn check_container(checks: &mut Checks, resources: &Value, claims: &BTreeSet<&str>, path: &FieldPath) {
    check(checks, resources, check_container_name, path);
    for (index, claim) in list(resources, "claims").iter().enumerate() {
        let path = path.child("claims").index(index).child("name");
        match text(claim, "name") {
            "" => checks.required(&path, ""),
            name if !claims.contains(name) => checks.not_found(&path, name),
            _ => {}
        }
    }
}

fn check(
    checks: &mut Checks,
    resources: &Value,
    check_name: impl Fn(&mut Checks, &str, &FieldPath),
    path: &FieldPath,
) {
    let (requests, limits) = (path.child("requests"), path.child("limits"));
    let (mut plain, mut huge) = (false, false);
    for (name, value) in entries(resources, "limits") {
        let path = limits.key(name);
        check_name(checks, name, &path);
        quantity_value(checks, name, value, &path);
        plain |= QOS_RESOURCES.contains(&name.as_str());
        huge |= is_huge(name);
    }
    for (name, value) in entries(resources, "requests") {
        let path = requests.key(name);
        check_name(checks, name, &path);
        quantity_value(checks, name, value, &path);
        let overcommitted = is_native(name) && !is_huge(name);
        let (request, limit) = (quantity(value), quantity(&at(resources, "limits")[name.as_str()]));
        match (request, limit) {
            (Some(request), Some(limit)) if request != limit && !overcommitted => {
                let detail = format!("must be equal to {name} limit of {limit}");
                checks.invalid(&requests, request.to_string(), &detail);
            }
            (Some(request), Some(limit)) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                checks.invalid(&requests, request.to_string(), &detail);
            }
            (_, None) if !overcommitted => {
                checks.required(&limits, "Limit must be set for non overcommitable resources");
            }
            _ => {}
        }
        plain |= QOS_RESOURCES.contains(&name.as_str());
        huge |= is_huge(name);
    }
    if huge && !plain {
        checks.forbidden(path, "HugePages require cpu or memory");
    }
}

/// `spec.resources`: the pod's own.
pub fn check_pod_level(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let resources = at(spec, "resources");
    if resources.is_null() {
        return;
    }
    let path = path.child("resources");
    if has(resources, "claims") {
        checks.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    let pod_name = |checks: &mut Checks, name: &str, path: &FieldPath| {
        if check_name(checks, name, path) && !is_huge(name) {
            checks.one_of(path, name, &["cpu", "memory"]);
        }
    };
    check(checks, resources, pod_name, &path);
    for (name, value) in entries(resources, "requests") {
        let Some(pod) = quantity(value) else { continue };
        let all = total_requests(spec, name);
        if all > pod {
            let detail = format!("must be greater than or equal to aggregate container requests of {all}");
            checks.invalid(&path.child("requests").key(name), pod.to_string(), &detail);
        }
    }
    for (index, container) in list(spec, "containers").iter().enumerate() {
        for (name, value) in entries(container, "resources.limits") {
            if let (Some(own), Some(pod)) =
                (quantity(value), quantity(&at(resources, "limits")[name.as_str()]))
                && own > pod
            {
                let path = path.child("containers").index(index).key(name).child("limits");
                checks.invalid(
                    &path,
                    own.to_string(),
                    &format!("must be less than or equal to pod limits of {pod}"),
                );
            }
        }
    }
}

/// What the containers request together, at the moment when that is most: sidecars add up, plain init containers run
/// alone beside the sidecars before them.
fn total_requests(spec: &Value, name: &str) -> Quantity {
    let request = |container: &Value| quantity(&at(container, "resources.requests")[name]);
    let zero = Quantity::from_units(0, apimachinery::quantity::Style::Decimal);
    let mut running = zero;
    for container in list(spec, "containers") {
        if let Some(amount) = request(container) {
            running = running.plus(&amount);
        }
    }
    let (mut sidecars, mut starting) = (zero, zero);
    for container in list(spec, "initContainers") {
        let amount = request(container).unwrap_or(zero);
        if text(container, "restartPolicy") == "Always" {
            sidecars = sidecars.plus(&amount);
            running = running.plus(&amount);
            starting = starting.max(sidecars);
        } else {
            starting = starting.max(sidecars.plus(&amount));
        }
    }
    running.max(starting)
}

/// `spec.overhead`
pub fn check_overhead(checks: &mut Checks, overhead: &Value, path: &FieldPath) {
    for (name, value) in overhead.as_object().into_iter().flatten() {
        let path = path.child("limits").key(name);
        check_container_name(checks, name, &path);
        quantity_value(checks, name, value, &path);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn quality_of_service(spec: &Value) -> &'static str {
    let pod = at(spec, "resources");
    let has_any = |resources: &Value| {
        ["requests", "limits"].iter().any(|group| {
            entries(resources, group).any(|(name, _)| QOS_RESOURCES.contains(&name.as_str()) || is_huge(name))
        })
    };
    if has_any(pod) {
        return class_of(pod);
    }
    let mut found: Option<&'static str> = None;
    for group in ["initContainers", "containers"] {
        for container in list(spec, group) {
            let class = class_of(at(container, "resources"));
            match found {
                _ if class == "Burstable" => return class,
                None => found = Some(class),
                Some(other) if other != class => return "Burstable",
                Some(_) => {}
            }
        }
    }
    found.unwrap_or("BestEffort")
}

fn class_of(resources: &Value) -> &'static str {
    let classes = QOS_RESOURCES.map(|name| {
        let amount = |group: &str| quantity(&at(resources, group)[name]).filter(|amount| amount.sign() > 0);
        match (amount("requests"), amount("limits")) {
            (None, None) => "BestEffort",
            (Some(request), Some(limit)) if request == limit => "Guaranteed",
            _ => "Burstable",
        }
    });
    if classes[0] == classes[1] { classes[0] } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: &[Value]) -> Value {
        json!({"containers": resources.iter().map(|r| json!({"resources": r})).collect::<Vec<_>>()})
    }

    #[test]
    fn equal_requests_and_limits_of_both_resources_are_guaranteed() {
        let all =
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1000m", "memory": "1Gi"}});
        assert_eq!(quality_of_service(&pod(std::slice::from_ref(&all))), "Guaranteed");
        assert_eq!(quality_of_service(&pod(&[all, json!({})])), "Burstable");
        assert_eq!(quality_of_service(&pod(&[json!({})])), "BestEffort");
        assert_eq!(quality_of_service(&pod(&[json!({"requests": {"cpu": "1"}})])), "Burstable");
    }
}
