//! Which endpoints go into which slice: few writes first, few slices second.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{Group, PER_SLICE};

/// A list of ports, whatever their order.
pub(super) type PortKey = Vec<(String, i32, String, Option<String>)>;

/// What is to become of the slices of a service.
#[derive(Default)]
pub(super) struct Changes {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

impl Changes {
    pub(super) fn extend(&mut self, other: Self) {
        self.create.extend(other.create);
        self.update.extend(other.update);
        self.delete.extend(other.delete);
    }
}

pub(super) fn port_key(ports: &[EndpointPort]) -> PortKey {
    let mut key: PortKey = ports
        .iter()
        .map(|p| {
            (
                p.name.clone().unwrap_or_default(),
                p.port.unwrap_or_default(),
                p.protocol.clone().unwrap_or_default(),
                p.app_protocol.clone(),
            )
        })
        .collect();
    key.sort();
    key
}

/// All slices of one address family: `wanted` by ports, `existing`, and what a group of slices with these ports has in
/// common.
pub(super) fn family<'a>(
    wanted: BTreeMap<PortKey, (Vec<EndpointPort>, Vec<Endpoint>)>,
    existing: Vec<Arc<EndpointSlice>>,
    group: impl Fn(Vec<EndpointPort>) -> Group<'a>,
) -> Changes {
    let count = existing.len();
    let mut by_ports: BTreeMap<PortKey, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_ports.entry(port_key(slice.ports.as_deref().unwrap_or_default())).or_default().push(slice);
    }
    let mut changes = Changes::default();
    for (key, (ports, endpoints)) in wanted {
        let here = by_ports.remove(&key).unwrap_or_default();
        changes.extend(ports_group(&group(ports), endpoints, here));
    }
    changes.delete.extend(by_ports.into_values().flatten());
    if changes.delete.len() == count && changes.create.is_empty() {
        placeholder(&group(Vec::new()), &mut changes);
    }
    reuse(&mut changes);
    changes
}

/// A service without pods has one slice without ports and endpoints, so that its consumers see that it is known.
fn placeholder(group: &Group<'_>, changes: &mut Changes) {
    let wanted = group.slice(Vec::new());
    let same = |slice: &EndpointSlice| {
        slice.endpoints.as_ref().is_none_or(Vec::is_empty)
            && slice.ports.as_ref().is_none_or(Vec::is_empty)
            && slice.metadata.labels == wanted.metadata.labels
    };
    match changes.delete.iter().position(|slice| same(slice)) {
        Some(kept) => {
            changes.delete.remove(kept);
        }
        None => changes.create.push(wanted),
    }
}

/// Turns a deletion and a creation into one update.
fn reuse(changes: &mut Changes) {
    while let (Some(old), Some(new)) = (changes.delete.last(), changes.create.last_mut()) {
        let mut slice = new.clone();
        let (wanted, found) = (std::mem::take(&mut slice.metadata), &old.metadata);
        slice.metadata = found.clone();
        slice.metadata.labels = wanted.labels;
        slice.metadata.annotations = wanted.annotations;
        slice.metadata.owner_references = wanted.owner_references;
        changes.update.push(slice);
        changes.delete.pop();
        changes.create.pop();
    }
}

/// What tells endpoints apart: the address and what it belongs to.
fn identity(endpoint: &Endpoint) -> (Vec<String>, Option<String>, Option<String>) {
    let of = endpoint.target_ref.as_ref();
    (endpoint.addresses.clone(), of.and_then(|t| t.namespace.clone()), of.and_then(|t| t.name.clone()))
}

/// The slices of one port list.
fn ports_group(group: &Group<'_>, endpoints: Vec<Endpoint>, existing: Vec<Arc<EndpointSlice>>) -> Changes {
    let mut changes = Changes::default();
    let mut order = Vec::new();
    let mut missing: HashMap<_, Endpoint> = HashMap::new();
    for endpoint in endpoints {
        let id = identity(&endpoint);
        if missing.insert(id.clone(), endpoint).is_none() {
            order.push(id);
        }
    }
    let mut changed: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    let mut unchanged: Vec<Arc<EndpointSlice>> = Vec::new();
    for slice in existing {
        let old = slice.endpoints.as_deref().unwrap_or_default();
        let kept: Vec<Endpoint> = old.iter().filter_map(|e| missing.remove(&identity(e))).collect();
        if kept.is_empty() {
            changes.delete.push(slice);
        } else if kept != old || slice.metadata.labels.as_ref() != Some(&group.labels) {
            changed.push((slice, kept));
        } else {
            unchanged.push(slice);
        }
    }
    let mut rest: Vec<Endpoint> = order.iter().filter_map(|id| missing.remove(id)).collect();
    rest.reverse();
    changed.sort_by_key(|(_, endpoints)| std::cmp::Reverse(endpoints.len()));
    for (_, endpoints) in &mut changed {
        let room = PER_SLICE.saturating_sub(endpoints.len()).min(rest.len());
        endpoints.extend(rest.split_off(rest.len() - room).into_iter().rev());
    }
    while !rest.is_empty() {
        let take = rest.len().min(PER_SLICE);
        let more: Vec<Endpoint> = rest.split_off(rest.len() - take).into_iter().rev().collect();
        match fullest_with_room(&unchanged, more.len()) {
            Some(at) => {
                let slice = unchanged.swap_remove(at);
                let mut endpoints = slice.endpoints.clone().unwrap_or_default();
                endpoints.extend(more);
                changed.push((slice, endpoints));
            }
            None => changes.create.push(group.slice(more)),
        }
    }
    changes.update.extend(changed.iter().map(|(slice, endpoints)| group.renewed(slice, endpoints.clone())));
    changes
}

/// The unchanged slice with the most endpoints that takes `more` of them.
fn fullest_with_room(slices: &[Arc<EndpointSlice>], more: usize) -> Option<usize> {
    let held = |slice: &EndpointSlice| slice.endpoints.as_ref().map_or(0, Vec::len);
    let fits = slices.iter().enumerate().filter(|(_, s)| held(s) + more <= PER_SLICE);
    fits.max_by_key(|(_, s)| held(s)).map(|(at, _)| at)
}
