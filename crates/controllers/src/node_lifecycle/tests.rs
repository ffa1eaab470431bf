use serde_json::{Value, json};

use super::*;
use crate::{
    Write,
    fixtures::{add, at, key, node, patched, pod, reasons, remove, world},
};

fn lease(name: &str, renewed: i64) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"namespace": LEASES, "name": name},
        "spec": {"renewTime": at(renewed).to_string()}})
}

fn unready(name: &str, zone: &str, status: &str) -> Value {
    let mut node = node(name, zone);
    node["status"]["conditions"][0]["status"] = json!(status);
    node
}

fn evicting(mut node: Value, key: &str, added: i64) -> Value {
    node["spec"]["taints"] = json!([{"key": key, "effect": "NoExecute", "timeAdded": at(added).to_string()}]);
    node
}

fn look(world: &World, name: &str, memory: Option<Value>, now: i64) -> Plan {
    let last = Outcome { memory: memory.unwrap_or_default(), ..Outcome::default() };
    NodeLifecycle::default().reconcile(&key("", name), world, &last, at(now))
}

/// The nodes that get a taint that evicts, and which.
fn begun(plan: &Plan) -> Vec<(&str, &str)> {
    let evicts = |body: &Value| {
        let taints = body["spec"]["taints"].as_array().cloned().unwrap_or_default();
        taints.iter().find(|t| t["effect"] == "NoExecute").map(|t| t["key"].as_str().unwrap().to_owned())
    };
    let found =
        patched(plan).into_iter().filter_map(|(target, body)| Some((target.name.as_str(), evicts(body)?)));
    found
        .map(|(name, key)| (name, if key == taints::NOT_READY { "not-ready" } else { "unreachable" }))
        .collect()
}

#[test]
fn a_node_that_renews_its_lease_stays_trusted_whatever_its_clock_says() {
    let mut world = world([node("n", "z"), lease("n", -100_000)]);
    let first = look(&world, "n", None, 0);
    assert_eq!(reasons(&first), ["RegisteredNode"]);
    assert_eq!(first.again, Some(at(50)));
    add(&mut world, lease("n", -99_990));
    let second = look(&world, "n", first.memory, 40);
    assert_eq!((second.again, second.notes.len()), (Some(at(90)), 0));
    assert!(look(&world, "n", second.memory, 89).steps.is_empty());
}

#[test]
fn a_node_that_is_silent_for_fifty_seconds_is_no_longer_known() {
    let world = world([node("n", "z"), lease("n", 0)]);
    let heard = look(&world, "n", None, 0).memory;
    assert!(look(&world, "n", heard.clone(), 49).steps.is_empty());
    let lost = look(&world, "n", heard, 50);
    let patches = patched(&lost);
    assert_eq!(patches[0].0.kind.plural, "leases", "the server is asked whether the lease is newer");
    assert_eq!(patches[0].1["metadata"]["resourceVersion"], "1");
    let conditions = patches[1].1["status"]["conditions"].as_array().unwrap();
    let told: Vec<&str> = conditions.iter().map(|c| c["reason"].as_str().unwrap()).collect();
    assert_eq!(
        told,
        ["NodeStatusUnknown", "NodeStatusNeverUpdated", "NodeStatusNeverUpdated", "NodeStatusNeverUpdated"]
    );
    assert_eq!(reasons(&lost), ["NodeNotReady"]);
}

#[test]
fn a_node_that_never_said_anything_has_a_minute_from_its_creation() {
    let mut new = node("n", "z");
    new["status"] = json!({});
    let world = world([new]);
    let first = look(&world, "n", None, 30);
    assert_eq!(first.again, Some(at(60)));
    let lost = look(&world, "n", first.memory, 60);
    assert_eq!(patched(&lost)[0].1["status"]["conditions"][0]["reason"], "NodeStatusNeverUpdated");
}

#[test]
fn conditions_become_taints_that_keep_new_pods_away_and_go_with_them() {
    let mut bad = unready("n", "z", "Unknown");
    bad["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "DiskPressure", "status": "True"}));
    bad["spec"] = json!({"unschedulable": true, "taints": [{"key": "mine", "effect": "NoSchedule"}]});
    let plan = look(&world([bad]), "n", None, 0);
    let taints = patched(&plan)[0].1["spec"]["taints"].as_array().unwrap();
    let keys: Vec<&str> = taints.iter().map(|t| t["key"].as_str().unwrap()).collect();
    let of = |name: &str| format!("node.kubernetes.io/{name}");
    assert_eq!(keys, ["mine", &of("unreachable"), &of("disk-pressure"), &of("unschedulable")]);
    let mut well = node("n", "z");
    well["spec"]["taints"] = json!(taints);
    let plan = look(&world([well]), "n", None, 0);
    assert_eq!(patched(&plan)[0].1["spec"]["taints"], json!([{"key": "mine", "effect": "NoSchedule"}]));
}

#[test]
fn pods_of_a_silent_node_are_not_ready_and_later_ones_neither() {
    let mut lost = unready("n", "z", "Unknown");
    lost["spec"]["taints"] = json!([{"key": taints::UNREACHABLE, "effect": "NoSchedule"}]);
    let mut world = world([lost, pod("shop", "p", "web", "n", "10.1.0.1")]);
    let plan = look(&world, "n", None, 0);
    assert_eq!(patched(&plan)[0].1["status"]["conditions"][0]["status"], "False");
    let change = add(&mut world, pod("shop", "q", "web", "n", "10.1.0.2"));
    assert_eq!(NodeLifecycle::default().keys(&change, &world), [key("", "n")]);
}

#[test]
fn old_label_names_follow_the_new_ones() {
    let mut old = node("n", "z");
    old["metadata"]["labels"]["kubernetes.io/arch"] = json!("arm64");
    let plan = look(&world([old]), "n", None, 0);
    assert_eq!(patched(&plan)[0].1["metadata"]["labels"], json!({"beta.kubernetes.io/arch": "arm64"}));
}

#[test]
fn a_removed_node_is_told_of_once() {
    let mut world = world([node("n", "z")]);
    let heard = look(&world, "n", None, 0).memory;
    remove::<Node>(&mut world, "", "n");
    let gone = look(&world, "n", heard, 1);
    assert_eq!(reasons(&gone), ["RemovingNode"]);
    assert_eq!(look(&world, "n", gone.memory, 2), Plan::none());
}

#[test]
fn nodes_of_a_zone_lose_their_pods_one_every_ten_seconds() {
    let nodes = [node("a", "z"), node("b", "z"), unready("c", "z", "Unknown"), unready("d", "z", "False")];
    let mut world = world(nodes);
    let first = look(&world, "", None, 0);
    assert_eq!(begun(&first), [("c", "unreachable")]);
    assert_eq!(first.again, Some(at(10)));
    add(&mut world, evicting(unready("c", "z", "Unknown"), taints::UNREACHABLE, 0));
    let second = look(&world, "", None, 4);
    assert!(second.steps.is_empty());
    assert_eq!(second.again, Some(at(10)));
    assert_eq!(begun(&look(&world, "", None, 10)), [("d", "not-ready")]);
}

#[test]
fn a_node_that_is_heard_of_again_is_freed_and_one_that_says_it_is_not_ready_changes_its_taint() {
    let back = evicting(node("a", "z"), taints::UNREACHABLE, 0);
    let other = evicting(unready("b", "z", "False"), taints::UNREACHABLE, 0);
    let plan = look(&world([back, other, node("c", "z")]), "", None, 1);
    assert_eq!(patched(&plan)[0].1["spec"]["taints"], json!([]));
    assert_eq!(begun(&plan), [("b", "not-ready")]);
}

#[test]
fn when_no_node_anywhere_is_heard_of_nobody_loses_pods() {
    let silent =
        world([evicting(unready("a", "y", "Unknown"), taints::UNREACHABLE, 0), unready("b", "z", "Unknown")]);
    let plan = look(&silent, "", None, 60);
    assert_eq!(patched(&plan).len(), 1);
    assert_eq!(patched(&plan)[0].1["spec"]["taints"], json!([]));
    let one_zone = world([unready("a", "y", "Unknown"), node("b", "z")]);
    assert_eq!(begun(&look(&one_zone, "", None, 60)), [("a", "unreachable")]);
}

#[test]
fn a_zone_in_trouble_is_left_alone_when_small_and_treated_slowly_when_large() {
    let zone = |bad: usize, all: usize| {
        world((0..all).map(|n| {
            if n < bad {
                unready(&format!("n{n:02}"), "z", "Unknown")
            } else {
                node(&format!("n{n:02}"), "z")
            }
        }))
    };
    assert!(look(&zone(6, 10), "", None, 0).steps.is_empty());
    assert_eq!(begun(&look(&zone(5, 10), "", None, 0)).len(), 1);
    let mut large = zone(40, 60);
    assert_eq!(begun(&look(&large, "", None, 0)).len(), 1);
    add(&mut large, evicting(unready("n00", "z", "Unknown"), taints::UNREACHABLE, 0));
    assert_eq!(look(&large, "", None, 50).again, Some(at(100)));
    assert!(matches!(look(&large, "", None, 100).steps[0][..], [Write::Patch { .. }]));
}
