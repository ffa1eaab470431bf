//! nf_tables transactions: tables, chains, rules, sets and their elements.
//!
//! A [`Batch`] is applied whole or not at all. Only names given by us are ever touched; nothing is listed: what
//! is in the kernel is known from what was sent.

use std::io;

use super::expr::Expr;
use super::{Messages, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Socket};
use crate::error::{Error, Result};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;

/// A netlink attribute holds at most 64 KiB; elements are below 128 bytes.
const ELEMENTS_A_MESSAGE: usize = 400;

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Packets that came in, before routing.
    Prerouting = 0,
    /// Packets for this node.
    Input = 1,
    /// Packets passing through.
    Forward = 2,
    /// Packets made here.
    Output = 3,
    /// Packets about to leave.
    Postrouting = 4,
}

/// Priorities of netfilter hooks (`NF_IP_PRI_*`).
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Destination NAT.
    pub const DSTNAT: i32 = -100;
    /// Just before destination NAT.
    pub const PRE_DSTNAT: i32 = -110;
    /// Filtering.
    pub const FILTER: i32 = 0;
    /// Source NAT.
    pub const SRCNAT: i32 = 100;
}

/// How the elements of a set are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// Its name in the table.
    pub name: &'static str,
    /// nft(8)'s data type number of the key, for those who list it.
    pub key_type: u32,
    /// Key length in bytes (each field of a concatenation padded to four).
    pub key_len: u32,
    /// What the set maps to, if it is a map.
    pub data: Option<Data>,
    /// Lengths of the fields of an interval concatenation.
    pub interval_fields: &'static [u32],
    /// Filled by packets, elements expire.
    pub dynamic: bool,
}

/// What a map maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// A chain to go to.
    Verdict,
    /// So many bytes of nft(8)'s data type.
    Value { kind: u32, len: u32 },
}

/// The value side of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The element of a set.
    None,
    /// Continue in this chain and do not come back.
    Goto(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key.
    pub key: Vec<u8>,
    /// The end of the interval that starts at `key`, for interval sets.
    pub key_end: Option<Vec<u8>>,
    /// What it maps to; not looked at when deleting.
    pub value: Value,
}

impl Element {
    /// A member of a set.
    pub fn member(key: Vec<u8>) -> Self {
        Self { key, key_end: None, value: Value::None }
    }
    /// An entry of a map.
    pub fn entry(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { key, key_end: None, value: Value::Bytes(value) }
    }
}

/// A transaction on one table of the `ip` family.
pub struct Batch {
    table: String,
    messages: Messages,
    set_id: u32,
}

impl Batch {
    /// An empty transaction on `table`.
    pub fn new(table: &str) -> Self {
        let mut messages = Messages::new();
        messages.begin(BATCH_BEGIN, 0, &nfgenmsg(0, 10));
        Self { table: table.to_owned(), messages, set_id: 0 }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.messages.len() == 1
    }

    /// Creates the table if it is not there.
    pub fn table(&mut self) -> &mut Self {
        let table = self.table.clone();
        self.begin(NEWTABLE, NLM_F_CREATE).text(1, &table);
        self
    }

    /// Removes the table with everything in it. It must exist: create it just before if unsure.
    pub fn delete_table(&mut self) -> &mut Self {
        let table = self.table.clone();
        self.begin(DELTABLE, 0).text(1, &table);
        self
    }

    /// An ordinary chain.
    pub fn chain(&mut self, name: &str) -> &mut Self {
        let table = self.table.clone();
        self.begin(NEWCHAIN, NLM_F_CREATE).text(1, &table).text(3, name);
        self
    }

    /// A chain that packets enter by itself; `kind` is `nat` or `filter`. Its policy is accept.
    pub fn base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) -> &mut Self {
        let table = self.table.clone();
        self.begin(NEWCHAIN, NLM_F_CREATE)
            .text(1, &table)
            .text(3, name)
            .nest(4, |m| {
                m.be32(1, hook as u32).be32(2, priority as u32);
            })
            .text(7, kind);
        self
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, expressions: &[Expr]) -> &mut Self {
        let table = self.table.clone();
        self.begin(NEWRULE, NLM_F_CREATE | NLM_F_APPEND).text(1, &table).text(2, chain).nest(4, |m| {
            for e in expressions {
                e.encode(m);
            }
        });
        self
    }

    /// Creates a set or map.
    pub fn set(&mut self, spec: &SetSpec) -> &mut Self {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const CONCAT: u32 = 0x80;
        let mut flags = 0;
        if spec.data.is_some() {
            flags |= MAP;
        }
        if spec.dynamic {
            flags |= TIMEOUT | EVAL;
        }
        if !spec.interval_fields.is_empty() {
            flags |= INTERVAL | CONCAT;
        }
        self.set_id += 1;
        let (table, id) = (self.table.clone(), self.set_id);
        let m = self.begin(NEWSET, NLM_F_CREATE);
        m.text(1, &table).text(2, spec.name).be32(3, flags).be32(4, spec.key_type).be32(5, spec.key_len);
        match spec.data {
            None => {}
            Some(Data::Verdict) => {
                m.be32(6, 0xffff_ff00).be32(7, 16);
            }
            Some(Data::Value { kind, len }) => {
                m.be32(6, kind).be32(7, len);
            }
        }
        if spec.dynamic || !spec.interval_fields.is_empty() {
            m.nest(9, |m| {
                if spec.dynamic {
                    m.be32(1, 65_535);
                }
                if !spec.interval_fields.is_empty() {
                    m.nest(2, |m| {
                        for &len in spec.interval_fields {
                            m.nest(1, |m| {
                                m.be32(1, len);
                            });
                        }
                    });
                }
            });
        }
        m.be32(10, id);
        self
    }

    /// Adds elements to a set or map.
    pub fn add(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(NEWSETELEM, NLM_F_CREATE, set, elements)
    }

    /// Removes elements, which must be there.
    pub fn remove(&mut self, set: &str, elements: &[Element]) -> &mut Self {
        self.elements(DELSETELEM, 0, set, elements)
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) -> &mut Self {
        let table = self.table.clone();
        for chunk in elements.chunks(ELEMENTS_A_MESSAGE) {
            self.begin(kind, flags).text(1, &table).text(2, set).nest(3, |m| {
                for e in chunk {
                    m.nest(1, |m| encode_element(m, e, kind == NEWSETELEM));
                }
            });
        }
        self
    }

    fn begin(&mut self, kind: u16, flags: u16) -> &mut Messages {
        self.messages.begin(kind, flags, &nfgenmsg(libc::AF_INET as u8, 0))
    }

    /// Applies the transaction.
    pub fn apply(mut self, socket: &mut Socket) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // Only the last message asks for an answer; whatever is refused before it answers by itself.
        if let Some(&last) = self.messages.starts.last() {
            let flags = u16::from_ne_bytes([self.messages.bytes[last + 6], self.messages.bytes[last + 7]]);
            self.messages.bytes[last + 6..last + 8].copy_from_slice(&(flags | NLM_F_ACK).to_ne_bytes());
        }
        self.messages.begin(BATCH_END, 0, &nfgenmsg(0, 10));
        let (table, count) = (self.table, self.messages.len() - 2);
        socket.transact(self.messages).map_err(|(index, source)| {
            let source = match source.raw_os_error() {
                Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => io::Error::other(format!(
                    "{source}: this kernel lacks nf_tables or one of nft_nat, nft_masq, nft_numgen, nft_fib, nft_reject"
                )),
                _ => source,
            };
            Error::Netlink { what: format!("nftables table {table}, operation {index} of {count}"), source }
        })
    }
}

/// Removes a table of ours; that it is not there is fine.
pub fn remove_table(socket: &mut Socket, table: &str) -> Result<()> {
    let mut batch = Batch::new(table);
    batch.table().delete_table();
    batch.apply(socket)
}

fn encode_element(m: &mut Messages, e: &Element, with_value: bool) {
    m.nest(1, |m| {
        m.attr(1, &e.key);
    });
    if let Some(end) = &e.key_end {
        m.nest(10, |m| {
            m.attr(1, end);
        });
    }
    match &e.value {
        _ if !with_value => {}
        Value::None => {}
        Value::Bytes(bytes) => {
            m.nest(2, |m| {
                m.attr(1, bytes);
            });
        }
        Value::Goto(chain) => {
            m.nest(2, |m| {
                super::expr::verdict(m, super::expr::GOTO, Some(chain));
            });
        }
    }
}

/// `struct nfgenmsg`: family, version, resource id (the subsystem for batch messages).
fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let r = resource.to_be_bytes();
    [family, 0, r[0], r[1]]
}
