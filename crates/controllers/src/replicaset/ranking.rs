//! Which pods go first when there are too many.
//!
//! Source: `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

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
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| pod_state::is_ready(a).cmp(&pod_state::is_ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| {
            magnitude(pod_state::ready_since(a), now).cmp(&magnitude(pod_state::ready_since(b), now))
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| magnitude(created(a), now).cmp(&magnitude(created(b), now)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|a| a.get(COST));
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|t| t.0)
}

/// The power of two of an age in nanoseconds, less than all for none. Ages of the same power are not told apart, so that the
/// pods of one age do not all go at once; in the end chance, by the UID, decides between them. Upstream asks chance as soon as
/// two times differ within a power, and so has no order in which any three pods could be put.
fn magnitude(since: Option<Timestamp>, now: Timestamp) -> Option<i64> {
    let age = now.duration_since(since?).as_nanos();
    Some(u128::try_from(age).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::testing::{at, object};

    fn pod(uid: u32, node: u8, ready: Option<i64>, created: i64, restarts: i32) -> Arc<Pod> {
        let time = |second| at(second).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let conditions: Vec<_> = ready
            .map(|second| json!({"type": "Ready", "status": "True", "lastTransitionTime": time(second)}))
            .into_iter()
            .collect();
        Arc::new(object(
            json!({"metadata": {"name": "p", "uid": uid.to_string(), "creationTimestamp": time(created)},
            "spec": {"nodeName": node.to_string(), "containers": []},
            "status": {"phase": "Running", "conditions": conditions, "containerStatuses": [{"name": "c", "image": "",
                "imageID": "", "ready": true, "restartCount": restarts}]}}),
        ))
    }

    proptest! {
        #[test]
        fn any_three_pods_have_an_order(
            pods in proptest::collection::vec(
                (any::<u32>(), 0_u8..3, proptest::option::of(0_i64..9), 0_i64..9, 0_i32..3), 3)
        ) {
            let pods: Vec<_> = pods.into_iter().map(|(u, n, r, c, s)| pod(u, n, r, c, s)).collect();
            let before = |i: usize, j: usize| before(&pods[i], &pods[j], i, j, at(10));
            for (i, j, k) in [(0, 1, 2), (1, 2, 0), (2, 0, 1)] {
                prop_assert_eq!(before(i, j), before(j, i).reverse());
                if before(i, j).is_le() && before(j, k).is_le() {
                    prop_assert!(before(i, k).is_le());
                }
            }
        }
    }

    #[test]
    fn many_pods_can_be_put_in_order() {
        let number = |i: u32| i.wrapping_mul(2_654_435_761) >> 16;
        let pods: Vec<_> = (0..1000)
            .map(|i| pod(number(i), (i % 5) as u8, Some(i64::from(number(i) % 90)), i64::from(i % 90), 0))
            .collect();
        assert_eq!(least_wanted(pods.clone(), &pods, at(100)).len(), 1000);
    }
}
