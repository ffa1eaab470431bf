//! endpointslice-mirroring-controller: slices for Endpoints that people keep by hand.
//!
//! Only for Endpoints of a Service without a selector. Source: `pkg/controller/endpointslicemirroring`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write,
    about::{annotation, label, labelled},
    backends,
    endpointslice::{MANAGED_BY, SERVICE_NAME},
};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Endpoints with this label set to `true` are not mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Old elections kept their record in Endpoints.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses of one subset that are mirrored, and endpoints of one slice.
const MOST: usize = 1000;

/// The loop.
pub struct Mirroring;

impl Controller for Mirroring {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Endpoints>(), Kind::of::<Service>(), Kind::of::<EndpointSlice>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let Some(meta) = change.meta() else { return Vec::new() };
        if change.kind != Kind::of::<EndpointSlice>() {
            return vec![Key::of(meta)];
        }
        let name = label(meta, SERVICE_NAME).filter(|_| labelled(meta, MANAGED_BY, MANAGER));
        name.map(|name| Key { name: name.to_owned(), ..Key::of(meta) }).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let slices = world.list::<EndpointSlice>(&key.namespace).into_iter().filter(|slice| {
            labelled(&slice.metadata, SERVICE_NAME, &key.name)
                && labelled(&slice.metadata, MANAGED_BY, MANAGER)
                && slice.metadata.deletion_timestamp.is_none()
        });
        let slices: Vec<Arc<EndpointSlice>> = slices.collect();
        let service = world.get::<Service>(&key.namespace, &key.name);
        let endpoints = world.get::<Endpoints>(&key.namespace, &key.name);
        match (service, endpoints) {
            (Some(service), Some(endpoints))
                if backends::selector(&service).is_none() && mirrored(&endpoints.metadata) =>
            {
                mirror(&endpoints, slices)
            }
            (service, endpoints) => {
                let mut plan = Plan::none();
                if slices.is_empty() {
                    return plan;
                }
                // what is not seen may only not be seen yet
                let (namespace, name) = (&key.namespace, &key.name);
                if endpoints.is_none() {
                    plan.then(Write::require_absent::<Endpoints>(namespace, name, ""));
                } else if service.is_none() {
                    plan.then(Write::require_absent::<Service>(namespace, name, ""));
                }
                plan.all(slices.iter().map(|slice| Write::delete(&**slice)).collect());
                plan
            }
        }
    }
}

fn mirrored(meta: &ObjectMeta) -> bool {
    !labelled(meta, SKIP, "true") && annotation(meta, LEADER).is_none() && meta.deletion_timestamp.is_none()
}

/// The endpoints of one slice: family and ports, then addresses without doubles.
type Wanted = BTreeMap<(&'static str, usize), (Vec<EndpointPort>, Vec<Endpoint>)>;

/// What the subsets become, and what was left out.
struct Mirrored {
    wanted: Wanted,
    invalid: Vec<String>,
    too_many: usize,
}

fn mirror(endpoints: &Endpoints, existing: Vec<Arc<EndpointSlice>>) -> Plan {
    let mirrored = subsets(endpoints.subsets.as_deref().unwrap_or_default());
    let mut plan = Plan::none();
    let mut rest = existing;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for ((family, _), (ports, list)) in mirrored.wanted {
        let wanted = slice(endpoints, family, ports, list);
        let at = rest.iter().position(|s| {
            s.address_type == family && same_ports(s.ports.as_deref(), wanted.ports.as_deref())
        });
        let at = at.or_else(|| rest.iter().position(|s| s.address_type == family));
        let Some(at) = at else {
            first.push(Write::create(&wanted));
            continue;
        };
        let old = rest.swap_remove(at);
        let same = old.endpoints == wanted.endpoints
            && same_ports(old.ports.as_deref(), wanted.ports.as_deref())
            && old.metadata.labels == wanted.metadata.labels
            && old.metadata.annotations.clone().unwrap_or_default()
                == wanted.metadata.annotations.clone().unwrap_or_default();
        if !same {
            let mut new = (*old).clone();
            new.metadata.labels = wanted.metadata.labels;
            new.metadata.annotations = wanted.metadata.annotations;
            (new.endpoints, new.ports) = (wanted.endpoints, wanted.ports);
            first.push(Write::update(&new));
        }
    }
    second.extend(rest.iter().map(|slice| Write::delete(&**slice)));
    if first.is_empty() && second.is_empty() {
        return plan;
    }
    if !mirrored.invalid.is_empty() {
        let message = format!(
            "Skipped {} invalid IP addresses when mirroring to EndpointSlices",
            mirrored.invalid.len()
        );
        plan.notes.push(Note::warning(endpoints, "InvalidIPAddress", message));
    }
    if mirrored.too_many > 0 {
        let message = format!(
            "A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
            mirrored.too_many
        );
        plan.notes.push(Note::warning(endpoints, "TooManyAddressesToMirror", message));
    }
    plan.all(first);
    plan.all(second);
    plan
}

fn subsets(subsets: &[EndpointSubset]) -> Mirrored {
    let mut groups: Vec<Vec<EndpointPort>> = Vec::new();
    let mut mirrored = Mirrored { wanted: Wanted::new(), invalid: Vec::new(), too_many: 0 };
    let mut seen = BTreeSet::new();
    for subset in subsets {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let group = groups.iter().position(|g| same_ports(Some(g), Some(&ports)));
        let group = group.unwrap_or_else(|| {
            groups.push(ports.clone());
            groups.len() - 1
        });
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        let mut count = 0;
        for (address, ready) in ready.chain(unready) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                mirrored.invalid.push(address.ip.clone());
                continue;
            };
            if count == MOST {
                mirrored.too_many += 1;
                continue;
            }
            count += 1;
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            if !seen.insert((group, ip)) {
                continue;
            }
            let place = mirrored.wanted.entry((family, group)).or_insert((ports.clone(), Vec::new()));
            place.1.push(endpoint(address, ready));
        }
    }
    mirrored
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn same_ports(a: Option<&[EndpointPort]>, b: Option<&[EndpointPort]>) -> bool {
    let key = |p: &EndpointPort| (p.name.clone(), p.port, p.protocol.clone(), p.app_protocol.clone());
    let sorted = |ports: Option<&[EndpointPort]>| {
        let mut keys: Vec<_> = ports.unwrap_or_default().iter().map(key).collect();
        keys.sort();
        keys
    };
    sorted(a) == sorted(b)
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), serving: None, terminating: None }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn slice(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    list: Vec<Endpoint>,
) -> EndpointSlice {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != LAST_APPLIED && key != backends::TRIGGER_TIME);
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Endpoints".to_owned(),
                name,
                uid: meta.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(list),
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{add, created, deleted, plan, reasons, remove, updated, world};

    fn service(selector: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "db"},
            "spec": {"clusterIP": "10.0.0.1", "selector": selector, "ports": [{"port": 5432}]},
        })
    }

    fn custom(ips: &[&str]) -> Value {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"namespace": "shop", "name": "db", "labels": {"a": "b"}, "annotations": {LAST_APPLIED: "{}"}},
            "subsets": [{"addresses": addresses, "ports": [{"port": 5432}]}],
        })
    }

    #[test]
    fn custom_endpoints_are_mirrored_changed_and_taken_away() {
        let mut world = world([service(json!({})), custom(&["192.0.2.1"])]);
        let first = plan(&Mirroring, &world, "shop", "db");
        let mut slice = created(&first)[0].clone();
        assert_eq!(slice["endpoints"], json!([{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}]));
        assert_eq!(slice["metadata"]["labels"], json!({"a": "b", SERVICE_NAME: "db", MANAGED_BY: MANAGER}));
        assert!(slice["metadata"]["annotations"].is_null());
        slice["metadata"]["name"] = json!("db-1");
        add(&mut world, slice);
        assert!(plan(&Mirroring, &world, "shop", "db").steps.is_empty());
        add(&mut world, custom(&["192.0.2.2"]));
        let second = plan(&Mirroring, &world, "shop", "db");
        assert_eq!(updated(&second)[0]["endpoints"][0]["addresses"][0], "192.0.2.2");
        remove::<Endpoints>(&mut world, "shop", "db");
        assert_eq!(deleted(&plan(&Mirroring, &world, "shop", "db")), ["db-1"]);
    }

    #[test]
    fn both_families_are_mirrored_and_what_is_no_address_is_told() {
        let world = world([service(json!({})), custom(&["192.0.2.1", "fd00::1", "x"])]);
        let plan = plan(&Mirroring, &world, "shop", "db");
        let families: Vec<&Value> = created(&plan).iter().map(|s| &s["addressType"]).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        assert_eq!(reasons(&plan), ["InvalidIPAddress"]);
    }

    #[test]
    fn endpoints_of_a_service_with_a_selector_or_with_the_skip_label_are_not_mirrored() {
        let selecting = world([service(json!({"app": "db"})), custom(&["192.0.2.1"])]);
        assert!(plan(&Mirroring, &selecting, "shop", "db").steps.is_empty());
        let mut skipped = custom(&["192.0.2.1"]);
        skipped["metadata"]["labels"] = json!({SKIP: "true"});
        let skipping = world([service(json!({})), skipped]);
        assert!(plan(&Mirroring, &skipping, "shop", "db").steps.is_empty());
    }
}
