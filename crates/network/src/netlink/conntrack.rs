//! Forgetting connections: UDP flows to a service address whose endpoint is gone.
//!
//! A one-way UDP sender never lets its conntrack entry time out, so it would go on sending to a pod that no
//! longer exists. The kernel filters (`CTA_FILTER`, Linux 6.8); nothing is dumped to user space.

use std::io;
use std::net::Ipv4Addr;

use super::{Messages, NLM_F_ACK, Socket};

const CT_DELETE: u16 = (1 << 8) | 2;

/// Which connections to forget. What is `None` is not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Destination the client used.
    pub address: Option<Ipv4Addr>,
    /// Port the client used.
    pub port: u16,
    /// The endpoint that answers.
    pub endpoint: Option<Ipv4Addr>,
}

impl Socket {
    /// Forgets the given connections; that there are none is fine.
    pub(crate) fn forget_flows(&mut self, flows: &[Flow]) -> io::Result<()> {
        let mut m = Messages::new();
        for flow in flows {
            delete(&mut m, flow);
        }
        for answer in self.request_each(m)? {
            match answer {
                Err(e) if e.raw_os_error() != Some(libc::ENOENT) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

fn delete(m: &mut Messages, flow: &Flow) {
    // Bits of the kernel's `CTA_FILTER_F_*`: which fields of the tuples below count.
    const IP_SRC: u32 = 1 << 0;
    const IP_DST: u32 = 1 << 1;
    const PROTO_NUM: u32 = 1 << 3;
    const PROTO_DST_PORT: u32 = 1 << 5;
    let any = Ipv4Addr::UNSPECIFIED;
    let original = PROTO_NUM | PROTO_DST_PORT | if flow.address.is_some() { IP_DST } else { 0 };
    let reply = if flow.endpoint.is_some() { IP_SRC } else { 0 };
    m.begin(CT_DELETE, NLM_F_ACK, &[libc::AF_INET as u8, 0, 0, 0]);
    tuple(m, 1, any, flow.address.unwrap_or(any), flow.protocol, Some(flow.port));
    if let Some(endpoint) = flow.endpoint {
        tuple(m, 2, endpoint, any, flow.protocol, None);
    }
    m.nest(25, |m| {
        m.ne32(1, original).ne32(2, reply);
    });
}

fn tuple(m: &mut Messages, kind: u16, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, port: Option<u16>) {
    m.nest(kind, |m| {
        m.nest(1, |m| {
            m.attr(1, &from.octets()).attr(2, &to.octets());
        });
        m.nest(2, |m| {
            m.attr(1, &[protocol]);
            m.attr(2, &[0, 0]);
            m.attr(3, &port.unwrap_or_default().to_be_bytes());
        });
    });
}
