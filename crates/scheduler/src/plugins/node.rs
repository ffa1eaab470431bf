//! What depends on one node alone: its name, switch, taints, labels, ports and room.

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};

use super::Refusal;
use crate::{pod::PodInfo, snapshot::NodeInfo};

/// All filters of this file in upstream's order; the first refusal counts, but lacking resources are all told.
#[must_use]
pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Vec<Refusal> {
    let spec = node.node.spec.as_ref();
    if spec.and_then(|s| s.unschedulable) == Some(true) && !tolerates_unschedulable(pod) {
        return vec![Refusal::final_("node(s) were unschedulable")];
    }
    if !pod.node_name().is_empty() && pod.node_name() != node.name() {
        return vec![Refusal::final_("node(s) didn't match the requested node name")];
    }
    if untolerated(pod.tolerations(), node.taints(), REPELLING).is_some() {
        return vec![Refusal::final_("node(s) had untolerated taint(s)")];
    }
    if !matches_affinity(pod, node) {
        return vec![Refusal::final_("node(s) didn't match Pod's node affinity/selector")];
    }
    if ports_taken(pod, node) {
        return vec![Refusal::preemptible("node(s) didn't have free ports for the requested pod ports")];
    }
    let lacking = node.allocatable.lacking(&node.requested, &pod.requests);
    lacking.into_iter().map(Refusal::preemptible).collect()
}

fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    pod.tolerations().iter().any(|t| tolerates(t, &taint))
}

/// The effects of taints that keep a pod away.
pub const REPELLING: &[&str] = &["NoSchedule", "NoExecute"];

/// The first taint of one of these effects that is not tolerated.
#[must_use]
pub fn untolerated<'t>(
    tolerations: &[Toleration],
    taints: &'t [Taint],
    effects: &[&str],
) -> Option<&'t Taint> {
    taints
        .iter()
        .find(|t| effects.contains(&t.effect.as_str()) && !tolerations.iter().any(|o| tolerates(o, t)))
}

/// Whether the toleration covers the taint.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let given = toleration.value.as_deref().unwrap_or_default();
    let value = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => given == value && !key.is_empty(),
        _ => false,
    }
}

/// `nodeSelector` and the required node affinity.
#[must_use]
pub fn matches_affinity(pod: &PodInfo, node: &NodeInfo) -> bool {
    let labels = node.labels();
    let selector = pod.spec().node_selector.iter().flatten();
    if !selector.into_iter().all(|(key, value)| labels.get(key) == Some(value)) {
        return false;
    }
    let affinity = pod.spec().affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    match affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()) {
        Some(selector) => matches_selector(selector, node),
        None => true,
    }
}

/// Whether any term of a node selector matches.
#[must_use]
pub fn matches_selector(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_term(term, node))
}

/// Whether a term matches; an empty term matches nothing.
#[must_use]
pub fn matches_term(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    labels.iter().all(|r| matches_requirement(r, node.labels().get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| r.key == "metadata.name" && matches_requirement(r, Some(node.name())))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_in = |v: &str| values.iter().any(|x| x == v);
    let compare = |op: fn(i64, i64) -> bool| {
        let bound = values.first().and_then(|b| b.parse::<i64>().ok());
        match (value.and_then(|v| v.parse::<i64>().ok()), bound) {
            (Some(value), Some(bound)) => op(value, bound),
            _ => false,
        }
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(is_in),
        "NotIn" => value.is_none_or(|v| !is_in(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|a, b| a > b),
        "Lt" => compare(|a, b| a < b),
        _ => false,
    }
}

/// A port is taken when protocol and number are and one of the two addresses is any address, or both are the same.
fn ports_taken(pod: &PodInfo, node: &NodeInfo) -> bool {
    let any = |ip: &str| matches!(ip, "0.0.0.0" | "::" | "");
    pod.ports.iter().any(|(ip, protocol, port)| {
        node.pods.iter().flat_map(|p| &p.ports).any(|(other_ip, other_protocol, other_port)| {
            port == other_port && protocol == other_protocol && (ip == other_ip || any(ip) || any(other_ip))
        })
    })
}

/// Taints that would rather not have the pod.
#[must_use]
pub fn disliked_taints(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let dislikes = |t: &&Taint| {
        t.effect == "PreferNoSchedule" && !pod.tolerations().iter().any(|toleration| tolerates(toleration, t))
    };
    node.taints().iter().filter(dislikes).count() as i64
}

/// Sum of the weights of matching preferred node affinity terms.
#[must_use]
pub fn preferred_affinity(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let affinity = pod.spec().affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let terms = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref());
    terms
        .into_iter()
        .flatten()
        .filter(|t| matches_term(&t.preference, node))
        .map(|t| i64::from(t.weight))
        .sum()
}
