//! The fixed part of the services table: its maps, its base chains, and the chains that pick a backend.
//!
//! No rule names a service. A new connection's `address . protocol . port` is looked up once for its plan, and
//! once more in the plan's chain for its list; a random slot of the list is the backend. Packets of known
//! connections never get here. The names of the maps are explained in [`super::table`].

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::desired::{Place, Policy};
use super::table::{KEEP_SOURCE, LOCAL, Plan, sets};
use crate::netlink::expr::{ADDRESS_LOCAL, CT_STATE_INVALID, CT_STATUS_DNAT, Expr};
use crate::netlink::nft::{Batch, Data, Element, Hook, SetSpec, priority};

/// The table's name.
pub(crate) const TABLE: &str = "plimsoll-services";

/// Ranges and addresses that the fixed rules name.
#[derive(Debug, Clone)]
pub struct Ranges {
    /// This node's pods.
    pub pods: Ipv4Net,
    /// Service addresses; unallocated ones are dropped.
    pub services: Vec<Ipv4Net>,
    /// The node's addresses that answer NodePorts.
    pub node_addresses: Vec<Ipv4Addr>,
}

// nft(8)'s type numbers; a concatenation shifts by six bits a field.
const ADDRESS: u32 = 7;
const FRONT: u32 = (7 << 12) | (12 << 6) | 13;
const BACKEND: u32 = (7 << 6) | 13;
const MARK: u32 = 19;

/// Builds the table in place of whatever was there.
pub(crate) fn rebuild(ranges: &Ranges, place: &Place) -> Batch {
    let mut b = Batch::new(TABLE);
    b.table().delete_table().table();
    let plain = |name, key_type, key_len, data| SetSpec {
        name,
        key_type,
        key_len,
        data,
        interval_fields: &[],
        dynamic: false,
    };
    let three = Data::Value { kind: (MARK << 12) | (MARK << 6) | MARK, len: 12 };
    let backend = Data::Value { kind: BACKEND, len: 8 };
    b.set(&plain(sets::SERVICES, FRONT, 12, Some(three)));
    b.set(&plain(sets::PLANS, MARK, 4, Some(Data::Verdict)));
    b.set(&plain(sets::BACKENDS, (MARK << 6) | MARK, 8, Some(backend)));
    b.set(&plain(sets::MEMBERS, (MARK << 18) | (MARK << 12) | BACKEND, 16, None));
    b.set(&plain(sets::NO_ENDPOINTS, FRONT, 12, None));
    b.set(&plain(sets::SERVICE_ADDRESSES, ADDRESS, 4, None));
    b.set(&plain(sets::NODE_ADDRESSES, ADDRESS, 4, None));
    b.set(&plain(sets::GUARDED, FRONT, 12, None));
    b.set(&SetSpec {
        interval_fields: &[4, 1, 2, 4],
        ..plain(sets::ALLOWED, (FRONT << 6) | ADDRESS, 16, None)
    });
    b.set(&SetSpec { dynamic: true, ..plain(sets::AFFINITY, (MARK << 6) | ADDRESS, 8, Some(backend)) });
    let nodes: Vec<_> = ranges.node_addresses.iter().map(|a| Element::member(a.octets().to_vec())).collect();
    b.add(sets::NODE_ADDRESSES, &nodes);
    translation(&mut b, ranges);
    guards(&mut b);
    filters(&mut b, ranges, place);
    if let Some(dns) = place.dns {
        untracked_dns(&mut b, dns);
    }
    b
}

/// The key of a packet's own destination, in registers 0 to 2.
fn front() -> Vec<Expr> {
    vec![Expr::DestinationAddress { to: 0 }, Expr::Protocol { to: 1 }, Expr::DestinationPort { to: 2 }]
}

/// The key of a NodePort: the packet must be for one of the node's addresses.
fn node_port_front() -> Vec<Expr> {
    vec![
        Expr::DestinationAddress { to: 0 },
        Expr::In { set: sets::NODE_ADDRESSES, from: 0 },
        Expr::Load { to: 0, bytes: vec![0; 4] },
        Expr::Protocol { to: 1 },
        Expr::DestinationPort { to: 2 },
    ]
}

fn within(range: Ipv4Net, address: Expr) -> Vec<Expr> {
    vec![
        address,
        Expr::Mask { register: 0, mask: range.netmask().octets().to_vec() },
        Expr::Equal { from: 0, bytes: range.network().octets().to_vec() },
    ]
}

fn translation(b: &mut Batch, ranges: &Ranges) {
    use Expr::*;
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        b.base_chain(chain, "nat", hook, priority::DSTNAT);
        for mut rule in [front(), node_port_front()] {
            rule.extend([
                Map { map: sets::SERVICES, from: 0, to: 4 },
                VerdictMap { map: sets::PLANS, from: 5 },
            ]);
            b.rule(chain, &rule);
        }
    }
    // A translated connection from anywhere but this node's pods has to come back this way, so it gets this
    // node's address, unless the front keeps its clients' addresses.
    b.base_chain("postrouting", "nat", Hook::Postrouting, priority::SRCNAT);
    let original = [
        vec![CtOriginalAddress { to: 0 }],
        vec![
            CtOriginalAddress { to: 0 },
            In { set: sets::NODE_ADDRESSES, from: 0 },
            Load { to: 0, bytes: vec![0; 4] },
        ],
    ];
    for key in original {
        let mut rule = vec![
            CtStatus { to: 0 },
            Mask { register: 0, mask: CT_STATUS_DNAT.to_ne_bytes().to_vec() },
            NotEqual { from: 0, bytes: vec![0; 4] },
            SourceAddress { to: 0 },
            Mask { register: 0, mask: ranges.pods.netmask().octets().to_vec() },
            NotEqual { from: 0, bytes: ranges.pods.network().octets().to_vec() },
        ];
        rule.extend(key);
        rule.extend([
            Protocol { to: 1 },
            CtOriginalPort { to: 2 },
            Map { map: sets::SERVICES, from: 0, to: 4 },
            Mask { register: 6, mask: KEEP_SOURCE.to_ne_bytes().to_vec() },
            Equal { from: 6, bytes: vec![0; 4] },
            Masquerade,
        ]);
        b.rule("postrouting", &rule);
    }
}

/// `loadBalancerSourceRanges`, looked at before translation.
fn guards(b: &mut Batch) {
    for (chain, hook) in [("guard-prerouting", Hook::Prerouting), ("guard-output", Hook::Output)] {
        b.base_chain(chain, "filter", hook, priority::PRE_DSTNAT);
        let mut rule = front();
        rule.extend([
            Expr::In { set: sets::GUARDED, from: 0 },
            Expr::SourceAddress { to: 3 },
            Expr::NotIn { set: sets::ALLOWED, from: 0 },
            Expr::Drop,
        ]);
        b.rule(chain, &rule);
    }
}

/// What still bears a service address after translation has no backend.
fn filters(b: &mut Batch, ranges: &Ranges, place: &Place) {
    use Expr::*;
    let chains = [("forward", Hook::Forward), ("input", Hook::Input), ("output-filter", Hook::Output)];
    for (chain, hook) in chains {
        b.base_chain(chain, "filter", hook, priority::FILTER);
        if let Some(dns) = place.dns {
            let own = [DestinationAddress { to: 0 }, Equal { from: 0, bytes: dns.octets().to_vec() }, Accept];
            b.rule(chain, &own);
        }
        let rejected: &[Vec<Expr>] =
            if hook == Hook::Input { &[node_port_front()] } else { &[front(), node_port_front()] };
        for key in rejected {
            let mut rule = key.clone();
            rule.push(In { set: sets::NO_ENDPOINTS, from: 0 });
            reject(b, chain, &rule);
        }
        if hook == Hook::Input {
            continue;
        }
        reject(b, chain, &[DestinationAddress { to: 0 }, In { set: sets::SERVICE_ADDRESSES, from: 0 }]);
        for &range in &ranges.services {
            let mut rule = within(range, DestinationAddress { to: 0 });
            rule.push(Drop);
            b.rule(chain, &rule);
        }
    }
    // A packet that tracking cannot place would leave untranslated, and its receiver would reset the connection.
    for address in [SourceAddress { to: 0 }, DestinationAddress { to: 0 }] {
        let mut rule = vec![
            CtState { to: 0 },
            Mask { register: 0, mask: CT_STATE_INVALID.to_ne_bytes().to_vec() },
            NotEqual { from: 0, bytes: vec![0; 4] },
        ];
        rule.extend(within(ranges.pods, address));
        rule.push(Drop);
        b.rule("forward", &rule);
    }
}

/// Refuses what passes `condition`. TCP gets a reset: an ICMP error for the node's own connection would arrive
/// while connect(2) still holds the socket, be set aside, and cost the caller a second.
fn reject(b: &mut Batch, chain: &str, condition: &[Expr]) {
    let mut rule = condition.to_vec();
    rule.extend([Expr::Protocol { to: 0 }, Expr::Equal { from: 0, bytes: vec![6] }, Expr::Reset]);
    b.rule(chain, &rule);
    let mut rule = condition.to_vec();
    rule.push(Expr::Reject);
    b.rule(chain, &rule);
}

/// Questions to the node's own DNS need no connection tracking: no entry each, no races.
fn untracked_dns(b: &mut Batch, dns: Ipv4Addr) {
    use Expr::*;
    for (chain, hook) in [("raw-prerouting", Hook::Prerouting), ("raw-output", Hook::Output)] {
        b.base_chain(chain, "filter", hook, priority::RAW);
        for (address, port) in [
            (DestinationAddress { to: 0 }, DestinationPort { to: 0 }),
            (SourceAddress { to: 0 }, SourcePort { to: 0 }),
        ] {
            b.rule(
                chain,
                &[
                    address,
                    Equal { from: 0, bytes: dns.octets().to_vec() },
                    Protocol { to: 0 },
                    Equal { from: 0, bytes: vec![17] },
                    port,
                    Equal { from: 0, bytes: 53u16.to_be_bytes().to_vec() },
                    NoTrack,
                ],
            );
        }
    }
}

/// Adds the chain of a plan and its entry in the map of plans.
pub(crate) fn add_plan(b: &mut Batch, number: u32, plan: &Plan, pods: Ipv4Net) {
    let chain = format!("plan-{number}");
    b.chain(&chain);
    match plan.policy {
        Policy::Cluster => pick(b, &chain, plan, plan.cluster, 0, &[]),
        Policy::Local => pick(b, &chain, plan, plan.local, LOCAL, &[]),
        Policy::External => {
            let local = Expr::Equal { from: 0, bytes: ADDRESS_LOCAL.to_ne_bytes().to_vec() };
            pick(b, &chain, plan, plan.cluster, 0, &[Expr::SourceKind { to: 0 }, local]);
            pick(b, &chain, plan, plan.cluster, 0, &within(pods, Expr::SourceAddress { to: 0 }));
            pick(b, &chain, plan, plan.local, LOCAL, &[]);
        }
    }
    let to = crate::netlink::nft::Value::Goto(chain);
    b.add(sets::PLANS, &[Element { key: number.to_ne_bytes().to_vec(), key_end: None, value: to }]);
}

/// Rules that pick one of `count` slots from `base` for packets that pass `condition`.
fn pick(b: &mut Batch, chain: &str, plan: &Plan, count: u32, base: u32, condition: &[Expr]) {
    use Expr::*;
    let key = || {
        let mut rule = condition.to_vec();
        rule.extend(if plan.node_port { node_port_front() } else { front() });
        rule.push(Map { map: sets::SERVICES, from: 0, to: 4 });
        rule
    };
    if count == 0 {
        let mut rule = condition.to_vec();
        rule.push(Drop);
        b.rule(chain, &rule);
        return;
    }
    let milliseconds = plan.affinity.map(|s| u64::from(s) * 1000);
    if let Some(milliseconds) = milliseconds {
        // The client's backend, if it has one and that is still a member. Each use starts the time anew.
        let mut rule = key();
        rule.extend([
            // 4: list, 5: client → 6, 7: backend
            SourceAddress { to: 5 },
            Map { map: sets::AFFINITY, from: 4, to: 6 },
            Remember { map: sets::AFFINITY, key: 4, data: 6, milliseconds },
            // 5: base; 4 to 7 is then what MEMBERS holds
            Load { to: 5, bytes: base.to_ne_bytes().to_vec() },
            In { set: sets::MEMBERS, from: 4 },
            Dnat { address: 6, port: 7 },
        ]);
        b.rule(chain, &rule);
    }
    let mut rule = key();
    rule.extend([
        Random { to: 5, modulus: count, offset: base },
        Map { map: sets::BACKENDS, from: 4, to: 8 },
    ]);
    if let Some(milliseconds) = milliseconds {
        rule.extend([
            SourceAddress { to: 5 },
            Forget { map: sets::AFFINITY, key: 4, data: 8 },
            Remember { map: sets::AFFINITY, key: 4, data: 8, milliseconds },
        ]);
    }
    rule.push(Dnat { address: 8, port: 9 });
    b.rule(chain, &rule);
}
