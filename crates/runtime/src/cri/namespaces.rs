//! What a sandbox has of the kernel's: namespaces bound to files, `/dev/shm`, sysctls; and the files its containers see.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use k8s_cri::v1 as cri;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
    thread::UnshareFlags,
};

use super::SandboxRecord;
use crate::launch::sys;

/// Size of a pod's `/dev/shm`.
const SHM: &str = "mode=1777,size=67108864";

/// Namespaces, `/dev/shm` and files of a sandbox.
pub(super) fn make_sandbox(dir: &Path, record: &SandboxRecord, netns: Option<&Path>) -> io::Result<()> {
    fs::create_dir(dir)?;
    let host_network = record.host_network();
    let hostname = if host_network || record.config.hostname.is_empty() {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        record.config.hostname.clone()
    };
    fs::write(dir.join("hostname"), format!("{hostname}\n"))?;
    fs::write(dir.join("resolv.conf"), resolv_conf(record.config.dns_config.as_ref())?)?;
    fs::write(
        dir.join("hosts"),
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"),
    )?;
    if !record.host_ipc() {
        let shm = dir.join("shm");
        fs::create_dir(&shm)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let options = std::ffi::CString::new(SHM).map_err(io::Error::other)?;
        mount("shm", &shm, "tmpfs", flags, options.as_c_str())?;
    }
    let mut spaces = Vec::new();
    if !host_network {
        spaces.extend([("net", UnshareFlags::NEWNET), ("uts", UnshareFlags::NEWUTS)]);
    }
    if !record.host_ipc() {
        spaces.push(("ipc", UnshareFlags::NEWIPC));
    }
    let sysctls: Vec<(String, String)> = record.linux().sysctls.into_iter().collect();
    let (dir, netns) = (dir.to_owned(), netns.filter(|_| host_network).map(Path::to_owned));
    // A thread of its own: its namespaces are not those of the others any more, and it ends.
    std::thread::Builder::new()
        .name("sandbox".into())
        .spawn(move || make_namespaces(&dir, &spaces, &hostname, &sysctls, netns.as_deref()))?
        .join()
        .map_err(|_| io::Error::other("the thread that makes namespaces has failed"))?
}

fn make_namespaces(
    dir: &Path,
    spaces: &[(&str, UnshareFlags)],
    hostname: &str,
    sysctls: &[(String, String)],
    netns: Option<&Path>,
) -> io::Result<()> {
    if let Some(path) = netns {
        sys::setns(fs::File::open(path)?.as_fd(), libc::CLONE_NEWNET)?;
    }
    let flags = spaces.iter().fold(UnshareFlags::empty(), |all, (_, flag)| all | *flag);
    // SAFETY: these kinds are a thread's own; it shares its memory and descriptors as before.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    if flags.contains(UnshareFlags::NEWUTS) {
        rustix::system::sethostname(hostname.as_bytes())?;
    }
    if flags.contains(UnshareFlags::NEWNET) {
        // as containerd sets them: these limits mean nothing where the whole network is the pod's
        for (name, value) in
            [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")]
        {
            if !sysctls.iter().any(|(n, _)| n == name)
                && let Err(error) = set_sysctl(name, value)
            {
                tracing::debug!(name, %error, "a sysctl stays as it is");
            }
        }
    }
    for (name, value) in sysctls {
        set_sysctl(name, value)
            .map_err(|e| io::Error::new(e.kind(), format!("set the sysctl {name}: {e}")))?;
    }
    for (name, _) in spaces {
        let pin = dir.join(name);
        fs::write(&pin, "")?;
        mount_bind(format!("/proc/thread-self/ns/{name}"), &pin)?;
    }
    Ok(())
}

/// Writes a sysctl of the calling thread's namespaces, to what is certainly procfs.
fn set_sysctl(name: &str, value: &str) -> io::Result<()> {
    let base =
        rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatfs(&base)?.f_type != libc::PROC_SUPER_MAGIC {
        return Err(io::Error::other("/proc/sys is not procfs"));
    }
    // names of interfaces may have dots in them, written as slashes: net/ipv4/conf/eth0.1/forwarding
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = openat2(&base, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

fn resolv_conf(dns: Option<&cri::DnsConfig>) -> io::Result<String> {
    let Some(dns) = dns else {
        return match fs::read_to_string("/etc/resolv.conf") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read,
        };
    };
    let mut text = String::new();
    let bad = |s: &String| s.contains(['\n', '\0']);
    if dns.servers.iter().chain(&dns.searches).chain(&dns.options).any(bad) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a line break in the DNS settings"));
    }
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(text)
}

/// Unmounts what [`make_sandbox`] has mounted; what is not is fine.
pub(super) fn unmount_sandbox(dir: &Path) -> io::Result<()> {
    for name in ["net", "uts", "ipc", "shm"] {
        let path: PathBuf = dir.join(name);
        loop {
            match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                // there may be several, if something was interrupted
                Ok(()) => {}
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Whether the namespaces of a sandbox are still bound.
pub(super) fn is_set_up(dir: &Path, record: &SandboxRecord) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    let bound = |name: &str| rustix::fs::statfs(dir.join(name)).is_ok_and(|s| s.f_type == NSFS_MAGIC);
    (record.host_network() || bound("net")) && (record.host_ipc() || bound("ipc"))
}
