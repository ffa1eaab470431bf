//! The network of a node: pods, services, cluster DNS, the routes between nodes.
//!
//! Everything happens in the kernel's own tables, set by netlink in small deltas computed from state kept in
//! memory; no program is started, nothing is listed on the hot path, nothing polls.
//!
//! This crate must never touch nftables tables, links or routes that are not its own (tables `plimsoll-*`,
//! links `plv*`/`pln*`, routes with protocol 112).
//!
//! In reading order: [`netns`] (being in another network namespace), [`netlink`] (talking to the kernel),
//! [`pods`] (addresses and cables for sandboxes), [`nodes`] (routes between nodes), [`topology`] (several nodes
//! on one machine), [`cluster`] (what is known of Services and endpoints), [`services`] (ClusterIP, NodePort,
//! LoadBalancer), [`loadbalancer`] (addresses from a pool), [`dns`] (the cluster's names), [`watch`] (the API
//! drives all of it).

pub mod cluster;
pub mod dns;
pub mod error;
pub mod loadbalancer;
pub mod netlink;
pub mod netns;
pub mod nodes;
pub mod pods;
pub mod services;
pub mod topology;
pub mod watch;

pub use error::{Error, Result};
pub use pods::{PodNet, PortMapping};
pub use services::Protocol;
