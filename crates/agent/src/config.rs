//! What an agent is told when it starts.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{NodeAddress, Taint};

use crate::{cri, machine::Policy};

/// The settings of an agent.
#[derive(Clone)]
pub struct Config {
    /// Name of the Node object.
    pub node_name: String,
    /// The API server.
    pub client: kube::Client,
    /// CRI's runtime service.
    pub runtime: cri::Runtime,
    /// CRI's image service.
    pub images: cri::Images,
    /// Where volumes and pod files live: `pods/UID/…`.
    pub root: PathBuf,
    /// Where container logs live, usually `/var/log/pods`.
    pub log_root: PathBuf,
    /// The cgroup under which QoS and pod cgroups are made, such as `/plimsoll/node-1`.
    pub cgroup_parent: String,
    /// Addresses of the node, `InternalIP` first.
    pub addresses: Vec<NodeAddress>,
    /// Address of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster, `cluster.local`.
    pub cluster_domain: String,
    /// The resolver configuration of the host, from which pods with `dnsPolicy: Default` get theirs.
    pub resolv_conf: PathBuf,
    /// Labels at registration.
    pub labels: BTreeMap<String, String>,
    /// Taints at registration.
    pub taints: Vec<Taint>,
    /// Takes the place of what is measured: resource name to amount (milli-CPU, bytes, counts).
    pub capacity: BTreeMap<String, i64>,
    /// Kept for the system, taken from capacity to get allocatable.
    pub reserved: BTreeMap<String, i64>,
    /// Range of the node's pods, if it is known beforehand; otherwise a controller gives the node one.
    pub pod_cidr: Option<String>,
    /// Pods at most, 110 upstream.
    pub max_pods: i64,
    /// Waits between attempts.
    pub policy: Policy,
    /// The kubelet's HTTPS API; `None` serves none.
    pub server: Option<ServerConfig>,
}

/// The kubelet's HTTPS API.
#[derive(Clone)]
pub struct ServerConfig {
    /// Where it listens: bound by the owner, who knows the node's network namespace.
    pub listener: Arc<std::net::TcpListener>,
    /// The server's certificate, and the authority its clients may come from.
    pub tls: Arc<rustls::ServerConfig>,
}

impl Config {
    /// The node's own address: the first `InternalIP`.
    pub fn host_ip(&self) -> String {
        let internal = self.addresses.iter().find(|a| a.type_ == "InternalIP");
        internal.map(|a| a.address.clone()).unwrap_or_default()
    }

    /// The directory of a pod's files.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// The directory of a pod's logs: `NAMESPACE_NAME_UID`.
    pub fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.log_root.join(format!("{namespace}_{name}_{uid}"))
    }
}
