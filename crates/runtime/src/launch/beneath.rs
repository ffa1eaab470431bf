//! Making files and folders beneath a root that somebody else filled.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, readlinkat},
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

/// Most symlinks that are followed, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Opens (`O_PATH`) what `path` leads to beneath `root`, making what is missing. Symlinks are followed inside, those that
/// lead to nothing too: what they name is made.
///
/// # Errors
/// Also when the path is there but is not of this kind.
pub fn ensure(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> io::Result<(OwnedFd, Made)> {
    let flags = OFlags::PATH | if kind == Kind::Directory { OFlags::DIRECTORY } else { OFlags::empty() };
    match open_beneath(root, path, flags, ResolveFlags::empty()) {
        Ok(fd) => return fits(fd, kind).map(|fd| (fd, Made::new())),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut made = Made::new();
    let mut todo: Vec<OsString> = parts(path).collect();
    todo.reverse();
    let (mut at, mut links) = (PathBuf::new(), 0);
    while let Some(name) = todo.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        // Every step starts at the root again: whatever is exchanged meanwhile, it stays beneath it.
        match open_beneath(root, &next, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::empty()) {
            Ok(fd) if FileType::from_raw_mode(fstat(&fd)?.st_mode).is_symlink() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = PathBuf::from(OsString::from_vec(readlinkat(&fd, "", Vec::new())?.into_bytes()));
                if target.is_absolute() {
                    at = PathBuf::new();
                }
                let start = todo.len();
                todo.extend(parts(&target));
                todo[start..].reverse();
                continue;
            }
            Ok(_) => {}
            Err(Errno::NOENT) => {
                let parent = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
                let parent =
                    open_beneath(root, parent, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
                make(&parent, &name, if todo.is_empty() { kind } else { Kind::Directory })?;
                made.push(next.clone());
            }
            Err(error) => return Err(error.into()),
        }
        at = next;
    }
    let at = if at.as_os_str().is_empty() { Path::new(".") } else { &at };
    let fd = open_beneath(root, at, flags | OFlags::NOFOLLOW, ResolveFlags::empty())?;
    fits(fd, kind).map(|fd| (fd, made))
}

/// The names in a path, `..` among them.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn make(parent: &OwnedFd, name: &OsString, kind: Kind) -> rustix::io::Result<()> {
    let made = match kind {
        Kind::Directory => mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(|_| ())
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

fn fits(fd: OwnedFd, kind: Kind) -> io::Result<OwnedFd> {
    match (kind, is_directory(fd.as_fd())?) {
        (Kind::File, true) => {
            Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory in the image"))
        }
        (Kind::Directory, false) => {
            Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no directory in the image"))
        }
        _ => Ok(fd),
    }
}

/// Whether a descriptor stands for a folder.
pub fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = fstat(fd)?;
    Ok(FileType::from_raw_mode(stat.st_mode).is_dir())
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
        symlink("../../../../../up", dir.path().join("up-link")).unwrap();
        ensure(root(dir.path()).as_fd(), Path::new("/out/x"), Kind::Directory).unwrap();
        ensure(root(dir.path()).as_fd(), Path::new("/up-link/../y"), Kind::File).unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        let inside = outside.path().strip_prefix("/").unwrap();
        assert!(dir.path().join(inside).join("x").is_dir());
        assert!(dir.path().join("y").is_file());
        assert!(!dir.path().parent().unwrap().join("y").exists());
    }

    #[test]
    fn a_link_to_nothing_is_filled_where_it_leads() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        symlink("../run/resolve/stub.conf", dir.path().join("etc/resolv.conf")).unwrap();
        let (_, made) = ensure(root(dir.path()).as_fd(), Path::new("/etc/resolv.conf"), Kind::File).unwrap();
        assert_eq!(made, ["run", "run/resolve", "run/resolve/stub.conf"].map(PathBuf::from));
        assert!(dir.path().join("run/resolve/stub.conf").is_file());
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(ensure(root(dir.path()).as_fd(), Path::new("/a/x"), Kind::Directory).is_err());
    }

    #[test]
    fn what_is_there_must_be_of_the_kind() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(ensure(root(dir.path()).as_fd(), Path::new("/file"), Kind::Directory).is_err());
        assert!(ensure(root(dir.path()).as_fd(), Path::new("/"), Kind::File).is_err());
    }
}
