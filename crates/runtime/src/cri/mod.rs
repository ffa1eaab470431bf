//! CRI v1 over the holder: sandboxes, containers, and what is known of them.
//!
//! In reading order: `record` is what is remembered, this module the tables and their events, `recover` what a restart
//! finds, `sandbox` (with `namespaces`) and `container` the lives of the two, `process` what a container is started with, `exec` further
//! processes in it, `stats` what they use, `service` the generated trait, `backend` the streams.

mod backend;
mod container;
mod exec;
mod journal;
mod namespaces;
mod process;
mod record;
mod recover;
mod sandbox;
mod service;
mod stats;

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use tokio::sync::{broadcast, oneshot, watch};
use tonic::Status;

use self::{
    journal::Journal,
    record::{ContainerRecord, SandboxRecord},
};
use crate::{
    Error, PodNetwork, Result,
    cgroup::{self, Cgroups},
    client::Link,
    holder::wire::Request,
    seccomp::Filters,
};

/// What gives the URLs that `Exec`, `Attach` and `PortForward` answer with: the streaming server.
pub trait StreamUrls: Send + Sync {
    /// For an exec that was asked for.
    ///
    /// # Errors
    /// When the server takes no more.
    fn exec(&self, request: &cri::ExecRequest) -> Result<String, Status>;
    /// See `exec`.
    ///
    /// # Errors
    /// See `exec`.
    fn attach(&self, request: &cri::AttachRequest) -> Result<String, Status>;
    /// See `exec`.
    ///
    /// # Errors
    /// See `exec`.
    fn port_forward(&self, request: &cri::PortForwardRequest) -> Result<String, Status>;
}

/// Settings of a runtime.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// Where it keeps everything; nobody else's.
    pub dir: PathBuf,
    /// Images.
    pub images: images::Images,
    /// Networks of pods.
    pub network: Arc<dyn PodNetwork>,
    /// Program and first arguments of the holder; the folder is added: `["/proc/self/exe", "__holder"]`.
    pub holder_command: Vec<OsString>,
    /// The node's own network namespace, if it is not that of this process.
    pub netns: Option<PathBuf>,
    /// Parent of cgroups of pods that name none.
    pub cgroup_parent: String,
    /// Where `Localhost` seccomp profiles with relative names lie.
    pub seccomp_dir: PathBuf,
    /// Bytes after which a container's log is rotated; 0 leaves that to the caller of CRI.
    pub log_max_size: u64,
    /// Files kept of a log, the current one included.
    pub log_max_files: u32,
    /// Processes a container may have; 0 for no limit of its own.
    pub pids_limit: i64,
}

impl RuntimeConfig {
    /// The usual settings.
    pub fn new(
        dir: impl Into<PathBuf>,
        images: images::Images,
        network: Arc<dyn PodNetwork>,
        holder_command: Vec<OsString>,
    ) -> RuntimeConfig {
        RuntimeConfig {
            dir: dir.into(),
            images,
            network,
            holder_command,
            netns: None,
            cgroup_parent: "/plimsoll".into(),
            seccomp_dir: "/var/lib/kubelet/seccomp".into(),
            log_max_size: 0,
            log_max_files: 5,
            pids_limit: 0,
        }
    }
}

/// A sandbox in the table.
struct Sandbox {
    record: SandboxRecord,
    /// One thing at a time happens to it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A container in the table.
struct Container {
    record: ContainerRecord,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// True once it has ended.
    ended: watch::Sender<bool>,
    /// Keeps its image.
    _lease: Option<images::Lease>,
}

#[derive(Default)]
struct Tables {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    /// Execs and one-shot processes whose end is waited for.
    waiting: HashMap<String, oneshot::Sender<i32>>,
    /// Ends that came before a start was recorded.
    early: HashMap<String, crate::holder::wire::Exit>,
}

/// A container runtime for one node. Several may live in one process.
pub struct Runtime {
    config: RuntimeConfig,
    cgroups: Box<dyn Cgroups>,
    filters: Filters,
    tables: Mutex<Tables>,
    link: Mutex<Link>,
    events: broadcast::Sender<cri::ContainerEventResponse>,
    urls: OnceLock<Arc<dyn StreamUrls>>,
    boot: String,
    /// Whether the kernel lets us protect processes from the OOM killer.
    may_protect: bool,
    /// The holder was told to end.
    ended: AtomicBool,
    journal: Journal,
    me: Weak<Runtime>,
    usage: Mutex<HashMap<String, (i64, u64)>>,
    _lock: File,
}

impl Runtime {
    /// Opens the runtime in its folder: takes over what runs, cleans up what does not.
    ///
    /// # Errors
    /// When the folder cannot be used, or the holder not be started.
    pub async fn open(mut config: RuntimeConfig) -> Result<Arc<Runtime>> {
        let at = |path: &Path| Error::io(format!("prepare {}", path.display()));
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Unable("containers need root: use sudo".into()));
        }
        if !crate::launch::sys::is_supported() {
            return Err(Error::Unable("containers need Linux 5.12 or newer".into()));
        }
        for part in ["sandboxes", "containers"] {
            let path = config.dir.join(part);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        config.dir = fs::canonicalize(&config.dir).map_err(at(&config.dir))?;
        rustix::fs::chmod(&config.dir, rustix::fs::Mode::from_raw_mode(0o700))
            .map_err(|e| at(&config.dir)(e.into()))?;
        let lock_path = config.dir.join("lock");
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(at(&lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::InUse(config.dir));
        }
        let boot =
            fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(Error::io("read the boot id"))?;
        let cgroups = cgroup::detect().map_err(Error::io("look for cgroups"))?;
        let (link, states, exits) = crate::client::open(&config.holder_command, &config.dir)
            .await
            .map_err(Error::io("start the holder"))?;
        let journal = Journal::start().map_err(Error::io("start a thread"))?;
        let runtime = Arc::new_cyclic(|me| Runtime {
            config,
            cgroups,
            filters: Filters::default(),
            tables: Mutex::default(),
            link: Mutex::new(link),
            events: broadcast::channel(1024).0,
            urls: OnceLock::new(),
            boot: boot.trim().to_owned(),
            may_protect: has_sys_resource(),
            ended: AtomicBool::new(false),
            journal,
            me: me.clone(),
            usage: Mutex::default(),
            _lock: lock,
        });
        runtime.recover(states).await?;
        runtime.follow(exits);
        Ok(runtime)
    }

    /// Names the streaming server, once.
    pub fn set_stream_urls(&self, urls: Arc<dyn StreamUrls>) {
        let _ = self.urls.set(urls);
    }

    /// PID of the holder.
    pub fn holder_pid(&self) -> i32 {
        self.link().pid()
    }

    /// Ends everything that runs, then the holder, and waits until it is gone: for a node that goes away. Nothing can be
    /// started any more.
    ///
    /// # Errors
    /// When a sandbox cannot be stopped, the holder not be told, or its end not be seen.
    pub async fn end(&self) -> Result<(), Status> {
        let sandboxes: Vec<String> = self.tables.lock().sandboxes.keys().cloned().collect();
        let stops = sandboxes.iter().map(|id| self.stop_sandbox(id));
        futures::future::try_join_all(stops).await?;
        self.ended.store(true, Ordering::Release);
        // the holder ends with the connection that says so
        let (link, ..) = crate::client::open(&self.config.holder_command, &self.config.dir)
            .await
            .map_err(internal("end the holder"))?;
        link.tell(Request::Private).await.map_err(internal("end the holder"))?;
        drop(link);
        let dir = self.config.dir.clone();
        let gone = tokio::task::spawn_blocking(move || crate::holder::wait_for_end(&dir)).await;
        gone.map_err(std::io::Error::other).flatten().map_err(internal("wait for the end of the holder"))
    }

    fn link(&self) -> Link {
        self.link.lock().clone()
    }

    fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.dir.join("sandboxes").join(id)
    }

    fn container_dir(&self, id: &str) -> PathBuf {
        self.config.dir.join("containers").join(id)
    }

    /// Runs what blocks on a thread for that.
    async fn blocking<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Runtime) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let me = self.me.upgrade().ok_or_else(|| Status::unavailable("the runtime is ending"))?;
        tokio::task::spawn_blocking(move || what(&me)).await.map_err(|e| Status::internal(e.to_string()))
    }

    /// Finds a container by its ID or a beginning of it that no other has.
    fn find_container(&self, id: &str) -> Result<(ContainerRecord, Arc<tokio::sync::Mutex<()>>), Status> {
        let tables = self.tables.lock();
        let key = unique(tables.containers.keys(), id, "container")?;
        tables
            .containers
            .get(&key)
            .map(|c| (c.record.clone(), c.turn.clone()))
            .ok_or_else(|| not_found("container", id))
    }

    fn find_sandbox(&self, id: &str) -> Result<(SandboxRecord, Arc<tokio::sync::Mutex<()>>), Status> {
        let tables = self.tables.lock();
        let key = unique(tables.sandboxes.keys(), id, "pod sandbox")?;
        tables
            .sandboxes
            .get(&key)
            .map(|s| (s.record.clone(), s.turn.clone()))
            .ok_or_else(|| not_found("pod sandbox", id))
    }

    /// Changes a container's record, in the table and on disk.
    fn change_container(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Option<ContainerRecord> {
        let mut tables = self.tables.lock();
        let container = tables.containers.get_mut(id)?;
        change(&mut container.record);
        let record = container.record.clone();
        // under the lock: in the order of the changes
        self.journal.write(self.container_dir(id), &record, None);
        Some(record)
    }

    /// Tells everyone of an event, with the state of the sandbox and all its containers.
    fn announce(&self, container: &str, sandbox: &str, kind: cri::ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let tables = self.tables.lock();
        let event = cri::ContainerEventResponse {
            container_id: container.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            pod_sandbox_status: tables.sandboxes.get(sandbox).map(|s| s.record.status()),
            containers_statuses: tables
                .containers
                .values()
                .filter(|c| c.record.sandbox == sandbox)
                .map(|c| c.record.status())
                .collect(),
        };
        // in the order of the changes, because under the lock
        let _ = self.events.send(event);
    }
}

/// Whether this process has CAP_SYS_RESOURCE; a nested host may lack it.
fn has_sys_resource() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|l| u64::from_str_radix(l.strip_prefix("CapEff:")?.trim(), 16).ok());
    effective.unwrap_or(0) & crate::capability::bit("SYS_RESOURCE").unwrap_or(0) != 0
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    chrono::Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

/// 64 random hexadecimal digits, as other runtimes name things.
fn new_id() -> String {
    use rand::RngCore;
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn not_found(what: &str, id: &str) -> Status {
    Status::not_found(format!("{what} {id:?} not found"))
}

fn unique<'a>(keys: impl Iterator<Item = &'a String>, id: &str, what: &str) -> Result<String, Status> {
    if id.is_empty() {
        return Err(Status::invalid_argument(format!("the id of the {what} is empty")));
    }
    let mut found: Vec<&String> = keys.filter(|k| k.starts_with(id)).collect();
    found.sort_by_key(|k| k.len());
    match found.as_slice() {
        [] => Err(not_found(what, id)),
        [only] => Ok((*only).clone()),
        [first, ..] if first.as_str() == id => Ok((*first).clone()),
        _ => Err(Status::invalid_argument(format!("{id:?} is the beginning of several {what} ids"))),
    }
}

fn internal(what: &str) -> impl FnOnce(std::io::Error) -> Status + '_ {
    move |e| Status::internal(format!("{what}: {e}"))
}
