//! Services: what a packet to a service address becomes.
//!
//! [`desired`] says what one Service needs on one node; [`table`] turns that into map elements and the
//! difference to what the kernel has; [`base`] is the fixed rule set those maps serve; [`Proxy`] sends the
//! difference. [`health`] answers for `healthCheckNodePort`. IPv4 only.

pub mod base;
pub mod desired;
pub mod health;
pub mod table;

use std::net::Ipv4Addr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use self::base::Ranges;
use self::desired::Place;
use self::table::{Delta, Table};
use crate::cluster::{Cluster, Key};
use crate::error::{Error, Result};
use crate::netlink::Socket;
use crate::netlink::nft::{self, Batch};

/// A transport protocol that services and host ports know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// From the API's name; `None` means TCP there. Unknown names give `None`.
    pub fn from_api(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// The nftables key `address . protocol . port`, each field padded to four bytes.
pub(crate) fn address_key(address: Ipv4Addr, protocol: Protocol, port: u16) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    let [hi, lo] = port.to_be_bytes();
    vec![a, b, c, d, protocol.number(), 0, 0, 0, hi, lo, 0, 0]
}

/// The services of one node, in the kernel.
///
/// [`Table`] is the canonical copy of what the kernel holds; should a transaction be refused, both are built
/// again from the cluster's state, so they cannot drift apart.
pub struct Proxy {
    place: Place,
    ranges: Ranges,
    table: Table,
    socket: Socket,
}

impl Proxy {
    /// Puts an empty table in place of an earlier one. Established connections go on.
    pub fn new(netns: Option<&Path>, place: Place, ranges: Ranges) -> Result<Self> {
        let mut socket = Socket::netfilter(netns)?;
        base::rebuild(&ranges, &place).apply(&mut socket)?;
        Ok(Self { place, ranges, table: Table::default(), socket })
    }

    /// Brings the named services up to date, in as few transactions as their size allows.
    pub fn update<'a>(&mut self, cluster: &Cluster, keys: impl IntoIterator<Item = &'a Key>) -> Result<()> {
        let keys: Vec<&Key> = keys.into_iter().collect();
        for chunk in keys.chunks(SERVICES_A_BATCH) {
            if let Err(first) = self.update_chunk(cluster, chunk) {
                tracing::warn!(error = %first, "services: a change was refused, building the table again");
                return self.rebuild(cluster);
            }
        }
        Ok(())
    }

    /// The node's zone has changed (it decides about topology hints).
    pub fn set_zone(&mut self, zone: Option<String>, cluster: &Cluster) -> Result<()> {
        if self.place.zone == zone {
            return Ok(());
        }
        self.place.zone = zone;
        self.update(cluster, cluster.services.keys())
    }

    /// Builds everything again.
    pub fn rebuild(&mut self, cluster: &Cluster) -> Result<()> {
        self.table = Table::default();
        base::rebuild(&self.ranges, &self.place).apply(&mut self.socket)?;
        let keys: Vec<&Key> = cluster.services.keys().collect();
        keys.chunks(SERVICES_A_BATCH).try_for_each(|chunk| self.update_chunk(cluster, chunk))
    }

    /// The rules in force.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Removes the table.
    pub fn cleanup(&mut self) -> Result<()> {
        self.table = Table::default();
        nft::remove_table(&mut self.socket, base::TABLE)
    }

    fn update_chunk(&mut self, cluster: &Cluster, keys: &[&Key]) -> Result<()> {
        let mut delta = Delta::default();
        for key in keys {
            self.table.set(key, desired::desired(cluster, key, &self.place), &mut delta);
        }
        let mut batch = Batch::new(base::TABLE);
        for (number, plan) in &delta.plans {
            base::add_plan(&mut batch, *number, plan, self.ranges.pods);
        }
        for (set, elements) in delta.removals() {
            batch.remove(set, &elements);
        }
        for (set, elements) in delta.additions() {
            batch.add(set, &elements);
        }
        batch.apply(&mut self.socket)?;
        // After the new way is in place, or the old flow would be made again at once.
        for flows in delta.flows.chunks(FLOWS_A_REQUEST) {
            if let Err(e) = self.socket.forget_flows(flows).map_err(Error::netlink("forget UDP flows")) {
                tracing::warn!(error = %e, "services: stale UDP flows stay until they time out (Linux 6.8 is needed)");
            }
        }
        Ok(())
    }
}

/// Bounds a transaction: the kernel holds a lock for its whole length.
const SERVICES_A_BATCH: usize = 500;
/// Bounds one request to connection tracking.
const FLOWS_A_REQUEST: usize = 1000;
