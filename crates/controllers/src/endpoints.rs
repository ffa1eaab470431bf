//! endpoint-controller: the Endpoints of every service that selects pods, for clients that do not read slices.
//!
//! Source: `pkg/controller/endpoint/endpoints_controller.go`, `pkg/api/v1/endpoints/util.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{
        EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
    },
    jiff::Timestamp,
};
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, about::labelled, backends, plan::BLANK,
    pod_state,
};

/// Says that this loop keeps the Endpoints.
pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
/// Present when there are more addresses than are shown.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Addresses shown at most.
const CAPACITY: usize = 1000;

/// The loop. A key's memory is `true` once its service was seen: Endpoints go with their service, whoever made them.
pub struct EndpointsLoop;

impl Controller for EndpointsLoop {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Service>(), Kind::of::<Pod>(), Kind::of::<Endpoints>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if change.kind == Kind::of::<Pod>() {
            return backends::services_of(change, world);
        }
        change.meta().map(Key::of).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, _now: Timestamp) -> Plan {
        let found = world.get::<Endpoints>(&key.namespace, &key.name);
        let Some(service) = world.get::<Service>(&key.namespace, &key.name) else {
            let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
            let ours =
                |e: &Endpoints| last.memory == json!(true) || labelled(&e.metadata, MANAGED_BY, MANAGER);
            if let Some(endpoints) = found.filter(|e| ours(e) && e.metadata.deletion_timestamp.is_none()) {
                plan.then(Write::require_absent::<Service>(&key.namespace, &key.name, ""));
                plan.then(Write::delete(&*endpoints));
            }
            return plan;
        };
        let mut plan = Plan { memory: Some(json!(true)), ..Plan::none() };
        let external = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName");
        if backends::selector(&service).is_some() && !external {
            plan.steps = write(&service, world, found.as_deref()).into_iter().map(|w| vec![w]).collect();
        }
        plan
    }
}

/// The write that brings the Endpoints of a service up to date.
fn write(service: &Service, world: &World, found: Option<&Endpoints>) -> Option<Write> {
    let pods = backends::selected(service, world);
    let mut subsets = repack(entries(service, &pods));
    let over = truncate(&mut subsets);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if backends::is_headless(service) {
        labels.insert(backends::HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(backends::HEADLESS);
    }
    if let Some(old) = found {
        let shown = old.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY));
        let same = old.subsets.as_deref().unwrap_or_default() == subsets
            && old.metadata.labels.as_ref() == Some(&labels)
            && shown.map(String::as_str) == over.then_some("truncated");
        if same || old.metadata.deletion_timestamp.is_some() {
            return None;
        }
    } else if service.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let mut endpoints = found.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    endpoints.subsets = (!subsets.is_empty()).then_some(subsets);
    endpoints.metadata.labels = Some(labels);
    let annotations = endpoints.metadata.annotations.get_or_insert_default();
    match backends::trigger_time(service, &pods) {
        Some(time) => annotations.insert(backends::TRIGGER_TIME.to_owned(), time.to_string()),
        None => annotations.remove(backends::TRIGGER_TIME),
    };
    if over {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    Some(if found.is_some() {
        Write::update(&endpoints)
    } else {
        let (namespace, name) = (&service.metadata.namespace, &service.metadata.name);
        let place =
            format!("{}/{}", namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default());
        let sorry = Note::warning(
            &endpoints,
            "FailedToCreateEndpoint",
            format!("Failed to create endpoint for service {place}: {BLANK}"),
        );
        Write::create(&endpoints).noted(None, Some(sorry))
    })
}

/// One address with one port.
struct Entry {
    address: EndpointAddress,
    ready: bool,
    port: Option<EndpointPort>,
}

fn entries(service: &Service, pods: &[Arc<Pod>]) -> Vec<Entry> {
    let spec = service.spec.as_ref();
    let unready_too = spec.and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let mut entries = Vec::new();
    for pod in pods.iter().filter(|pod| backends::can_serve(pod, unready_too)) {
        let Some(ip) = address_for(service, pod) else { continue };
        let address = EndpointAddress {
            ip: ip.to_string(),
            node_name: pod_state::node(pod).map(str::to_owned),
            hostname: backends::hostname(pod, service),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: pod.metadata.namespace.clone(),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
                ..ObjectReference::default()
            }),
        };
        let ready = unready_too || pod_state::is_ready(pod);
        if ports.is_empty() && backends::is_headless(service) {
            entries.push(Entry { address, ready, port: None });
            continue;
        }
        for port in ports {
            let Some(number) = backends::target_port(pod, port) else { continue };
            let port = EndpointPort {
                name: port.name.clone().filter(|n| !n.is_empty()),
                port: number,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            };
            entries.push(Entry { address: address.clone(), ready, port: Some(port) });
        }
    }
    entries
}

/// The pod's address of the service's first family.
fn address_for(service: &Service, pod: &Pod) -> Option<IpAddr> {
    let spec = service.spec.as_ref()?;
    let family = spec.ip_families.as_ref().and_then(|f| f.first()).map(String::as_str);
    let four = match (family, spec.cluster_ip.as_deref().unwrap_or_default().parse::<IpAddr>()) {
        (Some(family), _) => Some(family == "IPv4"),
        (None, Ok(ip)) => Some(ip.is_ipv4()),
        (None, Err(_)) => None,
    };
    backends::addresses(pod).into_iter().find(|ip| four.is_none_or(|four| ip.is_ipv4() == four))
}

type PortKey = (Option<String>, i32, Option<String>, Option<String>);

/// Addresses with equal ports share a subset; everything is sorted.
fn repack(entries: Vec<Entry>) -> Vec<EndpointSubset> {
    let key_of = |p: &EndpointPort| -> PortKey {
        (p.name.clone(), p.port, p.protocol.clone(), p.app_protocol.clone())
    };
    let mut by_address: BTreeMap<(IpAddr, String), (EndpointAddress, bool, BTreeSet<PortKey>)> =
        BTreeMap::new();
    for entry in entries {
        let Ok(ip) = entry.address.ip.parse() else { continue };
        let uid = entry.address.target_ref.as_ref().and_then(|t| t.uid.clone()).unwrap_or_default();
        let held = by_address.entry((ip, uid)).or_insert((entry.address, entry.ready, BTreeSet::new()));
        held.2.extend(entry.port.as_ref().map(key_of));
    }
    let mut subsets: BTreeMap<BTreeSet<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> =
        BTreeMap::new();
    for (address, ready, ports) in by_address.into_values() {
        let (up, down) = subsets.entry(ports).or_default();
        if ready { up.push(address) } else { down.push(address) }
    }
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    let subsets = subsets.into_iter().map(|(ports, (up, down))| {
        let ports = ports.into_iter().map(|(name, port, protocol, app_protocol)| EndpointPort {
            name,
            port,
            protocol,
            app_protocol,
        });
        let ports: Vec<EndpointPort> = ports.collect();
        EndpointSubset {
            addresses: some(up),
            not_ready_addresses: some(down),
            ports: (!ports.is_empty()).then_some(ports),
        }
    });
    subsets.collect()
}

/// Cuts down to [`CAPACITY`], ready addresses first, each subset in proportion. Says whether it had to.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|s| count(&s.addresses)).sum();
    let unready: usize = subsets.iter().map(|s| count(&s.not_ready_addresses)).sum();
    if ready + unready <= CAPACITY {
        return false;
    }
    let cut_ready = ready > CAPACITY;
    let (room, total) = if cut_ready { (CAPACITY, ready) } else { (CAPACITY - ready, unready) };
    let (mut left, mut to_come) = (room, total);
    for subset in subsets.iter_mut() {
        if cut_ready {
            subset.not_ready_addresses = None;
        }
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        let had = count(list);
        // rounded up, so that all of the room is used; the last subset gets what is left
        let keep = if to_come == 0 { 0 } else { (had * left).div_ceil(to_come) };
        if let Some(list) = list {
            list.truncate(keep);
        }
        (left, to_come) = (left - keep.min(left), to_come - had);
        subset.addresses = subset.addresses.take().filter(|a| !a.is_empty());
        subset.not_ready_addresses = subset.not_ready_addresses.take().filter(|a| !a.is_empty());
    }
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, created, deleted, key, noon, plan, pod, remove, updated, world};

    fn service() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "shop", "name": "web", "labels": {"team": "a"}},
            "spec": {
                "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}, {"name": "m", "port": 9, "targetPort": 9}],
            },
        })
    }

    #[test]
    fn ready_and_unready_pods_are_told_apart_and_ports_are_sorted() {
        let mut unready = pod("shop", "b", "web", "n", "10.1.0.2");
        unready["status"]["conditions"][0]["status"] = json!("False");
        let world = world([service(), pod("shop", "a", "web", "n", "10.1.0.10"), unready]);
        let plan = plan(&EndpointsLoop, &world, "shop", "web");
        let endpoints = created(&plan)[0];
        assert_eq!(endpoints["metadata"]["labels"], json!({"team": "a", MANAGED_BY: MANAGER}));
        let subset = &endpoints["subsets"][0];
        assert_eq!(subset["addresses"][0]["ip"], "10.1.0.10");
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.1.0.2");
        assert_eq!(
            subset["ports"],
            json!([{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "m", "port": 9, "protocol": "TCP"}])
        );
        assert_eq!(endpoints["subsets"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn what_is_up_to_date_is_not_written_and_what_somebody_changed_is() {
        let mut world = world([service(), pod("shop", "a", "web", "n", "10.1.0.10")]);
        let first = plan(&EndpointsLoop, &world, "shop", "web");
        let made = created(&first)[0].clone();
        add(&mut world, made.clone());
        assert!(plan(&EndpointsLoop, &world, "shop", "web").steps.is_empty());
        let mut bent = made;
        bent["subsets"][0]["addresses"][0]["ip"] = json!("10.9.9.9");
        add(&mut world, bent);
        let second = plan(&EndpointsLoop, &world, "shop", "web");
        assert_eq!(updated(&second)[0]["subsets"][0]["addresses"][0]["ip"], "10.1.0.10");
    }

    #[test]
    fn a_terminating_pod_is_left_out_unless_unready_ones_are_published() {
        let mut leaving = pod("shop", "a", "web", "n", "10.1.0.1");
        leaving["metadata"]["deletionTimestamp"] = json!(noon().to_string());
        let mut world = world([service(), leaving]);
        assert!(created(&plan(&EndpointsLoop, &world, "shop", "web"))[0]["subsets"].is_null());
        let mut open = service();
        open["spec"]["publishNotReadyAddresses"] = json!(true);
        add(&mut world, open);
        let plan = plan(&EndpointsLoop, &world, "shop", "web");
        assert_eq!(created(&plan)[0]["subsets"][0]["addresses"][0]["ip"], "10.1.0.1");
    }

    #[test]
    fn more_than_a_thousand_addresses_are_cut_and_said_so() {
        let mut world = world([service()]);
        for n in 0..1200_u32 {
            let ip = format!("10.1.{}.{}", n / 200, n % 200 + 1);
            let mut pod = pod("shop", &format!("p{n}"), "web", "n", &ip);
            if n % 2 == 0 {
                pod["status"]["conditions"][0]["status"] = json!("False");
            }
            add(&mut world, pod);
        }
        let plan = plan(&EndpointsLoop, &world, "shop", "web");
        let endpoints = created(&plan)[0];
        assert_eq!(endpoints["metadata"]["annotations"][OVER_CAPACITY], "truncated");
        assert_eq!(endpoints["subsets"][0]["addresses"].as_array().unwrap().len(), 600);
        assert_eq!(endpoints["subsets"][0]["notReadyAddresses"].as_array().unwrap().len(), 400);
    }

    #[test]
    fn a_headless_service_without_ports_has_addresses_without_ports() {
        let mut headless = service();
        headless["spec"]["clusterIP"] = json!("None");
        headless["spec"]["ports"] = json!([]);
        let world = world([headless, pod("shop", "a", "web", "n", "10.1.0.10")]);
        let plan = plan(&EndpointsLoop, &world, "shop", "web");
        let endpoints = created(&plan)[0];
        assert!(endpoints["subsets"][0]["ports"].is_null());
        assert_eq!(endpoints["metadata"]["labels"][backends::HEADLESS], "");
    }

    #[test]
    fn endpoints_go_with_their_service_and_strangers_stay() {
        let mut own = service();
        own["spec"]["selector"] = json!({});
        let custom = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": "shop", "name": "web"}});
        let mut world = world([own, custom]);
        let first = plan(&EndpointsLoop, &world, "shop", "web");
        assert!(first.steps.is_empty());
        remove::<Service>(&mut world, "shop", "web");
        assert!(plan(&EndpointsLoop, &world, "shop", "web").steps.is_empty(), "never had a service");
        let known = Outcome { memory: first.memory.unwrap(), ..Outcome::default() };
        let last = EndpointsLoop.reconcile(&key("shop", "web"), &world, &known, noon());
        assert_eq!(deleted(&last), ["web"]);
    }
}
