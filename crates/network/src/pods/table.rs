//! The nftables table of pods: host ports, masquerade to the outside, hairpin.
//!
//! Everything that changes with a pod is an element of a set, so attaching one costs one small transaction.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{LINK_PREFIX, Lease, PortMapping};
use crate::netlink::expr::{ADDRESS_LOCAL, CT_STATUS_DNAT, Expr};
use crate::netlink::nft::{Batch, Data, Element, Hook, SetSpec, priority};
use crate::services::address_key;

/// The table's name.
pub(crate) const TABLE: &str = "plimsoll-pods";
const HOST_PORTS: &str = "host-ports";
const HAIRPIN: &str = "hairpin";

/// Builds the whole table in place of whatever was there.
pub(crate) fn rebuild<'a>(pods: Ipv4Net, cluster: Ipv4Net, leases: impl Iterator<Item = &'a Lease>) -> Batch {
    use Expr::*;
    let mut b = Batch::new(TABLE);
    b.table().delete_table().table();
    // nft(8)'s type numbers: ipv4_addr 7, inet_proto 12, inet_service 13; a concatenation shifts them by six bits.
    b.set(&SetSpec {
        name: HOST_PORTS,
        key_type: (7 << 12) | (12 << 6) | 13,
        key_len: 12,
        data: Some(Data::Value { kind: (7 << 6) | 13, len: 8 }),
        interval_fields: &[],
        dynamic: false,
    });
    b.set(&SetSpec {
        name: HAIRPIN,
        key_type: (7 << 6) | 7,
        key_len: 8,
        data: None,
        interval_fields: &[],
        dynamic: false,
    });

    let pod_link = LINK_PREFIX.as_bytes().to_vec();
    // route_localnet is on for pod links (see Messages::pod_link_settings); a pod must not use it to reach what
    // listens on the node's loopback address (CVE-2020-8558).
    b.base_chain("loopback-guard", "filter", Hook::Prerouting, priority::RAW);
    b.rule(
        "loopback-guard",
        &[
            InputName { to: 0 },
            Equal { from: 0, bytes: pod_link.clone() },
            DestinationAddress { to: 0 },
            Mask { register: 0, mask: vec![255, 0, 0, 0] },
            Equal { from: 0, bytes: vec![127, 0, 0, 0] },
            Drop,
        ],
    );
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        b.base_chain(chain, "nat", hook, priority::DSTNAT);
        b.rule(
            chain,
            &[
                DestinationAddress { to: 0 },
                Protocol { to: 1 },
                DestinationPort { to: 2 },
                Map { map: HOST_PORTS, from: 0, to: 4 },
                Dnat { address: 4, port: 5 },
            ],
        );
        b.rule(
            chain,
            &[
                DestinationKind { to: 0 },
                Equal { from: 0, bytes: ADDRESS_LOCAL.to_ne_bytes().to_vec() },
                Load { to: 0, bytes: vec![0; 4] },
                Protocol { to: 1 },
                DestinationPort { to: 2 },
                Map { map: HOST_PORTS, from: 0, to: 4 },
                Dnat { address: 4, port: 5 },
            ],
        );
    }
    b.base_chain("postrouting", "nat", Hook::Postrouting, priority::SRCNAT);
    let translated = [
        CtStatus { to: 0 },
        Mask { register: 0, mask: CT_STATUS_DNAT.to_ne_bytes().to_vec() },
        NotEqual { from: 0, bytes: vec![0; 4] },
    ];
    // A pod that reaches itself by way of a service or host port must see another source than itself.
    let mut rule = translated.to_vec();
    rule.extend([
        SourceAddress { to: 0 },
        DestinationAddress { to: 1 },
        In { set: HAIRPIN, from: 0 },
        Masquerade,
    ]);
    b.rule("postrouting", &rule);
    let mut rule = translated.to_vec();
    rule.extend([
        SourceAddress { to: 0 },
        Mask { register: 0, mask: vec![255, 0, 0, 0] },
        Equal { from: 0, bytes: vec![127, 0, 0, 0] },
        OutputName { to: 0 },
        Equal { from: 0, bytes: pod_link.clone() },
        Masquerade,
    ]);
    b.rule("postrouting", &rule);
    b.rule(
        "postrouting",
        &[
            SourceAddress { to: 0 },
            Mask { register: 0, mask: pods.netmask().octets().to_vec() },
            Equal { from: 0, bytes: pods.network().octets().to_vec() },
            DestinationAddress { to: 0 },
            Mask { register: 0, mask: cluster.netmask().octets().to_vec() },
            NotEqual { from: 0, bytes: cluster.network().octets().to_vec() },
            OutputName { to: 0 },
            NotEqual { from: 0, bytes: pod_link },
            Masquerade,
        ],
    );
    for lease in leases {
        add(&mut b, lease);
    }
    b
}

/// Adds a pod's elements.
pub(crate) fn add(batch: &mut Batch, lease: &Lease) {
    batch.add(HAIRPIN, &[hairpin(lease.address)]);
    batch.add(HOST_PORTS, &ports(lease));
}

/// Removes a pod's elements.
pub(crate) fn remove(batch: &mut Batch, lease: &Lease) {
    batch.remove(HAIRPIN, &[hairpin(lease.address)]);
    batch.remove(HOST_PORTS, &ports(lease));
}

fn hairpin(address: Ipv4Addr) -> Element {
    Element::member([address.octets(), address.octets()].concat())
}

fn ports(lease: &Lease) -> Vec<Element> {
    let element = |p: &PortMapping| {
        let key = address_key(p.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED), p.protocol, p.host_port);
        let mut value = lease.address.octets().to_vec();
        value.extend(p.container_port.to_be_bytes());
        value.extend([0, 0]);
        Element::entry(key, value)
    };
    lease.ports.iter().map(element).collect()
}
