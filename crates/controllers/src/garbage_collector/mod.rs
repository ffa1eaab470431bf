//! garbage-collector-controller: what is left of owners that are gone, and deletion in the foreground or with orphans.
//!
//! A key is the UID of an object that names owners, or that waits for its dependents. [`owners`] says how its owners are.
//! Source: `pkg/controller/garbagecollector`.

mod owners;
#[cfg(test)]
mod tests;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use kube::api::ObjectMeta;
use serde_json::json;

use crate::{
    Change, Controller, Key, Kind, Note, Outcome, Plan, Target, World, Write,
    about::{self, has_finalizer},
    world::Seen,
};
use owners::{Owner, classify, means};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// The loop.
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        Vec::new()
    }

    fn watches_everything(&self) -> bool {
        true
    }

    fn keys(&self, change: &Change, world: &World) -> Vec<Key> {
        if ignored(&change.kind) {
            return Vec::new();
        }
        let (before, after) =
            (change.before.as_deref().map(Seen::meta), change.after.as_deref().map(Seen::meta));
        let mut uids: Vec<&str> = Vec::new();
        if let Some(meta) = after.filter(|meta| concerned(meta)) {
            uids.extend(meta.uid.as_deref());
        }
        // an owner that waits may now have nothing left to wait for
        let owners = [before, after].into_iter().flatten().flat_map(|m| m.owner_references.iter().flatten());
        let waiting = |uid: &str| world.by_uid(uid).is_some_and(|(_, o)| waits(o.meta()));
        uids.extend(owners.map(|o| o.uid.as_str()).filter(|uid| waiting(uid)));
        let mut keys: Vec<Key> = uids.into_iter().map(key).collect();
        for uid in woken_dependents(before, after) {
            let dependents = world.dependents(uid).filter_map(|(_, o)| o.meta().uid.as_deref());
            keys.extend(dependents.map(key));
        }
        keys
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, _now: Timestamp) -> Plan {
        let Some((kind, object)) = world.by_uid(&key.name) else { return Plan::none() };
        let meta = object.meta();
        if ignored(kind) {
            return Plan::none();
        }
        if meta.deletion_timestamp.is_none() {
            return collect(kind, meta, world, last);
        }
        if has_finalizer(meta, ORPHAN) {
            orphan(kind, meta, world)
        } else if has_finalizer(meta, FOREGROUND) {
            foreground(kind, meta, world)
        } else {
            Plan::none()
        }
    }
}

fn key(uid: &str) -> Key {
    Key { namespace: String::new(), name: uid.to_owned() }
}

/// Events own nothing, are owned by nothing, and are many.
fn ignored(kind: &Kind) -> bool {
    &*kind.plural == "events" && matches!(&*kind.group, "" | "events.k8s.io")
}

/// It waits until its dependents are gone.
fn waits(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, FOREGROUND)
}

/// Something may have to be done about it.
fn concerned(meta: &ObjectMeta) -> bool {
    let owned = meta.owner_references.as_ref().is_some_and(|o| !o.is_empty());
    owned || waits(meta) || (meta.deletion_timestamp.is_some() && has_finalizer(meta, ORPHAN))
}

/// UIDs whose dependents have to look at their owners again: an owner has gone, or has begun to wait.
fn woken_dependents<'a>(before: Option<&'a ObjectMeta>, after: Option<&'a ObjectMeta>) -> Vec<&'a str> {
    let mut uids = Vec::new();
    let uid = |meta: Option<&'a ObjectMeta>| meta.and_then(|m| m.uid.as_deref());
    if before.is_some() && uid(before) != uid(after) {
        uids.extend(uid(before));
    }
    if after.is_some_and(waits) && !before.is_some_and(waits) {
        uids.extend(uid(after));
    }
    uids
}

/// Deletes an object whose owners are gone or waiting, or takes such owners off one that has others.
fn collect(kind: &Kind, meta: &ObjectMeta, world: &World, last: &Outcome) -> Plan {
    let references = meta.owner_references.as_deref().unwrap_or_default();
    let owners: Vec<(&OwnerReference, Owner)> =
        references.iter().map(|r| (r, classify(r, meta, world, last))).collect();
    let mut plan = Plan::none();
    if owners.is_empty() {
        return plan;
    }
    plan.notes.extend(owners.iter().filter_map(|(reference, owner)| misplaced(kind, meta, reference, owner)));
    if owners.iter().any(|(_, o)| matches!(o, Owner::Unreachable)) {
        return plan;
    }
    let absent = |owner: &Owner| match owner {
        Owner::Absent { target, .. } => Some(Write::RequireAbsent { target: target.clone() }),
        _ => None,
    };
    let checks: Vec<Write> = owners.iter().filter_map(|(_, o)| absent(o)).collect();
    let solid: Vec<&OwnerReference> =
        owners.iter().filter(|(_, o)| matches!(o, Owner::Solid)).map(|(r, _)| *r).collect();
    if !solid.is_empty() {
        if solid.len() < owners.len() {
            plan.all(checks);
            plan.then(Write::patch_read(kind, meta, json!({"ownerReferences": solid})));
        }
        return plan;
    }
    let uid = meta.uid.as_deref().unwrap_or_default();
    let mut own = world.dependents(uid).filter(|(k, d)| owns(kind, meta, k, d.meta())).peekable();
    let waiting = owners.iter().any(|(_, o)| matches!(o, Owner::Waiting));
    plan.all(checks);
    if waiting && own.peek().is_some() {
        // a circle: an owner waits for this object, and one of this object's dependents waits, too
        if own.any(|(_, dependent)| waits(dependent.meta())) {
            let unblocked: Vec<OwnerReference> = references
                .iter()
                .map(|r| OwnerReference { block_owner_deletion: Some(false), ..r.clone() })
                .collect();
            if unblocked != references {
                plan.then(Write::patch_read(kind, meta, json!({"ownerReferences": unblocked})));
                plan.then(delete(kind, meta, "Foreground", false));
                return plan;
            }
        }
        plan.then(delete(kind, meta, "Foreground", true));
        return plan;
    }
    let propagation = if has_finalizer(meta, ORPHAN) {
        "Orphan"
    } else if has_finalizer(meta, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    plan.then(delete(kind, meta, propagation, true));
    plan
}

/// Deletes this very object; if `unchanged`, only the version that was read.
fn delete(kind: &Kind, meta: &ObjectMeta, propagation: &'static str, unchanged: bool) -> Write {
    Write::Delete {
        target: Target::seen(kind, meta),
        resource_version: meta.resource_version.clone().filter(|_| unchanged),
        grace: None,
        propagation: Some(propagation),
        on_success: None,
        on_failure: None,
    }
}

/// The event about a reference to an owner that cannot be where the reference says.
fn misplaced(kind: &Kind, meta: &ObjectMeta, reference: &OwnerReference, owner: &Owner) -> Option<Note> {
    if !matches!(owner, Owner::Unreachable | Owner::Absent { elsewhere: true, .. }) {
        return None;
    }
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let OwnerReference { api_version, kind: owner_kind, name, uid, .. } = reference;
    Some(Note {
        about: about::reference(kind, meta),
        warning: true,
        reason: "OwnerRefInvalidNamespace".to_owned(),
        message: format!(
            "ownerRef [{api_version}/{owner_kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace {namespace:?}"
        ),
    })
}

/// Whether `dependent` means the object `kind`, `meta` as one of its owners, and not only its UID.
fn owns(kind: &Kind, meta: &ObjectMeta, dependent_kind: &Kind, dependent: &ObjectMeta) -> bool {
    !ignored(dependent_kind)
        && dependent.uid != meta.uid
        && dependent.owner_references.iter().flatten().any(|r| means(r, dependent, kind, meta))
}

/// Lets an object go that waits, once no dependent blocks it.
fn foreground(kind: &Kind, meta: &ObjectMeta, world: &World) -> Plan {
    let mut plan = Plan::none();
    let uid = meta.uid.as_deref().unwrap_or_default();
    let blocks = |dependent: &ObjectMeta| {
        let references = dependent.owner_references.iter().flatten();
        let mut meant = references.filter(|r| means(r, dependent, kind, meta));
        meant.any(|r| r.block_owner_deletion == Some(true))
    };
    let blocked = world.dependents(uid).any(|(k, d)| owns(kind, meta, k, d.meta()) && blocks(d.meta()));
    if !blocked {
        plan.then(Write::without_finalizer(kind, meta, FOREGROUND));
    }
    plan
}

/// Takes an object off all its dependents, then lets it go.
fn orphan(kind: &Kind, meta: &ObjectMeta, world: &World) -> Plan {
    let mut plan = Plan::none();
    let uid = meta.uid.as_deref().unwrap_or_default();
    let mut patches = Vec::new();
    for (dependent_kind, dependent) in world.dependents(uid) {
        let dependent = dependent.meta();
        if !owns(kind, meta, dependent_kind, dependent) {
            continue;
        }
        let references = dependent.owner_references.iter().flatten();
        let rest: Vec<&OwnerReference> = references.filter(|r| r.uid != uid).collect();
        patches.push(Write::patch_read(dependent_kind, dependent, json!({"ownerReferences": rest})));
    }
    plan.all(patches);
    plan.then(Write::without_finalizer(kind, meta, ORPHAN));
    plan
}
