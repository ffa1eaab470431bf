//! Which nodes shall have a pod, and which node a pod is for.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::DaemonSet,
    core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration},
};

use crate::{node_fit, pod_state};

const NODE_NAME: &str = "metadata.name";

/// What a set's pods ask of a node.
pub struct Placement {
    spec: PodSpec,
}

/// What is true of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// It shall have a pod.
    pub should_run: bool,
    /// A pod that is there already may stay.
    pub may_stay: bool,
}

impl Placement {
    /// Of the set's template with the tolerations that every daemon pod has.
    pub fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.template.spec.clone().unwrap_or_default();
        tolerate(&mut spec);
        Self { spec }
    }

    /// Room and readiness of the node do not matter.
    pub fn on(&self, node: &Node) -> Fit {
        if !node_fit::matches_node(&self.spec, node) {
            return Fit { should_run: false, may_stay: false };
        }
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
        let fits = |effects: &[&str]| {
            node_fit::untolerated(taints, self.spec.tolerations.as_ref(), effects).is_none()
        };
        Fit { should_run: fits(&["NoSchedule", "NoExecute"]), may_stay: fits(&["NoExecute"]) }
    }
}

/// Adds what keeps daemon pods on nodes that are unwell.
fn tolerate(spec: &mut PodSpec) {
    let mut taints = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if spec.host_network == Some(true) {
        taints.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in taints {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = tolerations
            .iter_mut()
            .find(|t| Toleration { toleration_seconds: None, ..(*t).clone() } == toleration);
        match same {
            Some(same) => *same = toleration,
            None => tolerations.push(toleration),
        }
    }
}

/// Makes a pod one for this node: the scheduler will put it nowhere else. What nodes the template asked for has been
/// answered already.
pub fn pin(spec: &mut PodSpec, node: &str) {
    tolerate(spec);
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let field = NodeSelectorRequirement {
        key: NODE_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![field]), match_expressions: None };
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on or shall be on.
pub fn target(pod: &Pod) -> Option<&str> {
    if let Some(node) = pod_state::node(pod) {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == NODE_NAME && field.operator == "In")?;
    match field.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}

/// Pods that have their node first, then the older, then by name.
pub fn oldest_first(pods: &mut [Arc<Pod>]) {
    let key = |pod: &Pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (pod_state::node(pod).is_none(), created, pod.metadata.name.clone())
    };
    pods.sort_by_key(|pod| key(pod));
}
