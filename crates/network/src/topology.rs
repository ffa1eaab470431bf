//! Several nodes on one machine: a network namespace each, on a bridge of the host.
//!
//! ```text
//! host: bridge pln<tag> 10.89.0.1 ── veth ── plim-<tag>-0: eth0 10.89.0.2
//!                                 └─ veth ── plim-<tag>-1: eth0 10.89.0.3
//! ```
//!
//! Everything carries the lab's tag, so that [`Lab::up`] can first remove what a crash left behind.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;

use crate::error::{Error, Result};
use crate::netlink::expr::Expr;
use crate::netlink::nft::{self, Batch, Hook, priority};
use crate::netlink::route::{Mac, Route};
use crate::netlink::{Messages, Socket};
use crate::netns;

/// What a lab is made from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Up to six letters or digits that tell this lab from others on the machine.
    pub tag: String,
    /// How many nodes.
    pub nodes: usize,
    /// The network between host and nodes; the host gets its first address.
    pub network: Ipv4Net,
}

/// One node of a lab.
#[derive(Debug, Clone)]
pub struct LabNode {
    /// The name of its network namespace (`ip netns exec NAME …`).
    pub name: String,
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// Its address: the Node's InternalIP.
    pub address: Ipv4Addr,
}

/// A running lab. Dropping it leaves it up (pods outlive a restart of the program); [`Lab::down`] removes it.
#[derive(Debug)]
pub struct Lab {
    config: Config,
    /// The host's address on the bridge, the nodes' default gateway.
    pub host: Ipv4Addr,
    /// The nodes, in order.
    pub nodes: Vec<LabNode>,
}

impl Lab {
    /// Builds a lab. A lab of the same tag and shape that is whole is taken over as it is, with whatever runs in
    /// it; a broken or different one is removed first.
    pub fn up(config: Config) -> Result<Self> {
        let lab = Self::plan(config)?;
        if lab.is_whole()? {
            return Ok(lab);
        }
        lab.down()?;
        match lab.build() {
            Ok(()) => Ok(lab),
            Err(e) => {
                // The first error is the one that tells; the next up() removes what is still there.
                let _ = lab.down();
                Err(e)
            }
        }
    }

    /// The lab's names and addresses, without touching anything.
    pub fn plan(config: Config) -> Result<Self> {
        let Config { tag, nodes, network } = &config;
        if tag.is_empty() || tag.len() > 6 || !tag.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Error::Config(format!("lab tag {tag:?}: one to six letters or digits")));
        }
        let mut hosts = network.hosts();
        let host = hosts.next();
        let addresses: Vec<Ipv4Addr> = hosts.take(*nodes).collect();
        let (Some(host), true) = (host, addresses.len() == *nodes && *nodes > 0) else {
            return Err(Error::Config(format!(
                "network {network} is too small for {nodes} nodes and the host"
            )));
        };
        let node = |(i, address)| {
            let name = format!("plim-{tag}-{i}");
            LabNode { netns: Path::new(netns::RUN_DIR).join(&name), name, address }
        };
        let nodes = addresses.into_iter().enumerate().map(node).collect();
        Ok(Self { config, host, nodes })
    }

    /// Removes everything of this lab's tag; nothing being there is fine.
    pub fn down(&self) -> Result<()> {
        let mut route = Socket::route(None)?;
        let links = route.links().map_err(Error::netlink("list links"))?;
        let ports = self.port_prefix();
        for (name, _) in links.iter().filter(|(n, _)| *n == self.bridge() || n.starts_with(&ports)) {
            let mut m = Messages::new();
            m.delete_link(name);
            match route.request(m) {
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => {}
                done => done.map_err(Error::netlink(format!("remove {name}")))?,
            }
        }
        let prefix = format!("plim-{}-", self.config.tag);
        if let Ok(entries) = std::fs::read_dir(netns::RUN_DIR) {
            for name in entries.flatten().filter_map(|e| e.file_name().into_string().ok()) {
                if name.starts_with(&prefix) {
                    netns::remove(&name)?;
                }
            }
        }
        nft::remove_table(&mut Socket::netfilter(None)?, &self.table())
    }

    fn is_whole(&self) -> Result<bool> {
        let mut route = Socket::route(None)?;
        let links = route.links().map_err(Error::netlink("list links"))?;
        let has = |name: &str| links.iter().any(|(n, _)| n == name);
        let ports = links.iter().filter(|(n, _)| n.starts_with(&self.port_prefix())).count();
        if !has(&self.bridge()) || ports != self.nodes.len() {
            return Ok(false);
        }
        for (i, node) in self.nodes.iter().enumerate() {
            if !has(&self.port(i)) || !node.has_address()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn build(&self) -> Result<()> {
        let mut route = Socket::route(None)?;
        let bridge = self.bridge();
        let mut m = Messages::new();
        m.bridge(&bridge);
        route.request(m).map_err(Error::netlink(format!("create bridge {bridge}")))?;
        let bridge_index = index(&mut route, &bridge)?;
        let prefix = self.config.network.prefix_len();
        let mut m = Messages::new();
        m.no_link_local(bridge_index);
        m.address(bridge_index, Ipv4Net::new_assert(self.host, prefix));
        m.up(bridge_index);
        route.request(m).map_err(Error::netlink(format!("set up bridge {bridge}")))?;
        netns::sysctl("ipv4/ip_forward", "1")?;

        for (i, node) in self.nodes.iter().enumerate() {
            let path = netns::create(&node.name)?;
            let ns = std::fs::File::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
            let port = self.port(i);
            let mut m = Messages::new();
            let (near, far) = (mac(0, node.address), mac(1, node.address));
            m.veth(&port, near, "eth0", far, Some(std::os::fd::AsFd::as_fd(&ns)), 1500);
            route.request(m).map_err(Error::netlink(format!("create veth {port}")))?;
            let port_index = index(&mut route, &port)?;
            let mut m = Messages::new();
            m.no_link_local(port_index);
            m.enslave(port_index, bridge_index);
            m.up(port_index);
            route.request(m).map_err(Error::netlink(format!("set up {port}")))?;
            netns::within_file(&ns, || node.inside(prefix, self.host))??;
        }
        self.masquerade()
    }

    /// Nodes reach the outside with the host's address.
    fn masquerade(&self) -> Result<()> {
        use Expr::*;
        let network = self.config.network;
        let mut name = self.bridge().into_bytes();
        name.push(0);
        let mut b = Batch::new(&self.table());
        b.table().delete_table().table();
        b.base_chain("postrouting", "nat", Hook::Postrouting, priority::SRCNAT);
        b.rule(
            "postrouting",
            &[
                SourceAddress { to: 0 },
                Mask { register: 0, mask: network.netmask().octets().to_vec() },
                Equal { from: 0, bytes: network.network().octets().to_vec() },
                OutputName { to: 0 },
                NotEqual { from: 0, bytes: name },
                Masquerade,
            ],
        );
        b.apply(&mut Socket::netfilter(None)?)
    }

    fn bridge(&self) -> String {
        format!("pln{}", self.config.tag)
    }

    fn port_prefix(&self) -> String {
        format!("pln{}.", self.config.tag)
    }

    fn port(&self, i: usize) -> String {
        format!("{}{i}", self.port_prefix())
    }

    fn table(&self) -> String {
        format!("plimsoll-lab-{}", self.config.tag)
    }
}

impl LabNode {
    fn inside(&self, prefix: u8, gateway: Ipv4Addr) -> Result<()> {
        let mut route = Socket::route(None)?;
        let eth0 = index(&mut route, "eth0")?;
        let mut m = Messages::new();
        m.up(1);
        m.no_link_local(eth0);
        m.address(eth0, Ipv4Net::new_assert(self.address, prefix));
        m.up(eth0);
        m.route(&Route { to: Ipv4Net::default(), via: Some(gateway), link: Some(eth0), source: None });
        route.request(m).map_err(Error::netlink(format!("set up eth0 of {}", self.name)))?;
        netns::sysctl("ipv4/ip_forward", "1")
    }

    fn has_address(&self) -> Result<bool> {
        if !self.netns.exists() {
            return Ok(false);
        }
        let address = self.address;
        // A file left behind by a crash before the bind mount is no namespace.
        let bound = netns::within(Some(&self.netns), || std::net::UdpSocket::bind((address, 0)).is_ok());
        Ok(bound.unwrap_or(false))
    }
}

fn index(route: &mut Socket, link: &str) -> Result<u32> {
    route
        .link_index(link)
        .and_then(|i| i.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .map_err(Error::netlink(format!("look for {link}")))
}

/// A locally administered MAC that follows from the address.
fn mac(side: u8, address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x60 + side, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(tag: &str, nodes: usize, network: &str) -> Result<Lab> {
        Lab::plan(Config { tag: tag.into(), nodes, network: network.parse().unwrap() })
    }

    #[test]
    fn the_host_gets_the_first_address_and_the_nodes_the_next() {
        let lab = plan("a", 2, "10.89.0.0/24").unwrap();
        assert_eq!(lab.host, Ipv4Addr::new(10, 89, 0, 1));
        assert_eq!(lab.nodes[1].address, Ipv4Addr::new(10, 89, 0, 3));
        assert_eq!(lab.nodes[1].name, "plim-a-1");
    }

    #[test]
    fn a_lab_that_cannot_fit_is_refused_before_anything_is_made() {
        assert!(plan("a", 6, "10.89.0.0/29").is_err());
        assert!(plan("toolong", 1, "10.89.0.0/24").is_err());
        assert!(plan("a", 0, "10.89.0.0/24").is_err());
    }
}
