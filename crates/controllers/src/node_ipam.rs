//! node-ipam-controller: gives every node a part of the cluster's pod network.
//!
//! One key for all nodes, so that no part is given twice. What is taken is read off the nodes themselves.

use std::{collections::HashSet, net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use serde_json::json;

use crate::{Change, Controller, Key, Kind, Note, Outcome, PatchKind, Plan, World, Write};

/// A network that is cut into parts of equal size, one a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    net: IpNet,
    mask: u8,
}

/// A mask that cannot cut a network into parts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the node mask size {mask} does not cut {net} into 1 to 65536 parts")]
pub struct BadMask {
    net: IpNet,
    mask: u8,
}

impl Range {
    /// The network `net` in parts with a prefix of `mask` bits: 24 for IPv4 and 64 for IPv6 upstream.
    ///
    /// # Errors
    /// When the mask is shorter than the network's, too long for an address, or makes more than 65536 parts.
    pub fn new(net: IpNet, mask: u8) -> Result<Self, BadMask> {
        let fits = mask >= net.prefix_len() && mask <= net.max_prefix_len() && mask - net.prefix_len() <= 16;
        if fits { Ok(Self { net: net.trunc(), mask }) } else { Err(BadMask { net, mask }) }
    }

    /// The parts, in order.
    fn parts(&self) -> impl Iterator<Item = IpNet> + '_ {
        let count = 1_u128 << (self.mask - self.net.prefix_len());
        let size = 1_u128.checked_shl(u32::from(self.net.max_prefix_len() - self.mask)).unwrap_or(0);
        (0..count).filter_map(move |n| match self.net.network() {
            IpAddr::V4(base) => {
                let address = u32::from(base).checked_add(u32::try_from(n * size).ok()?)?;
                Ipv4Net::new(address.into(), self.mask).ok().map(IpNet::V4)
            }
            IpAddr::V6(base) => {
                let address = u128::from(base).checked_add(n.checked_mul(size)?)?;
                Ipv6Net::new(address.into(), self.mask).ok().map(IpNet::V6)
            }
        })
    }
}

/// The loop, with one range for each address family.
pub struct NodeIpam {
    /// The cluster's networks; the first one is the primary.
    pub ranges: Vec<Range>,
}

fn parts_of(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let many = spec.into_iter().flat_map(|s| s.pod_cidrs.iter().flatten());
    let one = spec.and_then(|s| s.pod_cidr.as_ref());
    many.chain(one).filter_map(|text| IpNet::from_str(text).ok()).collect()
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Node>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let needs = change.after::<Node>().is_some_and(|node| parts_of(&node).is_empty());
        if needs || change.after.is_none() { vec![Key::default()] } else { Vec::new() }
    }

    fn reconcile(&self, _key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let nodes = world.list::<Node>("");
        let taken: Vec<IpNet> = nodes.iter().flat_map(|node| parts_of(node)).collect();
        let exact: HashSet<IpNet> = taken.iter().copied().collect();
        // parts of another size, from before the mask was changed
        let odd: Vec<IpNet> = taken
            .iter()
            .filter(|part| !self.ranges.iter().any(|r| r.mask == part.prefix_len()))
            .copied()
            .collect();
        let overlaps = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
        let free = |part: &IpNet| !exact.contains(part) && !odd.iter().any(|o| overlaps(o, part));
        let mut free: Vec<_> = self.ranges.iter().map(|range| range.parts().filter(free)).collect();
        let mut plan = Plan::none();
        let mut writes = Vec::new();
        for node in nodes.iter().filter(|n| parts_of(n).is_empty() && n.metadata.deletion_timestamp.is_none())
        {
            let parts: Option<Vec<String>> =
                free.iter_mut().map(|parts| parts.next().map(|p| p.to_string())).collect();
            let Some(parts) = parts.filter(|p| !p.is_empty()) else {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                plan.notes.push(Note::normal(&**node, "CIDRNotAvailable", message));
                continue;
            };
            let body = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"podCIDR": parts.first(), "podCIDRs": parts},
            });
            writes.push(Write::patch(&**node, PatchKind::Merge, body));
        }
        plan.all(writes);
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixtures::{add, key, node, patched, plan, reasons, remove, world};

    fn ipam(ranges: &[(&str, u8)]) -> NodeIpam {
        NodeIpam {
            ranges: ranges
                .iter()
                .map(|(net, mask)| Range::new(net.parse().unwrap(), *mask).unwrap())
                .collect(),
        }
    }

    fn with(name: &str, part: &str) -> Value {
        let mut node = node(name, "z");
        node["spec"] = json!({"podCIDR": part, "podCIDRs": [part]});
        node
    }

    fn given(plan: &Plan) -> Vec<(&str, &Value)> {
        patched(plan).into_iter().map(|(t, body)| (t.name.as_str(), &body["spec"]["podCIDR"])).collect()
    }

    #[test]
    fn nodes_get_different_parts_and_the_first_that_is_free() {
        let ipam = ipam(&[("10.42.0.0/16", 24)]);
        let world =
            world([with("a", "10.42.0.0/24"), node("b", "z"), with("c", "10.42.2.0/24"), node("d", "z")]);
        let plan = plan(&ipam, &world, "", "");
        assert_eq!(given(&plan), [("b", &json!("10.42.1.0/24")), ("d", &json!("10.42.3.0/24"))]);
    }

    #[test]
    fn a_node_gets_a_part_of_each_family() {
        let ipam = ipam(&[("10.42.0.0/16", 24), ("fd42::/48", 64)]);
        let plan = plan(&ipam, &world([with("a", "10.42.0.0/24"), node("b", "z")]), "", "");
        assert_eq!(patched(&plan)[0].1["spec"]["podCIDRs"], json!(["10.42.1.0/24", "fd42::/64"]));
    }

    #[test]
    fn parts_of_another_size_are_not_cut_up() {
        let plan =
            plan(&ipam(&[("10.42.0.0/16", 24)]), &world([with("a", "10.42.0.0/23"), node("b", "z")]), "", "");
        assert_eq!(given(&plan), [("b", &json!("10.42.2.0/24"))]);
    }

    #[test]
    fn a_node_for_which_nothing_is_left_is_told_and_gets_what_becomes_free() {
        let ipam = ipam(&[("10.42.0.0/24", 24)]);
        let mut world = world([with("a", "10.42.0.0/24"), node("b", "z")]);
        let full = plan(&ipam, &world, "", "");
        assert!(full.steps.is_empty());
        assert_eq!(reasons(&full), ["CIDRNotAvailable"]);
        let change = remove::<Node>(&mut world, "", "a");
        assert_eq!(ipam.keys(&change, &world), [key("", "")]);
        assert_eq!(given(&plan(&ipam, &world, "", "")), [("b", &json!("10.42.0.0/24"))]);
        let change = add(&mut world, with("b", "10.42.0.0/24"));
        assert_eq!(ipam.keys(&change, &world), []);
    }

    #[test]
    fn masks_that_do_not_fit_are_refused() {
        for (net, mask) in [("10.0.0.0/16", 8), ("10.0.0.0/16", 33), ("fd00::/16", 64)] {
            assert!(Range::new(net.parse().unwrap(), mask).is_err(), "{net} {mask}");
        }
        let all: Vec<IpNet> = Range::new("fd00::/112".parse().unwrap(), 128).unwrap().parts().collect();
        assert_eq!((all.len(), all[65535].to_string()), (65536, "fd00::ffff/128".to_owned()));
    }
}
