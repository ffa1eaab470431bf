//! endpointslice-controller: the slices of every service that selects pods.
//!
//! A set of slices for each address family and each distinct list of ports; [`fill`] says which endpoints go where.

mod fill;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Pod, Service},
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
        },
    },
    jiff::Timestamp,
};
use kube::api::ObjectMeta;

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write,
    about::{annotation, label, labelled},
    backends,
    ownership::controller_reference,
    pod_state,
};

/// The value of [`MANAGED_BY`] on slices of this loop.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Names the loop that a slice belongs to.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Names the service that a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Endpoints in a slice at most.
const PER_SLICE: usize = 100;
/// Asks for hints in proportion to the zones' CPUs; it turns `trafficDistribution` off.
const TOPOLOGY_MODES: [&str; 2] =
    ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];

/// The loop.
pub struct EndpointSlices;

/// What all slices of one family and port list have in common.
struct Group<'a> {
    service: &'a Service,
    family: &'static str,
    ports: Vec<EndpointPort>,
    labels: BTreeMap<String, String>,
    trigger: Option<Timestamp>,
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Service>(), Kind::of::<Pod>(), Kind::of::<Node>(), Kind::of::<EndpointSlice>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if change.kind == Kind::of::<Pod>() {
            return backends::services_of(change, world);
        }
        if let Some(service) = change.object::<Service>() {
            return vec![Key::of(&service.metadata)];
        }
        if let Some(slice) = change.object::<EndpointSlice>() {
            let ours = labelled(&slice.metadata, MANAGED_BY, MANAGER);
            let name = label(&slice.metadata, SERVICE_NAME);
            return if ours && name.is_some() { vec![key_of(&slice.metadata, name)] } else { Vec::new() };
        }
        keys_of_node(change, world)
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let Some(service) = world.get::<Service>(&key.namespace, &key.name) else { return Plan::none() };
        let spec = service.spec.as_ref();
        if backends::selector(&service).is_none()
            || spec.and_then(|s| s.type_.as_deref()) == Some("ExternalName")
        {
            return Plan::none();
        }
        slices(&service, world)
    }
}

fn key_of(meta: &ObjectMeta, name: Option<&str>) -> Key {
    Key { namespace: meta.namespace.clone().unwrap_or_default(), name: name.unwrap_or_default().to_owned() }
}

/// The services with pods on a node that came, went or moved to another zone.
fn keys_of_node(change: &Change, world: &World) -> Vec<Key> {
    let (before, after) = (change.before::<Node>(), change.after::<Node>());
    let zone = |node: &Option<Arc<Node>>| node.as_ref().map(|n| zone_of(n));
    if zone(&before) == zone(&after) {
        return Vec::new();
    }
    let Some(node) = change.object::<Node>() else { return Vec::new() };
    let mut keys = Vec::new();
    for service in world.list::<Service>("") {
        let here = |pod: &Arc<Pod>| {
            pod.spec.as_ref().is_some_and(|s| s.node_name.is_some() && s.node_name == node.metadata.name)
        };
        if backends::selected(&service, world).iter().any(here) {
            keys.push(Key::of(&service.metadata));
        }
    }
    keys
}

fn zone_of(node: &Node) -> Option<String> {
    label(&node.metadata, "topology.kubernetes.io/zone").map(str::to_owned)
}

/// `IPv4`, `IPv6` or both, as the service has addresses.
fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let named: Vec<&'static str> = spec
        .and_then(|s| s.ip_families.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|f| match f.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !named.is_empty() {
        return named;
    }
    match spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default().parse() {
        Ok(IpAddr::V4(_)) => vec!["IPv4"],
        Ok(IpAddr::V6(_)) => vec!["IPv6"],
        Err(_) => vec!["IPv4", "IPv6"],
    }
}

/// What slices of a service are labelled with: the service's labels and what names the slices' place.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let reserved = [SERVICE_NAME, MANAGED_BY, backends::HEADLESS];
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.retain(|key, _| !reserved.contains(&key.as_str()));
    labels.insert(SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    if backends::is_headless(service) {
        labels.insert(backends::HEADLESS.to_owned(), String::new());
    }
    labels
}

fn slices(service: &Service, world: &World) -> Plan {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let existing = world.list::<EndpointSlice>(namespace).into_iter().filter(|slice| {
        labelled(&slice.metadata, SERVICE_NAME, name)
            && labelled(&slice.metadata, MANAGED_BY, MANAGER)
            && slice.metadata.deletion_timestamp.is_none()
    });
    let existing: Vec<Arc<EndpointSlice>> = existing.collect();
    let families = families(service);
    let pods = backends::selected(service, world);
    let trigger = backends::trigger_time(service, &pods);
    let mut changes = fill::Changes::default();
    for family in &families {
        let wanted = wanted(service, world, &pods, family);
        let here = existing.iter().filter(|s| s.address_type == *family).cloned().collect();
        let group = |ports| Group { service, family, ports, labels: labels(service), trigger };
        changes.extend(fill::family(wanted, here, group));
    }
    let foreign = existing.iter().filter(|s| !families.contains(&s.address_type.as_str()));
    changes.delete.extend(foreign.cloned());
    plan(service, changes)
}

/// The endpoints of a family, by their ports, in the order of the pods' names.
fn wanted(
    service: &Service,
    world: &World,
    pods: &[Arc<Pod>],
    family: &str,
) -> BTreeMap<fill::PortKey, (Vec<EndpointPort>, Vec<Endpoint>)> {
    let unready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let mut wanted: BTreeMap<fill::PortKey, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| backends::can_serve(pod, true)) {
        let node_name = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        let node = node_name.as_ref().and_then(|name| world.get::<Node>("", name));
        if node.is_none() && !unready_too {
            continue;
        }
        let addresses = backends::addresses(pod).into_iter();
        let addresses: Vec<String> =
            addresses.filter(|ip| ip.is_ipv4() == (family == "IPv4")).map(|ip| ip.to_string()).collect();
        if addresses.is_empty() {
            continue;
        }
        let ports = ports(service, pod);
        let endpoint = endpoint(service, pod, addresses, node_name, node.as_deref());
        wanted.entry(fill::port_key(&ports)).or_insert((ports, Vec::new())).1.push(endpoint);
    }
    wanted
}

/// Where a pod listens for the ports of a service; a name that the pod does not know is left out.
fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let ports = ports.filter_map(|port| {
        backends::target_port(pod, port).map(|number| EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    ports.collect()
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    addresses: Vec<String>,
    node_name: Option<String>,
    node: Option<&Node>,
) -> Endpoint {
    let unready_too = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
    let serving = pod_state::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = unready_too || (serving && !terminating);
    let zone = node.and_then(zone_of);
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: if ready { hints(service, zone.as_deref(), node_name.as_deref()) } else { None },
        hostname: backends::hostname(pod, service),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        deprecated_topology: None,
    }
}

/// Who should use an endpoint, by the service's `trafficDistribution`. Hints in proportion to CPUs (topology mode
/// `Auto`) are not given: that is what upstream does, too, while zones are too few or too uneven.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let mode = TOPOLOGY_MODES.iter().find_map(|key| annotation(&service.metadata, key));
    if mode.is_some_and(|mode| mode == "Auto" || mode == "auto") {
        return None;
    }
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let hints = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => EndpointHints { for_zones, for_nodes: None },
        "PreferSameNode" => {
            EndpointHints { for_zones, for_nodes: node.map(|node| vec![ForNode { name: node.to_owned() }]) }
        }
        _ => return None,
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

impl Group<'_> {
    /// A slice of this group with no name yet.
    fn slice(&self, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let service = &self.service.metadata;
        let annotations =
            self.trigger.map(|time| BTreeMap::from([(backends::TRIGGER_TIME.to_owned(), time.to_string())]));
        EndpointSlice {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", service.name.as_deref().unwrap_or_default())),
                namespace: service.namespace.clone(),
                labels: Some(self.labels.clone()),
                annotations,
                owner_references: Some(vec![controller_reference(self.service)]),
                ..ObjectMeta::default()
            },
            address_type: self.family.to_owned(),
            endpoints: Some(endpoints),
            ports: Some(self.ports.clone()),
        }
    }

    /// `old` with this group's labels and ports, and other endpoints.
    fn renewed(&self, old: &EndpointSlice, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let mut slice = old.clone();
        slice.metadata.labels = Some(self.labels.clone());
        let annotations = slice.metadata.annotations.get_or_insert_default();
        match self.trigger {
            Some(time) => annotations.insert(backends::TRIGGER_TIME.to_owned(), time.to_string()),
            None => annotations.remove(backends::TRIGGER_TIME),
        };
        slice.endpoints = Some(endpoints);
        slice.ports = Some(self.ports.clone());
        slice
    }
}

fn plan(service: &Service, changes: fill::Changes) -> Plan {
    let mut plan = Plan::none();
    let going = service.metadata.deletion_timestamp.is_some();
    let sorry = Note::warning(
        service,
        "FailedToUpdateEndpointSlices",
        format!(
            "Error updating Endpoint Slices for Service {}/{}: {{}}",
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default()
        ),
    );
    let creates = changes.create.iter().filter(|_| !going);
    let creates = creates.map(|slice| Write::create(slice).noted(None, Some(sorry.clone())));
    let updates = changes.update.iter().map(Write::update);
    let first: Vec<Write> = creates.chain(updates).collect();
    plan.all(first);
    plan.all(changes.delete.iter().map(|slice| Write::delete(&**slice)).collect());
    plan
}
