//! Which pods go first when there are too many.
//!
//! Source: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.

use std::{cmp::Ordering, cmp::Reverse, collections::HashMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};

use crate::pod_state;

/// `controller.kubernetes.io/pod-deletion-cost`: pods that cost less go first; 0 when absent or no number.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The pods, those that are missed least first. A pod that shares its node with more of the `related` pods goes earlier.
#[must_use]
pub fn least_wanted(mut pods: Vec<Arc<Pod>>, related: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for node in related.iter().filter_map(|p| pod_state::node(p)) {
        *on_node.entry(node).or_default() += 1;
    }
    let rank = |pod: &Pod| pod_state::node(pod).and_then(|n| on_node.get(n)).copied().unwrap_or(0);
    pods.sort_by(|a, b| before(a, b, rank(a), rank(b), now));
    pods
}

fn before(a: &Pod, b: &Pod, rank_a: usize, rank_b: usize, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| pod_state::node(pod).is_some();
    let phase = |pod: &Pod| match pod_state::phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    };
    let uid = || a.metadata.uid.cmp(&b.metadata.uid);
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pod_state::is_ready(a).cmp(&pod_state::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| younger(pod_state::ready_since(a), pod_state::ready_since(b), now, uid))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| younger(created(a), created(b), now, uid))
}

fn cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(COST));
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// The later one first, without a time first of all. Ages of the same power of two are not told apart, so that the pods of
/// one age do not all go at once; chance, by the UID, decides between them.
fn younger(
    a: Option<Timestamp>,
    b: Option<Timestamp>,
    now: Timestamp,
    uid: impl Fn() -> Ordering,
) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return Reverse(a.is_none()).cmp(&Reverse(b.is_none())) };
    if a == b {
        return Ordering::Equal;
    }
    magnitude(now.duration_since(a)).cmp(&magnitude(now.duration_since(b))).then_with(uid)
}

fn magnitude(age: SignedDuration) -> i64 {
    u128::try_from(age.as_nanos()).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
}

/// The most restarts of a container, then the most of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let status = pod.status.as_ref();
    let spec = pod.spec.as_ref();
    let sidecars: Vec<&str> = spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| c.name.as_str())
        .collect();
    let containers = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let inits = status.iter().flat_map(|s| s.init_container_statuses.iter().flatten());
    let sidecar = inits.filter(|c| sidecars.contains(&c.name.as_str()));
    (
        containers.map(|c| c.restart_count).max().unwrap_or(0),
        sidecar.map(|c| c.restart_count).max().unwrap_or(0),
    )
}
