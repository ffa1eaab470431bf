//! A folder as a root: whatever links a stranger put into it, nothing outside of it is reached.
//!
//! Every path is resolved by `openat2` with the folder as its root: `..` and absolute links end there, and magic links
//! are refused.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, mkdirat, open, openat, openat2},
    io::Errno,
};

pub(crate) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// Deepest nesting of folders that is walked.
pub(crate) const MAX_DEPTH: usize = 512;
/// Times a resolution is tried again after a rename elsewhere in the system raced with it.
const RACES: usize = 1000;

/// A folder as a root.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// Where it really is.
    real: PathBuf,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Root> {
        let fd = open(path, FOLDER | OFlags::CLOEXEC, Mode::empty())?;
        let real = fs::read_link(proc_path(&fd))?;
        Ok(Root { fd, real })
    }

    /// Opens what is at `path`; links are followed, also the last, but none out of the root.
    pub(crate) fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.open_how(path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens what is at a path that has no links, such as one that was found by walking.
    pub(crate) fn exact(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.open_how(path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    fn open_how(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> io::Result<OwnedFd> {
        let path = relative(path);
        for _ in 0..RACES {
            match openat2(&self.fd, &path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
        Err(io::Error::other("its folders are renamed all the time"))
    }

    /// Where `path` leads to, as a path without links, relative to the root.
    pub(crate) fn locate(&self, path: &Path) -> io::Result<PathBuf> {
        let fd = self.resolve(path, OFlags::PATH)?;
        let real = fs::read_link(proc_path(&fd))?;
        match real.strip_prefix(&self.real) {
            Ok(inside) => Ok(inside.to_owned()),
            Err(_) => Err(io::Error::other("it was moved away")),
        }
    }

    /// The path of what `path` leads to as the host sees it.
    pub(crate) fn on_host(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(self.real.join(self.locate(path)?))
    }

    /// What kind of thing `path` leads to; none if there is nothing.
    pub(crate) fn kind(&self, path: &Path) -> io::Result<Option<rustix::fs::FileType>> {
        match self.resolve(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode))),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads a file of at most `most` bytes; none if it is not there.
    pub(crate) fn read(&self, path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
        let file: File = match self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => fd.into(),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("is no file"));
        }
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("is larger than {most} bytes")));
        }
        Ok(Some(bytes))
    }

    /// Opens a folder, making what is missing of it (0755, with this owner).
    pub(crate) fn make_folders(&self, path: &Path, owner: (u32, u32)) -> io::Result<OwnedFd> {
        match self.resolve(path, FOLDER) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut current = self.resolve(Path::new(""), FOLDER)?;
        let mut so_far = PathBuf::new();
        for component in relative(path).components() {
            so_far.push(component);
            current = match self.resolve(&so_far, FOLDER) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    make_folder(&current, component.as_os_str(), 0o755, owner)?
                }
                result => result?,
            };
        }
        Ok(current)
    }
}

/// Makes a new folder.
pub(crate) fn make_folder(
    parent: &OwnedFd,
    name: &OsStr,
    mode: u32,
    owner: (u32, u32),
) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Err(Errno::EXIST) => return Err(io::Error::other("the way there leads through a link to nowhere")),
        result => result?,
    }
    let fd = openat(parent, name, FOLDER | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    fchown(&fd, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
    fchmod(&fd, Mode::from_raw_mode(mode))?;
    Ok(fd)
}

/// Removes something that is no folder; true if it was there. A folder is an error.
pub(crate) fn remove_file(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(Errno::ISDIR | Errno::PERM) => Err(io::Error::other("there is a folder of that name already")),
        Err(e) => Err(e.into()),
    }
}

/// The path of an open file as the kernel knows it, for calls that take no descriptor.
pub(crate) fn proc_path(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
        let name: &OsStr = name;
        if name != "." && name != ".." {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A path without root, `.` and trailing slash; `..` is left to the kernel. Empty becomes `.`.
pub(crate) fn relative(path: &Path) -> PathBuf {
    let kept = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    let path: PathBuf = kept.collect();
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path }
}

/// A path made absolute and without `.` and `..`, as text: what stands before a `..` is taken away, as in a shell's
/// logical `cd`.
pub(crate) fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_are_made_absolute_within_the_root() {
        for (base, path, expected) in [
            ("/", "a", "/a"),
            ("/a/b", "../c/./d/", "/a/c/d"),
            ("/a", "/b//c", "/b/c"),
            ("/", "../../x", "/x"),
        ] {
            assert_eq!(absolute(base, path), expected);
        }
    }

    #[test]
    fn links_never_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(inside.join("etc/passwd"), "inside").unwrap();
        symlink("/etc", inside.join("absolute")).unwrap();
        symlink("../../../../secret", inside.join("up")).unwrap();
        symlink("/nowhere/x", inside.join("dangling")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        let root = Root::open(&inside).unwrap();
        assert_eq!(root.read(Path::new("/absolute/passwd"), 100).unwrap().unwrap(), b"inside");
        assert_eq!(root.locate(Path::new("absolute/passwd")).unwrap(), Path::new("etc/passwd"));
        assert_eq!(root.read(Path::new("up"), 100).unwrap(), None);
        assert_eq!(root.read(Path::new("../secret"), 100).unwrap(), None);
        assert_eq!(root.kind(Path::new("magic")).unwrap(), None);
        let error = root.make_folders(Path::new("dangling/y"), (0, 0)).unwrap_err();
        assert!(error.to_string().contains("link to nowhere"), "{error}");
        assert!(!dir.path().join("nowhere").exists());
        assert!(root.exact(Path::new("absolute"), FOLDER).is_err());
        assert!(root.read(Path::new("etc/passwd"), 3).unwrap_err().to_string().contains("larger"));
    }
}
