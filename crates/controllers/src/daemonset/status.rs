//! What a set tells about itself.

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::View;
use crate::{Write, pod_state};

/// The write that tells the new status, if anything is new. Of each node only the first pod counts.
pub fn write(view: &View<'_>) -> Option<Write> {
    let (mut desired, mut current, mut misscheduled) = (0, 0, 0);
    let (mut ready, mut available, mut updated) = (0, 0, 0);
    for node in &view.nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let pod = view.pods.get(name).and_then(|pods| pods.first());
        if !view.placement.on(node).should_run {
            misscheduled += i32::from(pod.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = pod else { continue };
        current += 1;
        ready += i32::from(pod_state::is_ready(pod));
        available += i32::from(view.is_available(pod));
        updated += i32::from(view.is_updated(pod));
    }
    let before = view.set.status.clone().unwrap_or_default();
    let some = |number: i32| (number != 0).then_some(number);
    let status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misscheduled,
        number_ready: ready,
        number_available: some(available),
        number_unavailable: some(desired - available),
        updated_number_scheduled: some(updated),
        observed_generation: view.set.metadata.generation.max(before.observed_generation),
        ..before
    };
    let told = DaemonSet { status: Some(status), ..view.set.clone() };
    (told.status != view.set.status).then(|| Write::status(&told))
}
