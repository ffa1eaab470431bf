//! The pod network of one node: an address and a cable for every sandbox.
//!
//! Each pod hangs on a veth pair of its own, made in place (the peer is born inside the pod's network
//! namespace: moving a device between namespaces costs an RCU barrier). The pod has a /32 and a default route
//! by the link-local gateway 169.254.1.1; the node has a /32 route to the pod. Both neighbours are permanent
//! entries, so no ARP is ever sent, no bridge is needed, and policy can name the interface. No IPv6 link-local
//! address is made, so there is no duplicate address detection to wait for.
//!
//! [`PodNet`] blocks, about a millisecond a call, and may be used from any thread.

mod leases;
mod pool;
mod table;

use std::collections::HashSet;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub use self::leases::{Lease, Leases};
pub use self::pool::{Pool, REST};
use crate::error::{Error, Result};
use crate::netlink::nft::Batch;
use crate::netlink::route::{Mac, Route};
use crate::netlink::{Messages, Socket};
use crate::netns;
use crate::services::Protocol;

/// Every interface of a pod on the node starts with this.
pub const LINK_PREFIX: &str = "plv";
/// The pods' default gateway. It is nobody's address: the pods know its MAC and never ask.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The MAC of every pod link on the node's side.
const NODE_MAC: Mac = [0xee; 6];

/// What a pod network needs to know of its node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Node's name, for messages.
    pub node: String,
    /// The range the node's pods get addresses from (`Node.spec.podCIDR`).
    pub pod_cidr: Ipv4Net,
    /// The range of all pods of the cluster: what leaves it is masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// The node's InternalIP: pods see it when the node itself connects (probes).
    pub node_address: Ipv4Addr,
    /// Where leases are kept over restarts.
    pub state_dir: PathBuf,
    /// The node's network namespace; `None`: the one of this process.
    pub netns: Option<PathBuf>,
    /// MTU of pod links: the underlay's, 1500 as a rule.
    pub mtu: u32,
}

/// A port of the node that leads to a pod (`containers[].ports[].hostPort`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Only on this address of the node; `None`: on all of them.
    pub host_ip: Option<Ipv4Addr>,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// The pod network of one node.
pub struct PodNet {
    config: Config,
    ipv6: bool,
    inner: Mutex<Inner>,
}

/// `leases` holds the canonical copy of what `pool` and the nft table hold: they change together.
struct Inner {
    leases: Leases,
    pool: Pool,
    route: Socket,
    nft: Socket,
}

impl PodNet {
    /// Sets the node up for pods: forwarding on, the nft table (rebuilt with the leases found in the state
    /// directory). Pods that run already are not disturbed: established connections do not pass NAT rules.
    ///
    /// Errors: no CAP_NET_ADMIN, a kernel without nftables NAT, a damaged state file.
    pub fn new(config: Config) -> Result<Self> {
        if config.pod_cidr.prefix_len() > 30 {
            return Err(Error::Config(format!("podCIDR {} is too small for a pod", config.pod_cidr)));
        }
        let ns = config.netns.as_deref();
        let ipv6 = netns::within(ns, || {
            netns::sysctl("ipv4/ip_forward", "1")?;
            Ok::<_, Error>(Path::new("/proc/sys/net/ipv6").exists())
        })??;
        let (route, mut nft) = (Socket::route(ns)?, Socket::netfilter(ns)?);
        let mut leases = Leases::load(&config.state_dir)?;
        let mut pool = Pool::new(config.pod_cidr, leases.cursor);
        // A lease outside the range is from another life of this node (its podCIDR changed).
        leases.sandboxes.retain(|_, lease| pool.reserve(lease.address));
        table::rebuild(config.pod_cidr, config.cluster_cidr, leases.sandboxes.values()).apply(&mut nft)?;
        Ok(Self { config, ipv6, inner: Mutex::new(Inner { leases, pool, route, nft }) })
    }

    /// Connects the sandbox whose network namespace is at `netns` and returns its addresses. Repeating it
    /// returns the same addresses and mends what is missing.
    ///
    /// On an error nothing is left behind.
    pub fn attach(&self, sandbox: &str, netns: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>> {
        let ns =
            File::open(netns).map_err(Error::io(format!("open network namespace {}", netns.display())))?;
        let mut inner = self.inner.lock();
        let link = link_name(sandbox);
        if let Some(lease) = inner.leases.sandboxes.get(sandbox) {
            let address = lease.address;
            let known = inner.route.link_index(&link).map_err(Error::netlink(format!("look for {link}")))?;
            if known.is_none() {
                self.connect(&mut inner.route, &link, &ns, address)?;
            }
            return Ok(vec![address.into()]);
        }
        let address = inner.pool.take(Instant::now()).ok_or(Error::PoolExhausted(self.config.pod_cidr))?;
        let lease = Lease { address, ports: ports.to_vec() };
        inner.leases.cursor = Some(inner.pool.cursor());
        inner.leases.sandboxes.insert(sandbox.to_owned(), lease.clone());
        let done =
            inner.leases.save().and_then(|()| self.connect(&mut inner.route, &link, &ns, address)).and_then(
                |()| {
                    let mut batch = Batch::new(table::TABLE);
                    table::add(&mut batch, &lease);
                    batch.apply(&mut inner.nft)
                },
            );
        if let Err(e) = done {
            // The first error is the one that tells; undoing is best effort and reconcile() finishes it.
            let _ = delete_link(&mut inner.route, &link);
            inner.leases.sandboxes.remove(sandbox);
            inner.pool.release(address, Instant::now());
            let _ = inner.leases.save();
            return Err(e);
        }
        Ok(vec![address.into()])
    }

    /// Disconnects a sandbox and gives its address and ports back. One that is not attached is fine; its
    /// network namespace may be gone already.
    pub fn detach(&self, sandbox: &str) -> Result<()> {
        let mut inner = self.inner.lock();
        delete_link(&mut inner.route, &link_name(sandbox))?;
        let Some(lease) = inner.leases.sandboxes.get(sandbox).cloned() else { return Ok(()) };
        let mut batch = Batch::new(table::TABLE);
        table::remove(&mut batch, &lease);
        batch.apply(&mut inner.nft)?;
        inner.leases.sandboxes.remove(sandbox);
        inner.pool.release(lease.address, Instant::now());
        inner.leases.save()
    }

    /// Gives back whatever does not belong to one of the `live` sandboxes. Returns how many leftovers it found.
    pub fn reconcile<'a>(&self, live: impl IntoIterator<Item = &'a str>) -> Result<usize> {
        let live: HashSet<&str> = live.into_iter().collect();
        let dead: Vec<String> = {
            let inner = self.inner.lock();
            inner.leases.sandboxes.keys().filter(|id| !live.contains(id.as_str())).cloned().collect()
        };
        for sandbox in &dead {
            self.detach(sandbox)?;
        }
        let mut inner = self.inner.lock();
        let kept: HashSet<String> = inner.leases.sandboxes.keys().map(|id| link_name(id)).collect();
        let links = inner.route.links().map_err(Error::netlink("list links"))?;
        let strays = links.iter().filter(|(name, _)| name.starts_with(LINK_PREFIX) && !kept.contains(name));
        let mut found = dead.len();
        for (name, _) in strays {
            delete_link(&mut inner.route, name)?;
            found += 1;
        }
        Ok(found)
    }

    /// The addresses of an attached sandbox.
    pub fn addresses(&self, sandbox: &str) -> Vec<IpAddr> {
        self.inner.lock().leases.sandboxes.get(sandbox).map(|l| l.address.into()).into_iter().collect()
    }

    /// Which sandbox has this address.
    pub fn sandbox_of(&self, address: Ipv4Addr) -> Option<String> {
        let inner = self.inner.lock();
        inner.leases.sandboxes.iter().find(|(_, l)| l.address == address).map(|(id, _)| id.clone())
    }

    /// Removes everything: links, leases, the nft table.
    pub fn cleanup(&self) -> Result<()> {
        self.reconcile([])?;
        crate::netlink::nft::remove_table(&mut self.inner.lock().nft, table::TABLE)
    }

    fn connect(&self, route: &mut Socket, link: &str, ns: &File, address: Ipv4Addr) -> Result<()> {
        let mtu = self.config.mtu;
        let host = |prefix| Ipv4Net::new_assert(address, prefix);
        let pod_mac = pod_mac(address);
        let mut m = Messages::new();
        m.veth(link, NODE_MAC, "eth0", pod_mac, Some(ns.as_fd()), mtu);
        route.request(m).map_err(Error::netlink(format!("create veth {link}")))?;
        netns::within_file(ns, || pod_side(address, self.ipv6))??;

        let index = route
            .link_index(link)
            .map_err(Error::netlink(format!("look for {link}")))?
            .ok_or_else(|| Error::netlink(format!("look for {link}"))(std::io::ErrorKind::NotFound.into()))?;
        let mut m = Messages::new();
        m.pod_link_settings(index, self.ipv6);
        m.up(index);
        m.neighbour(index, address, pod_mac);
        m.route(&Route {
            to: host(32),
            via: None,
            link: Some(index),
            source: Some(self.config.node_address),
        });
        route.request(m).map_err(Error::netlink(format!("set up {link} for {address}")))
    }
}

/// Runs inside the pod's network namespace.
fn pod_side(address: Ipv4Addr, ipv6: bool) -> Result<()> {
    const LOOPBACK: u32 = 1;
    let mut route = Socket::route(None)?;
    let index = route
        .link_index("eth0")
        .map_err(Error::netlink("look for the pod's eth0"))?
        .ok_or_else(|| Error::netlink("look for the pod's eth0")(std::io::ErrorKind::NotFound.into()))?;
    let mut m = Messages::new();
    m.up(LOOPBACK);
    if ipv6 {
        m.no_link_local(index);
    }
    m.address(index, Ipv4Net::new_assert(address, 32));
    m.up(index);
    m.neighbour(index, GATEWAY, NODE_MAC);
    let on_link = Route { to: Ipv4Net::new_assert(GATEWAY, 32), via: None, link: Some(index), source: None };
    m.route(&on_link);
    m.route(&Route { to: Ipv4Net::default(), via: Some(GATEWAY), link: Some(index), source: None });
    route.request(m).map_err(Error::netlink("set up the pod's eth0"))
}

fn delete_link(route: &mut Socket, link: &str) -> Result<()> {
    let mut m = Messages::new();
    m.delete_link(link);
    match route.request(m) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        done => done.map_err(Error::netlink(format!("remove {link}"))),
    }
}

/// Fifteen characters are all an interface name can have, so sandbox ids are hashed. FNV-1a, because the name
/// has to come out the same after an update of the program.
fn link_name(sandbox: &str) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in sandbox.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    format!("{LINK_PREFIX}{:012x}", hash >> 16)
}

/// A locally administered MAC that follows from the address.
fn pod_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_the_kernel_and_differ() {
        let a = link_name("9f8b3c");
        assert_eq!(a.len(), 15);
        assert_ne!(a, link_name("9f8b3d"));
        assert_eq!(a, link_name("9f8b3c"));
    }
}
