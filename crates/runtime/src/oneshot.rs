//! One process in a root filesystem, run to its end: what a RUN step of a build is.

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, statat, unlinkat},
    pipe::{PipeFlags, pipe_with},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::{
    capability,
    cgroup::{self, Cgroups, Resources},
    client::{self, Link},
    holder::wire::Request,
    launch::{
        beneath::{Kind, ensure},
        sys::open_beneath,
    },
    plan::{Capabilities, Launch, Mount, Namespace, Namespaces, Process, Role, Root, Source, User},
    seccomp::Filters,
};

/// Something of the host that the process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Inside, absolute; resolved beneath the root, made if it is missing and removed again afterwards.
    pub target: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
}

/// What to run. The process has mount, PID, IPC and UTS namespaces and a cgroup of its own, the host's network, the
/// default capabilities and the default seccomp profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Oneshot {
    /// The root filesystem: a directory, or a mounted overlay.
    pub root: PathBuf,
    /// Program and arguments.
    pub args: Vec<OsString>,
    /// `NAME=value`
    pub env: Vec<OsString>,
    /// Working directory inside.
    pub cwd: PathBuf,
    /// User, group and supplementary groups.
    pub user: (u32, u32, Vec<u32>),
    /// What it sees of the host.
    pub binds: Vec<Bind>,
    /// Its hostname.
    pub hostname: String,
    /// Given to its standard input, which is then closed.
    pub stdin: Vec<u8>,
    /// No network: a network namespace of its own, with nothing in it.
    pub offline: bool,
}

/// A holder for one-shot processes.
pub struct Holder {
    link: Link,
    cgroups: Arc<dyn Cgroups>,
    cgroup_parent: String,
    filters: Filters,
    staging: PathBuf,
    /// Those whose end is waited for; closed when the holder is lost.
    waiting: Arc<Mutex<Option<Waiting>>>,
}

type Waiting = HashMap<String, oneshot::Sender<i32>>;

impl Holder {
    /// Connects to the holder in `dir`, which is started if there is none; its other processes are left alone.
    /// `command` as in [`crate::RuntimeConfig::holder_command`].
    ///
    /// # Errors
    /// When there is none and none can be started.
    pub async fn open(command: &[OsString], dir: &Path) -> io::Result<Holder> {
        let staging = dir.join("staging");
        std::fs::create_dir_all(&staging)?;
        let (link, _, mut exits) = client::open(command, dir).await?;
        let waiting = Arc::new(Mutex::new(Some(Waiting::new())));
        let table = waiting.clone();
        tokio::spawn(async move {
            while let Some((id, exit)) = exits.recv().await {
                if let Some(tell) = table.lock().as_mut().and_then(|t| t.remove(&id)) {
                    let _ = tell.send(exit.code);
                }
            }
            table.lock().take();
        });
        Ok(Holder {
            link,
            cgroups: cgroup::detect()?.into(),
            cgroup_parent: "/plimsoll/build".into(),
            filters: Filters::default(),
            staging,
            waiting,
        })
    }

    /// As [`Holder::open`], but the holder ends, with everything in it, when this value is dropped.
    ///
    /// # Errors
    /// As [`Holder::open`].
    pub async fn private(command: &[OsString], dir: &Path) -> io::Result<Holder> {
        let holder = Holder::open(command, dir).await?;
        holder.link.tell(Request::Private).await?;
        Ok(holder)
    }

    /// Runs a process until it and all that it has left behind are gone; returns its exit code, or 128 and the signal.
    /// `output` gets what it writes to standard output and error, in order. When `cancel` fires it is killed.
    ///
    /// # Errors
    /// When it cannot be started, or the holder is lost.
    pub async fn run(
        &self,
        spec: &Oneshot,
        output: &mut (dyn for<'o> FnMut(&'o [u8]) + Send),
        cancel: &CancellationToken,
    ) -> io::Result<i32> {
        let id = format!("oneshot-{}", uuid::Uuid::new_v4().simple());
        let made = MountPoints::make(&spec.root, &spec.binds)?;
        let group = Group { path: format!("{}/{id}", self.cgroup_parent), cgroups: self.cgroups.clone() };
        let mut launch = self.plan(spec, &id)?;
        let (cgroups, path) = (self.cgroups.clone(), group.path.clone());
        launch.cgroups = blocking(move || cgroups.create(&path, &Resources::default(), false)).await?;
        let (in_read, in_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let (out_read, out_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut reader = pipe::Receiver::from_owned_fd(out_read)?;
        let (tell, told) = oneshot::channel();
        let lost = || io::Error::new(io::ErrorKind::BrokenPipe, "the holder of the process is lost");
        self.waiting.lock().as_mut().ok_or_else(lost)?.insert(id.clone(), tell);
        let fds = vec![in_read, out_write.try_clone()?, out_write];
        let started = self.link.call(Request::Launch(Box::new(launch)), fds).await;
        if let Err(error) = started {
            self.waiting.lock().as_mut().and_then(|w| w.remove(&id));
            return Err(error);
        }
        let running = Running { link: &self.link, id: id.clone(), group: Some(group), made };
        let stdin = spec.stdin.clone();
        let feed = async move {
            let Ok(mut writer) = pipe::Sender::from_owned_fd(in_write) else { return };
            // it may not want to read
            let _ = writer.write_all(&stdin).await;
        };
        let mut buffer = vec![0; 65_536];
        let read = async {
            loop {
                match reader.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => output(&buffer[..n]),
                }
            }
        };
        let work = async { tokio::join!(feed, read, told).2 };
        tokio::pin!(work);
        let code = tokio::select! {
            code = &mut work => code,
            () = cancel.cancelled() => {
                self.link.ask(Request::Signal { id, signal: libc::SIGKILL });
                work.await
            }
        };
        running.end().await?;
        code.map_err(|_| lost())
    }

    fn plan(&self, spec: &Oneshot, id: &str) -> io::Result<Launch> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("{} is not UTF-8", path.display()))
            })
        };
        let bounding = capability::default_set();
        let (uid, gid, groups) = spec.user.clone();
        let bind = |b: &Bind| {
            Ok(Mount {
                source: vec![b.source.clone()],
                target: text(&b.target)?,
                read_only: !b.writable,
                ..Mount::default()
            })
        };
        Ok(Launch {
            id: id.to_owned(),
            role: Role::Oneshot,
            cgroups: Vec::new(),
            namespaces: Namespaces {
                pid: Namespace::New,
                ipc: Namespace::New,
                uts: Namespace::New,
                net: if spec.offline { Namespace::New } else { Namespace::Host },
                hostname: spec.hostname.clone(),
            },
            root: Some(Root {
                source: Source::Directory(spec.root.clone()),
                staging: self.staging.clone(),
                read_only: false,
                mounts: spec.binds.iter().map(bind).collect::<io::Result<_>>()?,
                devices: Vec::new(),
                all_devices: false,
                shm: None,
                writable_sys: false,
                cgroups: Vec::new(),
                cgroup2: self.cgroups.version() == 2,
                masked: MASKED.map(String::from).into(),
                read_only_paths: READ_ONLY.map(String::from).into(),
            }),
            process: Process {
                args: spec.args.iter().map(|a| a.as_bytes().to_vec()).collect(),
                env: spec.env.iter().map(|e| e.as_bytes().to_vec()).collect(),
                cwd: text(&spec.cwd)?,
                user: User { name: uid.to_string(), group: Some(gid), groups, merge_groups: false },
                capabilities: Capabilities { bounding, ambient: 0 },
                seccomp: Some(self.filters.default_for(bounding).map_err(io::Error::other)?.to_string()),
                ..Process::default()
            },
        })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        for path in [self.cgroup_parent.as_str(), "/plimsoll"] {
            self.cgroups.remove_if_empty(path);
        }
    }
}

/// Hidden from a process that a build runs, and what it may only read: as Docker has it.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The cgroup of a process, removed with what is in it when this is dropped.
struct Group {
    path: String,
    cgroups: Arc<dyn Cgroups>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.cgroups.remove(&self.path) {
            tracing::warn!(cgroup = self.path, %error, "a cgroup stays");
        }
    }
}

/// A process that runs; dropping this kills it.
struct Running<'a> {
    link: &'a Link,
    id: String,
    group: Option<Group>,
    made: MountPoints,
}

impl Running<'_> {
    /// After its end.
    async fn end(mut self) -> io::Result<()> {
        let (group, made) = (self.group.take(), std::mem::take(&mut self.made));
        blocking(move || {
            drop(group);
            made.remove();
            Ok(())
        })
        .await
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.group.is_some() {
            // given up halfway: the group's own drop waits for the processes
            self.link.ask(Request::Signal { id: self.id.clone(), signal: libc::SIGKILL });
        }
    }
}

/// Mount points that were made in a root and are to be removed again.
#[derive(Default)]
struct MountPoints {
    root: Option<OwnedFd>,
    paths: Vec<PathBuf>,
}

impl MountPoints {
    fn make(root: &Path, binds: &[Bind]) -> io::Result<MountPoints> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let mut points = MountPoints { root: None, paths: Vec::new() };
        for bind in binds {
            let at = |e: io::Error| io::Error::new(e.kind(), format!("bind {}: {e}", bind.source.display()));
            let kind = if std::fs::metadata(&bind.source).map_err(at)?.is_dir() {
                Kind::Directory
            } else {
                Kind::File
            };
            let (_, made) = ensure(root.as_fd(), &bind.target, kind).map_err(at)?;
            points.paths.extend(made);
        }
        points.root = Some(root);
        Ok(points)
    }

    /// Only what is still empty: the process may have used it.
    fn remove(mut self) {
        self.take_away();
    }

    fn take_away(&mut self) {
        let Some(root) = self.root.take() else { return };
        for path in self.paths.iter().rev() {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let Ok(folder) = open_beneath(root.as_fd(), parent, flags, ResolveFlags::empty()) else {
                continue;
            };
            let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let _ = match kind {
                FileType::Directory => unlinkat(&folder, name, AtFlags::REMOVEDIR),
                FileType::RegularFile if stat.st_size == 0 => unlinkat(&folder, name, AtFlags::empty()),
                _ => Ok(()),
            };
        }
    }
}

impl Drop for MountPoints {
    fn drop(&mut self) {
        self.take_away();
    }
}
