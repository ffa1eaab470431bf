use std::collections::BTreeSet;

use k8s_openapi::{
    api::{apps::v1::StatefulSetStatus, core::v1::Node},
    jiff::SignedDuration,
};
use serde_json::{Value, json};

use super::*;
use crate::testing::{
    cluster::{Chaos, Cluster},
    nodes::Life,
};

fn loops() -> Vec<Box<dyn Controller>> {
    vec![Box::new(StatefulSets)]
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn set(replicas: i32, more: Value) -> Value {
    let mut spec = json!({"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
        "template": template("v1")});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "n", "name": "db"},
        "spec": spec})
}

fn with_claims(policy: Value) -> Value {
    json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}}], "persistentVolumeClaimRetentionPolicy": policy})
}

/// Pods of the image `bad` never become ready.
fn cluster(seed: u64, chaos: Option<Chaos>) -> Cluster {
    let mut cluster = Cluster::new(3, seed, chaos, loops);
    cluster
        .nodes
        .set_fate(Arc::new(|pod: &Pod| if image(pod) == "bad" { Life::broken() } else { Life::long() }));
    cluster
}

fn image(pod: &Pod) -> String {
    pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn change(cluster: &mut Cluster, spec: Value) {
    assert!(cluster.patch::<StatefulSet>("n", "db", &json!({"spec": spec})));
}

fn status(cluster: &Cluster) -> StatefulSetStatus {
    cluster.get::<StatefulSet>("n", "db").unwrap().status.unwrap()
}

/// Ordinal and image of every pod that is not being deleted.
fn pods_of(cluster: &Cluster) -> Vec<(String, String)> {
    let pods = cluster.list_of::<Pod>("n");
    let staying = pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
    staying.map(|p| (p.metadata.name.clone().unwrap().replace("db-", ""), image(p))).collect()
}

fn available(cluster: &Cluster) -> usize {
    let pods = cluster.list_of::<Pod>("n");
    pods.iter().filter(|p| pod_state::is_active(p) && pod_state::is_ready(p)).count()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn pods_come_one_after_another_and_go_in_reverse() {
    let mut cluster = cluster(1, None);
    cluster.create(set(3, json!({})));
    let mut order = Vec::new();
    cluster.run_checked(SignedDuration::from_secs(20), |c| {
        let pods = c.list_of::<Pod>("n");
        let unready = pods.iter().filter(|p| !pod_state::is_ready(p)).count();
        assert!(unready <= 1);
        for (name, _) in pods_of(c) {
            if !order.contains(&name) {
                order.push(name);
            }
        }
    });
    assert_eq!(order, ["0", "1", "2"]);
    let pod = cluster.get::<Pod>("n", "db-1").unwrap();
    let labels = pod.metadata.labels.unwrap();
    assert_eq!(labels["statefulset.kubernetes.io/pod-name"], "db-1");
    assert_eq!(labels["apps.kubernetes.io/pod-index"], "1");
    assert_eq!(Some(&labels["controller-revision-hash"]), status(&cluster).current_revision.as_ref());
    let spec = pod.spec.unwrap();
    assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-1"), Some("db")));

    change(&mut cluster, json!({"replicas": 1}));
    let mut gone = Vec::new();
    cluster.run_checked(SignedDuration::from_secs(20), |c| {
        let here: BTreeSet<String> = pods_of(c).into_iter().map(|(name, _)| name).collect();
        for name in ["2", "1", "0"] {
            if !here.contains(name) && !gone.contains(&name) {
                gone.push(name);
            }
        }
    });
    assert_eq!(gone, ["2", "1"]);
    assert!(cluster.said().contains(&("SuccessfulCreate", "Create Pod db-0 in StatefulSet db successful")));
    assert!(cluster.said().contains(&("SuccessfulDelete", "Delete Pod db-2 in StatefulSet db successful")));
}

#[test]
fn an_unready_pod_stops_scaling_up_and_down() {
    let mut cluster = cluster(1, None);
    cluster.create(set(3, json!({"template": template("bad")})));
    cluster.run(60);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "bad")]));
    // The one that is not available is the first of its kind: it may go.
    change(&mut cluster, json!({"replicas": 0}));
    cluster.run(60);
    assert!(pods_of(&cluster).is_empty());
}

#[test]
fn in_parallel_all_pods_come_and_go_at_once() {
    let mut cluster = cluster(1, None);
    cluster.create(set(4, json!({"podManagementPolicy": "Parallel", "template": template("bad")})));
    cluster.run(3);
    assert_eq!(pods_of(&cluster).len(), 4);
    change(&mut cluster, json!({"replicas": 1}));
    cluster.run(3);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "bad")]));
}

#[test]
fn an_update_goes_from_the_highest_ordinal_down_with_one_missing_at_most() {
    for seed in 0..12 {
        let mut cluster = cluster(seed, (seed > 0).then_some(Chaos { lost: 0, turns: 4 }));
        cluster.create(set(3, json!({})));
        cluster.until(60, "all are ready", |c| available(c) == 3);
        cluster.run(10);
        let first = status(&cluster).current_revision;
        change(&mut cluster, json!({"template": template("v2")}));
        cluster.run_checked(SignedDuration::from_secs(60), |c| {
            assert!(available(c) >= 2, "seed {seed}");
            let images: Vec<String> = pods_of(c).into_iter().map(|(_, image)| image).collect();
            assert!(images.is_sorted(), "seed {seed}: the new ones are at the end: {images:?}");
        });
        assert_eq!(pods_of(&cluster), pairs(&[("0", "v2"), ("1", "v2"), ("2", "v2")]), "seed {seed}");
        let now = status(&cluster);
        assert_ne!(now.current_revision, first);
        assert_eq!((now.current_revision, now.updated_replicas), (now.update_revision, Some(3)));
    }
}

#[test]
fn below_the_partition_nothing_changes_and_lost_pods_come_back_as_they_were() {
    let mut cluster = cluster(1, None);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
    cluster.create(set(3, json!({"updateStrategy": rolling})));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("v2")}));
    cluster.run(30);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "v1"), ("1", "v1"), ("2", "v2")]));
    cluster.delete::<Pod>("n", "db-0");
    cluster.run(60);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "v1"), ("1", "v1"), ("2", "v2")]));
    assert_ne!(status(&cluster).current_revision, status(&cluster).update_revision);
    change(&mut cluster, json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}}));
    cluster.run(60);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "v2"), ("1", "v2"), ("2", "v2")]));
}

#[test]
fn several_may_be_missing_if_that_is_allowed() {
    let mut cluster = cluster(1, None);
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 2}});
    cluster.create(set(4, json!({"updateStrategy": rolling, "podManagementPolicy": "Parallel"})));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("v2")}));
    let mut least = 4;
    cluster.run_checked(SignedDuration::from_secs(60), |c| least = least.min(available(c)));
    assert_eq!(least, 2);
    assert!(pods_of(&cluster).iter().all(|(_, image)| image == "v2"));
}

#[test]
fn a_broken_revision_blocks_its_own_rollback_in_order_but_not_in_parallel() {
    for (policy, mended) in [("OrderedReady", false), ("Parallel", true)] {
        let mut cluster = cluster(1, None);
        cluster.create(set(3, json!({"podManagementPolicy": policy})));
        cluster.run(20);
        change(&mut cluster, json!({"template": template("bad")}));
        cluster.run(30);
        change(&mut cluster, json!({"template": template("v1")}));
        cluster.run(60);
        assert_eq!(available(&cluster) == 3, mended, "{policy}");
        cluster.delete::<Pod>("n", "db-2");
        cluster.run(60);
        assert_eq!(available(&cluster), 3, "{policy}");
        let revisions = cluster.list_of::<ControllerRevision>("n");
        let numbers: Vec<i64> = revisions.iter().map(revisions::number).collect();
        assert!(numbers.contains(&3) && revisions.len() == 2, "the first is used again: {numbers:?}");
    }
}

#[test]
fn on_delete_replaces_only_what_somebody_deletes() {
    let mut cluster = cluster(1, None);
    cluster.create(set(2, json!({"updateStrategy": {"type": "OnDelete"}})));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("v2")}));
    cluster.run(20);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "v1"), ("1", "v1")]));
    cluster.delete::<Pod>("n", "db-1");
    cluster.run(40);
    assert_eq!(pods_of(&cluster), pairs(&[("0", "v1"), ("1", "v2")]));
}

#[test]
fn a_failed_pod_is_deleted_and_made_anew_under_its_name() {
    let mut cluster = cluster(1, None);
    cluster.create(set(1, json!({"ordinals": {"start": 5}})));
    cluster.run(10);
    let before = cluster.get::<Pod>("n", "db-5").unwrap().metadata.uid;
    cluster.patch_status::<Pod>("n", "db-5", &json!({"status": {"phase": "Failed"}}));
    cluster.run(10);
    let after = cluster.get::<Pod>("n", "db-5").unwrap();
    assert!(pod_state::is_ready(&after));
    assert_ne!(before, after.metadata.uid);
}

#[test]
fn claims_are_made_by_template_and_stay_or_go_as_the_policy_says() {
    let owners = |cluster: &Cluster, name: &str| -> Vec<String> {
        let claim = cluster.get::<PersistentVolumeClaim>("n", name).unwrap();
        claim.metadata.owner_references.into_iter().flatten().map(|o| o.kind).collect()
    };
    let mut cluster = cluster(1, None);
    cluster.create(set(2, with_claims(json!({"whenScaled": "Delete", "whenDeleted": "Delete"}))));
    cluster.run(20);
    let pod = cluster.get::<Pod>("n", "db-1").unwrap().spec.unwrap();
    let claim = pod.volumes.unwrap()[0].persistent_volume_claim.clone().unwrap();
    assert_eq!(claim.claim_name, "data-db-1");
    assert_eq!(owners(&cluster, "data-db-1"), ["StatefulSet"]);
    let text = "Create Claim data-db-1 Pod db-1 in StatefulSet db success";
    assert!(cluster.said().contains(&("SuccessfulCreate", text)));

    change(&mut cluster, json!({"replicas": 1}));
    cluster.run(10);
    assert_eq!(owners(&cluster, "data-db-1"), ["Pod"]);
    // Until the garbage collector has taken the claim of the old pod, no new pod may use it.
    change(&mut cluster, json!({"replicas": 2}));
    cluster.run(10);
    assert!(cluster.get::<Pod>("n", "db-1").is_none());
    cluster.delete::<PersistentVolumeClaim>("n", "data-db-1");
    change(&mut cluster, json!({"minReadySeconds": 1}));
    cluster.run(20);
    assert!(cluster.get::<Pod>("n", "db-1").is_some());
    assert_eq!(owners(&cluster, "data-db-1"), ["StatefulSet"]);

    let keep =
        json!({"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain", "whenDeleted": "Retain"}});
    change(&mut cluster, keep);
    cluster.run(20);
    assert!(owners(&cluster, "data-db-0").is_empty());
}

#[test]
fn revisions_beyond_the_limit_are_forgotten_but_not_those_in_use() {
    let mut cluster = cluster(1, None);
    cluster.create(set(1, json!({"revisionHistoryLimit": 1})));
    for image in ["v1", "v2", "v3", "v4"] {
        change(&mut cluster, json!({"template": template(image)}));
        cluster.run(30);
    }
    assert_eq!(cluster.list_of::<ControllerRevision>("n").len(), 2);
}

#[test]
fn whatever_happens_names_are_never_shared_and_all_come_back() {
    for seed in 0..25 {
        let mut cluster = cluster(seed, Some(Chaos { lost: 10, turns: 4 }));
        cluster.create(set(3, with_claims(json!({}))));
        cluster.run(8);
        cluster.lose_node("node-0");
        change(&mut cluster, json!({"template": template("v2")}));
        cluster.run_checked(SignedDuration::from_millis(1500), |_| {});
        cluster.restart();
        cluster.run(200);
        assert_eq!(pods_of(&cluster), pairs(&[("0", "v2"), ("1", "v2"), ("2", "v2")]), "seed {seed}");
        let now = status(&cluster);
        assert_eq!((now.replicas, now.available_replicas), (3, Some(3)), "seed {seed}");
        assert_eq!(now.current_revision, now.update_revision, "seed {seed}");
        assert_eq!(cluster.list_of::<Node>("").len(), 2);
    }
}

#[test]
fn a_settled_set_costs_nothing() {
    let mut cluster = cluster(1, None);
    cluster.create(set(3, with_claims(json!({}))));
    cluster.run(30);
    let (plans, revision) = (cluster.plans, cluster.api.revision());
    cluster.run(100_000);
    assert_eq!((cluster.plans, cluster.api.revision()), (plans, revision));
}
