//! Control groups of containers, version 1 and 2.
//!
//! A group is named by its path below the root of the hierarchy, like `/plimsoll/kubepods/podUID/ID`. All calls block for
//! some tens of microseconds, [`Cgroups::remove`] until the processes in the group have ended.

mod v1;
mod v2;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

pub use v1::V1;
pub use v2::V2;

/// What a group may use. Zero and empty mean "leave it as it is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Share of CPU time, of 1024 for a whole CPU.
    pub cpu_shares: i64,
    /// CPU time in a period, microseconds; negative: unlimited.
    pub cpu_quota: i64,
    /// The period, microseconds.
    pub cpu_period: i64,
    /// CPUs (`0-3,7`).
    pub cpuset_cpus: String,
    /// Memory nodes.
    pub cpuset_mems: String,
    /// Bytes; negative: unlimited.
    pub memory: i64,
    /// Memory and swap together, bytes; negative: unlimited.
    pub memory_swap: i64,
    /// Processes; negative: unlimited.
    pub pids: i64,
    /// Page size (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of cgroup v2.
    pub unified: BTreeMap<String, String>,
}

/// What a group uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time, nanoseconds.
    pub cpu: u64,
    /// Bytes, page cache included.
    pub memory: u64,
    /// Bytes that cannot be given back at once.
    pub working_set: u64,
    /// Bytes of anonymous memory.
    pub rss: u64,
    /// Limit in bytes, if there is one.
    pub memory_limit: Option<u64>,
    /// Swap, bytes.
    pub swap: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Those that had to read.
    pub major_page_faults: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// A version of cgroups.
pub trait Cgroups: Send + Sync {
    /// Makes a group and what is above it, and sets its limits. Returns the directories a process has to enter.
    ///
    /// # Errors
    /// When the kernel refuses it, or a value.
    fn create(&self, path: &str, resources: &Resources, guard_devices: bool) -> io::Result<Vec<PathBuf>>;
    /// Sets limits.
    ///
    /// # Errors
    /// When the kernel refuses a value.
    fn update(&self, path: &str, resources: &Resources) -> io::Result<()>;
    /// What it uses.
    ///
    /// # Errors
    /// When there is no such group.
    fn usage(&self, path: &str) -> io::Result<Usage>;
    /// How many processes in it were killed because its memory ran out.
    fn oom_kills(&self, path: &str) -> u64;
    /// Directories of the group, those that exist.
    fn directories(&self, path: &str) -> Vec<PathBuf>;
    /// What a container sees below `/sys/fs/cgroup` (v1): controller and directory.
    fn visible(&self, path: &str) -> Vec<(String, PathBuf)>;
    /// 1 or 2.
    fn version(&self) -> u8;

    /// Ends what is in the group and the groups below, and removes them. One that is not there is fine.
    ///
    /// # Errors
    /// When the kernel refuses it.
    fn remove(&self, path: &str) -> io::Result<()> {
        for directory in self.directories(path) {
            remove_tree(&directory)?;
        }
        Ok(())
    }

    /// Removes a group if nothing is in it.
    fn remove_if_empty(&self, path: &str) {
        for directory in self.directories(path) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The version this machine uses: 2 if all of `/sys/fs/cgroup` is, else 1.
///
/// # Errors
/// When there are no cgroups at all.
pub fn detect() -> io::Result<Box<dyn Cgroups>> {
    const ROOT: &str = "/sys/fs/cgroup";
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        return Ok(Box::new(V2::new(ROOT.into())));
    }
    Ok(Box::new(V1::from_mounts(&fs::read_to_string("/proc/self/mounts")?)?))
}

fn check_path(path: &str) -> io::Result<&str> {
    if path.split('/').any(|part| part == ".." || part == ".") {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is no name of a cgroup")));
    }
    Ok(path.trim_matches('/'))
}

/// Someone may remove an empty parent just as a group is made below it.
fn retried<T>(mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..3 {
        match make() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    make()
}

fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    let path = directory.join(file);
    fs::write(&path, value)
        .map_err(|e| io::Error::new(e.kind(), format!("write {value:?} to {}: {e}", path.display())))
}

fn read_number(directory: &Path, file: &str) -> io::Result<u64> {
    let text = fs::read_to_string(directory.join(file))?;
    text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{file} is {text:?}")))
}

/// A value in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn processes(directory: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).filter(|p| *p > 0).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => Ok(vec![]),
        Err(e) => Err(e),
    }
}

/// Kills until nobody is left. Each round waits for the death of those it has seen, so it never polls.
fn end_all(directory: &Path) -> io::Result<()> {
    // v2 has a file for it; those it kills are waited for below
    let _ = fs::write(directory.join("cgroup.kill"), "1");
    loop {
        let pids = processes(directory)?;
        if pids.is_empty() {
            return Ok(());
        }
        let mut dying = Vec::with_capacity(pids.len());
        for pid in pids {
            // SAFETY: numbers only; the descriptor is new.
            let fd = unsafe {
                match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
                    -1 => continue,
                    fd => OwnedFd::from_raw_fd(fd as i32),
                }
            };
            // The number may be another process' by now: only one that is still in the group may be killed.
            if processes(directory)?.contains(&pid) {
                let _ = rustix::process::pidfd_send_signal(&fd, rustix::process::Signal::KILL);
                dying.push(fd);
            }
        }
        for fd in &dying {
            let mut poll =
                [rustix::event::PollFd::from_borrowed_fd(fd.as_fd(), rustix::event::PollFlags::IN)];
            while rustix::event::poll(&mut poll, None) == Err(rustix::io::Errno::INTR) {}
        }
    }
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    loop {
        end_all(directory)?;
        match fs::remove_dir(directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                let below: Vec<_> = fs::read_dir(directory)?
                    .filter_map(|e| Some(e.ok()?.path()))
                    .filter(|p| p.is_dir())
                    .collect();
                // without groups below, a process has slipped in: kill again
                for path in below {
                    remove_tree(&path)?;
                }
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        assert!(check_path("/a/../../b").is_err());
        assert_eq!(check_path("/a/b/").unwrap(), "a/b");
    }

    #[test]
    fn keyed_files_are_read_by_whole_keys() {
        assert_eq!(keyed("oom 3\noom_kill 2\n", "oom_kill"), Some(2));
        assert_eq!(keyed("oom_kill 2\n", "oom"), None);
    }

    /// A real hierarchy, v1 or v2, with a process in a group below the one that is removed.
    fn removed_with_what_is_in_it(cgroups: &dyn Cgroups, controller_root: &Path) {
        let path = format!("/plimsoll-unit-{}-v{}", std::process::id(), cgroups.version());
        let below = format!("{path}/below");
        let made = cgroups.create(&below, &Resources::default(), false).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        for directory in &made {
            fs::write(directory.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        assert_eq!(processes(&made[0]).unwrap(), [child.id() as i32]);
        cgroups.remove(&path).unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(!controller_root.join(path.trim_matches('/')).exists());
        cgroups.remove(&path).unwrap();
    }

    #[test]
    fn a_group_is_removed_with_what_is_in_it() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        match unified.into_iter().find(|p| p.join("cgroup.controllers").exists()) {
            Some(root) => removed_with_what_is_in_it(&V2::new(root.to_owned()), root),
            None => println!("skipped for v2: no cgroup2 is mounted"),
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        match V1::from_mounts(&mounts) {
            Ok(v1) => removed_with_what_is_in_it(&v1, Path::new("/sys/fs/cgroup/memory")),
            Err(error) => println!("skipped for v1: {error}"),
        }
    }
}
