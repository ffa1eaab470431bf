//! Deployment: rolls from one ReplicaSet to the next.
//!
//! Source: `pkg/controller/deployment`. Reading order: `sets` (the ReplicaSets and their annotations) → `numbers` (how many
//! pods may be missing or extra) → `rolling`, `recreate`, `scale` (who gets how many) → `status` → `rollback`.

mod numbers;
mod recreate;
mod rollback;
mod rolling;
mod scale;
mod sets;
mod status;
#[cfg(test)]
mod tests;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use self::{
    sets::{Set, Sets},
    status::Progress,
};
use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, World, Write, ownership, pod_state,
    world::controller_uid,
};

/// The loop.
pub struct Deployments;

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Deployment>(), Kind::of::<ReplicaSet>(), Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(deployment) = change.object::<Deployment>() {
            return vec![Key::of(&deployment.metadata)];
        }
        if let Some(pod) = change.object::<Pod>() {
            let ended = change.after::<Pod>().is_none_or(|pod| pod_state::is_terminal(&pod));
            return if ended { waiting_for(&pod, world).into_iter().collect() } else { Vec::new() };
        }
        ownership::owners::<Deployment, ReplicaSet>(change, world, |d| ownership::selector(&d.spec.selector))
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        match world.get::<Deployment>(&key.namespace, &key.name) {
            Some(deployment) => reconcile(&deployment, world, last, now),
            None => Plan::none(),
        }
    }
}

/// The Deployment that may wait for the end of a pod: one that makes new pods only when the old ones have ended.
fn waiting_for(pod: &Pod, world: &World) -> Option<Key> {
    let (_, set) = world.by_uid(controller_uid(&pod.metadata)?)?;
    let (_, deployment) = world.by_uid(controller_uid(set.meta())?)?;
    let key = Key::of(deployment.meta());
    let deployment = world.get::<Deployment>(&key.namespace, &key.name)?;
    (!numbers::is_rolling(&deployment)).then_some(key)
}

fn reconcile(deployment: &Deployment, world: &World, last: &Outcome, now: Timestamp) -> Plan {
    let selector = ownership::selector(&deployment.spec.selector);
    if selector.is_everything() {
        return selects_all(deployment);
    }
    let candidates = ownership::candidates::<ReplicaSet>(world, &deployment.metadata);
    let claim = ownership::claim(&deployment.metadata, candidates, |set| {
        ownership::matches(&selector, &set.metadata)
    });
    if let Some(plan) = claim.plan(deployment) {
        return plan;
    }
    let mut sets = Sets::new(deployment, claim.kept);
    if ownership::deleting(&deployment.metadata) {
        return finish(deployment, sets, Progress::Untouched, now);
    }
    if deployment.spec.paused == Some(true) {
        scale::scale(deployment, &mut sets);
        if rollback::wanted(deployment).is_none() {
            sets.clean_up(deployment);
        }
        return finish(deployment, sets, Progress::Untouched, now);
    }
    if let Some(revision) = rollback::wanted(deployment) {
        return match &sets.new {
            Some(_) => rollback::plan(deployment, &sets, revision),
            // What is wanted now has to become a revision before it can be left.
            None => make(deployment, sets, world, last, now),
        };
    }
    if sets.are_of_another_scale(deployment) {
        scale::scale(deployment, &mut sets);
        return finish(deployment, sets, Progress::Untouched, now);
    }
    if numbers::is_rolling(deployment) {
        if sets.new.is_none() {
            return make(deployment, sets, world, last, now);
        }
        rolling::roll(deployment, &mut sets);
    } else {
        match recreate::step(deployment, &mut sets, world) {
            recreate::Step::Make => return make(deployment, sets, world, last, now),
            recreate::Step::Go => {}
        }
    }
    finish(deployment, sets, Progress::Estimated, now)
}

/// A selector that selects every pod is a mistake: nothing is done but to say so.
fn selects_all(deployment: &Deployment) -> Plan {
    let text = "This deployment is selecting all pods. A non-empty selector is required.";
    let mut plan = Plan { notes: vec![Note::warning(deployment, "SelectingAll", text)], ..Plan::none() };
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        status.observed_generation = deployment.metadata.generation;
        plan.then(Write::status(&Deployment { status: Some(status), ..deployment.clone() }));
    }
    plan
}

/// Makes the ReplicaSet of the wanted template.
fn make(deployment: &Deployment, sets: Sets, world: &World, last: &Outcome, now: Timestamp) -> Plan {
    let set = sets.wanted(deployment);
    let name = set.metadata.name.clone().unwrap_or_default();
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    if world.get::<ReplicaSet>(namespace, &name).is_some() {
        // The name is taken, and not by a ReplicaSet of this template: the next hash gives another name.
        let mut status = deployment.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
        let mut plan = Plan::none();
        plan.then(Write::status(&Deployment { status: Some(status), ..deployment.clone() }));
        return plan;
    }
    let replicas = set.spec.replicas.unwrap_or(0);
    let scaled = Note::normal(
        deployment,
        "ScalingReplicaSet",
        format!("Scaled up replica set {name} from 0 to {replicas}"),
    );
    let failed = Note::warning(
        deployment,
        "ReplicaSetCreateError",
        format!("Failed to create new replica set {name:?}: {{}}"),
    );
    let create = Write::create(&set).noted((replicas > 0).then_some(scaled), Some(failed));
    let failure = last.failed_create(&Kind::of::<ReplicaSet>());
    let progress = match failure {
        Some(failure) => {
            Progress::NotMade(format!("Failed to create new replica set {name:?}: {}", failure.message))
        }
        None => Progress::Made(name),
    };
    let made = sets.next_revision();
    let mut plan = Plan::none();
    let told = status::write(deployment, &sets, Some(&made), &progress, now);
    if failure.is_some() {
        plan.all(told.into_iter().collect());
        plan.then(create);
    } else {
        plan.then(create);
        plan.all(told.into_iter().collect());
    }
    plan
}

/// Writes what was decided about the ReplicaSets, and the status.
fn finish(deployment: &Deployment, sets: Sets, progress: Progress, now: Timestamp) -> Plan {
    let mut plan = Plan::none();
    let revision = sets.new.as_ref().and_then(Set::revision_text);
    let mut writes = sets.writes();
    let told = status::write(deployment, &sets, revision.as_deref(), &progress, now);
    plan.again = status::look_again(deployment, &told, now);
    writes.extend(told);
    plan.all(writes);
    plan.success_notes = sets.notes;
    plan
}
