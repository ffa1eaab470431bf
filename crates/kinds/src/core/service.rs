//! Service. Addresses and node ports are allocated by the API server.

use std::collections::BTreeSet;

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{service_rules as rules, service_warnings};
use crate::{
    cells::{created, labels, name},
    object::{at, at_mut, fill, has, items_mut, list, number, remove, set, text},
    resource::Strategy,
};

/// How long a client keeps its endpoint, in seconds, where nothing is said.
const AFFINITY_SECONDS: u32 = 10_800;

pub struct Service;

fn default_spec(spec: &mut Value) {
    match text(spec, "sessionAffinity") {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" if !has(spec, "sessionAffinityConfig.clientIP.timeoutSeconds") => {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        _ => {}
    }
    for port in items_mut(spec, "ports") {
        let target = at(port, "targetPort");
        if target.is_null() || target == 0 || target == "" {
            let same = number(port, "port");
            set(port, "targetPort", same);
        }
    }
    let kind = text(spec, "type").to_owned();
    let balanced = kind == "LoadBalancer";
    let cluster = kind == "ClusterIP" && !list(spec, "externalIPs").is_empty();
    if balanced || kind == "NodePort" || cluster {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if balanced || kind == "NodePort" || kind == "ClusterIP" {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if balanced {
        fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

impl Strategy for Service {
    fn default(&self, object: &mut Object) {
        if let Some(spec) = at_mut(object, "spec") {
            default_spec(spec);
        }
        if text(object, "spec.type") == "LoadBalancer" {
            for ingress in items_mut(object, "status.loadBalancer.ingress") {
                if !text(ingress, "ip").is_empty() {
                    fill(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"loadBalancer": {}}));
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, subresource: &str) {
        if subresource.is_empty() {
            drop_what_the_old_type_needed(new, old);
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        match subresource {
            "" => rules::check_update(new, old),
            "status" => rules::check_status(new),
            _ => Vec::new(),
        }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        service_warnings::all(new)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let spec = at(object, "spec");
        let external =
            list(spec, "externalIPs").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
        let external = match text(spec, "type") {
            "ClusterIP" | "NodePort" => or(external, "<none>"),
            "LoadBalancer" => {
                let given: BTreeSet<&str> = list(object, "status.loadBalancer.ingress")
                    .iter()
                    .map(|ingress| {
                        if text(ingress, "ip").is_empty() {
                            text(ingress, "hostname")
                        } else {
                            text(ingress, "ip")
                        }
                    })
                    .filter(|address| !address.is_empty())
                    .collect();
                let given = given.into_iter().collect::<Vec<_>>().join(",");
                match (given.is_empty(), external.is_empty()) {
                    (false, false) => format!("{given},{external}"),
                    (true, _) => or(external, "<pending>"),
                    (false, true) => given,
                }
            }
            "ExternalName" => text(spec, "externalName").to_owned(),
            _ => "<unknown>".to_owned(),
        };
        let ports: Vec<String> = list(spec, "ports")
            .iter()
            .map(|port| match number(port, "nodePort") {
                node_port if node_port > 0 => {
                    format!("{}:{node_port}/{}", number(port, "port"), text(port, "protocol"))
                }
                _ => format!("{}/{}", number(port, "port"), text(port, "protocol")),
            })
            .collect();
        let address = list(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
        Some(vec![
            name(object),
            text(spec, "type").into(),
            address.into(),
            external.into(),
            or(ports.join(","), "<none>").into(),
            created(object, now),
            labels(at(spec, "selector")).into(),
        ])
    }
}

/// Fields that a change of type makes meaningless go away when the client left them as they were.
fn drop_what_the_old_type_needed(new: &mut Value, old: &Value) {
    let (new_type, old_type) = (text(new, "spec.type").to_owned(), text(old, "spec.type"));
    let needs = |kind: &str, what: &str| match what {
        "clusterIP" => kind != "ExternalName",
        "nodePort" => matches!(kind, "NodePort" | "LoadBalancer"),
        _ => kind == "LoadBalancer",
    };
    let lost = |what: &str| needs(old_type, what) && !needs(&new_type, what);
    let unchanged = |new: &Value, path: &str| at(new, path) == at(old, path);
    if lost("clusterIP") {
        if unchanged(new, "spec.clusterIP") && unchanged(new, "spec.clusterIPs") {
            remove(new, "spec.clusterIP");
            remove(new, "spec.clusterIPs");
        }
        for path in ["spec.ipFamilies", "spec.ipFamilyPolicy"] {
            if unchanged(new, path) {
                remove(new, path);
            }
        }
        if unchanged(new, "spec.internalTrafficPolicy") {
            remove(new, "spec.internalTrafficPolicy");
        }
    }
    if lost("nodePort") {
        let ports = |service: &Value| -> BTreeSet<i64> {
            list(service, "spec.ports")
                .iter()
                .map(|port| number(port, "nodePort"))
                .filter(|port| *port > 0)
                .collect()
        };
        let (new_ports, old_ports) = (ports(new), ports(old));
        if !new_ports.is_empty() && new_ports.iter().all(|port| old_ports.contains(port)) {
            for port in items_mut(new, "spec.ports") {
                remove(port, "nodePort");
            }
        }
        if list(new, "spec.externalIPs").is_empty() && unchanged(new, "spec.externalTrafficPolicy") {
            remove(new, "spec.externalTrafficPolicy");
        }
    }
    let health = |service: &Value| {
        text(service, "spec.type") == "LoadBalancer" && text(service, "spec.externalTrafficPolicy") == "Local"
    };
    if health(old) && !health(new) && unchanged(new, "spec.healthCheckNodePort") {
        remove(new, "spec.healthCheckNodePort");
    }
    if lost("loadBalancer") {
        for path in ["spec.allocateLoadBalancerNodePorts", "spec.loadBalancerClass"] {
            if unchanged(new, path) {
                remove(new, path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_balancer_that_becomes_internal_gives_its_node_ports_back() {
        let old = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30000}],
            "allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Cluster"}});
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        Service.prepare_update(&mut new, &old, "");
        assert_eq!(new, json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}}));
    }

    #[test]
    fn a_port_without_a_target_is_its_own_target() {
        let mut service = json!({"spec": {"type": "ClusterIP", "ports": [{"port": 80}]}});
        Service.default(&mut service);
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 80);
        assert_eq!(service["spec"]["internalTrafficPolicy"], "Cluster");
    }
}
