//! Making files and folders beneath a root that somebody else filled.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, mkdirat, openat},
    io::Errno,
};

use super::sys::open_beneath;

/// What should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Directory,
    /// Anything but a folder.
    File,
}

/// What was made on the way, as paths beneath the root, outermost first.
pub type Made = Vec<PathBuf>;

/// Opens (`O_PATH`) what `path` leads to beneath `root`, making what is missing. Symlinks inside are followed, inside.
///
/// # Errors
/// Also when the path is there but is not of this kind, or when a dangling symlink lies in the way.
pub fn ensure(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> io::Result<(OwnedFd, Made)> {
    let flags = OFlags::PATH | if kind == Kind::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
    match open_beneath(root, path, flags, ResolveFlags::empty()) {
        Ok(fd) => {
            if kind == Kind::File && is_directory(fd.as_fd())? {
                return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory in the image"));
            }
            return Ok((fd, Made::new()));
        }
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let (mut made, mut so_far) = (Made::new(), PathBuf::new());
    let mut here =
        open_beneath(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
    let parts: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(Ok(name)),
            Component::ParentDir => Some(Err(io::Error::new(io::ErrorKind::InvalidInput, "it has .. in it"))),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect::<io::Result<_>>()?;
    for (i, name) in parts.iter().enumerate() {
        so_far.push(name);
        let last = i + 1 == parts.len();
        if last && kind == Kind::File {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            match openat(&here, *name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) => made.push(so_far.clone()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            match mkdirat(&here, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) => made.push(so_far.clone()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags =
            OFlags::PATH | if last && kind == Kind::File { OFlags::empty() } else { OFlags::DIRECTORY };
        // resolved from the root again, because it may be a symlink
        here = open_beneath(root, &so_far, flags, ResolveFlags::empty())?;
    }
    Ok((here, made))
}

/// Whether a descriptor stands for a folder.
pub fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn missing_folders_are_made_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (_, made) = ensure(root(dir.path()).as_fd(), Path::new("/a/b/c"), Kind::File).unwrap();
        assert_eq!(made, ["a", "a/b", "a/b/c"].map(PathBuf::from));
        assert!(dir.path().join("a/b/c").is_file());
    }

    #[test]
    fn a_symlink_to_the_outside_stays_inside() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        symlink("/tmp", dir.path().join("link")).unwrap();
        ensure(root(dir.path()).as_fd(), Path::new("/link/x"), Kind::Directory).unwrap();
        assert!(dir.path().join("tmp/x").is_dir());

        symlink(outside.path(), dir.path().join("out")).unwrap();
        // the target does not exist inside: refused, and nothing appears outside
        assert!(ensure(root(dir.path()).as_fd(), Path::new("/out/x"), Kind::Directory).is_err());
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn dots_are_refused_where_something_would_be_made() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ensure(root(dir.path()).as_fd(), Path::new("/a/../../b"), Kind::Directory).is_err());
        assert!(!dir.path().parent().unwrap().join("b").exists());
    }
}
