//! Who claims are reserved for, and what becomes of them afterwards.

use k8s_openapi::{
    api::{
        core::v1::Pod,
        resource::v1::{ResourceClaim, ResourceClaimConsumerReference},
    },
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::{FINALIZER, NAME, is_done, used_by};
use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write, about::has_finalizer, ownership};

/// The loop; its keys are claims. A key's memory is the UID of a claim whose last consumer it has just taken off: only then,
/// and not while the scheduler is about to allocate, is the finalizer of an unallocated claim without use.
pub struct Consumers;

impl Controller for Consumers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Pod>(), Kind::of::<ResourceClaim>()]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if change.kind == Kind::of::<ResourceClaim>() {
            return change.meta().map(Key::of).into_iter().collect();
        }
        let Some(pod) = change.object::<Pod>() else { return Vec::new() };
        if change.after.is_some() && !is_done(&pod) {
            return Vec::new();
        }
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let used = used_by(&pod).map(|(name, _)| Key { namespace: namespace.clone(), name: name.to_owned() });
        let owned = world.owned::<ResourceClaim>(pod.metadata.uid.as_deref().unwrap_or_default());
        used.chain(owned.iter().map(|claim| Key::of(&claim.metadata))).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan { memory: Some(Value::Null), ..Plan::none() };
        let Some(claim) = world.get::<ResourceClaim>(&key.namespace, &key.name) else { return plan };
        let status = claim.status.clone().unwrap_or_default();
        let consumers = status.reserved_for.unwrap_or_default();
        let (remaining, unknown) = still(&consumers, &key.namespace, world);
        let protected = has_finalizer(&claim.metadata, FINALIZER);
        let allocated = status.allocation.is_some();
        let going = claim.metadata.deletion_timestamp.is_some();
        let last_one_gone = claim.metadata.uid.as_deref().is_some_and(|uid| last.memory == uid);
        let free = remaining.is_empty();
        if remaining.len() < consumers.len() {
            plan.all(unknown);
            let keep = !(free && protected);
            plan.then(told(&claim, remaining, keep));
            if free && protected {
                plan.memory = Some(json!(claim.metadata.uid));
            }
        } else if free && protected && allocated && going {
            plan.then(told(&claim, remaining, false));
        } else if free && protected && !allocated && (going || last_one_gone) {
            plan.then(Write::without_finalizer(&Kind::of::<ResourceClaim>(), &claim.metadata, FINALIZER));
        }
        if free && !going && is_left_over(&claim, &key.namespace, world) {
            plan.then(Write::delete(&*claim));
        }
        plan
    }
}

/// The consumers that stay, and what has to be so for the others to go: a pod that is not in sight may be about to be.
fn still(
    consumers: &[ResourceClaimConsumerReference],
    namespace: &str,
    world: &World,
) -> (Vec<ResourceClaimConsumerReference>, Vec<Write>) {
    let mut remaining = Vec::new();
    let mut unknown = Vec::new();
    for consumer in consumers {
        let is_pod = consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or("").is_empty();
        if !is_pod {
            remaining.push(consumer.clone());
            continue;
        }
        match world.get::<Pod>(namespace, &consumer.name) {
            Some(pod) if pod.metadata.uid.as_ref() != Some(&consumer.uid) || is_done(&pod) => {}
            Some(_) => remaining.push(consumer.clone()),
            None => unknown.push(Write::require_absent::<Pod>(namespace, &consumer.name, &consumer.uid)),
        }
    }
    (remaining, unknown)
}

/// Writes who it is reserved for, on the version that was read; without the allocation if that is not to be kept.
fn told(claim: &ResourceClaim, remaining: Vec<ResourceClaimConsumerReference>, keep: bool) -> Write {
    let mut new = claim.clone();
    let status = new.status.get_or_insert_default();
    status.reserved_for = (!remaining.is_empty()).then_some(remaining);
    if !keep {
        status.allocation = None;
    }
    Write::status(&new)
}

/// It was made for a pod that will not run any more, or has been replaced.
fn is_left_over(claim: &ResourceClaim, namespace: &str, world: &World) -> bool {
    let owner = ownership::controller_of(&claim.metadata);
    let Some(owner) = owner.filter(|o| o.kind == "Pod" && o.api_version == "v1") else { return false };
    let pod = world.get::<Pod>(namespace, &owner.name);
    pod.is_some_and(|pod| pod.metadata.uid.as_ref() != Some(&owner.uid) || is_done(&pod))
}
