//! What the holder is told to start. Written by the runtime, read by the child that becomes the process: every decision
//! is made before, nothing here comes from an image without having been judged.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One process (tree) to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Launch {
    /// Unique in the holder.
    pub id: String,
    /// What it is.
    pub role: Role,
    /// `cgroup.procs` is written in each of these directories; none for "where the holder is".
    pub cgroups: Vec<PathBuf>,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// The root filesystem and what is mounted in it; `None` for an exec and for a pod's init.
    pub root: Option<Root>,
    /// What is run.
    pub process: Process,
}

/// Who gets the process' output, and how it is begun.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Role {
    /// A container's main process: its output goes to a log.
    Container {
        /// Where its output goes.
        log: Option<Log>,
        /// Whether it has a standard input that stays open.
        stdin: bool,
        /// The first attacher's leaving closes it.
        stdin_once: bool,
    },
    /// Another process in the namespaces of a running one. Its streams are the three descriptors that come along, or a
    /// terminal whose controlling side is sent back.
    Exec {
        /// The process whose namespaces are joined.
        target: String,
    },
    /// Process 1 of a pod whose containers share a PID namespace: it only reaps.
    #[default]
    PodInit,
    /// A process with a root of its own whose streams are the three descriptors that come along.
    Oneshot,
}

/// A log in CRI's format.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Log {
    /// The file; its folder is made.
    pub path: PathBuf,
    /// Bytes after which it is rotated; 0: never.
    pub max_size: u64,
    /// Files kept, the current one included.
    pub max_files: u32,
}

/// How a process gets one of its namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Namespace {
    /// The holder's.
    #[default]
    Host,
    /// A new one.
    New,
    /// The one bound to this path.
    Path(PathBuf),
    /// That of another process the holder has.
    Of(String),
}

/// The namespaces of a process. Its mount and cgroup namespaces are always its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Only `Host`, `New` and `Of`.
    pub pid: Namespace,
    /// Only `Host`, `New` and `Path`.
    pub net: Namespace,
    /// As `net`.
    pub ipc: Namespace,
    /// As `net`.
    pub uts: Namespace,
    /// For a new UTS namespace.
    pub hostname: String,
}

/// Where the root filesystem comes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Source {
    /// A directory or mount point.
    Directory(PathBuf),
    /// An overlay; `lower` has the base last, as overlayfs counts.
    Overlay {
        /// Read-only directories, topmost first.
        lower: Vec<PathBuf>,
        /// Takes the changes.
        upper: PathBuf,
        /// Overlayfs' own.
        work: PathBuf,
    },
}

/// A root filesystem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Root {
    /// The files.
    pub source: Source,
    /// An existing empty directory on the host that the root is attached to for a moment.
    pub staging: PathBuf,
    /// Nothing can be written outside of mounts.
    pub read_only: bool,
    /// In order, after `/proc`, `/dev` and `/sys`.
    pub mounts: Vec<Mount>,
    /// Devices beside the usual ones.
    pub devices: Vec<Device>,
    /// All devices of the host.
    pub all_devices: bool,
    /// Host directory for `/dev/shm`; a new one if there is none.
    pub shm: Option<PathBuf>,
    /// `/sys` and `/sys/fs/cgroup` are writable.
    pub writable_sys: bool,
    /// Controllers of cgroup v1 (name, directory) shown beneath `/sys/fs/cgroup`; empty on v2.
    pub cgroups: Vec<(String, PathBuf)>,
    /// Whether `/sys/fs/cgroup` is cgroup v2.
    pub cgroup2: bool,
    /// Hidden.
    pub masked: Vec<String>,
    /// Not writable.
    pub read_only_paths: Vec<String>,
}

/// How mounts made later pass between host and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways.
    Shared,
}

/// A mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Mount {
    /// On the host; for an image: its layers, topmost first.
    pub source: Vec<PathBuf>,
    /// True: the sources are layers of an image, stacked read-only.
    pub image: bool,
    /// Below this path of the image.
    pub sub_path: String,
    /// Inside, resolved beneath the root.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
    /// Nor is what is mounted beneath it.
    pub recursive_read_only: bool,
    /// See the type.
    pub propagation: Propagation,
    /// Device nodes in it can be opened.
    pub devices: bool,
}

/// A device of the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// On the host.
    pub host: PathBuf,
    /// Inside.
    pub target: String,
    /// Only to be read.
    pub read_only: bool,
}

/// Who the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `user[:group]` as an image or a pod names it: numbers, or names in the container's own `/etc/passwd`.
    pub name: String,
    /// Takes the place of the group in `name`.
    pub group: Option<u32>,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Whether `/etc/group` adds to them.
    pub merge_groups: bool,
}

/// Sets of capabilities, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Bounding, permitted and effective set.
    pub bounding: u64,
    /// Inheritable and ambient set.
    pub ambient: u64,
}

/// What is run, and with which rights.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments.
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`
    pub env: Vec<Vec<u8>>,
    /// Working directory, made if it is missing.
    pub cwd: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Who it is.
    pub user: User,
    /// See the type.
    pub capabilities: Capabilities,
    /// Never gains rights by `execve`.
    pub no_new_privileges: bool,
    /// A BPF program for seccomp: `struct sock_filter`s, base64.
    pub seccomp: Option<String>,
    /// Resource, soft and hard limit.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// How readily the kernel kills it when memory runs out.
    #[serde(default)]
    pub oom_score_adj: i32,
}

/// Whom a process turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}
