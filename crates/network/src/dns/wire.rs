//! The wire format, as far as the fast path reads and writes it (RFC 1035, RFC 6891).
//!
//! A question is read straight from the packet: its name is copied once, in lower case, into a fixed buffer.
//! Everything is bounded by the packet; compression pointers are not allowed in a question.

/// Record types.
pub mod kind {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const ANY: u16 = 255;
}

/// Response codes.
pub mod code {
    pub const NO_ERROR: u8 = 0;
    pub const FORMAT_ERROR: u8 = 1;
    pub const SERVER_FAILURE: u8 = 2;
    pub const NX_DOMAIN: u8 = 3;
    pub const NOT_IMPLEMENTED: u8 = 4;
    pub const REFUSED: u8 = 5;
    /// Extended: the upper bits go into OPT.
    pub const BAD_VERSION: u8 = 16;
}

const HEADER: usize = 12;
const NAME_LIMIT: usize = 255;
/// What we promise to take and to send over UDP (the DNS flag day figure: no fragments).
pub const UDP_PAYLOAD: u16 = 1232;

/// A name in wire form, lower case, with the root label.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Name(Box<[u8]>);

impl Name {
    /// From text such as `web.shop.svc.cluster.local`; `None` if a label is empty or too long.
    pub fn new(text: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.trim_end_matches('.').split('.').filter(|_| !text.trim_end_matches('.').is_empty())
        {
            if label.is_empty() || label.len() > 63 {
                return None;
            }
            wire.push(label.len() as u8);
            wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= NAME_LIMIT).then(|| Self(wire.into()))
    }

    /// From wire form that was checked by [`Question::parse`].
    pub fn from_wire(wire: &[u8]) -> Self {
        Self(wire.into())
    }

    /// `label.self`.
    pub fn child(&self, label: &str) -> Option<Self> {
        if label.is_empty() || label.len() > 63 || label.len() + 1 + self.0.len() > NAME_LIMIT {
            return None;
        }
        let mut wire = vec![label.len() as u8];
        wire.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
        wire.extend_from_slice(&self.0);
        Some(Self(wire.into()))
    }

    /// The bytes.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// The labels of a wire name with the offset of each; ends at the root.
pub fn labels(wire: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let len = usize::from(*wire.get(at)?);
        let label = wire.get(at + 1..at + 1 + len).filter(|l| !l.is_empty())?;
        let here = at;
        at += 1 + len;
        Some((here, label))
    })
}

/// A query, read from a packet.
pub struct Question<'a> {
    /// Header flags as sent.
    pub flags: u16,
    /// The question section as sent (case kept for the answer).
    pub raw: &'a [u8],
    name: [u8; NAME_LIMIT],
    len: usize,
    /// Record type asked for.
    pub kind: u16,
    /// Class asked for.
    pub class: u16,
    /// The client's UDP payload size and EDNS version, if it speaks EDNS.
    pub edns: Option<(u16, u8)>,
    /// Query id.
    pub id: u16,
}

impl<'a> Question<'a> {
    /// Reads a query. The error is the response code to send, or `None` if the packet deserves no answer (too
    /// short, or itself a response: answering those makes loops).
    pub fn parse(packet: &'a [u8]) -> Result<Self, Option<u8>> {
        let word = |at: usize| packet.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        let (Some(id), Some(flags), true) = (word(0), word(2), packet.len() >= HEADER) else {
            return Err(None);
        };
        if flags & 0x8000 != 0 {
            return Err(None);
        }
        if flags & 0x7800 != 0 {
            return Err(Some(code::NOT_IMPLEMENTED));
        }
        if word(4) != Some(1) {
            return Err(Some(code::FORMAT_ERROR));
        }
        let mut q =
            Self { flags, raw: &[], name: [0; NAME_LIMIT], len: 0, kind: 0, class: 0, edns: None, id };
        let bad = Some(code::FORMAT_ERROR);
        let mut at = HEADER;
        loop {
            let len = usize::from(*packet.get(at).ok_or(bad)?);
            if len > 63 || q.len + 1 + len > NAME_LIMIT - usize::from(len > 0) {
                return Err(bad);
            }
            let label = packet.get(at..at + 1 + len).ok_or(bad)?;
            for (to, from) in q.name[q.len..].iter_mut().zip(label) {
                *to = from.to_ascii_lowercase();
            }
            q.len += 1 + len;
            at += 1 + len;
            if len == 0 {
                break;
            }
        }
        q.kind = word(at).ok_or(bad)?;
        q.class = word(at + 2).ok_or(bad)?;
        at += 4;
        q.raw = &packet[HEADER..at];
        // OPT is the only additional record that clients send, and nothing may come before it in a query.
        let (answers, authorities, additionals) = (word(6), word(8), word(10));
        if answers == Some(0) && authorities == Some(0) && additionals != Some(0) {
            let opt = packet.get(at..at + 11);
            if let Some(opt) = opt.filter(|o| o[0] == 0 && u16::from_be_bytes([o[1], o[2]]) == kind::OPT) {
                q.edns = Some((u16::from_be_bytes([opt[3], opt[4]]), opt[6]));
            }
        }
        Ok(q)
    }

    /// The name asked for, in lower case wire form.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.len]
    }

    /// How long an answer over UDP may be.
    pub fn udp_limit(&self) -> usize {
        usize::from(self.edns.map_or(512, |(size, _)| size.clamp(512, UDP_PAYLOAD)))
    }
}

/// Writes answers into a reused buffer.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    counts: [u16; 3],
    opt: Option<u8>,
    limit: usize,
    question_end: usize,
}

impl<'a> Reply<'a> {
    /// Starts the answer to a question: `authoritative` for what the cluster knows.
    pub fn new(out: &'a mut Vec<u8>, q: &Question<'_>, rcode: u8, authoritative: bool, limit: usize) -> Self {
        out.clear();
        // QR, RD as asked, RA.
        let flags =
            0x8080 | (q.flags & 0x0100) | if authoritative { 0x0400 } else { 0 } | u16::from(rcode & 15);
        out.extend(q.id.to_be_bytes());
        out.extend(flags.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(q.raw);
        let question_end = out.len();
        Self { out, counts: [0; 3], opt: q.edns.map(|_| rcode >> 4), limit, question_end }
    }

    /// Records that were encoded with their owner as a pointer to the question.
    pub fn answers(&mut self, count: u16, bytes: &[u8]) {
        self.counts[0] += count;
        self.out.extend_from_slice(bytes);
    }

    /// As [`Reply::answers`] for records of equal size, beginning with another one each time: clients that take
    /// the first address spread over all.
    pub fn answers_rotated(&mut self, count: u16, bytes: &[u8], turn: usize) {
        let size = bytes.len() / usize::from(count.max(1));
        let (tail, head) = bytes.split_at(size * (turn % usize::from(count.max(1))));
        self.counts[0] += count;
        self.out.extend_from_slice(head);
        self.out.extend_from_slice(tail);
    }

    /// A record of the authority section.
    pub fn authority(&mut self, bytes: &[u8]) {
        self.counts[1] += 1;
        self.out.extend_from_slice(bytes);
    }

    /// Ends the answer: OPT if the client speaks EDNS; cut to nothing but the TC bit if it is too long.
    pub fn finish(mut self) {
        let opt = if self.opt.is_some() { 11 } else { 0 };
        if self.out.len() + opt > self.limit {
            self.out.truncate(self.question_end);
            self.counts = [0; 3];
            self.out[2] |= 0x02;
        }
        if let Some(high) = self.opt {
            let [a, b] = UDP_PAYLOAD.to_be_bytes();
            self.out.extend([0, 0, kind::OPT as u8, a, b, high, 0, 0, 0, 0, 0]);
            self.counts[2] += 1;
        }
        for (i, count) in self.counts.iter().enumerate() {
            self.out[6 + 2 * i..8 + 2 * i].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// Appends a record; `owner` is wire form or a compression pointer.
pub fn record(out: &mut Vec<u8>, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) {
    out.extend_from_slice(owner);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    out.extend(ttl.to_be_bytes());
    out.extend((data.len() as u16).to_be_bytes());
    out.extend_from_slice(data);
}

/// A compression pointer to the question's name.
pub const ASKED: [u8; 2] = [0xc0, HEADER as u8];

/// The shortest possible error reply to a packet whose question could not be read.
pub fn error_reply(out: &mut Vec<u8>, packet: &[u8], rcode: u8) {
    out.clear();
    out.extend_from_slice(packet.get(..2).unwrap_or(&[0, 0]));
    out.extend([0x80 | (packet.get(2).copied().unwrap_or(0) & 0x79), 0x80 | (rcode & 15)]);
    out.extend([0; 8]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_bounded() {
        assert!(Name::new(&"a".repeat(64)).is_none());
        assert!(Name::new(&["abcdefgh"; 40].join(".")).is_none());
        assert!(Name::new("a..b").is_none());
        assert_eq!(Name::new("").unwrap().wire(), [0]);
        assert_eq!(Name::new("Ab.c.").unwrap().wire(), b"\x02ab\x01c\0");
    }

    proptest! {
        #[test]
        fn hostile_packets_are_survived(packet in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(q) = Question::parse(&packet) {
                let mut out = Vec::new();
                Reply::new(&mut out, &q, 0, true, 512).finish();
                prop_assert!(q.name().len() <= 255);
            }
        }

        #[test]
        fn hostile_names_are_survived(tail in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            packet.extend(tail);
            if let Ok(q) = Question::parse(&packet) {
                let total: usize = labels(q.name()).map(|(_, l)| l.len() + 1).sum();
                prop_assert_eq!(total + 1, q.name().len());
            }
        }
    }
}
