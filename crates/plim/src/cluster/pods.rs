//! The network room as the runtime's pod network.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use async_trait::async_trait;
use network::{PodNet, PortMapping, Protocol, dns::server::NamespaceOf};
use parking_lot::RwLock;
use runtime::{PodNetwork, PodNetworkRequest};

/// Connects sandboxes, and remembers whose address is whose.
pub struct Pods {
    net: Arc<PodNet>,
    /// Namespace of the pod by sandbox; the addresses are [`PodNet`]'s.
    namespaces: RwLock<HashMap<String, Arc<str>>>,
}

impl Pods {
    /// Over the pod network of a node.
    pub fn new(net: PodNet) -> Arc<Self> {
        Arc::new(Self { net: Arc::new(net), namespaces: RwLock::default() })
    }

    /// Takes over sandboxes that were there before this process (id, namespace), and gives back what belongs to none.
    pub fn take_over(&self, sandboxes: &[(String, String)]) -> network::Result<usize> {
        let mut namespaces = self.namespaces.write();
        namespaces.extend(sandboxes.iter().map(|(id, namespace)| (id.clone(), namespace.as_str().into())));
        drop(namespaces);
        self.net.reconcile(sandboxes.iter().map(|(id, _)| id.as_str()))
    }

    /// Removes every link, lease and rule.
    pub fn cleanup(&self) -> network::Result<()> {
        self.net.cleanup()
    }

    /// For the DNS server: the namespace of the pod at an address.
    pub fn namespace_of(self: &Arc<Self>) -> NamespaceOf {
        let pods = Arc::clone(self);
        Arc::new(move |address: Ipv4Addr| {
            let sandbox = pods.net.sandbox_of(address)?;
            pods.namespaces.read().get(&sandbox).cloned()
        })
    }
}

fn mappings(ports: Vec<(u16, u16, String, Option<IpAddr>)>) -> Vec<PortMapping> {
    let one = |(host_port, container_port, protocol, host_ip): (u16, u16, String, Option<IpAddr>)| {
        let host_ip = match host_ip {
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => Some(ip),
            // Pods have IPv4 addresses only: a port on an IPv6 address leads nowhere.
            Some(IpAddr::V6(ip)) if !ip.is_unspecified() => return None,
            _ => None,
        };
        Some(PortMapping {
            host_ip,
            host_port,
            container_port,
            protocol: Protocol::from_api(Some(&protocol))?,
        })
    };
    ports.into_iter().filter_map(one).collect()
}

#[async_trait]
impl PodNetwork for Pods {
    async fn attach(&self, pod: PodNetworkRequest<'_>) -> io::Result<Vec<IpAddr>> {
        let net = Arc::clone(&self.net);
        let (sandbox, netns) = (pod.sandbox_id.to_owned(), pod.netns.to_owned());
        let ports = mappings(pod.ports);
        self.namespaces.write().insert(sandbox.clone(), pod.namespace.into());
        let attached = tokio::task::spawn_blocking(move || net.attach(&sandbox, &netns, &ports)).await;
        attached.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    async fn detach(&self, sandbox_id: &str) -> io::Result<()> {
        let net = Arc::clone(&self.net);
        self.namespaces.write().remove(sandbox_id);
        let sandbox = sandbox_id.to_owned();
        let detached = tokio::task::spawn_blocking(move || net.detach(&sandbox)).await;
        detached.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_on_all_addresses_names_none() {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let list = mappings(vec![
            (80, 8080, "TCP".to_owned(), Some(any)),
            (53, 53, "UDP".to_owned(), Some("127.0.0.1".parse().unwrap())),
            (81, 81, "TCP".to_owned(), Some("fd00::1".parse().unwrap())),
        ]);
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].host_ip, None);
        assert_eq!(list[1].host_ip, Some(Ipv4Addr::LOCALHOST));
    }
}
