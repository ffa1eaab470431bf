//! The one watch of this crate: Services, EndpointSlices and Nodes, kept in memory, and what follows from them.
//!
//! [`run`] drives everything that depends on the API on one node: the service table, the DNS zone, the routes to
//! the other nodes, the health check ports. Changes that arrive together are applied together; nothing polls.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{FutureExt, Stream, StreamExt};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};

use crate::cluster::{Cluster, Key, object_key};
use crate::dns::Zone;
use crate::error::Result;
use crate::nodes::{self, Routes};
use crate::services::Proxy;
use crate::services::base::Ranges;
use crate::services::desired::Place;
use crate::services::health::HealthChecks;

/// Changes applied in one go at most, so that a flood of them does not delay the first for long.
const BURST: usize = 2000;

/// What the node's network needs to know.
#[derive(Clone)]
pub struct Config {
    /// The Node's name.
    pub node: String,
    /// The node's InternalIP.
    pub node_address: Ipv4Addr,
    /// The node's own pods.
    pub pod_cidr: Ipv4Net,
    /// All pods of the cluster.
    pub cluster_cidr: Ipv4Net,
    /// Service addresses.
    pub service_cidr: Ipv4Net,
    /// LoadBalancer addresses.
    pub load_balancer_cidr: Option<Ipv4Net>,
    /// The cluster DNS address, if this node answers it.
    pub dns: Option<Ipv4Addr>,
    /// The node's network namespace; `None`: the one of this process.
    pub netns: Option<PathBuf>,
}

/// Runs the API-driven part of a node's network until the returned future is dropped; then call [`cleanup`] if
/// the node is not to serve any more. `zone` is brought up to date too, if given (one node of a process is
/// enough: the zone is the same for all).
///
/// Errors: the kernel refuses the tables at the start. Later failures are logged and mended with the next change.
pub async fn run(client: Client, config: Config, zone: Option<Arc<Zone>>) -> Result<()> {
    let ns = config.netns.as_deref();
    let place = Place { node: config.node.clone(), zone: None, dns: config.dns };
    let services: Vec<Ipv4Net> =
        [Some(config.service_cidr), config.load_balancer_cidr].into_iter().flatten().collect();
    let ranges = Ranges {
        pods: config.pod_cidr,
        services: services.clone(),
        node_addresses: vec![config.node_address],
    };
    let mut routes = Routes::new(ns, &[&services[..], &[config.cluster_cidr]].concat())?;
    routes.answer_here(&services, config.node_address)?;
    let mut node = NodeNetwork {
        proxy: Proxy::new(ns, place, ranges)?,
        routes,
        health: HealthChecks::new(config.node_address, config.netns.clone()),
        cluster: Cluster::default(),
        nodes: HashMap::new(),
        own: config.node,
        zone,
        open: Open::default(),
    };

    let mut events = futures::stream::select_all([
        changes(watcher(Api::<Service>::all(client.clone()), watcher::Config::default()), Change::Service),
        changes(
            watcher(Api::<EndpointSlice>::all(client.clone()), watcher::Config::default()),
            Change::Slice,
        ),
        changes(watcher(Api::<Node>::all(client), watcher::Config::default()), Change::Node),
    ]);
    while let Some(first) = events.next().await {
        let mut dirty = Dirty::default();
        node.take(first, &mut dirty);
        for _ in 0..BURST {
            match events.next().now_or_never() {
                Some(Some(change)) => node.take(change, &mut dirty),
                _ => break,
            }
        }
        node.apply(dirty);
    }
    Ok(())
}

/// Removes the service table, the routes and the DNS address of a node.
pub fn cleanup(config: &Config) -> Result<()> {
    let ns = config.netns.as_deref();
    if let Some(dns) = config.dns {
        crate::dns::server::release(dns, ns)?;
    }
    let ranges: Vec<Ipv4Net> =
        [Some(config.service_cidr), config.load_balancer_cidr, Some(config.cluster_cidr)]
            .into_iter()
            .flatten()
            .collect();
    Routes::new(ns, &ranges)?.cleanup()?;
    let mut socket = crate::netlink::Socket::netfilter(ns)?;
    crate::netlink::nft::remove_table(&mut socket, crate::services::base::TABLE)
}

enum Change {
    Service(Box<Event<Service>>),
    Slice(Box<Event<EndpointSlice>>),
    Node(Box<Event<Node>>),
}

fn changes<K: 'static>(
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    wrap: fn(Box<Event<K>>) -> Change,
) -> futures::stream::BoxStream<'static, Change> {
    let log = |e: &watcher::Error| tracing::warn!(error = %e, "network: watch, trying again");
    let events = stream.inspect(move |e| {
        if let Err(e) = e {
            log(e);
        }
    });
    events
        .default_backoff()
        .filter_map(move |e| std::future::ready(e.ok().map(|e| wrap(Box::new(e)))))
        .boxed()
}

#[derive(Default)]
struct Dirty {
    services: BTreeSet<Key>,
    nodes: bool,
}

/// While a list is being sent (`Init` … `InitDone`): what it has named so far. The rest is gone.
#[derive(Default)]
struct Open {
    services: BTreeSet<Key>,
    slices: BTreeSet<Key>,
    nodes: BTreeSet<String>,
    listed: Listed,
}

/// Which first lists are complete. Nothing is programmed before: a half-known cluster would reject what works.
#[derive(Default, Clone, Copy, PartialEq)]
struct Listed {
    services: bool,
    slices: bool,
}

struct NodeNetwork {
    proxy: Proxy,
    routes: Routes,
    health: HealthChecks,
    cluster: Cluster,
    nodes: HashMap<String, Node>,
    own: String,
    zone: Option<Arc<Zone>>,
    open: Open,
}

impl NodeNetwork {
    fn take(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Service(event) => self.take_service(*event, dirty),
            Change::Slice(event) => self.take_slice(*event, dirty),
            Change::Node(event) => {
                let event = *event;
                dirty.nodes = true;
                self.take_node(event);
            }
        }
    }

    fn take_service(&mut self, event: Event<Service>, dirty: &mut Dirty) {
        match event {
            Event::Init => self.open.services.clear(),
            Event::InitApply(object) => {
                self.open.services.extend(object_key(&object.metadata));
                dirty.services.extend(self.cluster.put_service(&object));
            }
            Event::InitDone => {
                let gone = self.cluster.services.keys().filter(|k| !self.open.services.contains(*k));
                let gone: Vec<Key> = gone.cloned().collect();
                for key in gone {
                    self.cluster.remove_service(&key);
                    dirty.services.insert(key);
                }
                self.open.services.clear();
                self.listed(Listed { services: true, ..self.open.listed }, dirty);
            }
            Event::Apply(object) => dirty.services.extend(self.cluster.put_service(&object)),
            Event::Delete(object) => {
                if let Some(key) = object_key(&object.metadata) {
                    self.cluster.remove_service(&key);
                    dirty.services.insert(key);
                }
            }
        }
    }

    fn take_slice(&mut self, event: Event<EndpointSlice>, dirty: &mut Dirty) {
        match event {
            Event::Init => self.open.slices.clear(),
            Event::InitApply(object) => {
                self.open.slices.extend(object_key(&object.metadata));
                dirty.services.extend(self.cluster.put_slice(&object));
            }
            Event::InitDone => {
                for key in self.cluster.slices_but(&self.open.slices) {
                    dirty.services.extend(self.cluster.remove_slice(&key));
                }
                self.open.slices.clear();
                self.listed(Listed { slices: true, ..self.open.listed }, dirty);
            }
            Event::Apply(object) => dirty.services.extend(self.cluster.put_slice(&object)),
            Event::Delete(object) => {
                let key = object_key(&object.metadata);
                dirty.services.extend(key.and_then(|key| self.cluster.remove_slice(&key)));
            }
        }
    }

    fn take_node(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.open.nodes.clear(),
            Event::InitApply(object) => {
                self.open.nodes.extend(object.metadata.name.clone());
                self.put_node(object);
            }
            Event::InitDone => {
                let open = std::mem::take(&mut self.open.nodes);
                self.nodes.retain(|name, _| open.contains(name));
            }
            Event::Apply(object) => self.put_node(object),
            Event::Delete(object) => {
                self.nodes.remove(object.metadata.name.as_deref().unwrap_or_default());
            }
        }
    }

    fn put_node(&mut self, mut node: Node) {
        // A Node's images and managed fields are most of its size and of no use here.
        node.metadata.managed_fields = None;
        if let Some(status) = &mut node.status {
            status.images = None;
        }
        if let Some(name) = node.metadata.name.clone() {
            self.nodes.insert(name, node);
        }
    }

    fn listed(&mut self, now: Listed, dirty: &mut Dirty) {
        let complete = Listed { services: true, slices: true };
        if self.open.listed != complete && now == complete {
            dirty.services.extend(self.cluster.services.keys().cloned());
        }
        self.open.listed = now;
    }

    fn apply(&mut self, dirty: Dirty) {
        if dirty.nodes {
            let wanted = nodes::wanted(self.nodes.values(), Some(&self.own));
            if let Err(e) = self.routes.sync(&wanted) {
                tracing::error!(error = %e, "network: routes between nodes");
            }
            let own = self.nodes.get(&self.own).and_then(|n| n.metadata.labels.as_ref());
            let zone = own.and_then(|l| l.get("topology.kubernetes.io/zone")).cloned();
            if let Err(e) = self.proxy.set_zone(zone, &self.cluster) {
                tracing::error!(error = %e, "network: services after a change of zone");
            }
        }
        if dirty.services.is_empty() || self.open.listed != (Listed { services: true, slices: true }) {
            return;
        }
        if let Some(zone) = &self.zone {
            zone.update(&self.cluster, &dirty.services);
        }
        if let Err(e) = self.proxy.update(&self.cluster, &dirty.services) {
            tracing::error!(error = %e, "network: services");
        }
        self.health.update(self.proxy.table().rules());
    }
}
