//! Who owns what: adoption and release by selector.
//!
//! Source: `pkg/controller/controller_ref_manager.go`.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use apimachinery::selector::LabelSelector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta, OwnerReference};
use kube::Resource;
use serde_json::{Value, json};

use crate::{
    plan::{PatchKind, Plan, Target, Write},
    world::{Change, Key, World, controller_uid},
};

/// A reference to an owner that controls and that foreground deletion waits for.
pub fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The owner that is the controller.
#[must_use]
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// The object is being deleted.
#[must_use]
pub fn deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// A selector that is ready to match. One that cannot be read matches nothing: the API server refuses such objects.
#[must_use]
pub fn selector(selector: &meta::LabelSelector) -> LabelSelector {
    let value = serde_json::to_value(selector).unwrap_or_default();
    LabelSelector::from_object(&value).unwrap_or_else(|_| LabelSelector::nothing())
}

/// A selector of a plain map of labels; an empty one matches nothing.
#[must_use]
pub fn map_selector(labels: Option<&BTreeMap<String, String>>) -> LabelSelector {
    match labels {
        Some(labels) if !labels.is_empty() => LabelSelector::from_map(&json!(labels)),
        _ => LabelSelector::nothing(),
    }
}

/// Whether an object's labels match.
#[must_use]
pub fn matches(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    let labels = meta.labels.as_ref();
    selector.matches(|key| labels?.get(key).map(String::as_str))
}

/// What an owner has, takes and gives up.
pub struct Claim<K> {
    /// Owned and matching.
    pub kept: Vec<Arc<K>>,
    /// Matching, without a controller.
    pub adopt: Vec<Arc<K>>,
    /// Owned and no longer matching.
    pub release: Vec<Arc<K>>,
}

/// The objects that an owner may claim: its own, and those of its namespace that nobody controls.
pub fn candidates<K>(world: &World, owner: &ObjectMeta) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Any + Send + Sync,
{
    let mut found = world.owned::<K>(owner.uid.as_deref().unwrap_or_default());
    found.extend(world.orphans::<K>(owner.namespace.as_deref().unwrap_or_default()));
    found
}

/// Sorts `candidates` by who they belong to. An owner that is being deleted takes and gives up nothing.
pub fn claim<K>(
    owner: &ObjectMeta,
    candidates: impl IntoIterator<Item = Arc<K>>,
    matches: impl Fn(&K) -> bool,
) -> Claim<K>
where
    K: Resource<DynamicType = ()>,
{
    let mut claim = Claim { kept: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in candidates {
        let meta = object.meta();
        if meta.namespace != owner.namespace {
            continue;
        }
        match controller_uid(meta) {
            Some(uid) if Some(uid) != owner.uid.as_deref() => {}
            Some(_) if matches(&object) => claim.kept.push(object),
            Some(_) if !deleting(owner) => claim.release.push(object),
            None if !deleting(owner) && !deleting(meta) && matches(&object) => claim.adopt.push(object),
            Some(_) | None => {}
        }
    }
    claim
}

impl<K: Resource<DynamicType = ()>> Claim<K> {
    /// The plan that adopts and releases, if there is anything to adopt or release; the owner looks again when it is done.
    /// Adoption asks live whether the owner still lives.
    pub fn plan<O: Resource<DynamicType = ()>>(&self, owner: &O) -> Option<Plan> {
        self.plan_with(owner, &[])
    }

    /// The same; adopted objects get `finalizers`, released ones lose them.
    pub fn plan_with<O>(&self, owner: &O, finalizers: &[&str]) -> Option<Plan>
    where
        O: Resource<DynamicType = ()>,
    {
        if self.adopt.is_empty() && self.release.is_empty() {
            return None;
        }
        let mut plan = Plan::none();
        plan.all(self.release.iter().map(|object| release(&**object, owner, finalizers)).collect());
        if !self.adopt.is_empty() {
            plan.then(Write::require_alive(owner));
            plan.all(self.adopt.iter().map(|object| adopt(&**object, owner, finalizers)).collect());
        }
        Some(plan)
    }
}

/// The owners of kind `O` that a change of an object of kind `K` concerns: those that control it, before and after, and, of
/// an object that nobody controls, those whose selector it matches or did match.
pub fn owners<O, K>(change: &Change, world: &World, selector: impl Fn(&O) -> LabelSelector) -> Vec<Key>
where
    O: Resource<DynamicType = ()> + Any + Send + Sync,
    K: Resource<DynamicType = ()> + Any + Send + Sync,
{
    let (before, after) = (change.before::<K>(), change.after::<K>());
    let mut found = Vec::new();
    let states = [before.as_deref(), after.as_deref()];
    for meta in states.into_iter().flatten().map(Resource::meta) {
        if let Some(owner) = controller_of(meta).filter(|o| is_of::<O>(o)) {
            let namespace = meta.namespace.clone().unwrap_or_default();
            found.push(Key { namespace, name: owner.name.clone() });
        }
    }
    let Some(now) = after.as_deref().map(Resource::meta) else {
        found.dedup();
        return found;
    };
    let was = before.as_deref().map(Resource::meta);
    let news = was.is_none_or(|was| was.labels != now.labels || controller_uid(was) != controller_uid(now));
    if controller_of(now).is_none() && news {
        for owner in world.list::<O>(now.namespace.as_deref().unwrap_or_default()) {
            let selector = selector(&owner);
            if matches(&selector, now) || was.is_some_and(|was| matches(&selector, was)) {
                found.push(Key::of(owner.meta()));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_of<O: Resource<DynamicType = ()>>(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    owner.kind == O::kind(&()) && group == O::group(&())
}

/// The patch by which `owner` becomes the controller of `object`, which also gets `finalizers`.
pub fn adopt<K, O>(object: &K, owner: &O, finalizers: &[&str]) -> Write
where
    K: Resource<DynamicType = ()>,
    O: Resource<DynamicType = ()>,
{
    let mut metadata = json!({"ownerReferences": [controller_reference(owner)]});
    if !finalizers.is_empty() {
        metadata["finalizers"] = json!(finalizers);
    }
    strategic(object, metadata)
}

/// The patch by which `owner` gives `object` up; it loses `finalizers` too.
pub fn release<K, O>(object: &K, owner: &O, finalizers: &[&str]) -> Write
where
    K: Resource<DynamicType = ()>,
    O: Resource<DynamicType = ()>,
{
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let mut metadata = json!({"ownerReferences": [{"$patch": "delete", "uid": uid}]});
    if !finalizers.is_empty() {
        metadata["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    strategic(object, metadata)
}

fn strategic<K: Resource<DynamicType = ()>>(object: &K, metadata: Value) -> Write {
    Write::Patch {
        target: Target::of(object),
        patch: PatchKind::Strategic,
        body: json!({"metadata": metadata}),
        subresource: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};

    use super::*;
    use crate::testing::object;

    fn owner(deleting: bool) -> ReplicaSet {
        object(json!({"metadata": {"namespace": "n", "name": "r", "uid": "r",
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z")}}))
    }

    fn pod(name: &str, app: &str, controller: Option<&str>) -> Arc<Pod> {
        let owners: Vec<_> = controller
            .iter()
            .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}))
            .collect();
        Arc::new(object(
            json!({"metadata": {"namespace": "n", "name": name, "uid": name, "labels": {"app": app},
            "ownerReferences": owners}}),
        ))
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|p| p.metadata.name.as_deref()).collect()
    }

    fn claimed(owner: &ReplicaSet) -> Claim<Pod> {
        let pods = vec![
            pod("mine", "a", Some("r")),
            pod("strayed", "b", Some("r")),
            pod("orphan", "a", None),
            pod("stranger", "b", None),
            pod("foreign", "a", Some("x")),
        ];
        claim(&owner.metadata, pods, |p| p.metadata.labels.as_ref().is_some_and(|l| l["app"] == "a"))
    }

    #[test]
    fn matching_orphans_are_adopted_and_owned_ones_that_match_no_longer_are_released() {
        let owner = owner(false);
        let claim = claimed(&owner);
        assert_eq!(names(&claim.kept), ["mine"]);
        assert_eq!(names(&claim.adopt), ["orphan"]);
        assert_eq!(names(&claim.release), ["strayed"]);
        let plan = claim.plan(&owner).unwrap();
        assert_eq!(plan.steps.len(), 3);
        assert!(matches!(&plan.steps[1][..], [Write::Require { alive: true, .. }]));
    }

    #[test]
    fn an_owner_that_is_being_deleted_takes_and_gives_up_nothing() {
        let owner = owner(true);
        let claim = claimed(&owner);
        assert_eq!(names(&claim.kept), ["mine"]);
        assert!(claim.plan(&owner).is_none());
    }
}
