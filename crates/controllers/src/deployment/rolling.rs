//! RollingUpdate: new pods up, old pods down, never too many and never too few.

use k8s_openapi::api::apps::v1::Deployment;

use super::{
    numbers,
    sets::{Set, Sets, resize},
    status,
};

/// One step: either the new ReplicaSet grows (or shrinks to what is wanted), or the old ones shrink, or they are cleaned up.
pub fn roll(deployment: &Deployment, sets: &mut Sets) {
    if grow(deployment, sets) || shrink(deployment, sets) {
        return;
    }
    if status::was_complete(deployment) {
        sets.clean_up(deployment);
    }
}

fn grow(deployment: &Deployment, sets: &mut Sets) -> bool {
    let replicas = numbers::replicas(deployment);
    let Some(now) = sets.new.as_ref().map(|new| new.replicas) else { return false };
    let wanted = if now > replicas { replicas } else { sets.room_for(deployment, now) };
    let Some(new) = &mut sets.new else { return false };
    if wanted == now {
        return false;
    }
    resize(deployment, new, wanted, &mut sets.notes);
    true
}

fn shrink(deployment: &Deployment, sets: &mut Sets) -> bool {
    if sets.old.iter().all(|set| set.replicas == 0) {
        return false;
    }
    let least = numbers::replicas(deployment) - numbers::max_unavailable(deployment);
    let missing = sets.new.as_ref().map_or(0, |new| new.replicas - new.available());
    let most = sets.total().saturating_sub(least).saturating_sub(missing);
    if most <= 0 {
        return false;
    }
    let Sets { old, new, notes } = sets;
    // Old pods that serve nobody go first, they are no loss.
    let unhealthy = take(deployment, old, most, |set| (set.replicas - set.available()).max(0), notes);
    let available = old.iter().chain(&*new).map(Set::available).fold(0, i32::saturating_add);
    let healthy = take(deployment, old, available - least, |set| set.replicas, notes);
    unhealthy + healthy > 0
}

/// Takes up to `most` pods from the old ReplicaSets, the oldest first, of each up to `from`.
fn take(
    deployment: &Deployment,
    old: &mut [Set],
    most: i32,
    from: impl Fn(&Set) -> i32,
    notes: &mut Vec<crate::Note>,
) -> i32 {
    let mut taken = 0;
    for set in old.iter_mut().filter(|set| set.replicas > 0) {
        if taken >= most {
            break;
        }
        let count = from(set).min(most - taken);
        if count > 0 {
            let replicas = set.replicas - count;
            resize(deployment, set, replicas, notes);
            taken += count;
        }
    }
    taken
}
