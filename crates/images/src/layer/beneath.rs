//! File operations that cannot leave a folder, whatever links a stranger put into it.
//!
//! Every path is resolved by `openat2` with the folder as its root (`..` and absolute links end at the root, magic
//! links and other mounts are refused); the last component is never followed.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat, openat2, unlinkat},
    io::Errno,
};

/// A folder as a root.
pub(crate) struct Beneath {
    root: Arc<OwnedFd>,
    /// The folder used last: archives list a folder's files together.
    last: Option<(PathBuf, Arc<OwnedFd>)>,
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Beneath {
    pub(crate) fn open(root: &Path) -> io::Result<Beneath> {
        Ok(Beneath { root: Arc::new(open(root, FOLDER | OFlags::NOFOLLOW, Mode::empty())?), last: None })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> Arc<OwnedFd> {
        self.root.clone()
    }

    /// Opens an existing folder; `path` is relative and clean (see [`clean`]).
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.clone());
        }
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = Arc::new(self.resolve(path, FOLDER)?);
        self.last = Some((path.to_owned(), fd.clone()));
        Ok(fd)
    }

    /// Opens a folder, making what is missing of it; tells `made` of each folder it makes.
    pub(crate) fn make_folder(
        &mut self,
        path: &Path,
        mut made: impl FnMut(&Path),
    ) -> io::Result<Arc<OwnedFd>> {
        match self.folder(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut current = self.root.clone();
        let mut so_far = PathBuf::new();
        for component in path.components() {
            so_far.push(component);
            let next = match self.resolve(&so_far, FOLDER) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    mkdirat(&current, component.as_os_str(), Mode::from_raw_mode(0o755)).map_err(
                        |e| match e {
                            Errno::EXIST => io::Error::other("its path leads through a link to nowhere"),
                            e => e.into(),
                        },
                    )?;
                    made(&so_far);
                    openat(&current, component.as_os_str(), FOLDER | OFlags::NOFOLLOW, Mode::empty())?
                }
                result => result?,
            };
            current = Arc::new(next);
        }
        self.last = Some((path.to_owned(), current.clone()));
        Ok(current)
    }

    /// Opens a file for reading; links within the folder are followed, none out of it.
    pub(crate) fn read(&self, path: &Path) -> io::Result<File> {
        let file: File = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK)?.into();
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("is no file")),
        }
    }

    /// To be called when a folder was removed or replaced.
    pub(crate) fn forget(&mut self) {
        self.last = None;
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                // A rename elsewhere in the system raced with the resolution.
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

/// A path from an archive, made relative: without leading slashes, `.` and empty parts. `None` if it has a `..`.
pub(crate) fn clean(path: &[u8]) -> Option<PathBuf> {
    let mut cleaned = PathBuf::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            part => cleaned.push(OsStr::from_bytes(part)),
        }
    }
    Some(cleaned)
}

/// The path of an open file as the kernel knows it, for calls that take no descriptor; `name` is not followed by us.
pub(crate) fn proc_path(fd: impl AsFd, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    if !name.is_empty() {
        path.push(name);
    }
    path
}

/// Removes whatever has this name in the folder, following no link.
pub(crate) fn remove(folder: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => std::fs::remove_dir_all(proc_path(folder, name)),
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

/// Sets the permissions of something that is no link, without following one if it is.
pub(crate) fn chmod_nofollow(folder: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let fd = openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    Ok(rustix::fs::chmodat(CWD, proc_path(&fd, OsStr::new("")), Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// Creates a new file; fails if the name is taken, even by a link.
pub(crate) fn create(folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::from_raw_mode(0o600))?.into())
}
