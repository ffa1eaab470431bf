//! The revisions of a set.

use std::sync::Arc;

use apimachinery::selector::LabelSelector;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, DaemonSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use serde_json::json;

use super::{HASH, View};
use crate::{PatchKind, Plan, World, Write, ownership, pod_template, revisions};

fn hash_of(revision: &ControllerRevision) -> Option<&String> {
    revision.metadata.labels.as_ref()?.get(HASH)
}

fn is_current(set: &DaemonSet, revision: &ControllerRevision) -> bool {
    revision.data.0 == revisions::data(&set.spec.template)
}

/// The hash of the wanted revision; or what has to be done before there is one. Nothing wakes the set after that, so it asks
/// to be looked at again.
pub fn current(
    set: &DaemonSet,
    selector: &LabelSelector,
    world: &World,
    now: Timestamp,
) -> Result<String, Box<Plan>> {
    let again = |mut plan: Plan| {
        plan.wake(now);
        Err(Box::new(plan))
    };
    let candidates = ownership::candidates::<ControllerRevision>(world, &set.metadata);
    let claim = ownership::claim(&set.metadata, candidates, |r| ownership::matches(selector, &r.metadata));
    if let Some(plan) = claim.plan(set) {
        return again(plan);
    }
    let unnamed: Vec<Write> = claim
        .kept
        .iter()
        .filter(|revision| hash_of(revision).is_none())
        .map(|revision| {
            let labels = json!({HASH: revision.metadata.name});
            Write::patch(&**revision, PatchKind::Merge, json!({"metadata": {"labels": labels}}))
        })
        .collect();
    if !unnamed.is_empty() {
        let mut plan = Plan::none();
        plan.all(unnamed);
        return again(plan);
    }
    let (mut same, old): (Vec<_>, Vec<_>) = claim.kept.into_iter().partition(|r| is_current(set, r));
    same.sort_by_key(|revision| revisions::number(revision));
    let number = old.iter().map(|r| revisions::number(r)).max().unwrap_or(0).max(0).saturating_add(1);
    let Some(wanted) = same.pop() else { return again(make(set, world, number)) };
    let hash = hash_of(&wanted).cloned().unwrap_or_default();
    if !same.is_empty() {
        return again(merge(set, &hash, &same, world));
    }
    if revisions::number(&wanted) < number {
        let mut plan = Plan::none();
        plan.then(revisions::renumber(&wanted, number));
        return again(plan);
    }
    Ok(hash)
}

/// Makes the revision of the wanted template; if its name is taken, counts that, so that the next name is another one.
fn make(set: &DaemonSet, world: &World, number: i64) -> Plan {
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let hash = pod_template::hash(&set.spec.template, collisions);
    let name = format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default());
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut plan = Plan::none();
    if world.get::<ControllerRevision>(namespace, &name).is_some() {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(collisions.unwrap_or(0).saturating_add(1));
        plan.then(Write::status(&DaemonSet { status: Some(status), ..set.clone() }));
        return plan;
    }
    let mut labels = set.spec.template.metadata.clone().unwrap_or_default().labels.unwrap_or_default();
    labels.insert(HASH.to_owned(), hash);
    let data = revisions::data(&set.spec.template);
    plan.then(Write::create(&revisions::new(set, name, labels, data, number)));
    plan
}

/// Makes one revision of several with the same content: pods get the label of the one that stays, the others go.
fn merge(set: &DaemonSet, hash: &str, others: &[Arc<ControllerRevision>], world: &World) -> Plan {
    let pods = world.owned::<Pod>(set.metadata.uid.as_deref().unwrap_or_default());
    let label = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|l| l.get(HASH)).cloned();
    let relabelled = pods
        .iter()
        .filter(|pod| label(pod).as_deref() != Some(hash))
        .map(|pod| Write::patch(&**pod, PatchKind::Merge, json!({"metadata": {"labels": {HASH: hash}}})));
    let mut plan = Plan::none();
    plan.all(relabelled.collect());
    plan.all(others.iter().map(|revision| Write::delete(&**revision)).collect());
    plan
}

/// The deletions of revisions beyond the limit that no pod is of.
pub fn forgotten(view: &View<'_>, selector: &LabelSelector, world: &World) -> Vec<Write> {
    let Some(limit) = view.set.spec.revision_history_limit.and_then(|l| usize::try_from(l).ok()) else {
        return Vec::new();
    };
    let uid = view.set.metadata.uid.as_deref().unwrap_or_default();
    let mut old = world.owned::<ControllerRevision>(uid);
    old.retain(|r| ownership::matches(selector, &r.metadata) && !is_current(view.set, r));
    old.sort_by_key(|revision| revisions::number(revision));
    let spare = old.len().saturating_sub(limit);
    let in_use = |revision: &ControllerRevision| {
        let pods = view.all.iter().filter_map(|pod| pod.metadata.labels.as_ref()?.get(HASH));
        hash_of(revision).is_some_and(|hash| pods.into_iter().any(|used| used == hash))
    };
    old.iter().filter(|r| !in_use(r)).take(spare).map(|revision| Write::delete(&**revision)).collect()
}
