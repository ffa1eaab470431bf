//! Reads tar archives from strangers, entry by entry, in bounded memory.
//!
//! The `tar` crate parses single headers; the walk from one to the next is done here because it must agree with every
//! other reader about where the next header stands (a PAX size wins over the header's, CVE-2025-62518), and because
//! extension records are bounded.

use std::{
    borrow::Cow,
    io::{self, Read},
};

use tar::{EntryType, Header};

/// Longest extension record (long name, PAX header), in bytes.
const MAX_EXTENSION: u64 = 1024 * 1024;

/// One thing in the archive; paths are as the archive has them.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    pub(crate) size: u64,
    /// Permissions with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The walk through an archive.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry's content, padding included, not yet read.
    left: u64,
    padding: u64,
    global: Vec<(Vec<u8>, Vec<u8>)>,
    /// Entries seen so far.
    pub(crate) count: u64,
}

fn bad(why: impl Into<Cow<'static, str>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        TarReader { inner, left: 0, padding: 0, global: Vec::new(), count: 0 }
    }

    /// The underlying stream, to read what follows the archive.
    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` at the archive's end. What is left of the former entry's content is skipped.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let (mut long_path, mut long_link, mut pax) = (None, None, Vec::new());
        loop {
            self.skip_rest()?;
            let Some(header) = self.read_header()? else {
                return match (&long_path, &long_link, pax.is_empty()) {
                    (None, None, true) => Ok(None),
                    _ => Err(bad("the archive ends after an extension header")),
                };
            };
            self.count += 1;
            let kind = header.entry_type();
            let size = header.entry_size().map_err(|_| bad("a header's size is not a number"))?;
            match kind {
                EntryType::GNULongName => long_path = Some(until_nul(self.read_extension(size)?)),
                EntryType::GNULongLink => long_link = Some(until_nul(self.read_extension(size)?)),
                EntryType::XHeader => pax = parse_pax(&self.read_extension(size)?)?,
                EntryType::XGlobalHeader => {
                    let records = parse_pax(&self.read_extension(size)?)?;
                    self.global.retain(|(k, _)| !records.iter().any(|(n, _)| n == k));
                    self.global.extend(records);
                    if self.global.len() > 1000 {
                        return Err(bad("too many global PAX records"));
                    }
                }
                EntryType::GNUSparse => {
                    return Err(bad("GNU sparse files are not supported; make the archive without --sparse"));
                }
                _ => return self.entry(&header, size, long_path, long_link, &pax).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        long_path: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
        pax: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<Entry> {
        let old = header.as_old();
        let number = |n: io::Result<u64>, field: &[u8], what: &'static str| match n {
            Ok(n) => Ok(n),
            // Old archivers leave out what they do not know.
            Err(_) if field.iter().all(|b| matches!(b, 0 | b' ')) => Ok(0),
            Err(_) => Err(bad(format!("a header's {what} is not a number"))),
        };
        let mut entry = Entry {
            path: long_path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: long_link.or_else(|| header.link_name_bytes().map(Cow::into_owned)).unwrap_or_default(),
            kind: header.entry_type(),
            size,
            mode: (number(header.mode().map(u64::from), &old.mode, "mode")? & 0o7777) as u32,
            uid: id(number(header.uid(), &old.uid, "uid")?)?,
            gid: id(number(header.gid(), &old.gid, "gid")?)?,
            mtime: (number(header.mtime(), &old.mtime, "time")? as i64, 0),
            device: (
                header.device_major().ok().flatten().unwrap_or(0),
                header.device_minor().ok().flatten().unwrap_or(0),
            ),
            xattrs: Vec::new(),
        };
        for (key, value) in self.global.iter().chain(pax) {
            match key.as_slice() {
                b"path" => entry.path = value.clone(),
                b"linkpath" => entry.link = value.clone(),
                b"size" => entry.size = decimal(value).ok_or_else(|| bad("a PAX size is not a number"))?,
                b"uid" => entry.uid = id(decimal(value).ok_or_else(|| bad("a PAX uid is not a number"))?)?,
                b"gid" => entry.gid = id(decimal(value).ok_or_else(|| bad("a PAX gid is not a number"))?)?,
                b"mtime" => entry.mtime = time(value).ok_or_else(|| bad("a PAX time is not a number"))?,
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(bad("PAX sparse files are not supported; make the archive without --sparse"));
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        entry.xattrs.retain(|(n, _)| n != name);
                        entry.xattrs.push((name.to_vec(), value.clone()));
                    }
                }
            }
        }
        if entry.path.contains(&0) || entry.link.contains(&0) {
            return Err(bad("a name contains a NUL byte"));
        }
        // Only regular files have content; for the rest readers disagree unless the size is 0.
        if entry.kind.is_file() || entry.kind == EntryType::Continuous {
            self.left = entry.size;
            self.padding = padding(entry.size);
        } else if entry.size != 0
            && !matches!(entry.kind, EntryType::Link | EntryType::Symlink | EntryType::Directory)
        {
            return Err(bad("an entry that is no file has content"));
        } else if entry.size != 0 {
            // Old archivers write a link's target size; no content follows.
            if entry.kind == EntryType::Link || pax.iter().any(|(k, _)| k == b"size") {
                return Err(bad("a link or folder has content"));
            }
            entry.size = 0;
        }
        // Before POSIX, a folder was a file whose name ends in a slash.
        if entry.kind == EntryType::Regular && entry.path.ends_with(b"/") {
            entry.kind = EntryType::Directory;
        }
        Ok(entry)
    }

    fn read_header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        if !self.read_block(header.as_mut_bytes())? {
            return Ok(None);
        }
        if header.as_bytes().iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let sum: u32 = header
            .as_bytes()
            .iter()
            .enumerate()
            .map(|(i, b)| u32::from(if (148..156).contains(&i) { b' ' } else { *b }))
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(bad("a header's checksum is wrong: this is not a tar archive, or it is damaged"));
        }
        Ok(Some(header))
    }

    /// Reads a block of 512 bytes; false at a clean end of the stream.
    fn read_block(&mut self, block: &mut [u8]) -> io::Result<bool> {
        let mut n = 0;
        while n < block.len() {
            match self.inner.read(&mut block[n..]) {
                Ok(0) if n == 0 => return Ok(false),
                Ok(0) => return Err(bad("the archive is cut off inside a header")),
                Ok(read) => n += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    fn read_extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(bad("an extension header is larger than 1 MiB"));
        }
        self.left = size;
        self.padding = padding(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let wanted = std::mem::take(&mut self.padding);
        let skipped = io::copy(&mut self.inner.by_ref().take(wanted), &mut io::sink())?;
        // GNU tar leaves out the last padding when it writes to a pipe that ends.
        if skipped != wanted && skipped != 0 {
            return Err(bad("the archive is cut off"));
        }
        Ok(())
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the current entry's content.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buf.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(bad("the archive is cut off inside a file"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % 512
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// IDs are below 2^32 - 1, which means "unchanged" to chown.
fn id(number: u64) -> io::Result<u32> {
    u32::try_from(number)
        .ok()
        .filter(|n| *n != u32::MAX)
        .ok_or_else(|| bad("a user or group ID is 2^32 - 1 or more"))
}

fn decimal(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    Some(match (seconds.starts_with('-'), nanos) {
        (true, 1..) => (whole.checked_sub(1)?, 1_000_000_000 - nanos),
        _ => (whole, nanos),
    })
}

/// Parses `LENGTH KEY=VALUE\n` records by their lengths: values may contain newlines.
fn parse_pax(mut bytes: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut records = Vec::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let broken = || bad("a PAX header is malformed");
        let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(broken)?;
        let length = decimal(&bytes[..space]).and_then(|n| usize::try_from(n).ok()).ok_or_else(broken)?;
        let record = bytes.get(space + 1..length).ok_or_else(broken)?;
        let record = record.strip_suffix(b"\n").ok_or_else(broken)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = &bytes[length..];
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_may_be_negative_and_have_fractions() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7"), Some((7, 0)));
        assert_eq!(time(b"x"), None);
    }

    #[test]
    fn pax_values_may_contain_newlines() {
        let records = parse_pax(b"12 a=b\nc\nd=\n6 x=y\n").unwrap();
        assert_eq!(records, [(b"a".to_vec(), b"b\nc\nd=".to_vec()), (b"x".to_vec(), b"y".to_vec())]);
        assert!(parse_pax(b"999 a=b\n").is_err());
        assert!(parse_pax(b"3 a=b\n").is_err());
    }

    #[test]
    fn the_pax_size_decides_where_the_next_header_stands() {
        // The header says 0 bytes, the PAX record 512: the 512 bytes are content, not a smuggled entry.
        let mut inner = Header::new_ustar();
        inner.set_path("smuggled").unwrap();
        inner.set_size(0);
        inner.set_cksum();
        let mut archive = Vec::new();
        let record = b"12 size=512\n";
        let mut pax = Header::new_ustar();
        pax.set_path("pax").unwrap();
        pax.set_entry_type(EntryType::XHeader);
        pax.set_size(record.len() as u64);
        pax.set_cksum();
        archive.extend_from_slice(pax.as_bytes());
        archive.extend_from_slice(record);
        archive.resize(1024, 0);
        let mut file = Header::new_ustar();
        file.set_path("outer").unwrap();
        file.set_size(0);
        file.set_cksum();
        archive.extend_from_slice(file.as_bytes());
        archive.extend_from_slice(inner.as_bytes());
        archive.extend_from_slice(&[0; 1024]);
        let mut reader = TarReader::new(archive.as_slice());
        let entry = reader.next().unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.size), (b"outer".as_slice(), 512));
        assert!(reader.next().unwrap().is_none());
    }

    #[test]
    fn a_huge_extension_header_is_refused_before_it_is_read() {
        let mut pax = Header::new_ustar();
        pax.set_entry_type(EntryType::XHeader);
        pax.set_size(1 << 33);
        pax.set_cksum();
        let error = TarReader::new(pax.as_bytes().as_slice().chain(io::repeat(b'1'))).next().unwrap_err();
        assert!(error.to_string().contains("1 MiB"), "{error}");
    }

    #[test]
    fn noise_is_no_archive() {
        assert!(TarReader::new([7u8; 2048].as_slice()).next().is_err());
        assert!(TarReader::new([7u8; 100].as_slice()).next().is_err());
    }
}
