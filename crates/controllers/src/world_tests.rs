use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::ConfigMap};
use serde_json::json;

use super::*;
use crate::testing::object;

fn put<K: Resource<DynamicType = ()> + Any + Send + Sync>(world: &mut World, o: K) -> Change {
    let key = Key::of(o.meta());
    world.apply(&Kind::of::<K>(), &key.namespace, &key.name, Some(Arc::new(o)))
}

#[test]
fn the_indices_follow_an_object_that_changes_its_owner_and_its_node() {
    let mut world = World::default();
    let pod = |owner: Option<&str>, node: &str| -> Pod {
        let owners: Vec<_> = owner
            .iter()
            .map(|uid| json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": uid, "controller": true}))
            .collect();
        object(json!({"metadata": {"namespace": "n", "name": "p", "uid": "u", "resourceVersion": "7",
            "ownerReferences": owners}, "spec": {"nodeName": node, "containers": []}}))
    };
    put(&mut world, pod(Some("a"), "one"));
    assert_eq!(world.owned::<Pod>("a").len(), 1);
    assert!(world.owned::<ReplicaSet>("a").is_empty());
    assert!(world.orphans::<Pod>("n").is_empty());
    put(&mut world, pod(None, "two"));
    assert!(world.owned::<Pod>("a").is_empty());
    assert_eq!(world.orphans::<Pod>("n").len(), 1);
    assert!(world.orphans::<Pod>("m").is_empty());
    assert!(world.pods_on("one").is_empty());
    assert_eq!(world.pods_on("two").len(), 1);
    assert_eq!(world.revision(&Kind::of::<Pod>()), 7);
    assert!(world.by_uid("u").is_some());
    let change = world.apply(&Kind::of::<Pod>(), "n", "p", None);
    assert!(change.after.is_none() && change.before::<Pod>().is_some());
    assert!(world.by_uid("u").is_none() && world.pods_on("two").is_empty());
    assert!(world.orphans::<Pod>("").is_empty());
}

#[test]
fn a_list_ends_at_its_namespace() {
    let mut world = World::default();
    for (namespace, name) in [("a", "x"), ("ab", "x"), ("a", "y"), ("b", "z")] {
        put::<ConfigMap>(&mut world, object(json!({"metadata": {"namespace": namespace, "name": name}})));
    }
    assert_eq!(world.list::<ConfigMap>("a").len(), 2);
    assert_eq!(world.list::<ConfigMap>("").len(), 4);
}

#[test]
fn objects_known_by_their_metadata_only_are_dependents_too() {
    let mut world = World::default();
    let kind = Kind {
        group: "example.com".into(),
        version: "v1".into(),
        kind: "Thing".into(),
        plural: "things".into(),
    };
    let meta: ObjectMeta = object(json!({"name": "t", "uid": "t", "ownerReferences":
        [{"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"}]}));
    world.apply(&kind, "", "t", Some(Arc::new(Bare { meta })));
    let found: Vec<_> = world.dependents("c").map(|(k, o)| (k.kind.clone(), o.meta().name.clone())).collect();
    assert_eq!(found, [("Thing".into(), Some("t".to_owned()))]);
}
