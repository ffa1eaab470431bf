//! What an object uses of a ResourceQuota's keys. Pure, over JSON, so that admission and the loop count alike.
//!
//! Source: `pkg/quota/v1/evaluator/core`.

use std::collections::BTreeMap;

use apimachinery::quantity::{Quantity, Style};
use serde_json::Value;

use super::pod;

/// Amounts by quota key: `pods`, `requests.cpu`, `count/deployments.apps`, …
pub type Amounts = BTreeMap<String, Quantity>;

/// Adds `more` to `amounts`.
pub fn add(amounts: &mut Amounts, more: &Amounts) {
    for (key, amount) in more {
        let sum = amounts.get(key).map_or(*amount, |before| before.plus(amount));
        amounts.insert(key.clone(), sum);
    }
}

/// `count/configmaps`, `count/deployments.apps`
#[must_use]
pub fn count_key(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Resources of the core group that are also counted under their bare name.
const COUNTED: [&str; 6] = [
    "services",
    "secrets",
    "configmaps",
    "replicationcontrollers",
    "resourcequotas",
    "persistentvolumeclaims",
];

fn number(n: usize) -> Quantity {
    Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Style::Decimal)
}

/// What an object of a resource uses, of all keys. `now` is in seconds since the epoch: a pod that should be gone by then
/// uses nothing but its place in the store.
#[must_use]
pub fn usage(group: &str, plural: &str, object: &Value, now: i64) -> Amounts {
    let mut amounts = Amounts::from([(count_key(group, plural), number(1))]);
    if !group.is_empty() {
        return amounts;
    }
    if COUNTED.contains(&plural) {
        amounts.insert(plural.to_owned(), number(1));
    }
    match plural {
        "pods" => add(&mut amounts, &pod::usage(object, now)),
        "services" => service(object, &mut amounts),
        "persistentvolumeclaims" => claim(object, &mut amounts),
        _ => {}
    }
    amounts
}

fn service(object: &Value, amounts: &mut Amounts) {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let set = ports.iter().filter(|p| p["nodePort"].as_i64().is_some_and(|n| n != 0));
    let (balancers, node_ports) = match spec["type"].as_str() {
        Some("NodePort") => (0, ports.len()),
        Some("LoadBalancer") if spec["allocateLoadBalancerNodePorts"] == false => (1, set.count()),
        Some("LoadBalancer") => (1, ports.len()),
        _ => (0, 0),
    };
    amounts.insert("services.loadbalancers".to_owned(), number(balancers));
    amounts.insert("services.nodeports".to_owned(), number(node_ports));
}

fn claim(object: &Value, amounts: &mut Amounts) {
    let read = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    let wanted = read(&object["spec"]["resources"]["requests"]["storage"]);
    // while a volume grows, what has been promised counts
    let promised = read(&object["status"]["allocatedResources"]["storage"]);
    let storage = wanted.max(promised);
    if let Some(storage) = storage {
        amounts.insert("requests.storage".to_owned(), storage);
    }
    let beta = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].as_str();
    let class = beta.or_else(|| object["spec"]["storageClassName"].as_str()).unwrap_or_default();
    if class.is_empty() {
        return;
    }
    let of_class = |key: &str| format!("{class}.storageclass.storage.k8s.io/{key}");
    amounts.insert(of_class("persistentvolumeclaims"), number(1));
    if let Some(storage) = storage {
        amounts.insert(of_class("requests.storage"), storage);
    }
}

/// Whether objects of a resource are counted under a quota key. A key that no resource answers for never appears in
/// `status.used`.
#[must_use]
pub fn counts(group: &str, plural: &str, key: &str) -> bool {
    if key == count_key(group, plural) {
        return true;
    }
    if !group.is_empty() {
        return false;
    }
    let own = COUNTED.contains(&plural) && key == plural;
    own || match plural {
        "pods" => pod::counts(key),
        "services" => matches!(key, "services.loadbalancers" | "services.nodeports"),
        "persistentvolumeclaims" => {
            let class = [
                ".storageclass.storage.k8s.io/requests.storage",
                ".storageclass.storage.k8s.io/persistentvolumeclaims",
            ];
            key == "requests.storage" || class.iter().any(|suffix| key.ends_with(suffix))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(amounts: &Amounts) -> BTreeMap<&str, String> {
        amounts.iter().map(|(key, amount)| (key.as_str(), amount.to_string())).collect()
    }

    #[test]
    fn a_service_uses_a_node_port_for_each_port_unless_they_are_turned_off() {
        let of = |kind: &str, allocate: bool| {
            let ports = json!([{"port": 80, "nodePort": 30080}, {"port": 81}]);
            let service =
                json!({"spec": {"type": kind, "ports": ports, "allocateLoadBalancerNodePorts": allocate}});
            let amounts = usage("", "services", &service, 0);
            let get = |key: &str| amounts[key].units();
            (get("services"), get("services.loadbalancers"), get("services.nodeports"))
        };
        assert_eq!(of("ClusterIP", true), (1, 0, 0));
        assert_eq!(of("NodePort", true), (1, 0, 2));
        assert_eq!(of("LoadBalancer", true), (1, 1, 2));
        assert_eq!(of("LoadBalancer", false), (1, 1, 1));
    }

    #[test]
    fn a_claim_uses_storage_in_general_and_of_its_class() {
        let claim = json!({
            "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"allocatedResources": {"storage": "2Gi"}},
        });
        let amounts = usage("", "persistentvolumeclaims", &claim, 0);
        let expected = [
            ("count/persistentvolumeclaims", "1"),
            ("fast.storageclass.storage.k8s.io/persistentvolumeclaims", "1"),
            ("fast.storageclass.storage.k8s.io/requests.storage", "2Gi"),
            ("persistentvolumeclaims", "1"),
            ("requests.storage", "2Gi"),
        ];
        assert_eq!(texts(&amounts), expected.map(|(k, v)| (k, v.to_owned())).into());
    }

    #[test]
    fn any_resource_is_counted_by_its_full_name() {
        assert_eq!(
            texts(&usage("x.io", "widgets", &json!({}), 0)),
            [("count/widgets.x.io", "1".to_owned())].into()
        );
        assert!(counts("x.io", "widgets", "count/widgets.x.io"));
        assert!(counts("", "configmaps", "configmaps"));
        assert!(!counts("apps", "services", "services"));
        assert!(!counts("", "pods", "services"));
    }
}
