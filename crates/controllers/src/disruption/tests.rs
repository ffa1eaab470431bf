use serde_json::{Value, json};

use super::*;
use crate::fixtures::{add, at, key, noon, patched, plan, pod, reasons, updated, world};

fn budget(spec: Value) -> Value {
    let mut value = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"namespace": "shop", "name": "b", "generation": 3},
        "spec": {"selector": {"matchLabels": {"app": "web"}}},
    });
    for (field, of) in spec.as_object().unwrap() {
        value["spec"][field] = of.clone();
    }
    value
}

fn owned(name: &str, kind: &str, owner: &str) -> Value {
    let mut pod = pod("shop", name, "web", "n", "10.1.0.1");
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": kind, "name": owner,
        "uid": format!("uid-{owner}"), "controller": true}]);
    pod
}

fn set(name: &str, replicas: i32, deployment: Option<&str>) -> Value {
    let owner = |d: &str| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": d, "uid": format!("uid-{d}"), "controller": true});
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "spec": {"replicas": replicas, "selector": {}},
        "metadata": {"namespace": "shop", "name": name, "ownerReferences": deployment.iter().map(|d| owner(d)).collect::<Vec<_>>()}})
}

fn deployment(name: &str, replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": name},
        "spec": {"replicas": replicas, "selector": {}, "template": {}}})
}

fn unready(mut pod: Value) -> Value {
    pod["status"]["conditions"][0]["status"] = json!("False");
    pod
}

fn status(world: &World, now: i64) -> Value {
    let plan = Disruption.reconcile(&key("shop", "b"), world, &Outcome::default(), at(now));
    updated(&plan)[0]["status"].clone()
}

/// Healthy, desired, expected, allowed.
fn counts(status: &Value) -> [i64; 4] {
    ["currentHealthy", "desiredHealthy", "expectedPods", "disruptionsAllowed"]
        .map(|f| status[f].as_i64().unwrap())
}

#[test]
fn a_number_of_available_pods_is_counted_against_the_pods_that_are_there() {
    let world = world([
        budget(json!({"minAvailable": 1})),
        owned("a", "X", "x"),
        owned("b", "X", "x"),
        unready(owned("c", "X", "x")),
    ]);
    let status = status(&world, 0);
    assert_eq!(counts(&status), [2, 1, 3, 1]);
    let condition = &status["conditions"][0];
    assert_eq!(
        (&condition["reason"], &condition["observedGeneration"]),
        (&json!("SufficientPods"), &json!(3))
    );
    assert_eq!(status["observedGeneration"], 3);
}

#[test]
fn shares_are_taken_of_what_the_controllers_are_scaled_to_and_rounded_up() {
    let objects = || {
        [
            deployment("d", 7),
            set("new", 4, Some("d")),
            set("old", 3, Some("d")),
            owned("a", "ReplicaSet", "new"),
            owned("b", "ReplicaSet", "old"),
        ]
    };
    let mut least = world(objects());
    add(&mut least, budget(json!({"minAvailable": "30%"})));
    assert_eq!(counts(&status(&least, 0)), [2, 3, 7, 0]);
    let mut most = world(objects());
    add(&mut most, budget(json!({"maxUnavailable": "30%"})));
    assert_eq!(counts(&status(&most, 0)), [2, 4, 7, 0]);
}

#[test]
fn what_is_already_told_is_not_written_again_and_a_scaled_owner_wakes_the_budget() {
    let mut world =
        world([budget(json!({"maxUnavailable": 1})), set("r", 2, None), owned("a", "ReplicaSet", "r")]);
    let first = plan(&Disruption, &world, "shop", "b");
    add(&mut world, updated(&first)[0].clone());
    assert_eq!(plan(&Disruption, &world, "shop", "b"), Plan::none());
    let change = add(&mut world, set("r", 1, None));
    assert_eq!(Disruption.keys(&change, &world), [key("shop", "b")]);
    let change = add(&mut world, owned("z", "ReplicaSet", "r"));
    assert_eq!(Disruption.keys(&change, &world), [key("shop", "b")]);
}

#[test]
fn pods_without_a_controller_are_not_counted_but_told() {
    let world = world([budget(json!({"maxUnavailable": 1})), pod("shop", "a", "web", "n", "10.1.0.1")]);
    let plan = plan(&Disruption, &world, "shop", "b");
    assert_eq!(reasons(&plan), ["UnmanagedPods"]);
    assert_eq!(counts(&updated(&plan)[0]["status"]), [1, 0, 0, 0]);
}

#[test]
fn a_controller_that_cannot_be_scaled_allows_nothing() {
    let mut started = budget(json!({"maxUnavailable": 1}));
    started["status"] =
        json!({"disruptionsAllowed": 5, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 1});
    let world = world([started, owned("a", "DaemonSet", "d")]);
    let status = status(&world, 0);
    assert_eq!(counts(&status), [2, 1, 1, 0]);
    assert_eq!(status["conditions"][0]["reason"], "SyncFailed");
    assert_eq!(status["conditions"][0]["message"], "daemonset.apps does not implement the scale subresource");
}

#[test]
fn an_allowed_eviction_counts_for_two_minutes_unless_the_pod_goes() {
    let mut spent = budget(json!({"minAvailable": 1}));
    spent["status"] = json!({"disruptedPods": {"a": noon().to_string(), "gone": noon().to_string()},
        "disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2});
    let world = world([spent, owned("a", "X", "x"), owned("b", "X", "x")]);
    let at_once = Disruption.reconcile(&key("shop", "b"), &world, &Outcome::default(), at(1));
    let status = &updated(&at_once)[0]["status"];
    assert_eq!(counts(status), [1, 1, 2, 0]);
    assert_eq!(status["disruptedPods"], json!({"a": noon().to_string()}));
    assert_eq!(at_once.again, Some(at(121)));
    let later = Disruption.reconcile(&key("shop", "b"), &world, &Outcome::default(), at(121));
    assert_eq!(counts(&updated(&later)[0]["status"]), [2, 1, 2, 1]);
    assert_eq!(reasons(&later), ["NotDeleted"]);
}

#[test]
fn a_budget_without_pods_allows_nothing_and_foreign_conditions_stay() {
    let mut alone = budget(json!({"minAvailable": 0}));
    alone["status"] = json!({"conditions": [{"type": "Mine", "status": "True", "reason": "R", "message": "",
        "lastTransitionTime": noon().to_string()}]});
    let plan = plan(&Disruption, &world([alone]), "shop", "b");
    let status = &updated(&plan)[0]["status"];
    assert_eq!(counts(status), [0, 0, 0, 0]);
    assert_eq!(reasons(&plan), ["NoPods"]);
    assert_eq!(status["conditions"][0]["type"], "Mine");
}

#[test]
fn a_mark_on_a_pod_that_was_not_deleted_is_taken_back() {
    let mut marked = pod("shop", "a", "web", "n", "10.1.0.1");
    marked["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "lastTransitionTime": noon().to_string()}]);
    let look = |pod: &Value, now| {
        StaleDisruption.reconcile(&key("shop", "a"), &world([pod.clone()]), &Outcome::default(), at(now))
    };
    assert_eq!(look(&marked, 60).again, Some(at(120)));
    assert_eq!(patched(&look(&marked, 120))[0].1["status"]["conditions"][0]["status"], "False");
    marked["status"]["phase"] = json!("Failed");
    assert_eq!(look(&marked, 120), Plan::none());
}
