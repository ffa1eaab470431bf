//! What the kubelet's HTTPS API shows of the node's pods.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

/// A container as the API server's requests find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// The runtime's id of the current instance; `None` before the first.
    pub id: Option<String>,
    /// Whether its process runs.
    pub running: bool,
    /// Log file of the current instance (the last one, when it waits to be started again).
    pub log: Option<PathBuf>,
    /// Log file of the instance before it.
    pub previous_log: Option<PathBuf>,
    /// Why it does not run, as `waiting.reason` has it.
    pub waiting: Option<String>,
}

/// The node's pods, as the driver knows them.
pub trait Pods: Send + Sync {
    /// All pods, each with the status that was last decided.
    fn list(&self) -> Vec<Arc<Pod>>;
    /// One pod; `uid` is checked when given.
    fn get(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>>;
    /// A container of a pod, init and ephemeral ones included.
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<ContainerView>;
    /// The runtime's id of the pod's ready sandbox.
    fn sandbox(&self, namespace: &str, pod: &str) -> Option<String>;
}
