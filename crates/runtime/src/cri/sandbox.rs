//! Sandboxes: namespaces without a process, a network, and the files that every container of a pod gets.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_cri::v1 as cri;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
    thread::UnshareFlags,
};
use tonic::Status;

use super::{Runtime, Sandbox, SandboxRecord, internal, new_id, now, record};
use crate::{
    PodNetworkRequest,
    holder::wire::Request,
    launch::sys,
    plan::{Launch, Namespace, Namespaces, Role},
};

/// Process of a sandbox in the holder, where its containers share PIDs.
pub(super) fn init_id(sandbox: &str) -> String {
    format!("pod-{sandbox}")
}

/// Size of a pod's `/dev/shm`.
const SHM: &str = "mode=1777,size=67108864";

impl Runtime {
    pub(super) async fn run_sandbox(&self, request: cri::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("the sandbox has no config"))?;
        let metadata =
            config.metadata.clone().ok_or_else(|| Status::invalid_argument("the sandbox has no metadata"))?;
        if !request.runtime_handler.is_empty() {
            return Err(Status::invalid_argument(format!(
                "no runtime for {:?} is configured",
                request.runtime_handler
            )));
        }
        let linux = config.linux.clone().unwrap_or_default();
        check_sandbox(&linux)?;
        let record = SandboxRecord {
            id: new_id(),
            config,
            runtime_handler: request.runtime_handler,
            created_at: now(),
            ready: false,
            ips: Vec::new(),
            boot: self.boot.clone(),
        };
        let id = record.id.clone();
        {
            let mut tables = self.tables.lock();
            let same = |s: &&Sandbox| s.record.metadata() == metadata;
            if let Some(other) = tables.sandboxes.values().find(same) {
                return Err(Status::already_exists(format!(
                    "the sandbox {}/{} attempt {} is there already: {}",
                    metadata.namespace, metadata.name, metadata.attempt, other.record.id
                )));
            }
            let turn = Arc::new(tokio::sync::Mutex::new(()));
            tables.sandboxes.insert(id.clone(), Sandbox { record: record.clone(), turn });
        }
        match self.set_up(record).await {
            Ok(record) => {
                if let Some(sandbox) = self.tables.lock().sandboxes.get_mut(&id) {
                    sandbox.record = record;
                }
                self.announce(&id, &id, cri::ContainerEventType::ContainerCreatedEvent);
                self.announce(&id, &id, cri::ContainerEventType::ContainerStartedEvent);
                Ok(id)
            }
            Err(status) => {
                // the first error is the one that tells
                let _ = self.tear_down(&id).await;
                let dir = self.sandbox_dir(&id);
                let _ = self.blocking(move |_| fs::remove_dir_all(dir)).await;
                self.tables.lock().sandboxes.remove(&id);
                Err(status)
            }
        }
    }

    async fn set_up(&self, mut record: SandboxRecord) -> Result<SandboxRecord, Status> {
        let (dir, copy) = (self.sandbox_dir(&record.id), record.clone());
        self.blocking(move |me| {
            let made = make_sandbox(&dir, &copy, me.config.netns.as_deref());
            // known before anything of it can outlive this program
            made.and_then(|()| record::save(&dir, &copy))
        })
        .await?
        .map_err(internal("set the sandbox up"))?;
        if !record.host_network() {
            let metadata = record.metadata();
            let netns = self.sandbox_dir(&record.id).join("net");
            let request = PodNetworkRequest {
                sandbox_id: &record.id,
                namespace: &metadata.namespace,
                name: &metadata.name,
                uid: &metadata.uid,
                netns: &netns,
                ports: ports(&record.config.port_mappings),
            };
            record.ips =
                self.config.network.attach(request).await.map_err(internal("set the pod's network up"))?;
        }
        if record.shares_pids() {
            let launch = self.init_launch(&record).await?;
            self.link()
                .call(Request::Launch(Box::new(launch)), Vec::new())
                .await
                .map_err(internal("start the pod's init"))?;
        }
        record.ready = true;
        let (dir, copy) = (self.sandbox_dir(&record.id), record.clone());
        self.blocking(move |_| record::save(&dir, &copy))
            .await?
            .map_err(internal("write the sandbox's record"))?;
        Ok(record)
    }

    /// The process that reaps in a PID namespace shared by a pod.
    async fn init_launch(&self, record: &SandboxRecord) -> Result<Launch, Status> {
        let cgroup = format!("{}/{}", self.parent_of(record), record.id);
        let cgroups = self
            .blocking(move |me| me.cgroups.create(&cgroup, &crate::cgroup::Resources::default(), false))
            .await?
            .map_err(internal("make a cgroup"))?;
        Ok(Launch {
            id: init_id(&record.id),
            role: Role::PodInit,
            cgroups,
            namespaces: Namespaces { pid: Namespace::New, ..self.namespaces_of(record) },
            ..Launch::default()
        })
    }

    /// The cgroup that a sandbox' containers lie in.
    pub(super) fn parent_of(&self, record: &SandboxRecord) -> String {
        match record.linux().cgroup_parent {
            parent if parent.is_empty() => {
                format!("{}/{}", self.config.cgroup_parent.trim_end_matches('/'), record.id)
            }
            parent => format!("/{}", parent.trim_matches('/')),
        }
    }

    /// The namespaces that all of a sandbox share; that of PIDs is left to the caller.
    pub(super) fn namespaces_of(&self, record: &SandboxRecord) -> Namespaces {
        let dir = self.sandbox_dir(&record.id);
        let of = |host: bool, name: &str| {
            if host { Namespace::Host } else { Namespace::Path(dir.join(name)) }
        };
        Namespaces {
            net: match &self.config.netns {
                Some(path) if record.host_network() => Namespace::Path(path.clone()),
                _ => of(record.host_network(), "net"),
            },
            ipc: of(record.host_ipc(), "ipc"),
            uts: of(record.host_network(), "uts"),
            ..Namespaces::default()
        }
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        let (record, turn) = match self.find_sandbox(id) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            found => found?,
        };
        let _turn = turn.lock().await;
        let containers: Vec<String> = {
            let tables = self.tables.lock();
            let of = tables.containers.values().filter(|c| c.record.sandbox == record.id);
            of.filter(|c| c.record.is_running()).map(|c| c.record.id.clone()).collect()
        };
        let stops = containers.iter().map(|c| self.stop_container(c, 0));
        for stopped in futures::future::join_all(stops).await {
            stopped?;
        }
        self.tear_down(&record.id).await?;
        let was = {
            let mut tables = self.tables.lock();
            let Some(sandbox) = tables.sandboxes.get_mut(&record.id) else { return Ok(()) };
            let was = std::mem::replace(&mut sandbox.record.ready, false);
            if was && let Err(error) = record::save(&self.sandbox_dir(&record.id), &sandbox.record) {
                tracing::warn!(sandbox = record.id, %error, "a sandbox' record could not be written");
            }
            was
        };
        if was {
            self.announce(&record.id, &record.id, cri::ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    /// Takes away what a sandbox has of the kernel's; may be repeated.
    pub(super) async fn tear_down(&self, id: &str) -> Result<(), Status> {
        self.config.network.detach(id).await.map_err(internal("take the pod's network down"))?;
        let Ok((record, _)) = self.find_sandbox(id) else { return Ok(()) };
        if record.shares_pids() {
            let link = self.link();
            let gone = self.end_of(&init_id(id));
            if link.tell(Request::Signal { id: init_id(id), signal: libc::SIGKILL }).await.is_ok()
                && let Some(gone) = gone
            {
                let _ = gone.await;
            }
            let _ = link.tell(Request::Forget { id: init_id(id) }).await;
        }
        let (dir, cgroup) = (self.sandbox_dir(id), format!("{}/{id}", self.parent_of(&record)));
        self.blocking(move |me| {
            me.cgroups.remove(&cgroup)?;
            unmount_sandbox(&dir)
        })
        .await?
        .map_err(internal("take the sandbox down"))
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let record = match self.find_sandbox(id) {
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
            found => found?.0,
        };
        self.stop_sandbox(&record.id).await?;
        let containers: Vec<String> = {
            let tables = self.tables.lock();
            let of = tables.containers.values().filter(|c| c.record.sandbox == record.id);
            of.map(|c| c.record.id.clone()).collect()
        };
        for container in containers {
            self.remove_container(&container).await?;
        }
        let (dir, parent) = (self.sandbox_dir(&record.id), self.parent_of(&record));
        self.blocking(move |me| {
            me.cgroups.remove_if_empty(&parent);
            remove_dir(&dir)
        })
        .await?
        .map_err(internal("remove the sandbox"))?;
        self.announce(&record.id, &record.id, cri::ContainerEventType::ContainerDeletedEvent);
        self.tables.lock().sandboxes.remove(&record.id);
        Ok(())
    }
}

/// Removes a folder; one that is not there is fine.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn check_sandbox(linux: &cri::LinuxPodSandboxConfig) -> Result<(), Status> {
    let security = linux.security_context.clone().unwrap_or_default();
    let options = security.namespace_options.unwrap_or_default();
    if options.userns_options.is_some_and(|u| u.mode == cri::NamespaceMode::Pod as i32) {
        return Err(Status::unimplemented("user namespaces are not supported by this runtime"));
    }
    let pod_network = options.network != cri::NamespaceMode::Node as i32;
    for name in linux.sysctls.keys() {
        let allowed = match name.split('.').next() {
            Some("net") => pod_network,
            Some("fs") => name.starts_with("fs.mqueue.") && options.ipc != cri::NamespaceMode::Node as i32,
            Some("kernel") => {
                let ipc =
                    name.starts_with("kernel.shm") || name.starts_with("kernel.msg") || name == "kernel.sem";
                ipc && options.ipc != cri::NamespaceMode::Node as i32
            }
            _ => false,
        };
        if !allowed {
            return Err(Status::invalid_argument(format!(
                "the sysctl {name:?} is not one of the pod's own namespaces"
            )));
        }
    }
    Ok(())
}

fn ports(mappings: &[cri::PortMapping]) -> Vec<(u16, u16, String, Option<IpAddr>)> {
    mappings
        .iter()
        .filter_map(|m| {
            let (host, inside) = (u16::try_from(m.host_port).ok()?, u16::try_from(m.container_port).ok()?);
            let protocol = match m.protocol() {
                cri::Protocol::Tcp => "TCP",
                cri::Protocol::Udp => "UDP",
                cri::Protocol::Sctp => "SCTP",
            };
            (host > 0).then(|| (host, inside, protocol.to_owned(), m.host_ip.parse().ok()))
        })
        .collect()
}

/// Namespaces, `/dev/shm` and files of a sandbox.
fn make_sandbox(dir: &Path, record: &SandboxRecord, netns: Option<&Path>) -> io::Result<()> {
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
    let bound = |name: &str| rustix::fs::statfs(&dir.join(name)).is_ok_and(|s| s.f_type as i64 == NSFS_MAGIC);
    (record.host_network() || bound("net")) && (record.host_ipc() || bound("ipc"))
}
