//! The container runtime, behind CRI v1.

pub mod image_service;
pub mod oneshot;
pub mod streaming;

use std::{net::IpAddr, path::Path};

use async_trait::async_trait;

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
