use super::*;
use crate::{
    fixtures::{add, at, key, remove, updated, world},
    world::Served,
};

fn quota(hard: Value, used: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "shop", "name": "q"},
        "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

fn pod(name: &str, cpu: &str, phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}, "status": {"phase": phase}})
}

fn look(world: &World, name: &str, memory: Value, now: i64) -> Plan {
    Quota.reconcile(&key("shop", name), world, &Outcome { memory, ..Outcome::default() }, at(now))
}

#[test]
fn a_new_quota_is_counted_at_once_with_every_key_that_somebody_answers_for() {
    let mut fresh =
        quota(json!({"pods": "5", "requests.cpu": "2", "count/configmaps": "9", "nonsense": "1"}), json!({}));
    fresh["status"] = json!({});
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "m"}});
    let world = world([
        fresh,
        pod("a", "500m", "Running"),
        pod("b", "1", "Pending"),
        pod("done", "7", "Succeeded"),
        map,
    ]);
    let plan = look(&world, "q", Value::Null, 0);
    let status = &updated(&plan)[0]["status"];
    assert_eq!(status["used"], json!({"count/configmaps": "1", "pods": "2", "requests.cpu": "1500m"}));
    assert_eq!(status["hard"]["nonsense"], "1");
    assert_eq!(plan.again, Some(at(300)));
}

#[test]
fn a_creation_only_raises_and_a_deletion_makes_the_count_exact() {
    let mut world = world([quota(json!({"pods": "5"}), json!({"pods": "3"}))]);
    let change = add(&mut world, pod("a", "1", "Running"));
    assert_eq!(Quota.keys(&change, &world), [key("shop", "q/raise")]);
    assert!(look(&world, "q/raise", Value::Null, 0).steps.is_empty(), "admission knows of two more");
    let change = remove::<Pod>(&mut world, "shop", "a");
    assert_eq!(Quota.keys(&change, &world), [key("shop", "q")]);
    assert_eq!(updated(&look(&world, "q", Value::Null, 0))[0]["status"]["used"], json!({"pods": "0"}));
}

#[test]
fn a_pod_that_ends_frees_what_it_used_and_other_changes_wake_nobody() {
    let mut world = world([quota(json!({"pods": "5"}), json!({"pods": "1"})), pod("a", "1", "Pending")]);
    let change = add(&mut world, pod("a", "1", "Running"));
    assert_eq!(Quota.keys(&change, &world), []);
    let change = add(&mut world, pod("a", "1", "Failed"));
    assert_eq!(Quota.keys(&change, &world), [key("shop", "q")]);
}

#[test]
fn many_changes_are_counted_once() {
    let world = world([quota(json!({"pods": "5"}), json!({"pods": "3"}))]);
    let first = look(&world, "q", Value::Null, 0);
    assert_eq!(first.steps.len(), 1);
    let second = look(&world, "q", first.memory.unwrap(), 0);
    assert!(second.steps.is_empty());
    assert!(second.again.unwrap() > at(0) && second.again.unwrap() < at(1));
}

#[test]
fn custom_resources_are_counted_by_their_metadata() {
    let kind =
        Kind { group: "x.io".into(), version: "v1".into(), kind: "Widget".into(), plural: "widgets".into() };
    let mut world = world([quota(json!({"count/widgets.x.io": "2"}), json!({}))]);
    world.set_served(vec![Served { kind, namespaced: true, verbs: Vec::new() }]);
    assert_eq!(
        updated(&look(&world, "q", Value::Null, 0))[0]["status"]["used"],
        json!({"count/widgets.x.io": "0"})
    );
    add(
        &mut world,
        json!({"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"namespace": "shop", "name": "w"}}),
    );
    assert_eq!(
        updated(&look(&world, "q", Value::Null, 0))[0]["status"]["used"],
        json!({"count/widgets.x.io": "1"})
    );
}

#[test]
fn a_quota_with_scopes_counts_the_pods_that_belong_to_it() {
    let mut scoped = quota(json!({"pods": "5", "count/configmaps": "1"}), json!({}));
    scoped["spec"]["scopes"] = json!(["BestEffort"]);
    let mut best = pod("best", "1", "Running");
    best["spec"]["containers"][0]["resources"] = json!({});
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "m"}});
    let world = world([scoped, pod("a", "1", "Running"), best, map]);
    let plan = look(&world, "q", Value::Null, 0);
    assert_eq!(updated(&plan)[0]["status"]["used"], json!({"pods": "1", "count/configmaps": "0"}));
}

#[test]
fn what_admission_charges_wakes_nobody_but_a_new_limit_does() {
    let mut world = world([quota(json!({"pods": "5"}), json!({"pods": "0"}))]);
    let change = add(&mut world, quota(json!({"pods": "5"}), json!({"pods": "1"})));
    assert_eq!(Quota.keys(&change, &world), []);
    let mut raised = quota(json!({"pods": "6"}), json!({"pods": "1"}));
    raised["status"]["hard"]["pods"] = json!("5");
    let change = add(&mut world, raised);
    assert_eq!(Quota.keys(&change, &world), [key("shop", "q")]);
}
