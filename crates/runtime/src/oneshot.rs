//! One process in a root filesystem, run to its end: what a RUN step of a build is.

use std::{ffi::OsString, path::PathBuf};

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
}
