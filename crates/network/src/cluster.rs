//! What services and DNS need to know of the cluster, parsed at the door.
//!
//! API objects are turned into these small types once; everything after works on parsed addresses and enums.
//! Only IPv4 is carried: the other family's addresses are left out here and nowhere else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::services::Protocol;

/// Namespace and name.
pub type Key = (Arc<str>, Arc<str>);

/// Makes a [`Key`].
pub fn key(namespace: &str, name: &str) -> Key {
    (namespace.into(), name.into())
}

/// A Service, as far as packets and names are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Its IPv4 cluster address.
    pub cluster_ip: Option<Ipv4Addr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// The other name of an ExternalName service.
    pub external_name: Option<String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    /// Addresses in `status.loadBalancer` that this node has to answer (`ipMode` is not `Proxy`).
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// ClientIP affinity, with its timeout in seconds.
    pub affinity: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `loadBalancerSourceRanges`.
    pub source_ranges: Vec<Ipv4Net>,
    /// Whether source ranges were given at all (a list with only IPv6 ranges allows no IPv4 client).
    pub guarded: bool,
    /// `healthCheckNodePort`.
    pub health_check_port: Option<u16>,
    /// Another service proxy was asked for by label.
    pub foreign: bool,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// The port clients use.
    pub port: u16,
    /// The port on every node.
    pub node_port: Option<u16>,
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slice {
    /// Ports: name, protocol, number.
    pub ports: Vec<(Arc<str>, Protocol, u16)>,
    /// Endpoints, one an address.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// Takes new connections.
    pub ready: bool,
    /// Would take them if it were not terminating.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
    /// The node it runs on.
    pub node: Option<Arc<str>>,
    /// Its host name within a headless service.
    pub hostname: Option<Arc<str>>,
    /// Zones that should use it.
    pub zone_hints: Vec<Arc<str>>,
    /// Nodes that should use it.
    pub node_hints: Vec<Arc<str>>,
}

/// All services and their slices.
#[derive(Debug, Default)]
pub struct Cluster {
    /// Services by key.
    pub services: HashMap<Key, Service>,
    /// Slices by the key of their service, then by their own name.
    pub slices: HashMap<Key, BTreeMap<Arc<str>, Slice>>,
    owners: HashMap<Key, Key>,
}

impl Cluster {
    /// Takes in a Service. Returns the service to look at again.
    pub fn put_service(&mut self, object: &core::Service) -> Option<Key> {
        let key = object_key(&object.metadata)?;
        let new = service(object);
        if self.services.get(&key) == Some(&new) {
            return None;
        }
        self.services.insert(key.clone(), new);
        Some(key)
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, key: &Key) {
        self.services.remove(key);
    }

    /// Takes in an EndpointSlice. Returns the services to look at again.
    pub fn put_slice(&mut self, object: &discovery::EndpointSlice) -> Vec<Key> {
        let Some(own) = object_key(&object.metadata) else { return Vec::new() };
        let mut dirty = Vec::new();
        let owner = object
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("kubernetes.io/service-name"))
            .map(|service| (own.0.clone(), Arc::from(service.as_str())));
        if self.owners.get(&own) != owner.as_ref() {
            dirty.extend(self.remove_slice(&own));
        }
        let Some(owner) = owner else { return dirty };
        let slices = self.slices.entry(owner.clone()).or_default();
        let new = slice(object);
        if slices.get(&own.1) != Some(&new) {
            slices.insert(own.1.clone(), new);
            self.owners.insert(own, owner.clone());
            dirty.push(owner);
        }
        dirty
    }

    /// Forgets an EndpointSlice. Returns the service to look at again.
    pub fn remove_slice(&mut self, own: &Key) -> Option<Key> {
        let owner = self.owners.remove(own)?;
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(&own.1);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        Some(owner)
    }

    /// The keys of the slices that are not in `listed`.
    pub fn slices_but(&self, listed: &BTreeSet<Key>) -> Vec<Key> {
        self.owners.keys().filter(|key| !listed.contains(*key)).cloned().collect()
    }

    /// The endpoints of one named port of a service, with the port number each serves it on.
    pub fn endpoints<'a>(
        &'a self,
        service: &Key,
        name: &'a str,
        protocol: Protocol,
    ) -> impl Iterator<Item = (&'a Endpoint, u16)> {
        let slices = self.slices.get(service).into_iter().flat_map(BTreeMap::values);
        slices.flat_map(move |slice| {
            let ports = slice.ports.iter().filter(move |(n, p, _)| **n == *name && *p == protocol);
            ports.flat_map(|(_, _, port)| slice.endpoints.iter().map(move |e| (e, *port)))
        })
    }
}

/// The key of an object; `None` for one without a name, which the API server never sends.
pub fn object_key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<Key> {
    Some((meta.namespace.as_deref()?.into(), meta.name.as_deref()?.into()))
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|p| *p != 0)
}

fn service(object: &core::Service) -> Service {
    let Some(spec) = &object.spec else { return Service::default() };
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if kind == "ExternalName" {
        return Service { external_name: spec.external_name.clone(), ..Service::default() };
    }
    let first = spec.cluster_ip.as_deref();
    let all = spec.cluster_ips.as_deref().unwrap_or_default().iter().map(String::as_str);
    let cluster_ip = first.into_iter().chain(all).find_map(|ip| ip.parse().ok());
    let ipv4 = |list: Option<&Vec<String>>| -> Vec<Ipv4Addr> {
        list.into_iter().flatten().filter_map(|ip| ip.parse().ok()).collect()
    };
    let balancer = kind == "LoadBalancer";
    let ingress =
        object.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|l| l.ingress.as_ref());
    let vips = ingress.into_iter().flatten().filter(|i| i.ip_mode.as_deref() != Some("Proxy"));
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let label = |name: &str| object.metadata.labels.as_ref().is_some_and(|l| l.contains_key(name));
    Service {
        cluster_ip,
        headless: first == Some("None"),
        external_name: None,
        ports: spec.ports.iter().flatten().filter_map(service_port).collect(),
        external_ips: ipv4(spec.external_ips.as_ref()),
        load_balancer_ips: vips.filter(|_| balancer).filter_map(|i| i.ip.as_deref()?.parse().ok()).collect(),
        affinity: (spec.session_affinity.as_deref() == Some("ClientIP"))
            .then(|| timeout.and_then(|t| u32::try_from(t).ok()).unwrap_or(10_800).max(1)),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        source_ranges: ranges.iter().filter_map(|r| r.trim().parse().ok()).collect(),
        guarded: balancer && !ranges.is_empty(),
        health_check_port: spec.health_check_node_port.and_then(port).filter(|_| balancer),
        foreign: label("service.kubernetes.io/service-proxy-name"),
    }
}

fn service_port(p: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: p.name.as_deref().unwrap_or_default().into(),
        protocol: Protocol::from_api(p.protocol.as_deref())?,
        port: port(p.port)?,
        node_port: p.node_port.and_then(port),
    })
}

fn slice(object: &discovery::EndpointSlice) -> Slice {
    let ports = object.ports.iter().flatten().filter_map(|p| {
        let name = p.name.as_deref().unwrap_or_default().into();
        Some((name, Protocol::from_api(p.protocol.as_deref())?, port(p.port?)?))
    });
    Slice {
        ports: ports.collect(),
        endpoints: object.endpoints.iter().flatten().flat_map(endpoints).collect(),
    }
}

fn endpoints(list: &discovery::Endpoint) -> Vec<Endpoint> {
    let conditions = list.conditions.as_ref();
    // API: an unknown `ready` counts as true, an unknown `serving` as `ready`.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let hints = list.hints.as_ref();
    let zones = hints.and_then(|h| h.for_zones.as_ref()).into_iter().flatten();
    let nodes = hints.and_then(|h| h.for_nodes.as_ref()).into_iter().flatten();
    let of = |address: Ipv4Addr| Endpoint {
        address,
        ready,
        serving,
        terminating,
        node: list.node_name.as_deref().map(Arc::from),
        hostname: list.hostname.as_deref().map(Arc::from),
        zone_hints: zones.clone().map(|z| z.name.as_str().into()).collect(),
        node_hints: nodes.clone().map(|n| n.name.as_str().into()).collect(),
    };
    // All addresses of an endpoint are the same pod; consumers use the first.
    let first = list.addresses.iter().find_map(|a| match a.parse() {
        Ok(IpAddr::V4(a)) => Some(a),
        _ => None,
    });
    first.map(of).into_iter().collect()
}
