//! Another number of pods is wanted, in the middle of a rollout or not: each ReplicaSet gets its share.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::Deployment;

use super::{
    numbers,
    sets::{DESIRED, MAX, Set, Sets, resize},
};

/// Shares the wanted number out.
pub fn scale(deployment: &Deployment, sets: &mut Sets) {
    let replicas = numbers::replicas(deployment);
    let Sets { old, new, notes } = sets;
    let active = old.iter().chain(&*new).filter(|set| set.replicas > 0).count();
    if active <= 1 {
        let newest = old.iter().rposition(|set| set.replicas > 0 || active == 0);
        let only = match (new.as_mut(), newest) {
            (Some(new), _) if new.replicas > 0 || active == 0 => Some(new),
            (_, Some(place)) => old.get_mut(place),
            (new, None) => new,
        };
        if let Some(set) = only {
            resize(deployment, set, replicas, notes);
        }
        return;
    }
    if new.as_ref().is_some_and(|new| is_saturated(new, replicas)) {
        for set in old.iter_mut().filter(|set| set.replicas > 0) {
            resize(deployment, set, 0, notes);
        }
        return;
    }
    if numbers::is_rolling(deployment) {
        let mut all: Vec<(usize, &mut Set)> =
            old.iter_mut().chain(new).filter(|set| set.replicas > 0).enumerate().collect();
        proportionally(deployment, &mut all, notes);
    }
}

/// The new ReplicaSet has all that is wanted, and all of it is available.
fn is_saturated(new: &Set, replicas: i32) -> bool {
    let wanted = new.number(DESIRED) == Some(i64::from(replicas));
    wanted && new.replicas == replicas && new.available() == replicas
}

/// `all` are numbered by age, the oldest first.
fn proportionally(deployment: &Deployment, all: &mut [(usize, &mut Set)], notes: &mut Vec<crate::Note>) {
    let replicas = numbers::replicas(deployment);
    let most = if replicas > 0 { replicas.saturating_add(numbers::max_surge(deployment)) } else { 0 };
    let now = all.iter().map(|(_, set)| set.replicas).fold(0, i32::saturating_add);
    let to_add = most.saturating_sub(now);
    if to_add > 0 {
        all.sort_by_key(|(age, set)| Reverse((set.replicas, *age)));
    } else {
        all.sort_by_key(|(age, set)| (Reverse(set.replicas), *age));
    }
    let mut added = 0;
    let mut sizes = Vec::with_capacity(all.len());
    for (_, set) in all.iter() {
        let share = if to_add == added { 0 } else { fraction(deployment, set) };
        let rest = to_add.saturating_sub(added);
        let share = if to_add > 0 { share.min(rest) } else { share.max(rest) };
        sizes.push(set.replicas.saturating_add(share));
        added = added.saturating_add(share);
    }
    // What rounding has left goes to the largest.
    if let Some(first) = sizes.first_mut() {
        *first = first.saturating_add(to_add.saturating_sub(added)).max(0);
    }
    for ((_, set), size) in all.iter_mut().zip(sizes) {
        resize(deployment, set, size, notes);
    }
}

/// By how much a ReplicaSet has to grow to keep its share.
fn fraction(deployment: &Deployment, set: &Set) -> i32 {
    let replicas = numbers::replicas(deployment);
    if replicas == 0 {
        return -set.replicas;
    }
    let most = f64::from(replicas.saturating_add(numbers::max_surge(deployment)));
    let told = deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let before = set.number(MAX).filter(|m| *m > 0).unwrap_or(i64::from(told));
    if before == 0 {
        return 0;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "pods fit")]
    let size = (f64::from(set.replicas) * most / before as f64).round() as i32;
    size.saturating_sub(set.replicas)
}
