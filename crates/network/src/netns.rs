//! Network namespaces: make, name, open, enter, remove.
//!
//! A thread can be in another network namespace than its process. [`within`] uses a thread of its own for
//! each visit and lets it end there, so that no runtime thread can be left behind in a foreign namespace.
//! Sockets belong for life to the namespace they were opened in, hence the usual pattern: open within, use
//! anywhere.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;

use crate::error::{Error, Result};

/// Where iproute2 keeps named namespaces; using the same place makes ours visible to `ip netns`.
pub const RUN_DIR: &str = "/run/netns";

/// Runs `f` in the network namespace at `path` (or right here if `None`) and returns what it returns.
///
/// Blocks for as long as `f` does; entering costs some 50 µs.
pub fn within<T: Send>(path: Option<&Path>, f: impl FnOnce() -> T + Send) -> Result<T> {
    let Some(path) = path else { return Ok(f()) };
    let ns = File::open(path).map_err(Error::io(format!("open network namespace {}", path.display())))?;
    within_file(&ns, f)
}

/// As [`within`], for a namespace that is already open.
pub fn within_file<T: Send>(ns: &File, f: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, move || {
                nix::sched::setns(ns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                Ok(f())
            })
            .map_err(Error::io("start a thread for a network namespace"))?;
        match thread.join() {
            Ok(result) => result.map_err(Error::io("enter network namespace")),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Makes the folder a mount of its own that shares what is mounted in it, as `ip netns` does when it is first used: it
/// would cover what is bound there before.
fn share() -> io::Result<()> {
    let mount =
        |source: Option<&str>, flags| nix::mount::mount(source, RUN_DIR, None::<&str>, flags, None::<&str>);
    let shared = MsFlags::MS_SHARED | MsFlags::MS_REC;
    match mount(None, shared) {
        Err(nix::Error::EINVAL) => {
            mount(Some(RUN_DIR), MsFlags::MS_BIND | MsFlags::MS_REC)?;
            Ok(mount(None, shared)?)
        }
        done => Ok(done?),
    }
}

/// Makes a network namespace and binds it to `/run/netns/NAME`. Returns that path.
///
/// Fails with `AlreadyExists` if the name is taken.
pub fn create(name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(RUN_DIR).map_err(Error::io(format!("create {RUN_DIR}")))?;
    share().map_err(Error::io(format!("share {RUN_DIR}")))?;
    let path = Path::new(RUN_DIR).join(name);
    File::create_new(&path).map_err(Error::io(format!("create {}", path.display())))?;
    let bound = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<()> {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            nix::mount::mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            Ok(())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    if let Err(source) = bound {
        // Nothing may be left half made; the first error is the one that tells.
        let _ = std::fs::remove_file(&path);
        return Err(Error::Io { what: format!("bind a network namespace to {}", path.display()), source });
    }
    Ok(path)
}

/// Whether a network namespace is bound to this path.
#[must_use]
pub fn is_bound(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// Unbinds and removes `/run/netns/NAME`; a name that does not exist is fine.
pub fn remove(name: &str) -> Result<()> {
    let path = Path::new(RUN_DIR).join(name);
    // It may have been bound more than once.
    loop {
        match nix::mount::umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(e) => return Err(Error::io(format!("unmount {}", path.display()))(e.into())),
        }
    }
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(e))
        }
        _ => {
            // What `share` made is of no use any more when it is empty; it is made again when it is needed.
            if std::fs::read_dir(RUN_DIR).is_ok_and(|mut names| names.next().is_none()) {
                let _ = nix::mount::umount2(RUN_DIR, MntFlags::empty());
            }
            Ok(())
        }
    }
}

/// Writes a `/proc/sys/net` setting of the calling thread's namespace; `key` uses slashes.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    // Writing the same value again may be refused (read-only /proc/sys in a container) though nothing is to do.
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(Error::io(format!("set {path} to {value}")))
}
