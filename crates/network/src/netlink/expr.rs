//! Expressions of nf_tables rules, as the kernel knows them (`linux/netfilter/nf_tables.h`).
//!
//! Registers here are the sixteen 32-bit ones, numbered from 0; a concatenated key lies in consecutive ones.

use super::Messages;

const DROP: i32 = 0;
const ACCEPT: i32 = 1;
pub(crate) const GOTO: i32 = -4;
const REG32_00: u32 = 8;
const REG_VERDICT: u32 = 0;

/// `IPS_DST_NAT`: the connection's destination was translated.
pub const CT_STATUS_DNAT: u32 = 1 << 5;
/// `NF_CT_STATE_INVALID_BIT`.
pub const CT_STATE_INVALID: u32 = 1;
/// `RTN_LOCAL`: an address of this node.
pub const ADDRESS_LOCAL: u32 = 2;

/// One expression of a rule. `to` and `from` are registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// The packet's source address.
    SourceAddress { to: u32 },
    /// The packet's destination address.
    DestinationAddress { to: u32 },
    /// The transport protocol's number.
    Protocol { to: u32 },
    /// Source port (TCP, UDP and SCTP alike).
    SourcePort { to: u32 },
    /// Destination port (TCP, UDP and SCTP alike).
    DestinationPort { to: u32 },
    /// Index of the input interface's name, 16 bytes.
    InputName { to: u32 },
    /// Output interface's name, 16 bytes.
    OutputName { to: u32 },
    /// Connection tracking state bits.
    CtState { to: u32 },
    /// Connection tracking status bits.
    CtStatus { to: u32 },
    /// The destination before translation.
    CtOriginalAddress { to: u32 },
    /// The destination port before translation.
    CtOriginalPort { to: u32 },
    /// The kind of the source address (unicast, local, …).
    SourceKind { to: u32 },
    /// The kind of the destination address.
    DestinationKind { to: u32 },
    /// Constant bytes.
    Load { to: u32, bytes: Vec<u8> },
    /// A random number in `offset .. offset + modulus`, host order.
    Random { to: u32, modulus: u32, offset: u32 },
    /// Keeps the bits of `mask`.
    Mask { register: u32, mask: Vec<u8> },
    /// Goes on only if equal.
    Equal { from: u32, bytes: Vec<u8> },
    /// Goes on only if not equal.
    NotEqual { from: u32, bytes: Vec<u8> },
    /// Goes on only if in the set.
    In { set: &'static str, from: u32 },
    /// Goes on only if not in the set.
    NotIn { set: &'static str, from: u32 },
    /// Loads the map's value; goes on only if there is one.
    Map { map: &'static str, from: u32, to: u32 },
    /// Follows the verdict in the map, or goes on.
    VerdictMap { map: &'static str, from: u32 },
    /// Forgets an element (the kernel wants a data register for any map).
    Forget { map: &'static str, key: u32, data: u32 },
    /// Remembers (or refreshes) an element for so many milliseconds.
    Remember { map: &'static str, key: u32, data: u32, milliseconds: u64 },
    /// Destination translation to address and port.
    Dnat { address: u32, port: u32 },
    /// Source translation to the outgoing interface's address.
    Masquerade,
    /// ICMP port unreachable.
    Reject,
    /// A TCP reset, for TCP packets.
    Reset,
    /// Connection tracking off for this packet.
    NoTrack,
    /// Drop.
    Drop,
    /// Accept, in this chain.
    Accept,
    /// Go to a chain.
    Goto(String),
}

impl Expr {
    pub(crate) fn encode(&self, m: &mut Messages) {
        const NETWORK: u32 = 1;
        const TRANSPORT: u32 = 2;
        use Expr::*;
        match self {
            SourceAddress { to } => payload(m, NETWORK, 12, 4, *to),
            DestinationAddress { to } => payload(m, NETWORK, 16, 4, *to),
            SourcePort { to } => payload(m, TRANSPORT, 0, 2, *to),
            DestinationPort { to } => payload(m, TRANSPORT, 2, 2, *to),
            InputName { to } => keyed(m, "meta", 6, *to),
            OutputName { to } => keyed(m, "meta", 7, *to),
            Protocol { to } => keyed(m, "meta", 16, *to),
            CtState { to } => ct(m, 0, *to, false),
            CtStatus { to } => ct(m, 2, *to, false),
            CtOriginalAddress { to } => ct(m, 20, *to, true),
            CtOriginalPort { to } => ct(m, 12, *to, true),
            SourceKind { to } => fib(m, 1, *to),
            DestinationKind { to } => fib(m, 2, *to),
            Load { to, bytes } => expr(m, "immediate", |m| {
                m.be32(1, reg(*to)).nest(2, |m| {
                    m.attr(1, bytes);
                });
            }),
            Random { to, modulus, offset } => expr(m, "numgen", |m| {
                m.be32(1, reg(*to)).be32(2, *modulus).be32(3, 1).be32(4, *offset);
            }),
            Mask { register, mask } => expr(m, "bitwise", |m| {
                m.be32(1, reg(*register)).be32(2, reg(*register)).be32(3, mask.len() as u32);
                m.nest(4, |m| {
                    m.attr(1, mask);
                });
                m.nest(5, |m| {
                    m.attr(1, &vec![0; mask.len()]);
                });
            }),
            Equal { from, bytes } => compare(m, 0, *from, bytes),
            NotEqual { from, bytes } => compare(m, 1, *from, bytes),
            In { set, from } => lookup(m, set, *from, None, false),
            NotIn { set, from } => lookup(m, set, *from, None, true),
            Map { map, from, to } => lookup(m, map, *from, Some(reg(*to)), false),
            VerdictMap { map, from } => lookup(m, map, *from, Some(REG_VERDICT), false),
            Forget { map, key, data } => expr(m, "dynset", |m| {
                m.text(1, map).be32(3, 2).be32(4, reg(*key)).be32(5, reg(*data));
            }),
            Remember { map, key, data, milliseconds } => expr(m, "dynset", |m| {
                m.text(1, map).be32(3, 1).be32(4, reg(*key)).be32(5, reg(*data));
                m.attr(6, &milliseconds.to_be_bytes());
            }),
            Dnat { address, port } => expr(m, "nat", |m| {
                m.be32(1, 1).be32(2, libc::AF_INET as u32).be32(3, reg(*address)).be32(5, reg(*port));
            }),
            Masquerade => expr(m, "masq", |_| {}),
            Reject => expr(m, "reject", |m| {
                m.be32(1, 0).attr(2, &[3]);
            }),
            Reset => expr(m, "reject", |m| {
                m.be32(1, 1).attr(2, &[0]);
            }),
            NoTrack => expr(m, "notrack", |_| {}),
            Drop => immediate_verdict(m, DROP, None),
            Accept => immediate_verdict(m, ACCEPT, None),
            Goto(chain) => immediate_verdict(m, GOTO, Some(chain)),
        }
    }
}

fn reg(n: u32) -> u32 {
    REG32_00 + n
}

fn expr(m: &mut Messages, name: &str, data: impl FnOnce(&mut Messages)) {
    m.nest(1, |m| {
        m.text(1, name).nest(2, data);
    });
}

fn payload(m: &mut Messages, base: u32, offset: u32, len: u32, to: u32) {
    expr(m, "payload", |m| {
        m.be32(1, reg(to)).be32(2, base).be32(3, offset).be32(4, len);
    });
}

fn keyed(m: &mut Messages, name: &str, key: u32, to: u32) {
    expr(m, name, |m| {
        m.be32(1, reg(to)).be32(2, key);
    });
}

fn ct(m: &mut Messages, key: u32, to: u32, original: bool) {
    expr(m, "ct", |m| {
        m.be32(1, reg(to)).be32(2, key);
        if original {
            m.attr(3, &[0]);
        }
    });
}

fn fib(m: &mut Messages, flags: u32, to: u32) {
    const ADDRESS_TYPE: u32 = 3;
    expr(m, "fib", |m| {
        m.be32(1, reg(to)).be32(2, ADDRESS_TYPE).be32(3, flags);
    });
}

fn compare(m: &mut Messages, op: u32, from: u32, bytes: &[u8]) {
    expr(m, "cmp", |m| {
        m.be32(1, reg(from)).be32(2, op).nest(3, |m| {
            m.attr(1, bytes);
        });
    });
}

fn lookup(m: &mut Messages, set: &str, from: u32, to: Option<u32>, inverted: bool) {
    expr(m, "lookup", |m| {
        m.text(1, set).be32(2, reg(from));
        if let Some(to) = to {
            m.be32(3, to);
        }
        if inverted {
            m.be32(5, 1);
        }
    });
}

fn immediate_verdict(m: &mut Messages, code: i32, chain: Option<&str>) {
    expr(m, "immediate", |m| {
        m.be32(1, REG_VERDICT).nest(2, |m| verdict(m, code, chain));
    });
}

/// `NFTA_DATA_VERDICT`.
pub(crate) fn verdict(m: &mut Messages, code: i32, chain: Option<&str>) {
    m.nest(2, |m| {
        m.be32(1, code as u32);
        if let Some(chain) = chain {
            m.text(2, chain);
        }
    });
}
