//! Netlink in the few shapes this crate needs: requests built into one buffer, sent together, answered together.
//!
//! Three kernel subsystems are spoken to: rtnetlink ([`route`]), nf_tables ([`nft`]) and conntrack
//! ([`conntrack`]). No program is started and nothing is polled; a batch costs one `sendto` and one `recv` an
//! answer. One encoder serves all three because the rtnetlink crates know neither nftables nor batches.

pub mod conntrack;
pub mod expr;
pub mod nft;
pub mod route;
mod socket;

pub use socket::Socket;

pub(crate) const NLM_F_REQUEST: u16 = 0x01;
pub(crate) const NLM_F_ACK: u16 = 0x04;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

pub(crate) const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;

/// Netlink messages one after another in one buffer. Sequence numbers are given when they are sent.
#[derive(Default)]
pub struct Messages {
    pub(crate) bytes: Vec<u8>,
    /// Where each message starts.
    pub(crate) starts: Vec<usize>,
}

impl Messages {
    /// No messages yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Starts a message; `header` is the family's fixed part (`ifinfomsg`, `nfgenmsg`, …).
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) -> &mut Self {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(header);
        self.align();
        self.fix_length();
        self
    }

    /// Appends an attribute to the message under construction.
    pub(crate) fn attr(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&((4 + data.len()) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(data);
        self.align();
        self.fix_length();
        self
    }

    /// A zero-terminated string attribute.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut data = Vec::with_capacity(value.len() + 1);
        data.extend_from_slice(value.as_bytes());
        data.push(0);
        self.attr(kind, &data)
    }

    /// A 32-bit attribute in host order (rtnetlink).
    pub(crate) fn ne32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// A 32-bit attribute in network order (netfilter).
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// An attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        fill(self);
        let len = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.fix_length();
        self
    }

    /// Fixed data inside a nest, e.g. the `ifinfomsg` of a veth's peer.
    pub(crate) fn raw(&mut self, data: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(data);
        self.align();
        self
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }

    fn fix_length(&mut self) {
        if let Some(&start) = self.starts.last() {
            let len = (self.bytes.len() - start) as u32;
            self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        }
    }
}

/// Iterates over the attributes of a received message; stops at the first malformed one.
pub(crate) fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(data.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(data.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = data.get(4..len)?;
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_knows_its_length_and_pads_its_attributes() {
        let mut m = Messages::new();
        m.begin(16, NLM_F_ACK, &[0; 16]).text(3, "eth0").nest(18, |m| {
            m.text(1, "veth");
        });
        assert_eq!(m.bytes.len() % 4, 0);
        assert_eq!(u32::from_ne_bytes(m.bytes[..4].try_into().unwrap()) as usize, m.bytes.len());
        let found: Vec<_> = attributes(&m.bytes[HEADER + 16..]).collect();
        assert_eq!(found[0], (3, b"eth0\0".as_slice()));
        assert_eq!(attributes(found[1].1).next(), Some((1, b"veth\0".as_slice())));
    }

    #[test]
    fn malformed_attributes_end_the_iteration() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[4]).count(), 0);
    }
}
