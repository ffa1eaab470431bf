//! What a pod uses, and to which scopes it belongs.

use apimachinery::quantity::{Quantity, Style};
use serde_json::Value;

use super::usage::{Amounts, add};

/// Keys that pods are counted under, besides extended resources and huge pages.
const KEYS: [&str; 11] = [
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
    "count/pods",
];
/// Resources that a pod can ask for as a whole.
const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

pub(super) fn counts(key: &str) -> bool {
    if KEYS.contains(&key) || key.starts_with("hugepages-") || key.starts_with("requests.hugepages-") {
        return true;
    }
    key.strip_prefix("requests.").is_some_and(is_extended)
}

/// `vendor.example/device`, but nothing of kubernetes.io.
fn is_extended(resource: &str) -> bool {
    let Some((domain, _)) = resource.split_once('/') else { return false };
    domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && !resource.starts_with("requests.")
}

/// What the pod uses beyond its place in the store.
pub(super) fn usage(pod: &Value, now: i64) -> Amounts {
    if !is_charged(pod, now) {
        return Amounts::new();
    }
    let (requests, limits) = (totals(pod, "requests"), totals(pod, "limits"));
    let mut amounts = Amounts::from([("pods".to_owned(), Quantity::from_units(1, Style::Decimal))]);
    for (resource, amount) in requests {
        match resource.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                amounts.insert(format!("requests.{resource}"), amount);
                amounts.insert(resource, amount);
            }
            huge if huge.starts_with("hugepages-") => {
                amounts.insert(format!("requests.{resource}"), amount);
                amounts.insert(resource, amount);
            }
            extended if is_extended(extended) => {
                amounts.insert(format!("requests.{resource}"), amount);
            }
            _ => {}
        }
    }
    for (resource, amount) in limits {
        if matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            amounts.insert(format!("limits.{resource}"), amount);
        }
    }
    amounts
}

/// It has not ended, and if it is being deleted, its time is not long over.
fn is_charged(pod: &Value, now: i64) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return false;
    }
    let meta = &pod["metadata"];
    let deleted = meta["deletionTimestamp"].as_str().and_then(|t| apimachinery::time::parse_rfc3339(t).ok());
    let grace = meta["deletionGracePeriodSeconds"].as_i64();
    let (Some(deleted), Some(grace)) = (deleted, grace) else { return true };
    now <= deleted.timestamp().saturating_add(grace)
}

fn read(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries
        .filter_map(|(key, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some((key.clone(), Quantity::parse(&text).ok()?))
        })
        .collect()
}

fn raise(amounts: &mut Amounts, other: &Amounts) {
    for (key, amount) in other {
        let most = amounts.get(key).map_or(*amount, |before| (*before).max(*amount));
        amounts.insert(key.clone(), most);
    }
}

/// What a container asks for (`requests` or `limits`); while it is being resized, the larger of before and after.
fn container(pod: &Value, container: &Value, which: &str) -> Amounts {
    let mut amounts = read(&container["resources"][which]);
    let lists = ["containerStatuses", "initContainerStatuses"].map(|l| &pod["status"][l]);
    let statuses = lists.into_iter().flat_map(|l| l.as_array().into_iter().flatten());
    let named = |s: &&Value| s["name"].is_string() && s["name"] == container["name"];
    for status in statuses.filter(named) {
        raise(&mut amounts, &read(&status["resources"][which]));
        if which == "requests" {
            raise(&mut amounts, &read(&status["allocatedResources"]));
        }
    }
    amounts
}

/// The pod's requests or limits: containers and sidecars together, or an init container with the sidecars before it if that
/// is more; what the pod asks for as a whole instead; and the overhead.
fn totals(pod: &Value, which: &str) -> Amounts {
    let spec = &pod["spec"];
    let list = |name: &str| spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut total = Amounts::new();
    for one in list("containers") {
        add(&mut total, &container(pod, one, which));
    }
    let (mut sidecars, mut peak) = (Amounts::new(), Amounts::new());
    for one in list("initContainers") {
        let mut own = container(pod, one, which);
        if one["restartPolicy"] == "Always" {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut peak, &sidecars);
        } else {
            add(&mut own, &sidecars);
            raise(&mut peak, &own);
        }
    }
    raise(&mut total, &peak);
    for (key, amount) in read(&spec["resources"][which]) {
        if POD_LEVEL.contains(&key.as_str()) || key.starts_with("hugepages-") {
            total.insert(key, amount);
        }
    }
    for (key, amount) in read(&spec["overhead"]) {
        match total.get(&key).copied() {
            Some(before) => {
                total.insert(key, before.plus(&amount));
            }
            // what has no limit has none with overhead, either
            None if which == "limits" => {}
            None => {
                total.insert(key, amount);
            }
        }
    }
    total
}

/// No container asks for or is limited in CPU or memory.
pub(super) fn is_best_effort(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let names = ["containers", "initContainers"];
    let containers = names.iter().flat_map(|name| spec[*name].as_array().into_iter().flatten());
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|which| {
            let amounts = read(&resources[*which]);
            POD_LEVEL.iter().any(|key| amounts.get(*key).is_some_and(|q| !q.is_zero()))
        })
    };
    !asks(&spec["resources"]) && !containers.into_iter().any(|c| asks(&c["resources"]))
}

/// It has a deadline.
pub(super) fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// Some (anti-)affinity term of it looks at pods of other namespaces.
pub(super) fn looks_elsewhere(pod: &Value) -> bool {
    let affinity = &pod["spec"]["affinity"];
    let elsewhere = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let required = affinity[*kind]["requiredDuringSchedulingIgnoredDuringExecution"].as_array();
        let preferred = affinity[*kind]["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
        required.into_iter().flatten().any(elsewhere)
            || preferred.into_iter().flatten().any(|weighted| elsewhere(&weighted["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(amounts: &Amounts, keys: &[&str]) -> Vec<String> {
        keys.iter().map(|key| amounts.get(*key).map_or("-".to_owned(), ToString::to_string)).collect()
    }

    fn asks(cpu: &str) -> Value {
        json!({"requests": {"cpu": cpu}})
    }

    #[test]
    fn init_containers_count_when_they_need_more_and_sidecars_always() {
        let pod = json!({"spec": {
            "containers": [{"name": "a", "resources": asks("100m")}],
            "initContainers": [
                {"name": "before", "resources": asks("50m")},
                {"name": "side", "restartPolicy": "Always", "resources": asks("200m")},
                {"name": "after", "resources": asks("250m")},
            ],
            "overhead": {"cpu": "10m"},
        }});
        // sidecar and the init container after it: 450m; sidecar and container: 300m
        assert_eq!(shown(&usage(&pod, 0), &["cpu", "requests.cpu", "limits.cpu"]), ["460m", "460m", "-"]);
    }

    #[test]
    fn what_the_pod_asks_for_as_a_whole_replaces_its_containers() {
        let pod = json!({"spec": {
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m", "x.io/gpu": "2"}, "limits": {"memory": "1Mi"}}}],
        }});
        assert_eq!(
            shown(&usage(&pod, 0), &["cpu", "limits.memory", "requests.x.io/gpu", "x.io/gpu"]),
            ["1", "1Gi", "2", "-"]
        );
    }

    #[test]
    fn while_a_container_is_resized_the_larger_amount_counts() {
        let pod = json!({
            "spec": {"containers": [{"name": "a", "resources": asks("100m")}]},
            "status": {"containerStatuses": [{"name": "a", "resources": asks("300m")}]},
        });
        assert_eq!(shown(&usage(&pod, 0), &["cpu"]), ["300m"]);
    }

    #[test]
    fn a_pod_that_has_ended_or_should_be_gone_uses_nothing() {
        assert!(usage(&json!({"status": {"phase": "Failed"}}), 0).is_empty());
        let leaving = json!({"metadata": {"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 30}});
        assert!(!usage(&leaving, 90).is_empty());
        assert!(usage(&leaving, 91).is_empty());
    }

    #[test]
    fn keys_of_pods_are_known() {
        for key in [
            "cpu",
            "limits.memory",
            "hugepages-2Mi",
            "requests.hugepages-2Mi",
            "requests.nvidia.com/gpu",
            "pods",
        ] {
            assert!(counts(key), "{key}");
        }
        for key in ["requests.storage", "limits.nvidia.com/gpu", "requests.kubernetes.io/x", "services"] {
            assert!(!counts(key), "{key}");
        }
    }
}
