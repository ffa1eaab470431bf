use k8s_openapi::{api::apps::v1::DaemonSetStatus, jiff::SignedDuration};
use serde_json::json;

use super::*;
use crate::testing::{
    cluster::{Chaos, Cluster},
    nodes::Life,
};

fn loops() -> Vec<Box<dyn Controller>> {
    vec![Box::new(DaemonSets)]
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "d"}}, "template": template("v1")});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": "n", "name": "d"}, "spec": spec})
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"updateStrategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}})
}

fn cluster(nodes: usize, seed: u64, chaos: Option<Chaos>) -> Cluster {
    let mut cluster = Cluster::new(nodes, seed, chaos, loops);
    cluster
        .nodes
        .set_fate(Arc::new(|pod: &Pod| if image(pod) == "bad" { Life::broken() } else { Life::long() }));
    cluster
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn change(cluster: &mut Cluster, spec: Value) {
    assert!(cluster.patch::<DaemonSet>("n", "d", &json!({"spec": spec})));
}

fn status(cluster: &Cluster) -> DaemonSetStatus {
    cluster.get::<DaemonSet>("n", "d").unwrap().status.unwrap()
}

/// Node and image of each pod that is not being deleted.
fn placed(cluster: &Cluster) -> Vec<(String, String)> {
    let pods = cluster.list_of::<Pod>("n");
    let staying = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    let mut placed: Vec<_> =
        staying.map(|p| (nodes::target(p).unwrap_or_default().to_owned(), image(p))).collect();
    placed.sort();
    placed
}

fn available(cluster: &Cluster) -> usize {
    let pods = cluster.list_of::<Pod>("n");
    pods.iter().filter(|p| pod_state::is_active(p) && pod_state::is_ready(p)).count()
}

fn nodes_of(list: &[&str], image: &str) -> Vec<(String, String)> {
    list.iter().map(|node| ((*node).to_owned(), image.to_owned())).collect()
}

#[test]
fn every_node_has_one_pod_new_nodes_too() {
    let mut cluster = cluster(2, 1, None);
    cluster.create(set(json!({})));
    cluster.run(10);
    assert_eq!(placed(&cluster), nodes_of(&["node-0", "node-1"], "v1"));
    cluster.add_node("node-2");
    cluster.run(10);
    assert_eq!(placed(&cluster).len(), 3);
    let told = status(&cluster);
    assert_eq!((told.desired_number_scheduled, told.number_ready, told.number_available), (3, 3, Some(3)));
    let pod = cluster.list_of::<Pod>("n")[0].clone();
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels[GENERATION], "1");
    let revision = cluster.list_of::<ControllerRevision>("n")[0].clone();
    assert_eq!(labels[HASH], revision.metadata.labels.unwrap()[HASH]);
    let tolerations = pod.spec.unwrap().tolerations.unwrap();
    assert!(tolerations.iter().any(|t| t.key.as_deref() == Some("node.kubernetes.io/unschedulable")));
}

#[test]
fn pods_follow_labels_and_taints() {
    let mut cluster = cluster(2, 1, None);
    let mut picky = template("v1");
    picky["spec"]["nodeSelector"] = json!({"color": "blue"});
    cluster.create(set(json!({"template": picky})));
    cluster.run(5);
    assert!(placed(&cluster).is_empty());
    cluster.patch::<Node>("", "node-1", &json!({"metadata": {"labels": {"color": "blue"}}}));
    cluster.run(10);
    assert_eq!(placed(&cluster), nodes_of(&["node-1"], "v1"));
    // A taint that only keeps new pods away lets the pod stay, but it no longer counts as wanted there.
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": effect}]}});
    cluster.patch::<Node>("", "node-1", &taint("NoSchedule"));
    change(&mut cluster, json!({"minReadySeconds": 0}));
    cluster.run(10);
    assert_eq!(placed(&cluster), nodes_of(&["node-1"], "v1"));
    cluster.patch::<DaemonSet>("n", "d", &json!({"metadata": {"labels": {"look": "again"}}}));
    cluster.run(1);
    assert_eq!((status(&cluster).desired_number_scheduled, status(&cluster).number_misscheduled), (0, 1));
    cluster.patch::<Node>("", "node-1", &taint("NoExecute"));
    cluster.run(10);
    assert!(placed(&cluster).is_empty());
}

#[test]
fn a_rollout_is_stopped_by_pods_that_do_not_become_available_and_can_be_taken_back() {
    let mut cluster = cluster(4, 1, None);
    cluster.create(set(rolling(json!(1), json!(0))));
    cluster.run(10);
    let before: Vec<_> = cluster.list_of::<Pod>("n").into_iter().map(|p| p.metadata.name).collect();
    change(&mut cluster, json!({"template": template("bad")}));
    cluster.run(30);
    assert_eq!(available(&cluster), 3);
    change(&mut cluster, json!({"template": template("v1")}));
    cluster.run(30);
    assert_eq!(available(&cluster), 4);
    let kept = cluster.list_of::<Pod>("n").into_iter().filter(|p| before.contains(&p.metadata.name)).count();
    assert_eq!(kept, 3, "pods that were not updated are not restarted");
    let mut numbers: Vec<i64> =
        cluster.list_of::<ControllerRevision>("n").iter().map(crate::revisions::number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn an_update_keeps_within_what_may_be_missing() {
    for seed in 0..12 {
        let mut cluster = cluster(5, seed, (seed > 0).then_some(Chaos { lost: 0, turns: 4 }));
        cluster.create(set(rolling(json!(2), json!(0))));
        cluster.until(60, "all run", |c| available(c) == 5);
        change(&mut cluster, json!({"template": template("v2")}));
        let check = |c: &Cluster| assert!(available(c) >= 3, "seed {seed}");
        cluster.run_checked(SignedDuration::from_secs(90), check);
        assert!(placed(&cluster).iter().all(|(_, image)| image == "v2"), "seed {seed}");
        assert_eq!((available(&cluster), status(&cluster).updated_number_scheduled), (5, Some(5)));
    }
}

#[test]
fn with_a_surge_the_new_pod_is_there_before_the_old_one_goes() {
    for seed in 0..12 {
        let mut cluster = cluster(3, seed, (seed > 0).then_some(Chaos { lost: 0, turns: 4 }));
        cluster.create(set(rolling(json!(0), json!(1))));
        cluster.until(60, "all run", |c| available(c) == 3);
        change(&mut cluster, json!({"template": template("v2")}));
        let check = |c: &Cluster| assert!(available(c) >= 3, "seed {seed}");
        cluster.run_checked(SignedDuration::from_secs(90), check);
        assert_eq!(placed(&cluster), nodes_of(&["node-0", "node-1", "node-2"], "v2"), "seed {seed}");
    }
}

#[test]
fn failed_pods_are_replaced_later_each_time() {
    let mut cluster = cluster(1, 1, None);
    cluster.create(set(json!({})));
    cluster.run(10);
    let fail = |cluster: &mut Cluster| {
        let pods = cluster.list_of::<Pod>("n");
        let name = pods[0].metadata.name.clone().unwrap();
        let failed = json!({"status": {"phase": "Failed"}});
        assert!(cluster.patch_status::<Pod>("n", &name, &failed));
        name
    };
    let mut waits = Vec::new();
    for _ in 0..4 {
        let name = fail(&mut cluster);
        let since = cluster.now;
        cluster.until(60, "it is replaced", |c| {
            c.get::<Pod>("n", &name).is_none() && c.list_of::<Pod>("n").iter().any(pod_state::is_active)
        });
        waits.push(cluster.now.duration_since(since).as_secs());
    }
    assert_eq!(waits, [0, 1, 2, 4]);
    assert_eq!(cluster.said().iter().filter(|(reason, _)| *reason == "FailedDaemonPod").count(), 4);
}

#[test]
fn a_second_revision_of_the_same_content_is_merged_when_there_is_a_reason_to_look() {
    let mut cluster = cluster(2, 1, None);
    cluster.create(set(json!({})));
    cluster.run(10);
    let first = cluster.list_of::<ControllerRevision>("n")[0].clone();
    let pods: Vec<_> = cluster.list_of::<Pod>("n").into_iter().map(|p| p.metadata.uid).collect();
    let mut second = serde_json::to_value(&first).unwrap();
    second["metadata"]["name"] = "d-second".into();
    second["metadata"]["labels"][HASH] = "second".into();
    second["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    second["revision"] = 3.into();
    cluster.create(second);
    cluster.run(10);
    assert_eq!(cluster.list_of::<ControllerRevision>("n").len(), 2);
    cluster.patch::<ControllerRevision>("n", "d-second", &json!({"metadata": {"labels": {"x": "y"}}}));
    cluster.run(10);
    let left = cluster.list_of::<ControllerRevision>("n");
    assert_eq!((left.len(), left[0].revision), (1, Some(3)));
    let now = cluster.list_of::<Pod>("n");
    assert!(now.iter().all(|p| p.metadata.labels.as_ref().unwrap()[HASH] == "second"));
    assert_eq!(now.into_iter().map(|p| p.metadata.uid).collect::<Vec<_>>(), pods, "no pod was restarted");
}

#[test]
fn whatever_happens_every_node_ends_with_one_pod() {
    for seed in 0..25 {
        let mut cluster = cluster(4, seed, Some(Chaos { lost: 10, turns: 4 }));
        cluster.create(set(rolling(json!(1), json!(0))));
        cluster.run(3);
        cluster.lose_node("node-1");
        change(&mut cluster, json!({"template": template("v2")}));
        cluster.run_checked(SignedDuration::from_millis(1500), |_| {});
        cluster.restart();
        cluster.add_node("node-9");
        cluster.run(200);
        let all = ["node-0", "node-2", "node-3", "node-9"];
        assert_eq!(placed(&cluster), nodes_of(&all, "v2"), "seed {seed}");
        assert_eq!(status(&cluster).number_available, Some(4), "seed {seed}");
    }
}

#[test]
fn a_settled_set_costs_nothing() {
    let mut cluster = cluster(3, 1, None);
    cluster.create(set(json!({})));
    cluster.run(30);
    let (plans, revision) = (cluster.plans, cluster.api.revision());
    cluster.run(100_000);
    assert_eq!((cluster.plans, cluster.api.revision()), (plans, revision));
}
