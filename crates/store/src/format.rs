//! The bytes on disk.
//!
//! A file is a header and frames. A frame is what one `fsync` made durable, so it is there whole or not at all: its
//! checksum covers every commit of the batch. Numbers are little-endian.
//!
//! ```text
//! header  "PLIMSOLL"  version u32  kind u32 (1 log, 2 snapshot)  revision u64  salt u32  crc32 u32
//! frame   "PLFR"  length u32  crc32 u32 (salted; over length and payload)  payload
//! payload records, one behind the other:
//!   1 commit   revision u64  time u64 (ms since 1970)  count u32  { 1 put | 2 delete  at u32  key  value }…
//!   2 floor    revision u64                            (history before it is forgotten)
//!   3 object   created u64  modified u64  key  value   (snapshots; the value as it is served)
//!   4 end      count u64                               (snapshots: how many objects there must be)
//! key, value  length u32, bytes;   at: where the revision's digits belong in the value, 0xffffffff: nowhere
//! ```
//!
//! A log's header names the first revision that may be in it, a snapshot's the revision whose state it is. The salt is
//! random, so that nobody who may store values can store one that looks like a frame.

/// The newest format this engine reads, and the one it writes.
pub(crate) const VERSION: u32 = 1;
pub(crate) const HEADER: usize = 32;
pub(crate) const FRAME: usize = 12;
const MAGIC: &[u8; 8] = b"PLIMSOLL";
const FRAME_MAGIC: &[u8; 4] = b"PLFR";
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Log = 1,
    Snapshot = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub revision: u64,
    pub salt: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl Header {
    pub(crate) fn encode(self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.revision.to_le_bytes());
        out[24..28].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The first twelve bytes keep their meaning in every format to come; the rest is only looked at in ours.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, HeaderError> {
        let mut input = Input(bytes);
        let magic = input.bytes(8).ok_or(HeaderError::Damaged)?;
        let version = input.u32().ok_or(HeaderError::Damaged)?;
        if magic != MAGIC || version == 0 {
            return Err(HeaderError::Damaged);
        }
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let rest = |input: &mut Input<'_>| Some((input.u32()?, input.u64()?, input.u32()?, input.u32()?));
        let (kind, revision, salt, crc) = rest(&mut input).ok_or(HeaderError::Damaged)?;
        let kind = match kind {
            1 => Kind::Log,
            2 => Kind::Snapshot,
            _ => return Err(HeaderError::Damaged),
        };
        if crc != crc32fast::hash(&bytes[..28]) {
            return Err(HeaderError::Damaged);
        }
        Ok(Header { kind, revision, salt })
    }
}

fn checksum(salt: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// A frame under construction. Its buffer is used again for the next one.
#[derive(Default)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
}

impl Frame {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME, 0);
        // One huge batch does not hold its memory for ever.
        self.bytes.shrink_to(1 << 20);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole frame, ready to be written.
    pub(crate) fn seal(&mut self, salt: u32) -> &[u8] {
        let payload = &self.bytes[FRAME..];
        let (len, crc) = (payload.len() as u32, checksum(salt, payload));
        self.bytes[..4].copy_from_slice(FRAME_MAGIC);
        self.bytes[4..8].copy_from_slice(&len.to_le_bytes());
        self.bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    pub(crate) fn commit(&mut self, revision: u64, millis: u64, count: u32) {
        self.bytes.push(1);
        self.bytes.extend_from_slice(&revision.to_le_bytes());
        self.bytes.extend_from_slice(&millis.to_le_bytes());
        self.bytes.extend_from_slice(&count.to_le_bytes());
    }

    pub(crate) fn change(&mut self, change: &Change<'_>) {
        self.bytes.push(if change.deleted { 2 } else { 1 });
        self.bytes.extend_from_slice(&change.at.map_or(NOWHERE, |at| at as u32).to_le_bytes());
        self.text(change.key.as_bytes());
        self.text(change.value);
    }

    pub(crate) fn floor(&mut self, revision: u64) {
        self.bytes.push(2);
        self.bytes.extend_from_slice(&revision.to_le_bytes());
    }

    pub(crate) fn object(&mut self, created: u64, modified: u64, key: &str, value: &[u8]) {
        self.bytes.push(3);
        self.bytes.extend_from_slice(&created.to_le_bytes());
        self.bytes.extend_from_slice(&modified.to_le_bytes());
        self.text(key.as_bytes());
        self.text(value);
    }

    pub(crate) fn end(&mut self, count: u64) {
        self.bytes.push(4);
        self.bytes.extend_from_slice(&count.to_le_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(text);
    }
}

/// One key's change as it lies in the log: the value without its revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub key: &'a str,
    pub value: &'a [u8],
    pub at: Option<usize>,
    pub deleted: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Commit { revision: u64, millis: u64, changes: Vec<Change<'a>> },
    Floor(u64),
    Object { created: u64, modified: u64, key: &'a str, value: &'a [u8] },
    End(u64),
}

/// Reads the next record off a payload; `None` where it makes no sense.
pub(crate) fn record<'a>(payload: &mut &'a [u8]) -> Option<Record<'a>> {
    let mut input = Input(payload);
    let record = match input.u8()? {
        1 => {
            let (revision, millis, count) = (input.u64()?, input.u64()?, input.u32()?);
            let changes = (0..count).map(|_| change(&mut input)).collect::<Option<Vec<_>>>()?;
            Record::Commit { revision, millis, changes }
        }
        2 => Record::Floor(input.u64()?),
        3 => Record::Object {
            created: input.u64()?,
            modified: input.u64()?,
            key: input.key()?,
            value: input.text()?,
        },
        4 => Record::End(input.u64()?),
        _ => return None,
    };
    *payload = input.0;
    Some(record)
}

fn change<'a>(input: &mut Input<'a>) -> Option<Change<'a>> {
    let deleted = match input.u8()? {
        1 => false,
        2 => true,
        _ => return None,
    };
    let at = Some(input.u32()?).filter(|at| *at != NOWHERE).map(|at| at as usize);
    let (key, value) = (input.key()?, input.text()?);
    at.is_none_or(|at| at <= value.len()).then_some(Change { key, value, at, deleted })
}

/// The payload's length if a frame seems to begin here.
pub(crate) fn frame_length(head: &[u8]) -> Option<usize> {
    let mut input = Input(head);
    (input.bytes(4)? == FRAME_MAGIC).then_some(())?;
    Some(input.u32()? as usize)
}

/// The payload of the frame at the start of `bytes`, if it is whole and sound.
pub(crate) fn frame(bytes: &[u8], salt: u32) -> Option<&[u8]> {
    let len = frame_length(bytes)?;
    let mut input = Input(bytes.get(8..)?);
    let crc = input.u32()?;
    let payload = input.bytes(len)?;
    (checksum(salt, payload) == crc).then_some(payload)
}

/// Whether a sound frame begins anywhere in `bytes`.
pub(crate) fn holds_frame(bytes: &[u8], salt: u32) -> bool {
    (0..bytes.len()).any(|at| bytes[at] == FRAME_MAGIC[0] && frame(&bytes[at..], salt).is_some())
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.bytes(len)
    }

    fn key(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.text()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_a_newer_one_is_named() {
        let header = Header { kind: Kind::Log, revision: 7, salt: 9 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));
        let mut newer = header.encode();
        newer[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(HeaderError::Newer(VERSION + 1)));
        let mut damaged = header.encode();
        damaged[20] ^= 1;
        assert_eq!(Header::decode(&damaged), Err(HeaderError::Damaged));
        assert_eq!(Header::decode(&damaged[..20]), Err(HeaderError::Damaged));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let mut frame_ = Frame::default();
        frame_.clear();
        frame_.commit(3, 4, 1);
        frame_.change(&Change { key: "/a", value: b"value", at: Some(2), deleted: false });
        let sealed = frame_.seal(5).to_vec();
        assert!(frame(&sealed, 5).is_some());
        assert!(frame(&sealed, 6).is_none(), "another file's salt");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(frame(&damaged, 5).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn records_read_back_in_order() {
        let mut frame_ = Frame::default();
        frame_.clear();
        frame_.commit(3, 4, 1);
        frame_.change(&Change { key: "/a", value: b"v", at: None, deleted: true });
        frame_.floor(2);
        frame_.object(1, 2, "/b", b"w");
        frame_.end(1);
        let sealed = frame_.seal(0).to_vec();
        let mut payload = frame(&sealed, 0).unwrap();
        let changes = vec![Change { key: "/a", value: b"v", at: None, deleted: true }];
        assert_eq!(record(&mut payload), Some(Record::Commit { revision: 3, millis: 4, changes }));
        assert_eq!(record(&mut payload), Some(Record::Floor(2)));
        assert_eq!(
            record(&mut payload),
            Some(Record::Object { created: 1, modified: 2, key: "/b", value: b"w" })
        );
        assert_eq!(record(&mut payload), Some(Record::End(1)));
        assert!(payload.is_empty());
    }
}
