//! What everything on a node shares.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::{
    bundles::TrustBundles, events::Events, objects::Cache, probes::dial::Dialer, registry::Registry,
    services::Services,
};
use crate::{config::Config, environment::Facts, names};

/// What everything on a node shares.
pub(crate) struct Context {
    pub config: Config,
    pub events: Events,
    pub registry: Arc<Registry>,
    pub config_maps: Arc<Cache<ConfigMap>>,
    pub secrets: Arc<Cache<Secret>>,
    pub trust_bundles: TrustBundles,
    pub services: Arc<Services>,
    /// The Node object, once it is there.
    pub node: watch::Receiver<Option<Arc<Node>>>,
    /// What containers without limits may use: milli-CPU, bytes.
    pub allocatable: RwLock<BTreeMap<String, i64>>,
    /// Held while it is decided whether there is room for something, until that is counted.
    pub room: Mutex<()>,
    /// Changes when room may have been made: a pod has ended, or needs less.
    pub freed: watch::Sender<u64>,
    /// The node's memory in bytes.
    pub memory: i64,
    /// Told when disk may have filled: an image came, a container ended.
    pub disk: Notify,
    /// Told when the node has something to report: other images, a network that may be ready now.
    pub news: Notify,
    /// Makes connections to pods.
    pub dialer: Dialer,
}

impl Context {
    /// Addresses of the node for `status.hostIPs`: the InternalIPs.
    pub(crate) fn host_ips(&self) -> Vec<String> {
        let internal = self.config.addresses.iter().filter(|a| a.type_ == "InternalIP");
        internal.map(|a| a.address.clone()).filter(|a| a.parse::<IpAddr>().is_ok()).collect()
    }

    /// Facts for the downward API.
    pub(crate) fn facts<'a>(
        &'a self,
        host_ip: &'a str,
        pod_ips: &'a [String],
        allocatable: &'a BTreeMap<String, i64>,
    ) -> Facts<'a> {
        Facts { node_name: &self.config.node_name, host_ip, pod_ips, allocatable }
    }

    /// The resolver configuration of the host, as it is now.
    pub(crate) fn host_dns(&self) -> cri::DnsConfig {
        let text = std::fs::read_to_string(&self.config.resolv_conf).unwrap_or_default();
        names::parse_resolv_conf(&text)
    }

    /// Says that there may be more room for pods.
    pub(crate) fn room_made(&self) {
        self.freed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Says that disk may have filled.
    pub(crate) fn disk_changed(&self) {
        self.disk.notify_one();
    }
}
