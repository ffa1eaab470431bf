//! The storage of a set's pods: claims by template, kept or deleted with the pod or the set as the policy says.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::Resource;
use serde_json::json;

use super::pods;
use crate::{
    Note, PatchKind, World, Write,
    ownership::{self, controller_reference},
};

/// `<template>-<set>-<ordinal>`
pub fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i64) -> String {
    let template = template.metadata.name.as_deref().unwrap_or_default();
    format!("{template}-{}", pods::name(set, ordinal))
}

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.volume_claim_templates.as_deref().unwrap_or_default()
}

/// Claims live on when their pod is scaled away (first) or their set is deleted (second).
fn kept(set: &StatefulSet) -> (bool, bool) {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let kept = |when: Option<&String>| when.is_none_or(|w| w != "Delete");
    (kept(policy.and_then(|p| p.when_scaled.as_ref())), kept(policy.and_then(|p| p.when_deleted.as_ref())))
}

/// What the claims of one pod need.
#[derive(Default)]
pub struct Needed {
    /// Claims to be made.
    pub missing: Vec<Write>,
    /// A claim is being deleted: the pod has to wait for its end.
    pub going: Option<String>,
}

/// The claims that the pod with this ordinal lacks.
pub fn needed(set: &StatefulSet, ordinal: i64, world: &World) -> Needed {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut needed = Needed::default();
    for template in templates(set) {
        let name = name(set, template, ordinal);
        match world.get::<PersistentVolumeClaim>(namespace, &name) {
            None => needed.missing.push(create(set, template, &name, ordinal)),
            Some(claim) if ownership::deleting(&claim.metadata) => needed.going = Some(name),
            Some(_) => {}
        }
    }
    needed
}

fn create(set: &StatefulSet, template: &PersistentVolumeClaim, name: &str, ordinal: i64) -> Write {
    let mut claim = template.clone();
    claim.status = None;
    claim.metadata.name = Some(name.to_owned());
    claim.metadata.namespace = set.metadata.namespace.clone();
    let labels = claim.metadata.labels.get_or_insert_default();
    labels.extend(set.spec.selector.match_labels.clone().unwrap_or_default());
    if labels.is_empty() {
        claim.metadata.labels = None;
    }
    let (pod, own) = (pods::name(set, ordinal), set.metadata.name.as_deref().unwrap_or_default());
    Write::create(&claim).noted(
        Some(Note::normal(
            set,
            "SuccessfulCreate",
            format!("Create Claim {name} Pod {pod} in StatefulSet {own} success"),
        )),
        Some(Note::warning(
            set,
            "FailedCreate",
            format!("Create Claim {name} for Pod {pod} in StatefulSet {own} failed error: {{}}"),
        )),
    )
}

/// A claim of the pod to be made belongs to a pod of the same name that is gone: it is about to be deleted with that one.
pub fn is_stale(set: &StatefulSet, ordinal: i64, world: &World) -> bool {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let pod = pods::name(set, ordinal);
    !kept(set).0
        && templates(set).iter().any(|template| {
            let claim = world.get::<PersistentVolumeClaim>(namespace, &name(set, template, ordinal));
            claim.is_some_and(|claim| owners(&claim).iter().any(|o| names::<Pod>(o, Some(&pod))))
        })
}

fn owners(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim.metadata.owner_references.as_deref().unwrap_or_default()
}

fn names<K: Resource<DynamicType = ()>>(owner: &OwnerReference, name: Option<&String>) -> bool {
    owner.kind == K::kind(&()) && owner.api_version == K::api_version(&()) && Some(&owner.name) == name
}

/// The patches that make the claims of a pod belong to whom the policy says, and warnings about those that others control.
pub fn owned(set: &StatefulSet, pod: &Pod, world: &World) -> (Vec<Write>, Vec<Note>) {
    let (mut writes, mut notes) = (Vec::new(), Vec::new());
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let Some(ordinal) = pods::ordinal(set, pod) else { return (writes, notes) };
    for template in templates(set) {
        let name = name(set, template, ordinal);
        let Some(claim) = world.get::<PersistentVolumeClaim>(namespace, &name) else { continue };
        let Some(owners) = wanted_owners(set, pod, ordinal, &claim) else { continue };
        if has_foreign_controller(set, pod, &claim) {
            let text = format!(
                "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the \
                 retention policy is ignored for this claim"
            );
            notes.push(Note::warning(set, "ConflictingController", text));
        }
        let body = json!({"metadata": {"ownerReferences": owners,
            "resourceVersion": claim.metadata.resource_version}});
        writes.push(Write::patch(&*claim, PatchKind::Merge, body));
    }
    (writes, notes)
}

/// Somebody else, or an earlier set or pod of the same name, controls the claim. Where claims are kept anyway, anybody may.
fn has_foreign_controller(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    kept(set) != (true, true)
        && owners(claim).iter().any(|owner| {
            if names::<StatefulSet>(owner, set.metadata.name.as_ref()) {
                Some(&owner.uid) != set.metadata.uid.as_ref()
            } else if names::<Pod>(owner, pod.metadata.name.as_ref()) {
                Some(&owner.uid) != pod.metadata.uid.as_ref()
            } else {
                owner.controller == Some(true)
            }
        })
}

/// The owners that the claim should have, if they are others than it has.
fn wanted_owners(
    set: &StatefulSet,
    pod: &Pod,
    ordinal: i64,
    claim: &PersistentVolumeClaim,
) -> Option<Vec<OwnerReference>> {
    let by_set = |o: &&OwnerReference| names::<StatefulSet>(o, set.metadata.name.as_ref());
    let by_pod = |o: &&OwnerReference| names::<Pod>(o, pod.metadata.name.as_ref());
    let ours = |o: &&OwnerReference| by_set(o) || by_pod(o);
    let stale = owners(claim).iter().any(|o| {
        (by_set(&o) && Some(&o.uid) != set.metadata.uid.as_ref())
            || (by_pod(&o) && Some(&o.uid) != pod.metadata.uid.as_ref())
    });
    if stale {
        // An earlier set or pod has it: the garbage collector will see to that.
        return None;
    }
    let foreign = has_foreign_controller(set, pod, claim);
    if foreign && !owners(claim).iter().any(|o| ours(&o)) {
        return None;
    }
    let mut wanted: Vec<OwnerReference> = owners(claim).iter().filter(|o| !ours(o)).cloned().collect();
    if !foreign {
        let (kept_when_scaled, kept_when_deleted) = kept(set);
        let condemned = !pods::in_range(set, ordinal);
        if !kept_when_scaled && condemned {
            wanted.push(controller_reference(pod));
        }
        if !kept_when_deleted && (kept_when_scaled || !condemned) {
            wanted.push(controller_reference(set));
        }
    }
    let same = wanted.len() == owners(claim).len()
        && wanted
            .iter()
            .all(|w| owners(claim).iter().any(|o| o.uid == w.uid && o.controller == w.controller));
    (!same).then_some(wanted)
}
