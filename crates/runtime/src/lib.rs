//! The container runtime, behind CRI v1.
//!
//! It starts containers from unpacked images, keeps their logs and exit codes, and takes them over after a restart. It
//! never decides which containers there should be, and trusts nothing that comes from an image or a volume.
//!
//! In reading order: `plan` is what the holder is told to start; `launch/` becomes it, between `clone3` and `execve`;
//! `holder/` is the small process that makes and keeps containers; `client` talks to it; `cgroup/`, `capability` and
//! `seccomp/` are the kernel's means; `cri/` is the service; `image_service` is CRI's other service; `oneshot` runs a
//! single process for a build; `streaming/` carries exec, attach and port-forward.

mod capability;
mod cgroup;
mod client;
mod cri;
mod error;
pub mod holder;
mod image_service;
mod launch;
pub mod oneshot;
mod plan;
mod seccomp;
pub mod streaming;

use std::{net::IpAddr, path::Path};

use async_trait::async_trait;

pub use cri::{Runtime, RuntimeConfig, StreamUrls};
pub use error::{Error, Result};
pub use image_service::ImageService;

/// Ends what is in a cgroup (`/plimsoll/abcd`, of every hierarchy) and the groups below, and removes them, and those above
/// it that are empty then. One that is not there is fine.
///
/// # Errors
/// When the kernel refuses it.
pub fn remove_cgroup(path: &str) -> std::io::Result<()> {
    let cgroups = cgroup::detect()?;
    cgroups.remove(path)?;
    for above in Path::new(path).ancestors().skip(1).filter(|a| a.parent().is_some()) {
        cgroups.remove_if_empty(&above.to_string_lossy());
    }
    Ok(())
}

/// A pod that needs a network.
#[derive(Clone, Debug)]
pub struct PodNetworkRequest<'a> {
    /// The sandbox.
    pub sandbox_id: &'a str,
    /// Namespace of the pod.
    pub namespace: &'a str,
    /// Name of the pod.
    pub name: &'a str,
    /// UID of the pod.
    pub uid: &'a str,
    /// Bind mount of the pod's network namespace.
    pub netns: &'a Path,
    /// hostPort, containerPort, protocol (`TCP`, `UDP`, `SCTP`), hostIP (may be unspecified).
    pub ports: Vec<(u16, u16, String, Option<IpAddr>)>,
}

/// What gives a sandbox its network; the CNI of this runtime. Implemented by the network room.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Brings up `lo` and an interface in the namespace; returns the pod's addresses, primary first. Idempotent.
    async fn attach(&self, pod: PodNetworkRequest<'_>) -> std::io::Result<Vec<IpAddr>>;
    /// Takes all of it away again; succeeds when nothing is there.
    async fn detach(&self, sandbox_id: &str) -> std::io::Result<()>;
}
