//! What one Service should look like in the packet path of one node. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::Protocol;
use crate::cluster::{Cluster, Endpoint, Key, Service};

/// The node whose tables are computed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The Node's name.
    pub node: String,
    /// Its `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The cluster DNS address, which the node answers itself.
    pub dns: Option<Ipv4Addr>,
}

/// Where a packet comes in: an address of its own, or a port of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Front {
    /// `None`: any of the node's addresses (NodePort).
    pub address: Option<Ipv4Addr>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// A backend: address and port.
pub type Backend = (Ipv4Addr, u16);

/// How a front picks from its port's backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// From all of the cluster.
    Cluster,
    /// From this node's only; dropped if there are none.
    Local,
    /// This node and its pods from all, everybody else from this node's (`externalTrafficPolicy: Local`).
    External,
}

/// One port of a service: its backends and the fronts that lead to them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortRules {
    /// Backends for policy Cluster.
    pub cluster: BTreeSet<Backend>,
    /// Backends on this node.
    pub local: BTreeSet<Backend>,
    /// Fronts and how each picks.
    pub fronts: BTreeMap<Front, Policy>,
    /// Fronts that only these sources may use (from outside the cluster's own addresses).
    pub guards: BTreeMap<Front, Vec<Ipv4Net>>,
}

/// A service's part of the rule set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceRules {
    /// By port name and protocol.
    pub ports: BTreeMap<(Arc<str>, Protocol), PortRules>,
    /// Seconds a client stays with its backend.
    pub affinity: Option<u32>,
    /// Addresses that belong to the service altogether: other ports are rejected.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// Port to serve the health check on, and the number of local ready endpoints it reports.
    pub health: Option<(u16, usize)>,
}

/// Computes the rules of a service; `None` if this node has nothing to do for it.
pub fn desired(cluster: &Cluster, key: &Key, place: &Place) -> Option<ServiceRules> {
    let service = cluster.services.get(key)?;
    if service.foreign || service.headless || service.external_name.is_some() {
        return None;
    }
    let cluster_ip = service.cluster_ip?;
    let mut rules = ServiceRules { affinity: service.affinity, ..ServiceRules::default() };
    if place.dns != Some(cluster_ip) {
        rules.addresses.insert(cluster_ip);
    }
    rules.addresses.extend(&service.load_balancer_ips);
    let mut local_ready = BTreeSet::new();
    for port in &service.ports {
        let endpoints: Vec<_> = cluster.endpoints(key, &port.name, port.protocol).collect();
        let here = |e: &Endpoint| e.node.as_deref() == Some(place.node.as_str());
        local_ready.extend(endpoints.iter().filter(|(e, _)| e.ready && here(e)).map(|(e, _)| e.address));
        let local: Vec<_> = endpoints.iter().filter(|(e, _)| here(e)).copied().collect();
        let mut out = PortRules {
            cluster: usable(&by_topology(&endpoints, place)),
            local: usable(&local),
            ..PortRules::default()
        };
        fronts(service, port, cluster_ip, place, &mut out);
        rules.ports.insert((port.name.clone(), port.protocol), out);
    }
    rules.health = service.health_check_port.map(|port| (port, local_ready.len()));
    Some(rules)
}

fn fronts(
    service: &Service,
    port: &crate::cluster::ServicePort,
    cluster_ip: Ipv4Addr,
    place: &Place,
    out: &mut PortRules,
) {
    let front = |address, port_number| Front { address, protocol: port.protocol, port: port_number };
    let external = if service.external_local { Policy::External } else { Policy::Cluster };
    if place.dns != Some(cluster_ip) {
        let internal = if service.internal_local { Policy::Local } else { Policy::Cluster };
        out.fronts.insert(front(Some(cluster_ip), port.port), internal);
    }
    for &address in service.external_ips.iter().chain(&service.load_balancer_ips) {
        out.fronts.entry(front(Some(address), port.port)).or_insert(external);
    }
    if let Some(node_port) = port.node_port {
        out.fronts.insert(front(None, node_port), external);
    }
    if service.guarded {
        for &vip in &service.load_balancer_ips {
            out.guards.insert(front(Some(vip), port.port), service.source_ranges.clone());
        }
    }
}

/// Ready endpoints; if there are none, those that terminate but still serve.
fn usable(endpoints: &[(&Endpoint, u16)]) -> BTreeSet<Backend> {
    let pick = |test: fn(&Endpoint) -> bool| -> BTreeSet<Backend> {
        endpoints.iter().filter(|(e, _)| test(e)).map(|(e, port)| (e.address, *port)).collect()
    };
    let ready = pick(|e| e.ready);
    if ready.is_empty() { pick(|e| e.serving && e.terminating) } else { ready }
}

/// Keeps the endpoints hinted for this node, else for this zone; hints count only if every ready endpoint has
/// some and one of them names this place.
fn by_topology<'a>(endpoints: &[(&'a Endpoint, u16)], place: &Place) -> Vec<(&'a Endpoint, u16)> {
    let hinted = |hints: fn(&Endpoint) -> &[Arc<str>], own: Option<&str>| {
        let own = own?;
        let ready = || endpoints.iter().filter(|(e, _)| e.ready);
        if ready().any(|(e, _)| hints(e).is_empty()) {
            return None;
        }
        let kept: Vec<_> = ready().filter(|(e, _)| hints(e).iter().any(|h| **h == *own)).copied().collect();
        (!kept.is_empty()).then_some(kept)
    };
    hinted(|e| &e.node_hints, Some(&place.node))
        .or_else(|| hinted(|e| &e.zone_hints, place.zone.as_deref()))
        .unwrap_or_else(|| endpoints.to_vec())
}
