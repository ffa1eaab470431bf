//! Routes between nodes (host gateway): each node's pods are behind that node's InternalIP.
//!
//! [`wanted`] is pure; [`Routes`] holds what was set and sends only differences. It removes nothing but routes
//! with our protocol number inside its own ranges.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;

use crate::error::{Error, Result};
use crate::netlink::route::Route;
use crate::netlink::{Messages, Socket};

/// The index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// Which pod range is behind which node, for all nodes but `own`.
pub fn wanted<'a>(
    nodes: impl IntoIterator<Item = &'a Node>,
    own: Option<&str>,
) -> BTreeMap<Ipv4Net, Ipv4Addr> {
    let route = |node: &Node| {
        if node.metadata.name.as_deref() == own {
            return None;
        }
        let range = node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()?;
        Some((range, internal_ip(node)?))
    };
    nodes.into_iter().filter_map(route).collect()
}

/// A node's first IPv4 InternalIP.
pub fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_deref()?;
    addresses.iter().filter(|a| a.type_ == "InternalIP").find_map(|a| a.address.parse().ok())
}

/// The cluster's routes in one network namespace.
pub struct Routes {
    socket: Socket,
    /// What is in the kernel, as far as it is ours: the canonical copy after the start.
    current: BTreeMap<Ipv4Net, Route>,
    fixed: BTreeMap<Ipv4Net, Route>,
}

impl Routes {
    /// Takes over the routes of ours that lie within `ranges` (pods, services, load balancer pool) in the
    /// namespace at `netns`.
    pub fn new(netns: Option<&Path>, ranges: &[Ipv4Net]) -> Result<Self> {
        let mut socket = Socket::route(netns)?;
        let found = socket.own_routes().map_err(Error::netlink("list routes"))?;
        // A pod's own route is a /32 on its link and belongs to PodNet.
        let ours = |r: &Route| {
            (r.via.is_some() || r.link == Some(LOOPBACK)) && ranges.iter().any(|range| range.contains(&r.to))
        };
        let current = found.into_iter().filter(ours).map(|r| (r.to, r)).collect();
        Ok(Self { socket, current, fixed: BTreeMap::new() })
    }

    /// Gives ranges of service addresses a route on this node itself, so that its own packets to them get as far
    /// as destination translation; `source` is the address they then carry.
    pub fn answer_here(&mut self, ranges: &[Ipv4Net], source: Ipv4Addr) -> Result<()> {
        for &to in ranges {
            self.fixed.insert(to, Route { to, via: None, link: Some(LOOPBACK), source: Some(source) });
        }
        self.apply(BTreeMap::new())
    }

    /// Leads ranges of service addresses to a node: how the machine that holds a lab reaches its services.
    pub fn answer_at(&mut self, ranges: &[Ipv4Net], node: Ipv4Addr) -> Result<()> {
        for &to in ranges {
            self.fixed.insert(to, Route { to, via: Some(node), link: None, source: None });
        }
        self.apply(BTreeMap::new())
    }

    /// Makes the routes between nodes what [`wanted`] says.
    pub fn sync(&mut self, wanted: &BTreeMap<Ipv4Net, Ipv4Addr>) -> Result<()> {
        let via =
            |(&to, &via): (&Ipv4Net, &Ipv4Addr)| (to, Route { to, via: Some(via), link: None, source: None });
        self.apply(wanted.iter().map(via).collect())
    }

    /// Removes every route of ours in these ranges.
    pub fn cleanup(&mut self) -> Result<()> {
        self.fixed.clear();
        self.apply(BTreeMap::new())
    }

    fn apply(&mut self, mut wanted: BTreeMap<Ipv4Net, Route>) -> Result<()> {
        wanted.extend(self.fixed.clone());
        let same = |have: &Route, want: &Route| {
            have.via == want.via
                && (want.via.is_some() || have.link == want.link)
                && have.source == want.source
        };
        let gone: Vec<Ipv4Net> = self.current.keys().filter(|to| !wanted.contains_key(to)).copied().collect();
        for to in gone {
            if let Some(route) = self.current.remove(&to) {
                let mut m = Messages::new();
                m.delete_route(&route);
                match self.socket.request(m) {
                    Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                    done => done.map_err(Error::netlink(format!("remove route to {to}")))?,
                }
            }
        }
        for (to, route) in wanted {
            if self.current.get(&to).is_some_and(|have| same(have, &route)) {
                continue;
            }
            let mut m = Messages::new();
            m.route(&route);
            self.socket.request(m).map_err(Error::netlink(format!("set route to {to}")))?;
            self.current.insert(to, route);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, range: &str, address: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name}, "spec": {"podCIDR": range},
            "status": {"addresses": [
                {"type": "Hostname", "address": name},
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "InternalIP", "address": address}]}
        }))
        .unwrap()
    }

    #[test]
    fn each_other_nodes_range_goes_by_its_internal_ip() {
        let nodes = [
            node("a", "10.244.0.0/24", "10.9.0.1"),
            node("b", "10.244.1.0/24", "10.9.0.2"),
            node("no-range-yet", "", "10.9.0.3"),
            node("no-address-yet", "10.244.3.0/24", "?"),
        ];
        let want = BTreeMap::from([("10.244.1.0/24".parse().unwrap(), [10, 9, 0, 2].into())]);
        assert_eq!(wanted(&nodes, Some("a")), want);
        assert_eq!(wanted(&nodes, None).len(), 2);
    }
}
