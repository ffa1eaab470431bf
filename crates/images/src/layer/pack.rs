//! Packs a folder, overlayfs' upper or lower layer, into a layer archive: sorted, so that equal folders give equal bytes.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::Path,
};

use tar::EntryType;

use super::{OPAQUE, OPAQUE_XATTR, WHITEOUT, tar_reader::Entry, tar_writer::TarWriter};
use crate::{Result, error::IoContext};

/// How a folder is packed.
#[derive(Clone, Debug, Default)]
pub(crate) struct PackOptions {
    /// Times after this one (seconds since 1970, `SOURCE_DATE_EPOCH`) become it, in the archive and in the folder.
    pub(crate) newest: Option<i64>,
}

/// Writes the content of `folder` as a layer archive.
pub(crate) fn pack<W: Write>(folder: &Path, to: W, options: &PackOptions) -> Result<W> {
    let mut packer = Packer { writer: TarWriter::new(to), options, links: HashMap::new() };
    packer.children(folder, &[])?;
    packer.writer.finish().at("packing", folder)
}

struct Packer<'a, W: Write> {
    writer: TarWriter<W>,
    options: &'a PackOptions,
    /// Device and inode → the path packed first, for files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<'_, W> {
    fn children(&mut self, folder: &Path, prefix: &[u8]) -> Result<()> {
        let mut names: Vec<OsString> = fs::read_dir(folder)
            .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect())
            .at("reading", folder)?;
        names.sort_unstable();
        for name in names {
            self.one(&folder.join(&name), prefix, &name).at("packing", &folder.join(&name))?;
        }
        Ok(())
    }

    fn one(&mut self, path: &Path, prefix: &[u8], name: &OsStr) -> io::Result<()> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        let mut seconds = meta.mtime();
        if let Some(newest) = self.options.newest
            && seconds > newest
        {
            seconds = newest;
        }
        let mut entry = Entry {
            path: [prefix, name.as_bytes()].concat(),
            link: Vec::new(),
            kind: EntryType::Regular,
            size: 0,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: (seconds, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        if kind.is_char_device() && meta.rdev() == 0 {
            entry.path = [prefix, WHITEOUT, name.as_bytes()].concat();
            entry.mode = 0;
            (entry.uid, entry.gid) = (0, 0);
            return self.writer.append(&entry, &mut io::empty());
        }
        let (xattrs, opaque) = xattrs(path)?;
        entry.xattrs = xattrs;
        if kind.is_dir() {
            entry.kind = EntryType::Directory;
            entry.path.push(b'/');
            self.writer.append(&entry, &mut io::empty())?;
            if opaque {
                let mark = Entry {
                    path: [&entry.path, OPAQUE].concat(),
                    kind: EntryType::Regular,
                    mode: 0,
                    xattrs: Vec::new(),
                    ..entry.clone()
                };
                self.writer.append(&mark, &mut io::empty())?;
            }
            self.children(path, &entry.path).map_err(io::Error::other)?;
            return self.settle_time(path, &meta, seconds);
        }
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                entry.kind = EntryType::Link;
                entry.link = first.clone();
                entry.xattrs = Vec::new();
                return self.writer.append(&entry, &mut io::empty());
            }
            self.links.insert((meta.dev(), meta.ino()), entry.path.clone());
        }
        if kind.is_file() {
            entry.size = meta.len();
            self.writer.append(&entry, &mut File::open(path)?)?;
            return self.settle_time(path, &meta, seconds);
        }
        if kind.is_symlink() {
            entry.kind = EntryType::Symlink;
            entry.link = fs::read_link(path)?.into_os_string().into_vec();
        } else if kind.is_fifo() {
            entry.kind = EntryType::Fifo;
        } else if kind.is_char_device() || kind.is_block_device() {
            entry.kind = if kind.is_char_device() { EntryType::Char } else { EntryType::Block };
            entry.device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
        } else {
            // A socket is bound to a process that is gone.
            return Ok(());
        }
        self.writer.append(&entry, &mut io::empty())?;
        self.settle_time(path, &meta, seconds)
    }

    /// Gives the folder's file the time that the archive says.
    fn settle_time(&self, path: &Path, meta: &fs::Metadata, seconds: i64) -> io::Result<()> {
        if self.options.newest.is_none() || seconds == meta.mtime() {
            return Ok(());
        }
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

/// A file's extended attributes, sorted, without overlayfs' and the host's own; and whether it is marked opaque.
#[allow(clippy::type_complexity)]
fn xattrs(path: &Path) -> io::Result<(Vec<(Vec<u8>, Vec<u8>)>, bool)> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        Err(e) if e.kind() == io::ErrorKind::Unsupported => return Ok((Vec::new(), false)),
        Err(e) => return Err(e),
    };
    let (mut found, mut opaque) = (Vec::new(), false);
    for name in names {
        let bytes = name.as_bytes();
        if bytes == OPAQUE_XATTR.as_bytes() {
            opaque = xattr::get(path, &name)?.as_deref() == Some(b"y");
        } else if !bytes.starts_with(b"trusted.")
            && !bytes.starts_with(b"user.overlay.")
            && bytes != b"security.selinux"
            && let Some(value) = xattr::get(path, &name)?
        {
            found.push((bytes.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok((found, opaque))
}
