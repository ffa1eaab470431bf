//! Writes tar archives that depend on nothing but their content: POSIX headers, PAX records only where they are needed.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::tar_reader::Entry;

/// Writes entries one after the other.
pub(crate) struct TarWriter<W: Write> {
    to: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(to: W) -> Self {
        TarWriter { to }
    }

    /// Writes an entry; `content` must give exactly `entry.size` bytes.
    pub(crate) fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut pax = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        if entry.path.len() <= 100 && entry.path.is_ascii() {
            header.as_mut_bytes()[..entry.path.len()].copy_from_slice(&entry.path);
        } else {
            record(&mut pax, b"path", &entry.path);
            cut(&mut header.as_mut_bytes()[..100], &entry.path);
        }
        if entry.link.len() <= 100 && entry.link.is_ascii() {
            header.as_mut_bytes()[157..157 + entry.link.len()].copy_from_slice(&entry.link);
        } else {
            record(&mut pax, b"linkpath", &entry.link);
            cut(&mut header.as_mut_bytes()[157..257], &entry.link);
        }
        // Seven octal digits for IDs, eleven for size and time.
        for (key, value, set) in [
            (&b"uid"[..], entry.uid, Header::set_uid as fn(&mut Header, u64)),
            (&b"gid"[..], entry.gid, Header::set_gid as fn(&mut Header, u64)),
        ] {
            if value < 1 << 21 {
                set(&mut header, value.into());
            } else {
                record(&mut pax, key, value.to_string().as_bytes());
                set(&mut header, 0);
            }
        }
        if entry.size < 1 << 33 {
            header.set_size(entry.size);
        } else {
            record(&mut pax, b"size", entry.size.to_string().as_bytes());
            header.set_size(0);
        }
        match u64::try_from(entry.mtime.0) {
            Ok(seconds) if seconds < 1 << 33 => header.set_mtime(seconds),
            _ => {
                record(&mut pax, b"mtime", entry.mtime.0.to_string().as_bytes());
                header.set_mtime(0);
            }
        }
        if matches!(entry.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        for (name, value) in &entry.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        header.set_cksum();
        if !pax.is_empty() {
            let mut extension = Header::new_ustar();
            extension.set_entry_type(EntryType::XHeader);
            extension.set_path("PaxHeaders/entry")?;
            extension.set_mode(0o644);
            extension.set_uid(0);
            extension.set_gid(0);
            extension.set_mtime(0);
            extension.set_size(pax.len() as u64);
            extension.set_cksum();
            self.to.write_all(extension.as_bytes())?;
            self.to.write_all(&pax)?;
            self.pad(pax.len() as u64)?;
        }
        self.to.write_all(header.as_bytes())?;
        if entry.size > 0 {
            let written = io::copy(&mut content.take(entry.size), &mut self.to)?;
            if written != entry.size {
                return Err(io::Error::other(format!(
                    "{} became shorter while it was read",
                    String::from_utf8_lossy(&entry.path)
                )));
            }
            self.pad(entry.size)?;
        }
        Ok(())
    }

    /// Ends the archive and gives back what it was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 1024])?;
        Ok(self.to)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.wrapping_neg() % 512) as usize;
        self.to.write_all(&[0; 512][..padding])
    }
}

/// The beginning of a name for readers that know no PAX.
fn cut(field: &mut [u8], name: &[u8]) {
    let n = name.len().min(field.len());
    for (to, from) in field.iter_mut().zip(&name[..n]) {
        *to = if from.is_ascii() { *from } else { b'_' };
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(key);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::tar_reader::TarReader;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            path in "[a-zé/]{1,300}[a-z]", link in "[a-z\\n]{0,200}", mode in 0u32..0o7777, uid in 0u32..u32::MAX, gid in 0u32..u32::MAX,
            mtime in -5_000_000_000i64..20_000_000_000, value in proptest::collection::vec(any::<u8>(), 0..300), content in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let entry = Entry {
                path: path.into_bytes(), link: link.into_bytes(), kind: EntryType::Regular, size: content.len() as u64, mode, uid, gid,
                mtime: (mtime, 0), device: (0, 0), xattrs: vec![(b"user.x".to_vec(), value)],
            };
            let mut writer = TarWriter::new(Vec::new());
            writer.append(&entry, &mut content.as_slice()).unwrap();
            writer.append(&entry, &mut content.as_slice()).unwrap();
            let bytes = writer.finish().unwrap();
            let mut reader = TarReader::new(bytes.as_slice());
            for _ in 0..2 {
                let seen = reader.next().unwrap().unwrap();
                prop_assert_eq!(&seen.path, &entry.path);
                prop_assert_eq!(&seen.link, &entry.link);
                prop_assert_eq!((seen.mode, seen.uid, seen.gid, seen.mtime, seen.size), (mode, uid, gid, entry.mtime, entry.size));
                prop_assert_eq!(&seen.xattrs, &entry.xattrs);
                let mut read = Vec::new();
                reader.read_to_end(&mut read).unwrap();
                prop_assert_eq!(&read, &content);
            }
            prop_assert!(reader.next().unwrap().is_none());
        }
    }
}
