//! Recreate: all old pods end, then the new ones start.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

use super::{
    numbers,
    sets::{Set, Sets, resize},
    status,
};
use crate::{World, pod_state};

/// What comes after a step.
pub enum Step {
    /// Write what was decided.
    Go,
    /// Make the new ReplicaSet.
    Make,
}

/// One step.
pub fn step(deployment: &Deployment, sets: &mut Sets, world: &World) -> Step {
    let Sets { old, new, notes } = sets;
    let mut shrunk = false;
    for set in old.iter_mut().filter(|set| set.replicas > 0) {
        resize(deployment, set, 0, notes);
        shrunk = true;
    }
    if shrunk || old.iter().any(|set| has_pods(set, world)) {
        return Step::Go;
    }
    let Some(new) = new else { return Step::Make };
    if new.replicas != numbers::replicas(deployment) {
        resize(deployment, new, numbers::replicas(deployment), notes);
    } else if status::was_complete(deployment) {
        sets.clean_up(deployment);
    }
    Step::Go
}

/// Pods of it that have not ended, those that are being deleted included.
fn has_pods(set: &Set, world: &World) -> bool {
    let uid = set.seen.metadata.uid.as_deref().unwrap_or_default();
    set.actual() > 0 || world.owned::<Pod>(uid).iter().any(|pod| !pod_state::is_terminal(pod))
}
