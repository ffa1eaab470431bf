//! persistentvolume-binder-controller: joins claims and volumes, and says what becomes of a volume whose claim is gone.
//!
//! Each join is four writes, in this order: the volume names the claim, the volume is Bound, the claim names the volume, the
//! claim is Bound. Any of them may be lost; the next look does the rest. Keys with a namespace are [`claim`]s, those without
//! are [`volume`]s. Source: `pkg/controller/volume/persistentvolume`.

mod claim;
mod matching;
#[cfg(test)]
mod tests;
mod volume;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod},
        storage::v1::StorageClass,
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::{Change, Controller, Key, Kind, Note, Outcome, Plan, World, about::annotation};

/// The controller made this side of the join, and may undo it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The claim has been joined once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// The node on which the scheduler wants the volume.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Who is to make the volume of a claim; the older name is written, too.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Who has made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const CLASS_BETA: &str = "volume.beta.kubernetes.io/storage-class";

/// The loop. A claim's memory is the last event about it, so that each is told once.
pub struct VolumeBinder;

impl Controller for VolumeBinder {
    fn name(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![
            Kind::of::<PersistentVolume>(),
            Kind::of::<PersistentVolumeClaim>(),
            Kind::of::<StorageClass>(),
            Kind::of::<Pod>(),
            Kind::of::<Node>(),
        ]
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if let Some(claim) = change.object::<PersistentVolumeClaim>() {
            return keys_of_claim(&claim, world);
        }
        if let Some(volume) = change.object::<PersistentVolume>() {
            return keys_of_volume(change, &volume, world);
        }
        if change.kind == Kind::of::<StorageClass>() {
            return open_claims(world).map(|c| Key::of(&c.metadata)).collect();
        }
        Vec::new()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        if key.namespace.is_empty() {
            return world
                .get::<PersistentVolume>("", &key.name)
                .map_or_else(Plan::none, |volume| volume::reconcile(&volume, world, now));
        }
        match world.get::<PersistentVolumeClaim>(&key.namespace, &key.name) {
            Some(claim) => told_once(claim::reconcile(&claim, world, now), last),
            None => Plan { memory: Some(Value::Null), ..Plan::none() },
        }
    }
}

/// Leaves out events that were told at the previous look.
fn told_once(mut plan: Plan, last: &Outcome) -> Plan {
    let told: Vec<Value> = plan.notes.iter().map(|n: &Note| json!([n.reason, n.message])).collect();
    let told = if told.is_empty() { Value::Null } else { told.into() };
    if told == last.memory {
        plan.notes.clear();
    }
    plan.memory = Some(told);
    plan
}

/// The claim, the volume it names, and the volumes that name it.
fn keys_of_claim(claim: &PersistentVolumeClaim, world: &World) -> Vec<Key> {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
    let mut keys = vec![Key::of(&claim.metadata)];
    for volume in world.list::<PersistentVolume>("") {
        let names_it = claim_ref(&volume).is_some_and(|r| same_place(r, claim));
        if names_it || volume.metadata.name.as_deref() == named {
            keys.push(Key::of(&volume.metadata));
        }
    }
    keys
}

/// The volume, the claims that it names or named, those that name it, and those that could now take it.
fn keys_of_volume(change: &Change, volume: &PersistentVolume, world: &World) -> Vec<Key> {
    let mut keys = vec![Key::of(&volume.metadata)];
    let before = change.before::<PersistentVolume>();
    for reference in [before.as_deref(), Some(volume)].into_iter().flatten().filter_map(claim_ref) {
        keys.push(Key {
            namespace: reference.namespace.clone().unwrap_or_default(),
            name: reference.name.clone().unwrap_or_default(),
        });
    }
    let free = claim_ref(volume).is_none() && phase(volume) == "Available";
    let takes = |claim: &PersistentVolumeClaim| {
        let wanted = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        wanted == volume.name_any() || (free && wanted.is_empty() && class_of(claim) == volume_class(volume))
    };
    let claims = world.list::<PersistentVolumeClaim>("");
    keys.extend(claims.iter().filter(|c| takes(c)).map(|c| Key::of(&c.metadata)));
    keys
}

/// Claims that are not joined to a volume.
fn open_claims(world: &World) -> impl Iterator<Item = Arc<PersistentVolumeClaim>> {
    let claims = world.list::<PersistentVolumeClaim>("");
    claims.into_iter().filter(|claim| annotation(&claim.metadata, BIND_COMPLETED).is_none())
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn same_place(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.namespace == claim.metadata.namespace && reference.name == claim.metadata.name
}

/// The volume names this claim: by UID, or beforehand by a person, without one.
fn names(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or_default();
        same_place(reference, claim) && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
    })
}

/// The name of a claim's class; empty for volumes without one.
#[must_use]
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let beta = annotation(&claim.metadata, CLASS_BETA);
    beta.or_else(|| claim.spec.as_ref()?.storage_class_name.as_deref()).unwrap_or_default()
}

/// The name of a volume's class; empty when it has none.
fn volume_class(volume: &PersistentVolume) -> &str {
    let beta = annotation(&volume.metadata, CLASS_BETA);
    beta.or_else(|| volume.spec.as_ref()?.storage_class_name.as_deref()).unwrap_or_default()
}
