//! `subPath`: a place within a volume, found beneath a descriptor of the volume's root, so that no symlink a container
//! plants leads out of it (CVE-2017-1002101, CVE-2021-25741), and bound to a place of our own while the container lives.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Component, Path},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, mkdirat, openat2};

/// Opens `sub` within `root`, making directories that are missing. Symlinks are followed within the root only.
pub fn open_beneath(root: &Path, sub: &str) -> io::Result<OwnedFd> {
    let relative = Path::new(sub);
    if relative.components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {sub:?} must stay within its volume"),
        ));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut here: OwnedFd = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
    let top = rustix::io::dup(&here)?;
    let mut walked = std::path::PathBuf::new();
    for component in relative.components() {
        let Component::Normal(name) = component else { continue };
        walked.push(name);
        let open = || {
            openat2(&top, &walked, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
        };
        here = match open() {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => {
                match mkdirat(&here, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                open()?
            }
            Err(e) => return Err(e.into()),
        };
    }
    Ok(here)
}

/// Binds what `sub` names within `root` to `target`, which is made a file or directory to match.
pub fn bind(root: &Path, sub: &str, target: &Path) -> io::Result<()> {
    let fd = open_beneath(root, sub)?;
    unbind(target)?;
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode).is_dir() {
        fs::create_dir_all(target)?;
    } else {
        fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::mount::mount_bind_recursive(source.as_str(), target)?;
    Ok(())
}

/// Takes a mount away; succeeds where there is none.
pub fn unbind(target: &Path) -> io::Result<()> {
    loop {
        let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(target, flags) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            // without the right to mount there is no mount of ours either
            Err(rustix::io::Errno::PERM) if !rustix::process::geteuid().is_root() => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn place(fd: &OwnedFd) -> std::path::PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap()
    }

    #[test]
    fn missing_directories_are_made_beneath_the_root() {
        let root = tempfile::tempdir().unwrap();
        let fd = open_beneath(root.path(), "a/b").unwrap();
        assert_eq!(place(&fd), root.path().canonicalize().unwrap().join("a/b"));
    }

    #[test]
    fn a_symlink_never_leads_out_of_the_volume() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("secret")).unwrap();
        symlink(outside.path(), root.path().join("out")).unwrap();
        symlink("../../../../..", root.path().join("up")).unwrap();
        assert!(open_beneath(root.path(), "out/secret").is_err());
        assert_eq!(place(&open_beneath(root.path(), "up").unwrap()), root.path().canonicalize().unwrap());
        for bad in ["../x", "/etc", "a/../../x"] {
            assert!(open_beneath(root.path(), bad).is_err(), "{bad}");
        }
    }
}
