//! Writes what a COPY found into a root file system, never out of it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, mknodat, openat, statat, symlinkat, utimensat,
};

use crate::{
    chmod::Chmod,
    root::{FOLDER, Root, make_folder, proc_path, remove_file},
    tree::{Entry, Found, Stamp, What},
};

/// How and where to.
pub(crate) struct Target<'a> {
    pub(crate) root: &'a Root,
    /// Absolute.
    pub(crate) path: &'a str,
    /// The target is a folder, also if it is not there yet.
    pub(crate) folder: bool,
    /// `--chown`
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(crate) mode: Option<&'a Chmod>,
    /// `SOURCE_DATE_EPOCH`: the time of everything.
    pub(crate) time: Option<i64>,
}

impl Target<'_> {
    /// Copies one source with all in it.
    pub(crate) fn put(&self, from: &Root, found: &Found) -> io::Result<()> {
        let [top, inside @ ..] = found.entries.as_slice() else { return Ok(()) };
        let mut writer = Writer { target: self, from, found, last: None, times: Vec::new() };
        if matches!(top.what, What::Folder) {
            let base = PathBuf::from(self.path);
            self.folder(&base)?;
            for entry in inside {
                writer.entry(entry, &base.join(&entry.path))?;
            }
            return writer.set_times();
        }
        writer.entry(top, &self.file(&found.name)?)
    }

    /// Writes a file that does not come from a folder; `time` in seconds since 1970 is now if there is none.
    pub(crate) fn put_stream(
        &self,
        name: &str,
        content: &mut dyn Read,
        mode: u32,
        time: Option<i64>,
    ) -> io::Result<()> {
        let path = self.file(OsStr::new(name))?;
        let (folder, name) = self.parent(&path)?;
        let file = create(&folder, &name)?;
        io::copy(content, &mut &file)?;
        let mode = self.mode.map_or(mode, |m| m.apply(mode, false));
        let time = self.time.or(time).unwrap_or_else(|| chrono::Utc::now().timestamp());
        finish(&file, self.owner.unwrap_or((0, 0)), mode, &[], time)
    }

    /// Opens (and makes) a folder of the target.
    pub(crate) fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        self.root.make_folders(path, self.owner.unwrap_or((0, 0))).map_err(|e| match e.kind() {
            io::ErrorKind::NotADirectory => {
                io::Error::other(format!("{} in the image is no folder", path.display()))
            }
            _ => io::Error::new(e.kind(), format!("{} in the image: {e}", path.display())),
        })
    }

    /// Where a single file of this name goes.
    fn file(&self, name: &OsStr) -> io::Result<PathBuf> {
        let path = Path::new(self.path);
        if self.folder || self.root.kind(path)? == Some(FileType::Directory) {
            return Ok(path.join(name));
        }
        // A link there is followed: its file is replaced, not the link.
        match self.root.locate(path) {
            Ok(real) => Ok(Path::new("/").join(real)),
            Err(_) => Ok(path.to_owned()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name =
            path.file_name().ok_or_else(|| io::Error::other("the target is the root, which is no file"))?;
        Ok((self.folder(path.parent().unwrap_or(Path::new("/")))?, name.to_owned()))
    }
}

struct Writer<'a> {
    target: &'a Target<'a>,
    from: &'a Root,
    found: &'a Found,
    /// The folder used last.
    last: Option<(PathBuf, OwnedFd)>,
    /// Folders that were made, and their times: set last, because every file made in one changes them.
    times: Vec<(PathBuf, i64)>,
}

impl Writer<'_> {
    fn entry(&mut self, entry: &Entry, to: &Path) -> io::Result<()> {
        let parent = to.parent().unwrap_or(Path::new("/"));
        if self.last.as_ref().is_none_or(|(path, _)| path != parent) {
            self.last = Some((parent.to_owned(), self.target.folder(parent)?));
        }
        let (Some((_, folder)), Some(name)) = (&self.last, to.file_name()) else {
            return Err(io::Error::other("the target is the root, which is no file"));
        };
        let owner = self.target.owner.unwrap_or(entry.owner);
        let is_folder = matches!(entry.what, What::Folder);
        let mode = self.target.mode.map_or(entry.mode, |m| m.apply(entry.mode, is_folder));
        let time = self.target.time.unwrap_or(entry.mtime);
        let within = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", to.display()));
        match &entry.what {
            What::Folder => {
                match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(()),
                    // A link to a folder, such as /bin in many images, will do.
                    Ok(_) => return self.target.folder(to).map(|_| ()),
                    Err(rustix::io::Errno::NOENT) => {}
                    Err(e) => return Err(within(e.into())),
                }
                let made = make_folder(folder, name, mode, owner).map_err(within)?;
                set_xattrs(&made, &entry.xattrs).map_err(within)?;
                self.times.push((to.to_owned(), time));
            }
            What::File { stamp, size, .. } => {
                let source =
                    self.from.exact(&self.found.at.join(&entry.path), OFlags::RDONLY | OFlags::NONBLOCK);
                let source = source.map_err(within)?;
                let to = create(folder, name).map_err(within)?;
                copy_content(&source, &to, *size, stamp).map_err(within)?;
                finish(&to, owner, mode, &entry.xattrs, time).map_err(within)?;
            }
            What::Link(target) => {
                remove_file(folder, name).map_err(within)?;
                symlinkat(target, folder, name)?;
                own(folder, name, owner)?;
                utimensat(folder, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            What::Node { kind, device } => {
                remove_file(folder, name).map_err(within)?;
                mknodat(folder, name, *kind, Mode::from_raw_mode(0o600), *device)?;
                own(folder, name, owner)?;
                let fd =
                    openat(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
                chmodat(CWD, proc_path(&fd), Mode::from_raw_mode(mode), AtFlags::empty())?;
                utimensat(folder, name, &times(time), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        Ok(())
    }

    fn set_times(self) -> io::Result<()> {
        for (path, time) in self.times.iter().rev() {
            futimens(self.target.root.resolve(path, FOLDER)?, &times(*time))?;
        }
        Ok(())
    }
}

fn create(folder: &OwnedFd, name: &OsStr) -> io::Result<File> {
    remove_file(folder, name)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(folder, name, flags, Mode::from_raw_mode(0o600))?.into())
}

/// Copies, and makes sure that what was copied is what was looked at.
fn copy_content(from: &OwnedFd, to: &File, size: u64, stamp: &Stamp) -> io::Result<()> {
    let mut source = File::from(from.try_clone()?).take(size);
    // Where both lie on one file system that can, no byte is moved.
    if rustix::fs::ioctl_ficlone(to, from).is_err() {
        io::copy(&mut source, &mut &*to)?;
    }
    match Stamp::of(&fstat(from)?) == *stamp {
        true => Ok(()),
        false => Err(io::Error::other("changed while it was copied; build again")),
    }
}

fn finish(
    file: &File,
    owner: (u32, u32),
    mode: u32,
    xattrs: &[(Vec<u8>, Vec<u8>)],
    time: i64,
) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    // After chown, which clears setuid and capabilities.
    fchmod(file, Mode::from_raw_mode(mode))?;
    set_xattrs(file, xattrs)?;
    Ok(futimens(file, &times(time))?)
}

fn own(folder: &OwnedFd, name: &OsStr, owner: (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    Ok(chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_xattrs(fd: impl std::os::fd::AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in xattrs {
        match fsetxattr(&fd, name.as_slice(), value, XattrFlags::empty()) {
            Err(rustix::io::Errno::NOTSUP) => {}
            result => result?,
        }
    }
    Ok(())
}

fn times(seconds: i64) -> Timestamps {
    // A layer's archive has whole seconds.
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}
