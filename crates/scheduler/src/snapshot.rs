//! The cluster as the scheduler sees it at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Taint},
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
};

use crate::{
    pod::{Labels, PodInfo},
    resources::Resources,
};

/// One machine and what lies on it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The object.
    pub node: Arc<Node>,
    /// What it has for pods.
    pub allocatable: Resources,
    /// What its pods requested.
    pub requested: Resources,
    /// Its pods, nominated ones not included.
    pub pods: Vec<Arc<PodInfo>>,
}

impl NodeInfo {
    /// An empty machine.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        let status = node.status.as_ref();
        let list = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        Self {
            allocatable: Resources::from_list(list),
            requested: Resources::default(),
            pods: Vec::new(),
            node,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        static EMPTY: Labels = Labels::new();
        self.node.metadata.labels.as_ref().unwrap_or(&EMPTY)
    }

    /// Its taints.
    #[must_use]
    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default()
    }

    /// Puts a pod on it.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.pods.push(pod);
    }

    /// Takes a pod off it; nothing happens if it is not there.
    pub fn remove(&mut self, key: &str) {
        if let Some(at) = self.pods.iter().position(|p| p.key == key) {
            let pod = self.pods.swap_remove(at);
            self.requested.sub(&pod.requests);
        }
    }
}

/// Everything a decision depends on.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Machines by name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Labels of namespaces.
    pub namespaces: HashMap<String, Labels>,
    /// Claims by `namespace/name`.
    pub claims: HashMap<String, Arc<PersistentVolumeClaim>>,
    /// Volumes by name.
    pub volumes: HashMap<String, Arc<PersistentVolume>>,
    /// Storage classes by name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// Disruption budgets.
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    /// Pods that were promised room on a node by preemption: node name and pod, by pod key.
    pub nominated: BTreeMap<String, (String, Arc<PodInfo>)>,
}

impl Snapshot {
    /// Labels of a namespace; empty if unknown.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> &Labels {
        static EMPTY: Labels = Labels::new();
        self.namespaces.get(namespace).unwrap_or(&EMPTY)
    }

    /// Puts a pod on the node that its spec names (a node that is not known is ignored).
    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        if let Some(node) = self.nodes.get_mut(pod.node_name()) {
            node.add(pod);
        }
    }

    /// All pods on all nodes.
    pub fn pods(&self) -> impl Iterator<Item = (&NodeInfo, &Arc<PodInfo>)> {
        self.nodes.values().flat_map(|node| node.pods.iter().map(move |pod| (node, pod)))
    }
}
