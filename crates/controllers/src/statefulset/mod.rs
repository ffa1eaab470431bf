//! StatefulSet: pods with names, storage and an order.
//!
//! Source: `pkg/controller/statefulset`. Reading order: `pods` (who is who) → `claims` (their storage) → `steps` (what
//! comes next) → `status`.

mod claims;
mod pods;
mod status;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet},
        core::v1::{PersistentVolumeClaim, Pod},
    },
    jiff::Timestamp,
};

use crate::{
    Change, Controller, Key, Kind, Outcome, Plan, World, Write, ownership, pod_state,
    revisions::{self, History},
};

/// On a revision: the hash in its name.
const HASH: &str = "controller.kubernetes.io/hash";

/// The loop.
pub struct StatefulSets;

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<StatefulSet>(),
            Kind::of::<Pod>(),
            Kind::of::<ControllerRevision>(),
            Kind::of::<PersistentVolumeClaim>(),
        ]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        match change.object::<StatefulSet>() {
            Some(set) => vec![Key::of(&set.metadata)],
            None => ownership::owners::<StatefulSet, Pod>(change, world, |s| {
                ownership::selector(&s.spec.selector)
            }),
        }
    }

    fn reconcile(&self, key: &Key, world: &World, _: &Outcome, now: Timestamp) -> Plan {
        match world.get::<StatefulSet>(&key.namespace, &key.name) {
            Some(set) => reconcile(&set, world, now),
            None => Plan::none(),
        }
    }
}

/// The revisions that matter at the moment.
struct Revisions {
    /// What the set was last complete at.
    current: Arc<ControllerRevision>,
    /// What it shall become.
    update: Arc<ControllerRevision>,
    collisions: i32,
}

fn reconcile(set: &StatefulSet, world: &World, now: Timestamp) -> Plan {
    let selector = ownership::selector(&set.spec.selector);
    let leaving = ownership::deleting(&set.metadata);
    let history = History::of(set, world, &selector);
    if let Some(plan) = history.adoption(set).filter(|_| !leaving) {
        return again(plan, now);
    }
    let claim = ownership::claim(&set.metadata, ownership::candidates::<Pod>(world, &set.metadata), |pod| {
        ownership::matches(&selector, &pod.metadata) && pods::is_member(set, pod)
    });
    if let Some(plan) = claim.plan(set) {
        return plan;
    }
    let revisions = match revisions_of(set, &history, world) {
        Ok(revisions) => revisions,
        Err(write) => {
            let mut plan = Plan::none();
            plan.then(*write);
            return again(plan, now);
        }
    };
    let mut plan = Plan::none();
    if !leaving {
        let actions = steps::next(set, &revisions, &claim.kept, world, now);
        plan.all(actions.claims);
        plan.all(actions.pods);
        plan.notes = actions.notes;
    }
    let told = status::write(set, &revisions, &claim.kept, now);
    match plan.steps.last_mut() {
        Some(step) => step.extend(told),
        None => {
            plan.all(told.into_iter().collect());
        }
    }
    plan.all(forgotten(set, &history, &revisions, &claim.kept));
    let min_ready = set.spec.min_ready_seconds.unwrap_or(0);
    if let Some(at) = pod_state::next_available(claim.kept.iter().map(|p| &**p), min_ready, now) {
        plan.wake(at);
    }
    plan
}

/// The plan, and another look as soon as the world shows what it has written: nothing else wakes a set after a change of its
/// revisions.
fn again(mut plan: Plan, now: Timestamp) -> Plan {
    plan.wake(now);
    plan
}

/// The current revision and the one to update to, or the write that makes or renumbers the latter.
fn revisions_of(set: &StatefulSet, history: &History, world: &World) -> Result<Revisions, Box<Write>> {
    let status = set.status.as_ref();
    let mut collisions = status.and_then(|s| s.collision_count).unwrap_or(0);
    let data = revisions::data(&set.spec.template);
    let last = history.owned.last();
    let equal = history.equal_to(&data).last().map(|r| (*r).clone());
    let update = match (equal, last) {
        (Some(equal), Some(last)) if last.data.0 == equal.data.0 => last.clone(),
        (Some(equal), _) => {
            let number = revisions::next_number(&history.owned);
            return Err(Box::new(revisions::renumber(&equal, number)));
        }
        (None, Some(last)) if revisions::is_the_same_by_default(set, last) => last.clone(),
        (None, _) => {
            return Err(Box::new(Write::create(&make(set, history, world, &mut collisions))));
        }
    };
    let current = status.and_then(|s| s.current_revision.as_deref());
    let current = history.owned.iter().find(|r| r.metadata.name.as_deref() == current);
    Ok(Revisions { current: current.unwrap_or(&update).clone(), update, collisions })
}

/// A revision of the wanted template, under a name that is free.
fn make(set: &StatefulSet, history: &History, world: &World, collisions: &mut i32) -> ControllerRevision {
    let data = revisions::data(&set.spec.template);
    let own = set.metadata.name.as_deref().unwrap_or_default();
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    loop {
        let hash = revisions::hash(&data, *collisions);
        let name = revisions::name(own, &hash);
        if *collisions < i32::MAX && world.get::<ControllerRevision>(namespace, &name).is_some() {
            *collisions += 1;
            continue;
        }
        let mut labels = set.spec.template.metadata.clone().unwrap_or_default().labels.unwrap_or_default();
        labels.insert(HASH.to_owned(), hash);
        return revisions::new(set, name, labels, data, revisions::next_number(&history.owned));
    }
}

/// The deletions of revisions beyond the limit that no pod is of.
fn forgotten(set: &StatefulSet, history: &History, revisions: &Revisions, kept: &[Arc<Pod>]) -> Vec<Write> {
    let Some(limit) = set.spec.revision_history_limit.and_then(|l| usize::try_from(l).ok()) else {
        return Vec::new();
    };
    let live = |revision: &ControllerRevision| {
        let name = revision.metadata.name.as_deref();
        name == revisions.current.metadata.name.as_deref()
            || name == revisions.update.metadata.name.as_deref()
            || kept.iter().any(|pod| Some(pods::revision(pod)) == name)
    };
    let old: Vec<_> = history.owned.iter().filter(|revision| !live(revision)).collect();
    let spare = old.len().saturating_sub(limit);
    old.into_iter().take(spare).map(|revision| Write::delete(&**revision)).collect()
}
