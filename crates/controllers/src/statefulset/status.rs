//! What a set tells about itself.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use super::{Revisions, pods};
use crate::{Write, pod_state};

fn count(all: &[Arc<Pod>], which: impl Fn(&Pod) -> bool) -> i32 {
    i32::try_from(all.iter().filter(|pod| which(pod)).count()).unwrap_or(i32::MAX)
}

/// The write that tells the new status, if anything is new.
pub fn write(set: &StatefulSet, revisions: &Revisions, all: &[Arc<Pod>], now: Timestamp) -> Option<Write> {
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    let name = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
        revision.metadata.name.clone().unwrap_or_default()
    };
    let (mut current, update) = (name(&revisions.current), name(&revisions.update));
    let ready = |pod: &Pod| pod_state::phase(pod) == "Running" && pod_state::is_ready(pod);
    let of = |revision: &str| {
        count(all, |pod| pod.metadata.deletion_timestamp.is_none() && pods::revision(pod) == revision)
    };
    let (replicas, readies, updated) = (count(all, |_| true), count(all, ready), of(&update));
    let mut currents = of(&current);
    let wanted = set.spec.replicas.unwrap_or(1);
    if updated == wanted && readies == wanted && replicas == wanted {
        current.clone_from(&update);
        currents = updated;
    }
    let before = set.status.clone().unwrap_or_default();
    // What the API may leave out because it is zero, and what it may not.
    let like = |before: Option<i32>, number: i32| {
        before.or(Some(0)).filter(|b| *b == number).map_or(Some(number), |_| before)
    };
    let status = StatefulSetStatus {
        observed_generation: set.metadata.generation.max(before.observed_generation),
        replicas,
        ready_replicas: like(before.ready_replicas, readies),
        available_replicas: like(
            before.available_replicas,
            count(all, |pod| ready(pod) && pod_state::is_available(pod, min_ready, now)),
        ),
        current_replicas: like(before.current_replicas, currents),
        updated_replicas: like(before.updated_replicas, updated),
        current_revision: Some(current),
        update_revision: Some(update),
        collision_count: before.collision_count.or(Some(0)).map(|c| c.max(revisions.collisions)),
        conditions: before.conditions.clone(),
    };
    let told = StatefulSet { status: Some(status), ..set.clone() };
    (told.status != set.status).then(|| Write::status(&told))
}
