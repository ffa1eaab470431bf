//! Services: what a packet to a service address becomes.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

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
