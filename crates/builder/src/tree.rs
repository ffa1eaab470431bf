//! What a COPY copies: the files that its sources name, with their content's digests.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    ignore::Ignore,
    pattern::{Flavour, Pattern},
    root::{FOLDER, MAX_DEPTH, Root, names},
};

/// Most files and folders of one instruction.
const MAX_ENTRIES: usize = 1_000_000;

/// Where sources are looked for.
pub(crate) struct Origin<'a> {
    /// The context, or a stage's or image's root file system.
    pub(crate) root: &'a Root,
    /// What of it does not exist.
    pub(crate) ignore: &'a Ignore,
    /// The context belongs to a user of the host, so all of it becomes root's; and it has no business with devices.
    pub(crate) foreign: bool,
    /// Looking may take long.
    pub(crate) cancel: &'a CancellationToken,
}

/// Files under one source.
#[derive(Debug)]
pub(crate) struct Found {
    /// The name it has in the source.
    pub(crate) name: OsString,
    /// Where it really is, relative to the root.
    pub(crate) at: PathBuf,
    /// The source itself, with an empty path, then what is in it; a folder before its content.
    pub(crate) entries: Vec<Entry>,
}

/// A file or folder.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Relative to the source.
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) what: What,
    /// Sorted.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum What {
    Folder,
    File { size: u64, digest: [u8; 32], stamp: Stamp },
    Link(OsString),
    Node { kind: FileType, device: u64 },
}

/// Tells whether a file is still what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp([i128; 5]);

impl Stamp {
    pub(crate) fn of(stat: &Stat) -> Stamp {
        let nanos = |s: i128, n: i128| s * 1_000_000_000 + n;
        Stamp([
            stat.st_ino.into(),
            stat.st_size.into(),
            stat.st_mode.into(),
            nanos(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            nanos(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
        ])
    }
}

/// Why a source was not found.
#[derive(Debug)]
pub(crate) enum Missing {
    /// There is nothing of that name.
    Absent,
    /// A line of the ignore file leaves it out.
    Ignored(usize),
    /// It cannot be read or copied.
    Io(PathBuf, io::Error),
}

impl Origin<'_> {
    /// Everything that one source names; wildcards may name nothing.
    pub(crate) fn find(&self, source: &str, exclude: &Ignore) -> Result<Vec<Found>, Missing> {
        let wild = source.contains(['*', '?', '[', '\\']);
        let paths = match wild {
            true => self.glob(source).map_err(|e| Missing::Io(source.into(), e))?,
            false => vec![crate::root::relative(Path::new(source))],
        };
        let mut found = Vec::new();
        for path in paths {
            match self.one(&path, exclude) {
                Ok(one) => found.push(one),
                Err(Missing::Absent | Missing::Ignored(_)) if wild => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    fn one(&self, path: &Path, exclude: &Ignore) -> Result<Found, Missing> {
        let fail = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Missing::Absent,
            _ => Missing::Io(path.to_owned(), e),
        };
        let at = self.root.locate(path).map_err(fail)?;
        let fd = self.root.exact(&at, OFlags::PATH | OFlags::NOFOLLOW).map_err(fail)?;
        let kind = FileType::from_raw_mode(fstat(&fd).map_err(|e| fail(e.into()))?.st_mode);
        for way in [path, &at] {
            if let Some(line) = self.ignored(way, kind) {
                return Err(Missing::Ignored(line));
            }
        }
        let name = path.file_name().unwrap_or_default().to_owned();
        let mut walk = Walk { origin: self, at: &at, exclude, entries: Vec::new() };
        let walked = match kind {
            FileType::Directory => {
                self.root.exact(&at, FOLDER).and_then(|folder| walk.folder(folder, Path::new(""), 0, true))
            }
            _ => {
                let parent = at.parent().unwrap_or(Path::new(""));
                self.root
                    .exact(parent, FOLDER)
                    .and_then(|folder| walk.leaf(&folder, at.file_name().unwrap_or_default(), Path::new("")))
            }
        };
        walked.map_err(|e| Missing::Io(path.to_owned(), e))?;
        Ok(Found { name, entries: walk.entries, at })
    }

    /// The line that leaves this path out, unless it is a folder of which a part is kept.
    fn ignored(&self, path: &Path, kind: FileType) -> Option<usize> {
        if path.as_os_str().is_empty() || path == Path::new(".") {
            return None;
        }
        let line = self.ignore.line(path)?;
        (kind != FileType::Directory || !self.ignore.keeps_within(path)).then_some(line)
    }

    fn glob(&self, source: &str) -> io::Result<Vec<PathBuf>> {
        let mut paths = vec![PathBuf::new()];
        for part in source.split('/').filter(|p| !p.is_empty() && *p != ".") {
            let mut next = Vec::new();
            let wild = part.contains(['*', '?', '[', '\\']);
            let pattern = Pattern::parse(part, Flavour::Name).map_err(io::Error::other)?;
            for path in paths {
                if !wild {
                    next.push(path.join(part));
                    continue;
                }
                let Ok(folder) = self.root.resolve(&path, FOLDER) else { continue };
                for name in names(&folder)? {
                    if pattern.matches(&name.to_string_lossy()) {
                        next.push(path.join(name));
                    }
                }
            }
            if next.len() > MAX_ENTRIES {
                return Err(io::Error::other(format!("names more than {MAX_ENTRIES} files")));
            }
            paths = next;
        }
        Ok(paths)
    }

    /// Names near a missing source, for a suggestion.
    pub(crate) fn siblings(&self, source: &str) -> Vec<String> {
        let path = crate::root::relative(Path::new(source));
        let parent = path.parent().unwrap_or(Path::new(""));
        let Ok(names) = self.root.resolve(parent, FOLDER).and_then(|folder| names(&folder)) else {
            return Vec::new();
        };
        names.into_iter().map(|n| parent.join(n).to_string_lossy().into_owned()).collect()
    }
}

struct Walk<'a> {
    origin: &'a Origin<'a>,
    /// Where the source is in the root.
    at: &'a Path,
    exclude: &'a Ignore,
    entries: Vec<Entry>,
}

impl Walk<'_> {
    /// A folder and all in it. `wanted` says whether it is an entry even if nothing in it is.
    fn folder(&mut self, folder: OwnedFd, path: &Path, depth: usize, wanted: bool) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("folders are nested more than {MAX_DEPTH} deep")));
        }
        let stat = fstat(&folder)?;
        let xattrs = xattrs(&folder)?;
        let index = self.entries.len();
        self.push(path, &stat, What::Folder, xattrs)?;
        for name in names(&folder)? {
            let path = path.join(&name);
            let full = self.at.join(&path);
            let left_out = self.origin.ignore.line(&full).is_some() || self.exclude.line(&path).is_some();
            let stat = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if left_out
                && !(is_folder
                    && self.origin.ignore.keeps_within(&full)
                    && self.exclude.line(&path).is_none())
            {
                continue;
            }
            if is_folder {
                let flags = FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                self.folder(openat(&folder, &name, flags, Mode::empty())?, &path, depth + 1, !left_out)?;
            } else {
                self.leaf(&folder, &name, &path)?;
            }
        }
        if !wanted && self.entries.len() == index + 1 {
            self.entries.pop();
        }
        Ok(())
    }

    fn leaf(&mut self, folder: &OwnedFd, name: &std::ffi::OsStr, path: &Path) -> io::Result<()> {
        let stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let within =
            |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", self.at.join(path).display()));
        if name.as_bytes().starts_with(b".wh.") {
            return Err(within(io::Error::other(
                "names that begin with .wh. mean deleted files in an image",
            )));
        }
        let (what, xattrs) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = openat(folder, name, flags, Mode::empty()).map_err(|e| within(e.into()))?;
                let stat = fstat(&fd)?;
                let stamp = Stamp::of(&stat);
                let xattrs = xattrs(&fd)?;
                let file = File::from(fd);
                if !file.metadata()?.is_file() {
                    return Err(within(io::Error::other("changed while it was read")));
                }
                let digest = hash(&file, stat.st_size as u64, self.origin.cancel).map_err(within)?;
                (What::File { size: stat.st_size.try_into().unwrap_or(0), digest, stamp }, xattrs)
            }
            FileType::Symlink => {
                let target = readlinkat(folder, name, Vec::new())?;
                (What::Link(OsString::from_vec(target.into_bytes())), Vec::new())
            }
            // A socket is bound to a process, which is not copied.
            FileType::Socket => return Ok(()),
            kind if self.origin.foreign => {
                let kind = if kind == FileType::Fifo { "a FIFO" } else { "a device" };
                return Err(within(io::Error::other(format!(
                    "is {kind}; only files, folders and links can be copied. Name it in .dockerignore"
                ))));
            }
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                return Err(within(io::Error::other("device 0:0 means a deleted file in an image")));
            }
            kind => (What::Node { kind, device: stat.st_rdev }, Vec::new()),
        };
        self.push(path, &stat, what, xattrs)
    }

    fn push(
        &mut self,
        path: &Path,
        stat: &Stat,
        what: What,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> io::Result<()> {
        if self.origin.cancel.is_cancelled() {
            return Err(io::Error::other("the build was cancelled"));
        }
        if self.entries.len() >= MAX_ENTRIES {
            return Err(io::Error::other(format!("has more than {MAX_ENTRIES} files")));
        }
        let mode = match what {
            // Links have no permissions of their own.
            What::Link(_) => 0o777,
            _ => stat.st_mode & 0o7777,
        };
        let owner = if self.origin.foreign { (0, 0) } else { (stat.st_uid, stat.st_gid) };
        self.entries.push(Entry { path: path.to_owned(), mode, owner, mtime: stat.st_mtime, what, xattrs });
        Ok(())
    }
}

fn hash(file: &File, size: u64, cancel: &CancellationToken) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    // Files of which the kernel does not know the size may have no end.
    let mut file = file.take(size + 1);
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) if total == size => return Ok(hasher.finalize().into()),
            Ok(0) => return Err(io::Error::other("changed while it was read; build again")),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if cancel.is_cancelled() {
            return Err(io::Error::other("the build was cancelled"));
        }
    }
}

/// The extended attributes that belong to the file and not to the host: the user's and file capabilities.
fn xattrs(fd: &OwnedFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list: Vec<u8> = Vec::with_capacity(1024);
    match rustix::fs::flistxattr(fd, rustix::buffer::spare_capacity(&mut list)) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        // More names than any file of a build has.
        Err(rustix::io::Errno::RANGE) => return Err(io::Error::other("has too many extended attributes")),
        Err(e) => return Err(e.into()),
    }
    let mut found = Vec::new();
    for name in list.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let own = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if !own {
            continue;
        }
        let mut value: Vec<u8> = Vec::with_capacity(64 * 1024);
        rustix::fs::fgetxattr(fd, name, rustix::buffer::spare_capacity(&mut value))?;
        value.shrink_to_fit();
        found.push((name.to_vec(), value));
    }
    found.sort_unstable();
    Ok(found)
}

/// The digest of all that counts: names, types, modes, owners, contents, link targets and attributes; not times.
pub(crate) fn digest(found: &[Found]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for one in found {
        field(b"source");
        field(one.name.as_bytes());
        for entry in &one.entries {
            field(entry.path.as_os_str().as_bytes());
            for number in [entry.mode, entry.owner.0, entry.owner.1, entry.xattrs.len() as u32] {
                field(&number.to_le_bytes());
            }
            for (name, value) in &entry.xattrs {
                field(name);
                field(value);
            }
            match &entry.what {
                What::Folder => field(b"folder"),
                What::File { size, digest, .. } => {
                    field(b"file");
                    field(&size.to_le_bytes());
                    field(digest);
                }
                What::Link(target) => {
                    field(b"link");
                    field(target.as_bytes());
                }
                What::Node { kind, device } => {
                    field(b"node");
                    field(&kind.as_raw_mode().to_le_bytes());
                    field(&device.to_le_bytes());
                }
            }
        }
    }
    hasher.finalize().into()
}
