//! Unpacks a layer archive into a folder that overlayfs can use as a lower layer.
//!
//! Layers are unpacked each on its own, so that images share them by diffID and several can be unpacked at once.
//! Whiteouts become character devices 0:0 and the attribute `trusted.overlay.opaque`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, Timespec, Timestamps, Uid, chownat, fchmod, fchown, futimens, linkat,
    makedev, mkdirat, mknodat, statat, symlinkat, utimensat,
};
use tar::EntryType;

use super::{
    OPAQUE, OPAQUE_XATTR, WHITEOUT,
    beneath::{self, Beneath, clean, proc_path},
    compression::decompress,
    tar_reader::{Entry, TarReader},
};
use crate::{
    Digest, Error, Limits, Result,
    digest::{HashingReader, LimitReached},
};

/// What came out of an archive.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// sha256 of the uncompressed archive.
    pub(crate) diff_id: Digest,
    /// Folders that were made because something lies in them, though the archive does not describe them.
    pub(crate) implied: Vec<PathBuf>,
}

/// What `.wh.` names in the archive mean.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whiteouts {
    /// A layer: they are turned into overlayfs' marks.
    Convert,
    /// A plain archive: they are names like any other.
    Plain,
}

/// Unpacks `archive` (plain, gzip or zstd; `packed` bytes long if known) into the existing folder `into`.
pub(crate) fn unpack<'a>(
    archive: impl Read + Send + 'a,
    packed: Option<u64>,
    into: &Path,
    what: &str,
    limits: &Limits,
    whiteouts: Whiteouts,
) -> Result<Unpacked> {
    let fail = |e: io::Error, path: Option<&[u8]>| -> Error {
        if let Some(limit) = e.get_ref().and_then(|e| e.downcast_ref::<LimitReached>()) {
            return Error::Limit {
                what: format!("{what} unpacks too far"),
                limit: format!("{} bytes", limit.0),
            };
        }
        let place = path.map(|p| format!(", entry \"{}\"", String::from_utf8_lossy(p))).unwrap_or_default();
        match e.kind() {
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => Error::invalid(format!("{what}{place}"), e.to_string()),
            _ => Error::Io { what: format!("unpacking {what}{place}"), source: e },
        }
    };
    let (stream, _) = decompress(archive).map_err(|e| fail(e, None))?;
    let limit = match packed {
        Some(packed) => limits.bytes.min(packed.saturating_mul(limits.ratio).max(limits.ratio_from)),
        None => limits.bytes,
    };
    let mut reader = TarReader::new(HashingReader::new(stream, limit));
    let mut unpacker = Unpacker {
        beneath: Beneath::open(into).map_err(|e| fail(e, None))?,
        whiteouts,
        implied: BTreeSet::new(),
        folders: BTreeMap::new(),
    };
    while let Some(entry) = reader.next().map_err(|e| fail(e, None))? {
        if reader.count > limits.entries {
            return Err(Error::Limit {
                what: format!("{what} has too many entries"),
                limit: format!("{} entries", limits.entries),
            });
        }
        unpacker.entry(&entry, &mut reader).map_err(|e| fail(e, Some(&entry.path)))?;
    }
    unpacker.set_folder_times().map_err(|e| fail(e, None))?;
    let (diff_id, _) = reader.into_inner().finish().map_err(|e| fail(e, None))?;
    Ok(Unpacked { diff_id, implied: unpacker.implied.into_iter().collect() })
}

struct Unpacker {
    beneath: Beneath,
    whiteouts: Whiteouts,
    implied: BTreeSet<PathBuf>,
    /// Times of folders, set last because every file made in one changes them.
    folders: BTreeMap<PathBuf, (i64, u32)>,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let path = clean(&entry.path).ok_or_else(|| refused("its path has a `..`"))?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return match entry.kind {
                EntryType::Directory => self.describe_root(entry),
                _ => Err(refused("its path is empty")),
            };
        };
        let parent = path.parent().unwrap_or(Path::new("")).to_owned();
        let implied = &mut self.implied;
        let folder = self.beneath.make_folder(&parent, |made| {
            implied.insert(made.to_owned());
        })?;
        if self.whiteouts == Whiteouts::Convert {
            if name.as_bytes() == OPAQUE {
                return set_opaque(&folder, OsStr::new(""));
            }
            if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
                return match hidden {
                    // Other bookkeeping of aufs.
                    h if h.starts_with(WHITEOUT) => Ok(()),
                    b"" | b"." | b".." => Err(refused("it is a whiteout of nothing")),
                    hidden => whiteout(&folder, OsStr::from_bytes(hidden)),
                };
            }
        }
        self.make(entry, content, &path, &folder, &name)
    }

    fn make(
        &mut self,
        entry: &Entry,
        content: &mut impl Read,
        path: &Path,
        folder: &OwnedFd,
        name: &OsStr,
    ) -> io::Result<()> {
        if entry.kind == EntryType::Directory {
            return self.make_folder(entry, path, folder, name);
        }
        if self.folders.contains_key(path) || self.implied.contains(path) {
            self.beneath.forget();
            self.forget_below(path);
        }
        if entry.kind == EntryType::Link {
            return self.hard_link(entry, folder, name);
        }
        beneath::remove(folder, name)?;
        let node = |kind, device: Dev| mknodat(folder, name, kind, Mode::from_raw_mode(0o600), device);
        match entry.kind {
            EntryType::Regular | EntryType::Continuous => {
                let mut file = beneath::create(folder, name)?;
                io::copy(content, &mut file)?;
                fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
                // After chown, which clears setuid and capabilities.
                fchmod(&file, Mode::from_raw_mode(entry.mode))?;
                set_xattrs(entry, |key, value| {
                    rustix::fs::fsetxattr(&file, key, value, rustix::fs::XattrFlags::empty())
                })?;
                return Ok(futimens(&file, &times(entry.mtime))?);
            }
            EntryType::Symlink => {
                if entry.link.is_empty() {
                    return Err(refused("a link to nothing"));
                }
                symlinkat(OsStr::from_bytes(&entry.link), folder, name)?;
            }
            EntryType::Fifo => node(FileType::Fifo, 0)?,
            EntryType::Char if entry.device == (0, 0) => {
                return Err(refused("device 0:0 is overlayfs' own mark for a deleted file"));
            }
            EntryType::Char => node(FileType::CharacterDevice, makedev(entry.device.0, entry.device.1))?,
            EntryType::Block => node(FileType::BlockDevice, makedev(entry.device.0, entry.device.1))?,
            kind => {
                return Err(refused(&format!(
                    "entries of type {:?} are not supported",
                    char::from(kind.as_byte())
                )));
            }
        }
        chownat(
            folder,
            name,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if entry.kind != EntryType::Symlink {
            beneath::chmod_nofollow(folder, name, entry.mode)?;
        }
        let path = proc_path(folder, name);
        set_xattrs(entry, |key, value| {
            rustix::fs::lsetxattr(&path, key, value, rustix::fs::XattrFlags::empty())
        })?;
        Ok(utimensat(folder, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// What is noted of a folder and of those in it goes: something else takes its place.
    fn forget_below(&mut self, path: &Path) {
        // Paths are ordered by their parts, so that those in a folder follow it.
        let inside = |p: &&PathBuf| p.starts_with(path);
        let folders = self.folders.range(path.to_owned()..).map(|(p, _)| p);
        for gone in folders.take_while(inside).cloned().collect::<Vec<_>>() {
            self.folders.remove(&gone);
        }
        for gone in self.implied.range(path.to_owned()..).take_while(inside).cloned().collect::<Vec<_>>() {
            self.implied.remove(&gone);
        }
    }

    fn make_folder(&mut self, entry: &Entry, path: &Path, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let mut replaced = false;
        match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {}
            found => {
                if let Ok(stat) = found {
                    replaced = is_whiteout(&stat);
                    beneath::remove(folder, name)?;
                }
                mkdirat(folder, name, Mode::from_raw_mode(0o755))?;
            }
        }
        let made = rustix::fs::openat(
            folder,
            name,
            rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::DIRECTORY
                | rustix::fs::OFlags::NOFOLLOW
                | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        describe(&made, entry)?;
        if replaced {
            // The archive hid the old folder before it made this one.
            set_opaque(&made, OsStr::new(""))?;
        }
        self.implied.remove(path);
        self.folders.insert(path.to_owned(), entry.mtime);
        Ok(())
    }

    fn describe_root(&mut self, entry: &Entry) -> io::Result<()> {
        describe(&self.beneath.root(), entry)?;
        self.folders.insert(PathBuf::new(), entry.mtime);
        Ok(())
    }

    fn hard_link(&mut self, entry: &Entry, folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let target = clean(&entry.link).ok_or_else(|| refused("its target has a `..`"))?;
        let (Some(target_name), Some(parent)) = (target.file_name(), target.parent()) else {
            return Err(refused("a hard link to nothing"));
        };
        let missing = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => {
                refused(&format!("a hard link to \"{}\", which this layer does not have", target.display()))
            }
            _ => e,
        };
        // The cache of the last folder belongs to the entry's own folder.
        let from = Beneath::folder(&mut self.beneath, parent).map_err(missing)?;
        let stat = statat(&*from, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| missing(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused("a hard link to a folder"));
        }
        if statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino))
        {
            return Ok(());
        }
        beneath::remove(folder, name)?;
        linkat(&*from, target_name, folder, name, AtFlags::empty()).map_err(|e| missing(e.into()))
    }

    fn set_folder_times(&mut self) -> io::Result<()> {
        for (path, mtime) in std::mem::take(&mut self.folders) {
            match self.beneath.folder(&path) {
                Ok(folder) => futimens(&*folder, &times(mtime))?,
                // Replaced by a later entry.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets a folder's owner, permissions and attributes.
fn describe(folder: &OwnedFd, entry: &Entry) -> io::Result<()> {
    fchown(folder, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))?;
    fchmod(folder, Mode::from_raw_mode(entry.mode))?;
    set_xattrs(entry, |key, value| rustix::fs::fsetxattr(folder, key, value, rustix::fs::XattrFlags::empty()))
}

fn set_xattrs(entry: &Entry, set: impl Fn(&OsStr, &[u8]) -> rustix::io::Result<()>) -> io::Result<()> {
    for (key, value) in &entry.xattrs {
        // An image must not steer overlayfs; SELinux labels belong to the host.
        if key.starts_with(b"trusted.") || key.starts_with(b"user.overlay.") || key == b"security.selinux" {
            continue;
        }
        match set(&OsString::from(OsStr::from_bytes(key)), value) {
            Err(rustix::io::Errno::NOTSUP) => {}
            // `user.*` is only possible on files and folders.
            Err(rustix::io::Errno::PERM) if key.starts_with(b"user.") => {}
            result => result?,
        }
    }
    Ok(())
}

/// True for overlayfs' mark of a deleted file.
pub(crate) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn whiteout(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        // A whiteout hides what lies below, not what this layer itself has.
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => set_opaque(folder, name),
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::NOENT) => {
            Ok(mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?)
        }
        Err(e) => Err(e.into()),
    }
}

fn set_opaque(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let path = proc_path(folder, name);
    Ok(rustix::fs::setxattr(&path, OPAQUE_XATTR, b"y", rustix::fs::XattrFlags::empty())?)
}

#[cfg(test)]
mod tests;
