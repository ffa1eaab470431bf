//! ReplicaSet and ReplicationController: so many pods of one template.
//!
//! Source: `pkg/controller/replicaset`. Both kinds are one loop; [`Scaled`] is how they differ.

mod kinds;
pub(crate) mod ranking;
#[cfg(test)]
mod tests;

use std::{any::Any, marker::PhantomData, sync::Arc};

use apimachinery::selector::LabelSelector;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodTemplateSpec, ReplicationController},
    },
    jiff::Timestamp,
};
use kube::Resource;
use serde::Serialize;

use crate::{
    Change, Controller, Key, Kind, Outcome, Plan, World, Write, ownership, pod_control, pod_state,
    pod_template,
};

/// Pods made or deleted by one plan at most.
const BURST: usize = 500;

/// What the loop wants to know of an object.
pub struct Wanted<'a> {
    replicas: i32,
    min_ready_seconds: i32,
    selector: LabelSelector,
    template: Option<&'a PodTemplateSpec>,
}

/// What it tells about one. Numbers are pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    replicas: i32,
    fully_labeled: i32,
    ready: i32,
    available: i32,
    terminating: Option<i32>,
    observed_generation: Option<i64>,
    /// The condition `ReplicaFailure`: its reason and message.
    failure: Option<(String, String)>,
}

/// A kind that stands for so many pods.
pub trait Scaled: Resource<DynamicType = ()> + Any + Send + Sync + Clone + Serialize {
    /// As upstream names its loop.
    const LOOP: &'static str;
    /// What is wanted.
    fn wanted(&self) -> Wanted<'_>;
    /// What was told last.
    fn told(&self) -> Status;
    /// The same object telling something else.
    #[must_use]
    fn telling(&self, status: &Status, now: Timestamp) -> Self;
    /// Others of the same controller, whose pods one would rather not put on the same nodes.
    fn related(&self, world: &World) -> Vec<Arc<Self>>;
}

/// The loop.
pub struct Replicas<K>(PhantomData<fn() -> K>);

/// The loop of ReplicaSets.
#[must_use]
pub fn replica_sets() -> Replicas<ReplicaSet> {
    Replicas(PhantomData)
}

/// The loop of ReplicationControllers.
#[must_use]
pub fn replication_controllers() -> Replicas<ReplicationController> {
    Replicas(PhantomData)
}

impl<K: Scaled> Controller for Replicas<K> {
    fn name(&self) -> &'static str {
        K::LOOP
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<K>(), Kind::of::<Pod>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(object) = change.object::<K>() {
            return vec![Key::of(object.meta())];
        }
        ownership::owners::<K, Pod>(change, world, |owner| owner.wanted().selector)
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        match world.get::<K>(&key.namespace, &key.name) {
            Some(owner) => reconcile(&*owner, world, last, now),
            None => Plan::none(),
        }
    }
}

fn reconcile<K: Scaled>(owner: &K, world: &World, last: &Outcome, now: Timestamp) -> Plan {
    let wanted = owner.wanted();
    let candidates = ownership::candidates::<Pod>(world, owner.meta());
    let claim =
        ownership::claim(owner.meta(), candidates.iter().filter(|p| pod_state::is_active(p)).cloned(), |p| {
            ownership::matches(&wanted.selector, &p.metadata)
        });
    if let Some(plan) = claim.plan(owner) {
        return plan;
    }
    let active = claim.kept;
    let mut plan = Plan::none();
    let mut writes = Vec::new();
    let short = usize::try_from(wanted.replicas).unwrap_or(0).saturating_sub(active.len());
    let spare = active.len().saturating_sub(usize::try_from(wanted.replicas).unwrap_or(0));
    let mut failure = None;
    if !ownership::deleting(owner.meta()) {
        if let Some(template) = wanted.template.filter(|_| short > 0) {
            failure = last.failed_create(&Kind::of::<Pod>()).map(|f| ("FailedCreate", f));
            let namespace = owner.meta().namespace.as_deref().unwrap_or_default();
            let pod = pod_template::pod(template, namespace, ownership::controller_reference(owner));
            writes.extend(std::iter::repeat_n(pod_control::create(owner, &pod), short.min(BURST)));
        }
        if spare > 0 {
            failure = last.failed_delete(&Kind::of::<Pod>()).map(|f| ("FailedDelete", f));
            let related = owner.related(world);
            let doomed = ranking::least_wanted(active.clone(), &related_pods(&related, world), now);
            writes.extend(doomed.iter().take(spare.min(BURST)).map(|pod| pod_control::delete(owner, pod)));
        }
    }
    let before = owner.told();
    let terminating = candidates.iter().filter(|p| {
        pod_state::is_terminating(p)
            && crate::world::controller_uid(&p.metadata) == owner.meta().uid.as_deref()
    });
    let status = Status {
        replicas: count(active.len()),
        fully_labeled: count(active.iter().filter(|p| is_fully_labeled(p, wanted.template)).count()),
        ready: count(active.iter().filter(|p| pod_state::is_ready(p)).count()),
        available: count(
            active.iter().filter(|p| pod_state::is_available(p, wanted.min_ready_seconds, now)).count(),
        ),
        terminating: Some(count(terminating.count())),
        observed_generation: owner.meta().generation,
        failure: failure.map(|(reason, failure)| {
            let told = before.failure.clone();
            told.unwrap_or_else(|| (reason.to_owned(), failure.message.clone()))
        }),
    };
    let told = owner.telling(&status, now);
    if told.told() != before {
        writes.push(Write::status(&told));
    }
    plan.all(writes);
    if let Some(at) = pod_state::next_available(active.iter().map(|p| &**p), wanted.min_ready_seconds, now) {
        plan.wake(at);
    }
    plan
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn is_fully_labeled(pod: &Pod, template: Option<&PodTemplateSpec>) -> bool {
    let wanted = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    let has = pod.metadata.labels.as_ref();
    wanted.into_iter().flatten().all(|(key, value)| has.and_then(|l| l.get(key)) == Some(value))
}

fn related_pods<K: Scaled>(related: &[Arc<K>], world: &World) -> Vec<Arc<Pod>> {
    let uids = related.iter().filter_map(|r| r.meta().uid.as_deref());
    uids.flat_map(|uid| world.owned::<Pod>(uid)).filter(|p| pod_state::is_active(p)).collect()
}
