//! Links, addresses, routes and neighbours (rtnetlink(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;

use super::{Messages, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Socket, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// The `rtm_protocol` that marks routes as ours, so that we only ever remove our own (the value is free in
/// iproute2's `rt_protos`).
pub const PROTOCOL: u8 = 112;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// A route: where to, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Destination.
    pub to: Ipv4Net,
    /// Next hop, if not on the link.
    pub via: Option<Ipv4Addr>,
    /// Interface index; may be left out with a next hop.
    pub link: Option<u32>,
    /// Source address for the host's own packets.
    pub source: Option<Ipv4Addr>,
}

impl Messages {
    /// A veth pair made in place: this end here, the other as `peer` in the namespace `peer_ns`. Both ends are
    /// down, so that their settings come before the first packet (and no IPv6 address is probed).
    pub(crate) fn veth(
        &mut self,
        name: &str,
        mac: Mac,
        peer: &str,
        peer_mac: Mac,
        peer_ns: Option<BorrowedFd<'_>>,
        mtu: u32,
    ) {
        self.begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .attr(IFLA_ADDRESS, &mac)
            .ne32(IFLA_MTU, mtu)
            .nest(IFLA_LINKINFO, |m| {
                m.attr(1, b"veth").nest(2, |m| {
                    m.nest(1, |m| {
                        m.raw(&ifinfo(0, 0, 0))
                            .text(IFLA_IFNAME, peer)
                            .attr(IFLA_ADDRESS, &peer_mac)
                            .ne32(IFLA_MTU, mtu);
                        if let Some(ns) = peer_ns {
                            m.ne32(IFLA_NET_NS_FD, ns.as_raw_fd() as u32);
                        }
                    });
                });
            });
    }

    /// A bridge.
    pub(crate) fn bridge(&mut self, name: &str) {
        self.begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &ifinfo(0, 0, 0))
            .text(IFLA_IFNAME, name)
            .nest(IFLA_LINKINFO, |m| {
                m.attr(1, b"bridge");
            });
    }

    /// Sets a link up.
    pub(crate) fn up(&mut self, link: u32) {
        let up = libc::IFF_UP as u32;
        self.begin(RTM_NEWLINK, NLM_F_ACK, &ifinfo(link, up, up));
    }

    /// Makes a link a port of a bridge.
    pub(crate) fn enslave(&mut self, link: u32, bridge: u32) {
        self.begin(RTM_NEWLINK, NLM_F_ACK, &ifinfo(link, 0, 0)).ne32(IFLA_MASTER, bridge);
    }

    /// Settings of a pod's host side: no IPv6 link-local address (hence no duplicate address detection), and
    /// packets from 127.0.0.1 may leave through it (a host port on the loopback address needs that; packets
    /// *to* 127.0.0.0/8 from a pod are dropped by the pod table).
    pub(crate) fn pod_link_settings(&mut self, link: u32, ipv6: bool) {
        const IFLA_INET_CONF: u16 = 1;
        const IPV4_DEVCONF_ROUTE_LOCALNET: u16 = 26;
        self.begin(RTM_NEWLINK, NLM_F_ACK, &ifinfo(link, 0, 0)).nest(IFLA_AF_SPEC, |m| {
            m.nest(libc::AF_INET as u16, |m| {
                m.nest(IFLA_INET_CONF, |m| {
                    m.ne32(IPV4_DEVCONF_ROUTE_LOCALNET, 1);
                });
            });
            if ipv6 {
                m.nest(libc::AF_INET6 as u16, |m| {
                    m.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
                });
            }
        });
    }

    /// No IPv6 link-local address on a link, hence no duplicate address detection.
    pub(crate) fn no_link_local(&mut self, link: u32) {
        self.begin(RTM_NEWLINK, NLM_F_ACK, &ifinfo(link, 0, 0)).nest(IFLA_AF_SPEC, |m| {
            m.nest(libc::AF_INET6 as u16, |m| {
                m.attr(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        });
    }

    /// Removes a link by name.
    pub(crate) fn delete_link(&mut self, name: &str) {
        self.begin(RTM_DELLINK, NLM_F_ACK, &ifinfo(0, 0, 0)).text(IFLA_IFNAME, name);
    }

    /// Gives a link an address; repeating it is fine.
    pub(crate) fn address(&mut self, link: u32, address: Ipv4Net) {
        self.begin(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &ifaddr(link, address))
            .attr(1, &address.addr().octets())
            .attr(2, &address.addr().octets());
    }

    /// Takes an address from a link.
    pub(crate) fn delete_address(&mut self, link: u32, address: Ipv4Net) {
        self.begin(RTM_DELADDR, NLM_F_ACK, &ifaddr(link, address)).attr(2, &address.addr().octets());
    }

    /// Adds or replaces a route.
    pub(crate) fn route(&mut self, route: &Route) {
        self.begin(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &rtmsg(route));
        self.route_attributes(route);
    }

    /// Removes a route of ours.
    pub(crate) fn delete_route(&mut self, route: &Route) {
        self.begin(RTM_DELROUTE, NLM_F_ACK, &rtmsg(route));
        self.route_attributes(route);
    }

    fn route_attributes(&mut self, route: &Route) {
        self.attr(1, &route.to.network().octets());
        if let Some(link) = route.link {
            self.ne32(4, link);
        }
        if let Some(via) = route.via {
            self.attr(5, &via.octets());
        }
        if let Some(source) = route.source {
            self.attr(7, &source.octets());
        }
    }

    /// A permanent neighbour: nobody needs to ask who has this address.
    pub(crate) fn neighbour(&mut self, link: u32, address: Ipv4Addr, mac: Mac) {
        let mut header = [0u8; 12];
        header[0] = libc::AF_INET as u8;
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&0x80u16.to_ne_bytes()); // NUD_PERMANENT
        self.begin(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &header)
            .attr(1, &address.octets())
            .attr(2, &mac);
    }
}

impl Socket {
    /// The index of a link, `None` if there is no such link.
    pub(crate) fn link_index(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut m = Messages::new();
        m.begin(RTM_GETLINK, NLM_F_ACK, &ifinfo(0, 0, 0)).text(IFLA_IFNAME, name);
        let mut index = None;
        match self.query(m, |_, body| index = index.or(u32_at(body, 4))) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
            Ok(()) => Ok(index),
        }
    }

    /// Every link's name and index.
    pub(crate) fn links(&mut self) -> io::Result<Vec<(String, u32)>> {
        let mut m = Messages::new();
        m.begin(RTM_GETLINK, NLM_F_DUMP, &ifinfo(0, 0, 0));
        let mut found = Vec::new();
        self.query(m, |_, body| {
            let name = attributes(body.get(16..).unwrap_or_default()).find(|(k, _)| *k == IFLA_IFNAME);
            if let (Some((_, name)), Some(index)) = (name, u32_at(body, 4)) {
                found.push((String::from_utf8_lossy(name).trim_end_matches('\0').to_owned(), index));
            }
        })?;
        Ok(found)
    }

    /// The IPv4 routes of the main table that carry our [`PROTOCOL`].
    pub(crate) fn own_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut m = Messages::new();
        let mut header = [0u8; 12];
        header[0] = libc::AF_INET as u8;
        m.begin(RTM_GETROUTE, NLM_F_DUMP, &header);
        let mut found = Vec::new();
        self.query(m, |kind, body| {
            if kind == RTM_NEWROUTE && body.get(5) == Some(&PROTOCOL) && body.get(4) == Some(&254) {
                found.extend(parse_route(body));
            }
        })?;
        Ok(found)
    }
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let mut route = Route { to: Ipv4Net::default(), via: None, link: None, source: None };
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let ip = |v: &[u8]| <[u8; 4]>::try_from(v).ok().map(Ipv4Addr::from);
    for (kind, value) in attributes(body.get(12..)?) {
        match kind {
            1 => destination = ip(value)?,
            4 => route.link = u32_at(value, 0),
            5 => route.via = ip(value),
            7 => route.source = ip(value),
            _ => {}
        }
    }
    route.to = Ipv4Net::new(destination, *body.get(1)?).ok()?;
    Some(route)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

fn ifinfo(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut h = [0u8; 16];
    h[4..8].copy_from_slice(&index.to_ne_bytes());
    h[8..12].copy_from_slice(&flags.to_ne_bytes());
    h[12..16].copy_from_slice(&change.to_ne_bytes());
    h
}

fn ifaddr(link: u32, address: Ipv4Net) -> [u8; 8] {
    let mut h = [0u8; 8];
    h[0] = libc::AF_INET as u8;
    h[1] = address.prefix_len();
    h[4..8].copy_from_slice(&link.to_ne_bytes());
    h
}

fn rtmsg(route: &Route) -> [u8; 12] {
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    const SCOPE_LINK: u8 = 253;
    let scope = if route.via.is_some() { 0 } else { SCOPE_LINK };
    [libc::AF_INET as u8, route.to.prefix_len(), 0, 0, MAIN, PROTOCOL, scope, UNICAST, 0, 0, 0, 0]
}
