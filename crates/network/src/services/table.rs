//! From rules to map elements: numbers for backend lists, slots for backends, and the difference to what the
//! kernel has. Pure; the kernel is only told the [`Delta`].
//!
//! The layout (see [`super::base`]) makes every change small: an endpoint that comes or goes is one or two
//! elements, whatever the number of services or of its siblings.
//!
//! ```text
//! services   address . protocol . port → list . plan . flags     (address 0.0.0.0: a NodePort)
//! plans      plan → goto chain                                   (few: one for each count of backends)
//! backends   list . slot → address . port                        (slot ≥ LOCAL: backends on this node)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::desired::{Backend, Front, Policy, ServiceRules};
use super::{Protocol, address_key};
use crate::cluster::Key;
use crate::netlink::conntrack::Flow;
use crate::netlink::nft::{Element, Value};

/// Slots from here on are backends on this node.
pub const LOCAL: u32 = 1 << 16;
/// Flag of a front whose clients' source address is kept.
pub const KEEP_SOURCE: u32 = 1;

/// Names of sets and maps.
pub mod sets {
    pub const SERVICES: &str = "services";
    pub const PLANS: &str = "plans";
    pub const BACKENDS: &str = "backends";
    pub const MEMBERS: &str = "members";
    pub const AFFINITY: &str = "affinity";
    pub const NO_ENDPOINTS: &str = "no-endpoints";
    pub const SERVICE_ADDRESSES: &str = "service-addresses";
    pub const NODE_ADDRESSES: &str = "node-addresses";
    pub const GUARDED: &str = "guarded";
    pub const ALLOWED: &str = "allowed";
}

/// How a chain picks; chains exist once for each plan in use, not for each service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plan {
    /// Whom to pick for.
    pub policy: Policy,
    /// Number of backends in the cluster list.
    pub cluster: u32,
    /// Number of backends on this node.
    pub local: u32,
    /// Seconds of affinity.
    pub affinity: Option<u32>,
    /// The front has no address of its own.
    pub node_port: bool,
}

type ListKey = (Key, Arc<str>, Protocol);

/// The backends of one service port as they lie in the kernel.
#[derive(Debug, Default)]
struct List {
    id: u32,
    cluster: Vec<Backend>,
    local: Vec<Backend>,
}

/// What changes in the kernel.
#[derive(Debug, Default)]
pub struct Delta {
    /// Chains to make first.
    pub plans: Vec<(u32, Plan)>,
    /// Flows to forget afterwards.
    pub flows: Vec<Flow>,
    /// By set, key and end of interval: the value before and after. What ends as it began is not sent.
    #[allow(clippy::type_complexity, reason = "private and used in one place")]
    changes: BTreeMap<&'static str, BTreeMap<(Vec<u8>, Option<Vec<u8>>), (Option<Value>, Option<Value>)>>,
}

impl Delta {
    fn set(&mut self, set: &'static str, key: Vec<u8>, before: Option<Value>, after: Option<Value>) {
        self.set_interval(set, (key, None), before, after);
    }

    fn set_interval(
        &mut self,
        set: &'static str,
        key: (Vec<u8>, Option<Vec<u8>>),
        before: Option<Value>,
        after: Option<Value>,
    ) {
        self.changes.entry(set).or_default().entry(key).or_insert((before, None)).1 = after;
    }

    /// Elements to remove, by set.
    pub fn removals(&self) -> impl Iterator<Item = (&'static str, Vec<Element>)> {
        self.elements(|(before, after)| if before != after { before.as_ref() } else { None })
    }

    /// Elements to add after the removals, by set.
    pub fn additions(&self) -> impl Iterator<Item = (&'static str, Vec<Element>)> {
        self.elements(|(before, after)| if before != after { after.as_ref() } else { None })
    }

    fn elements(
        &self,
        pick: impl Fn(&(Option<Value>, Option<Value>)) -> Option<&Value>,
    ) -> impl Iterator<Item = (&'static str, Vec<Element>)> {
        self.changes.iter().filter_map(move |(set, changes)| {
            let element = |((key, end), change): (&(Vec<u8>, Option<Vec<u8>>), _)| {
                let value = pick(change)?.clone();
                Some(Element { key: key.clone(), key_end: end.clone(), value })
            };
            let list: Vec<_> = changes.iter().filter_map(element).collect();
            (!list.is_empty()).then_some((*set, list))
        })
    }
}

/// What the kernel holds for services.
#[derive(Debug, Default)]
pub struct Table {
    rules: BTreeMap<Key, ServiceRules>,
    lists: HashMap<ListKey, List>,
    next_list: u32,
    free_lists: Vec<u32>,
    plans: HashMap<Plan, u32>,
    /// Who wants a front; the first in order has it (two services may name one external IP).
    claims: HashMap<Front, BTreeSet<Key>>,
    owners: HashMap<Ipv4Addr, usize>,
}

impl Table {
    /// The rules in force.
    pub fn rules(&self) -> &BTreeMap<Key, ServiceRules> {
        &self.rules
    }

    /// Makes a service's rules these, or none.
    pub fn set(&mut self, key: &Key, new: Option<ServiceRules>, delta: &mut Delta) {
        let old = self.rules.get(key).cloned();
        if old == new {
            return;
        }
        let old_fronts: BTreeSet<Front> = fronts(old.as_ref()).collect();
        let new_fronts: BTreeSet<Front> = fronts(new.as_ref()).collect();
        let touched: BTreeSet<Front> = old_fronts.union(&new_fronts).copied().collect();
        let before: Vec<_> = touched.iter().map(|f| (*f, self.state(f))).collect();

        for front in old_fronts.difference(&new_fronts) {
            if let Some(claims) = self.claims.get_mut(front) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(front);
                }
            }
        }
        for front in &new_fronts {
            self.claims.entry(*front).or_default().insert(key.clone());
        }
        self.set_addresses(old.as_ref(), new.as_ref(), delta);
        self.set_lists(key, old.as_ref(), new.as_ref(), delta);
        match new {
            Some(rules) => self.rules.insert(key.clone(), rules),
            None => self.rules.remove(key),
        };
        for (front, before) in before {
            let after = self.state(&front);
            self.change(&front, before, after, delta);
        }
    }

    fn set_addresses(&mut self, old: Option<&ServiceRules>, new: Option<&ServiceRules>, delta: &mut Delta) {
        let name = sets::SERVICE_ADDRESSES;
        for a in new.into_iter().flat_map(|r| &r.addresses) {
            let count = self.owners.entry(*a).or_default();
            *count += 1;
            if *count == 1 {
                delta.set(name, a.octets().to_vec(), None, Some(Value::None));
            }
        }
        for a in old.into_iter().flat_map(|r| &r.addresses) {
            if let Some(count) = self.owners.get_mut(a) {
                *count -= 1;
                if *count == 0 {
                    self.owners.remove(a);
                    delta.set(name, a.octets().to_vec(), Some(Value::None), None);
                }
            }
        }
    }

    fn set_lists(
        &mut self,
        key: &Key,
        old: Option<&ServiceRules>,
        new: Option<&ServiceRules>,
        delta: &mut Delta,
    ) {
        let ports: BTreeSet<_> = [old, new].into_iter().flatten().flat_map(|r| r.ports.keys()).collect();
        let was_sticky = old.is_some_and(|r| r.affinity.is_some());
        let sticky = new.is_some_and(|r| r.affinity.is_some());
        for port in ports {
            let list_key = (key.clone(), port.0.clone(), port.1);
            let wanted = new.and_then(|r| r.ports.get(port));
            let mut list = self.lists.remove(&list_key).unwrap_or_else(|| List {
                id: self.free_lists.pop().unwrap_or_else(|| {
                    self.next_list += 1;
                    self.next_list
                }),
                ..List::default()
            });
            let empty = BTreeSet::new();
            let before: BTreeSet<Backend> = list.cluster.iter().chain(&list.local).copied().collect();
            let id = list.id;
            let flags = (was_sticky, sticky);
            fill(id, 0, &mut list.cluster, wanted.map_or(&empty, |w| &w.cluster), flags, delta);
            fill(id, LOCAL, &mut list.local, wanted.map_or(&empty, |w| &w.local), flags, delta);
            if port.1 == Protocol::Udp {
                let after: BTreeSet<Backend> = list.cluster.iter().chain(&list.local).copied().collect();
                let fronts = [old, new].into_iter().flatten().filter_map(|r| r.ports.get(port));
                let fronts: BTreeSet<Front> = fronts.flat_map(|p| p.fronts.keys().copied()).collect();
                delta.flows.extend(stale_flows(&fronts, &before, &after));
            }
            if wanted.is_some() {
                self.lists.insert(list_key, list);
            } else {
                self.free_lists.push(id);
            }
        }
    }

    /// What the owner of a front wants of it: whose list, which plan, and the guard.
    fn state(&mut self, front: &Front) -> FrontState {
        let Some(owner) = self.claims.get(front).and_then(|c| c.first()) else {
            return FrontState::default();
        };
        let Some(rules) = self.rules.get(owner) else { return FrontState::default() };
        let Some((port, p)) = rules.ports.iter().find(|(_, p)| p.fronts.contains_key(front)) else {
            return FrontState::default();
        };
        let policy = p.fronts[front];
        let guard = p.guards.get(front).cloned();
        let Some(list) = self.lists.get(&(owner.clone(), port.0.clone(), port.1)) else {
            return FrontState::default();
        };
        if p.cluster.is_empty() && p.local.is_empty() {
            return FrontState { target: Some(None), guard };
        }
        let plan = Plan {
            policy,
            cluster: if policy == Policy::Local { 0 } else { p.cluster.len() as u32 },
            local: if policy == Policy::Cluster { 0 } else { p.local.len() as u32 },
            affinity: rules.affinity,
            node_port: front.address.is_none(),
        };
        FrontState { target: Some(Some((list.id, plan))), guard }
    }

    fn change(&mut self, front: &Front, before: FrontState, after: FrontState, delta: &mut Delta) {
        let key = front_key(front);
        let value = |table: &mut Self, state: &FrontState, delta: &mut Delta| match &state.target {
            Some(Some((list, plan))) => Some(Value::Bytes(table.entry(*list, *plan, delta))),
            _ => None,
        };
        let (was, is) = (value(self, &before, delta), value(self, &after, delta));
        delta.set(sets::SERVICES, key.clone(), was, is);
        let rejected = |state: &FrontState| (state.target == Some(None)).then_some(Value::None);
        delta.set(sets::NO_ENDPOINTS, key.clone(), rejected(&before), rejected(&after));
        let guarded = |state: &FrontState| state.guard.is_some().then_some(Value::None);
        delta.set(sets::GUARDED, key.clone(), guarded(&before), guarded(&after));
        let ranges = |state: &FrontState| aggregate(state.guard.as_deref().unwrap_or_default());
        let (was, is) = (ranges(&before), ranges(&after));
        for range in was.iter().chain(&is) {
            let member = |list: &[Ipv4Net]| list.contains(range).then_some(Value::None);
            let end = |a: Ipv4Addr| [key.as_slice(), &a.octets()].concat();
            let interval = (end(range.network()), Some(end(range.broadcast())));
            delta.set_interval(sets::ALLOWED, interval, member(&was), member(&is));
        }
    }

    fn entry(&mut self, list: u32, plan: Plan, delta: &mut Delta) -> Vec<u8> {
        let next = self.plans.len() as u32 + 1;
        let number = *self.plans.entry(plan).or_insert_with(|| {
            delta.plans.push((next, plan));
            next
        });
        let flags = if plan.policy == Policy::External { KEEP_SOURCE } else { 0 };
        [list, number, flags].iter().flat_map(|n| n.to_ne_bytes()).collect()
    }
}

/// `target`: `None` – not ours; `Some(None)` – reject; otherwise list and plan.
#[derive(Debug, Default, PartialEq)]
struct FrontState {
    target: Option<Option<(u32, Plan)>>,
    guard: Option<Vec<Ipv4Net>>,
}

fn fronts(rules: Option<&ServiceRules>) -> impl Iterator<Item = Front> {
    rules.into_iter().flat_map(|r| r.ports.values()).flat_map(|p| p.fronts.keys().copied())
}

/// Overlapping intervals are refused by the kernel.
fn aggregate(ranges: &[Ipv4Net]) -> Vec<Ipv4Net> {
    Ipv4Net::aggregate(&ranges.to_vec())
}

pub(super) fn front_key(front: &Front) -> Vec<u8> {
    address_key(front.address.unwrap_or(Ipv4Addr::UNSPECIFIED), front.protocol, front.port)
}

/// Brings a list of slots to the wanted backends with the fewest changed slots: who stays keeps his slot unless
/// the list gets shorter, then the last ones move into the gaps.
fn fill(
    id: u32,
    base: u32,
    slots: &mut Vec<Backend>,
    wanted: &BTreeSet<Backend>,
    (was_sticky, sticky): (bool, bool),
    delta: &mut Delta,
) {
    let old = slots.clone();
    let have: BTreeSet<Backend> = old.iter().copied().collect();
    let mut new = wanted.difference(&have).copied();
    let mut i = 0;
    while i < slots.len() {
        if wanted.contains(&slots[i]) {
            i += 1;
        } else if let Some(backend) = new.next() {
            slots[i] = backend;
            i += 1;
        } else {
            slots.swap_remove(i);
        }
    }
    slots.extend(new);
    for i in 0..old.len().max(slots.len()) {
        let (was, is) = (old.get(i), slots.get(i));
        if was != is {
            let slot = [id.to_ne_bytes(), (base + i as u32).to_ne_bytes()].concat();
            let value = |b: &Backend| Value::Bytes(backend_bytes(b));
            delta.set(sets::BACKENDS, slot, was.map(value), is.map(value));
        }
    }
    for backend in have.union(wanted) {
        let member = [&id.to_ne_bytes()[..], &base.to_ne_bytes(), &backend_bytes(backend)].concat();
        let is =
            |sticky: bool, set: &BTreeSet<Backend>| (sticky && set.contains(backend)).then_some(Value::None);
        let (was, is) = (is(was_sticky, &have), is(sticky, wanted));
        if was != is {
            delta.set(sets::MEMBERS, member, was, is);
        }
    }
}

fn backend_bytes((address, port): &Backend) -> Vec<u8> {
    let mut bytes = address.octets().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// UDP flows that would go on to a backend that is gone, or past one that has just come.
fn stale_flows(fronts: &BTreeSet<Front>, before: &BTreeSet<Backend>, after: &BTreeSet<Backend>) -> Vec<Flow> {
    let flow = |front: &Front, endpoint| Flow {
        protocol: front.protocol.number(),
        address: front.address,
        port: front.port,
        endpoint,
    };
    let mut flows = Vec::new();
    for front in fronts {
        // A node port's flows are only told apart from others by their endpoint.
        if before.is_empty() && !after.is_empty() && front.address.is_some() {
            flows.push(flow(front, None));
        }
        let gone: BTreeSet<Ipv4Addr> = before.difference(after).map(|b| b.0).collect();
        flows.extend(gone.into_iter().map(|address| flow(front, Some(address))));
    }
    flows
}
