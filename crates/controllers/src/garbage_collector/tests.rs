use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use serde_json::{Value, json};

use super::*;
use crate::{
    fixtures::{add, deleted, noon, patched, plan, reasons, remove, world, writes},
    world::Served,
};

fn served() -> Vec<Served> {
    let verbs: Vec<String> = ["list", "watch", "delete"].map(str::to_owned).into();
    let widget =
        Kind { group: "x.io".into(), version: "v1".into(), kind: "Widget".into(), plural: "widgets".into() };
    let node = Kind::of::<k8s_openapi::api::core::v1::Node>();
    let kinds = [Kind::of::<Pod>(), Kind::of::<ReplicaSet>(), widget, node];
    kinds.map(|kind| Served { namespaced: &*kind.kind != "Node", kind, verbs: verbs.clone() }).into()
}

fn see(objects: impl IntoIterator<Item = Value>) -> World {
    let mut world = world(objects);
    world.set_served(served());
    world
}

fn pod(name: &str, owners: &[(&str, &str, bool)]) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
        "metadata": {"namespace": "n", "name": name, "ownerReferences": references(owners)}})
}

/// Kind, name, and whether it blocks.
fn references(owners: &[(&str, &str, bool)]) -> Vec<Value> {
    let version = |kind: &str| match kind {
        "ReplicaSet" => "apps/v1",
        "Widget" => "x.io/v2",
        _ => "v1",
    };
    owners
        .iter()
        .map(|(kind, name, blocks)| {
            json!({"apiVersion": version(kind), "kind": kind, "name": name, "uid": format!("uid-{name}"),
                "blockOwnerDeletion": blocks})
        })
        .collect()
}

fn set(name: &str, finalizer: Option<&str>) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"selector": {}}, "metadata": {
        "namespace": "n", "name": name,
        "deletionTimestamp": finalizer.map(|_| noon().to_string()),
        "finalizers": finalizer.into_iter().collect::<Vec<_>>(),
    }})
}

fn propagation(plan: &Plan) -> Option<&'static str> {
    writes(plan).into_iter().find_map(|w| match w {
        Write::Delete { propagation, .. } => *propagation,
        _ => None,
    })
}

#[test]
fn a_pod_whose_owner_is_gone_is_deleted_after_a_live_look() {
    let mut world = see([set("r", None), pod("p", &[("ReplicaSet", "r", true)])]);
    assert_eq!(plan(&GarbageCollector, &world, "", "uid-p"), Plan::none());
    let change = remove::<ReplicaSet>(&mut world, "n", "r");
    assert_eq!(GarbageCollector.keys(&change, &world), [key("uid-p")]);
    let plan = plan(&GarbageCollector, &world, "", "uid-p");
    assert!(matches!(&plan.steps[0][..], [Write::RequireAbsent { target }] if target.uid == "uid-r"));
    assert!(matches!(&plan.steps[1][..], [Write::Delete { resource_version: Some(_), .. }]));
    assert_eq!(propagation(&plan), Some("Background"));
}

#[test]
fn an_owner_that_was_made_again_under_its_name_is_another_one() {
    let mut world = see([set("r", None), pod("p", &[("ReplicaSet", "r", true)])]);
    let mut again = set("r", None);
    again["metadata"]["uid"] = json!("new");
    let change = add(&mut world, again);
    assert_eq!(GarbageCollector.keys(&change, &world), [key("uid-p")]);
    assert_eq!(deleted(&plan(&GarbageCollector, &world, "", "uid-p")), ["p"]);
}

#[test]
fn a_pod_with_another_owner_stays_and_forgets_the_one_that_is_gone_or_waits() {
    let waiting = set("w", Some(FOREGROUND));
    let owners = [("ReplicaSet", "gone", true), ("ReplicaSet", "w", true), ("ReplicaSet", "r", true)];
    let world = see([set("r", None), waiting, pod("p", &owners)]);
    let plan = plan(&GarbageCollector, &world, "", "uid-p");
    assert!(deleted(&plan).is_empty());
    let (_, body) = patched(&plan)[0];
    assert_eq!(body["metadata"]["ownerReferences"], json!(references(&owners[2..])));
    assert_eq!(body["metadata"]["resourceVersion"], "1");
}

#[test]
fn an_owner_in_another_namespace_does_not_count() {
    let mut elsewhere = set("r", None);
    elsewhere["metadata"]["namespace"] = json!("other");
    let world = see([elsewhere, pod("p", &[("ReplicaSet", "r", true)])]);
    let plan = plan(&GarbageCollector, &world, "", "uid-p");
    assert_eq!(deleted(&plan), ["p"]);
    assert_eq!(reasons(&plan), ["OwnerRefInvalidNamespace"]);
    assert_eq!(
        plan.notes[0].message,
        "ownerRef [apps/v1/ReplicaSet, namespace: n, name: r, uid: uid-r] does not exist in namespace \"n\""
    );
}

#[test]
fn a_uid_under_another_kind_does_not_count() {
    let mut imposter = set("r", None);
    imposter["metadata"]["uid"] = json!("uid-q");
    let world = see([imposter, pod("p", &[("Pod", "q", true)])]);
    assert_eq!(deleted(&plan(&GarbageCollector, &world, "", "uid-p")), ["p"]);
}

#[test]
fn a_cluster_wide_object_with_an_owner_in_a_namespace_is_never_deleted() {
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "a", "ownerReferences": references(&[("Pod", "p", false)])}});
    let plan = plan(&GarbageCollector, &see([node]), "", "uid-a");
    assert!(plan.steps.is_empty());
    assert_eq!(reasons(&plan), ["OwnerRefInvalidNamespace"]);
}

#[test]
fn an_owner_of_an_unknown_kind_keeps_its_dependents() {
    let world = see([pod("p", &[("Gadget", "g", true)])]);
    assert_eq!(plan(&GarbageCollector, &world, "", "uid-p"), Plan::none());
}

#[test]
fn an_owner_is_found_whatever_version_of_its_kind_is_named() {
    let widget =
        json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"namespace": "n", "name": "w"}});
    let world = see([widget, pod("p", &[("Widget", "w", true)])]);
    assert_eq!(plan(&GarbageCollector, &world, "", "uid-p"), Plan::none());
}

#[test]
fn an_owner_deleted_in_the_foreground_waits_only_for_those_that_block_it() {
    let blocking = pod("b", &[("ReplicaSet", "r", true)]);
    let loose = pod("l", &[("ReplicaSet", "r", false)]);
    let mut world = see([set("r", None), blocking, loose]);
    let change = add(&mut world, set("r", Some(FOREGROUND)));
    let mut keys = GarbageCollector.keys(&change, &world);
    keys.sort();
    assert_eq!(keys, [key("uid-b"), key("uid-l"), key("uid-r")]);
    assert_eq!(deleted(&plan(&GarbageCollector, &world, "", "uid-b")), ["b"]);
    assert_eq!(deleted(&plan(&GarbageCollector, &world, "", "uid-l")), ["l"]);
    assert!(plan(&GarbageCollector, &world, "", "uid-r").steps.is_empty());

    let change = remove::<Pod>(&mut world, "n", "b");
    assert_eq!(GarbageCollector.keys(&change, &world), [key("uid-r")]);
    let last = plan(&GarbageCollector, &world, "", "uid-r");
    assert_eq!(patched(&last)[0].1["metadata"]["finalizers"], json!([]));
}

#[test]
fn a_dependent_with_dependents_of_its_own_goes_in_the_foreground_too() {
    let middle = pod("m", &[("ReplicaSet", "r", true)]);
    let world = see([set("r", Some(FOREGROUND)), middle, pod("leaf", &[("Pod", "m", true)])]);
    assert_eq!(propagation(&plan(&GarbageCollector, &world, "", "uid-m")), Some("Foreground"));
}

#[test]
fn a_circle_of_owners_is_broken() {
    let mut waiting = pod("a", &[("Pod", "b", true)]);
    waiting["metadata"]["deletionTimestamp"] = json!(noon().to_string());
    waiting["metadata"]["finalizers"] = json!([FOREGROUND]);
    let mut world = see([waiting, pod("b", &[("Pod", "a", true)])]);
    assert!(plan(&GarbageCollector, &world, "", "uid-a").steps.is_empty());
    let circle = plan(&GarbageCollector, &world, "", "uid-b");
    assert_eq!(patched(&circle)[0].1["metadata"]["ownerReferences"][0]["blockOwnerDeletion"], false);
    assert_eq!(propagation(&circle), Some("Foreground"));
    add(&mut world, pod("b", &[("Pod", "a", false)]));
    assert_eq!(patched(&plan(&GarbageCollector, &world, "", "uid-a")).len(), 1);
}

#[test]
fn orphans_lose_their_owner_before_it_goes() {
    let kept = pod("p", &[("ReplicaSet", "r", true), ("ReplicaSet", "s", true)]);
    let world = see([set("r", Some(ORPHAN)), set("s", None), kept]);
    assert!(plan(&GarbageCollector, &world, "", "uid-p").steps.is_empty());
    let plan = plan(&GarbageCollector, &world, "", "uid-r");
    let patches = patched(&plan);
    assert_eq!(patches[0].0.name, "p");
    assert_eq!(patches[0].1["metadata"]["ownerReferences"][0]["name"], "s");
    assert_eq!(patches[1].0.name, "r");
    assert_eq!(plan.steps.len(), 2, "one after the other");
}

#[test]
fn an_object_that_is_being_deleted_is_not_deleted_again() {
    let mut leaving = pod("p", &[("ReplicaSet", "gone", true)]);
    leaving["metadata"]["deletionTimestamp"] = json!(noon().to_string());
    assert_eq!(plan(&GarbageCollector, &see([leaving]), "", "uid-p"), Plan::none());
}
