use std::sync::Arc;

use k8s_openapi::{
    api::apps::v1::{DeploymentCondition, DeploymentStatus},
    jiff::SignedDuration,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    replicaset,
    testing::{
        cluster::{Chaos, Cluster},
        nodes::Life,
    },
};

fn loops() -> Vec<Box<dyn Controller>> {
    vec![Box::new(Deployments), Box::new(replicaset::replica_sets())]
}

fn deployment(replicas: i32, more: Value) -> Value {
    let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": template("v1")});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "n", "name": "web"},
        "spec": spec})
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"strategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}})
}

/// A cluster in which pods of the image `bad` never become ready.
fn cluster(seed: u64, chaos: Option<Chaos>) -> Cluster {
    let mut cluster = Cluster::new(3, seed, chaos, loops);
    cluster.nodes.set_fate(Arc::new(|pod: &Pod| {
        let bad = pod.spec.as_ref().is_some_and(|s| s.containers[0].image.as_deref() == Some("bad"));
        if bad { Life::broken() } else { Life::long() }
    }));
    cluster
}

fn change(cluster: &mut Cluster, spec: Value) {
    cluster.patch::<Deployment>("n", "web", &json!({"spec": spec}));
}

fn seen(cluster: &Cluster) -> Deployment {
    cluster.get::<Deployment>("n", "web").unwrap()
}

fn status(cluster: &Cluster) -> DeploymentStatus {
    seen(cluster).status.unwrap_or_default()
}

fn condition(cluster: &Cluster, kind: &str) -> Option<(String, String)> {
    let found = |c: &DeploymentCondition| c.type_.as_deref() == Some(kind);
    let condition = status(cluster).conditions?.into_iter().find(found)?;
    Some((condition.status.unwrap_or_default(), condition.reason.unwrap_or_default()))
}

fn is(condition: Option<(String, String)>) -> String {
    condition.map(|(status, reason)| format!("{status} {reason}")).unwrap_or_default()
}

/// Image and wanted pods of each ReplicaSet, the oldest first.
fn sizes(cluster: &Cluster) -> Vec<(String, i32)> {
    let mut sets = cluster.list_of::<ReplicaSet>("n");
    sets.sort_by_key(|s| s.metadata.annotations.as_ref().and_then(|a| a[sets::REVISION].parse::<i64>().ok()));
    let image = |s: &ReplicaSet| {
        s.spec.template.as_ref().unwrap().spec.as_ref().unwrap().containers[0].image.clone().unwrap()
    };
    sets.iter().map(|s| (image(s), s.spec.replicas.unwrap())).collect()
}

fn available(cluster: &Cluster) -> usize {
    let pods = cluster.list_of::<Pod>("n");
    pods.iter().filter(|p| pod_state::is_active(p) && pod_state::is_ready(p)).count()
}

fn complete(cluster: &Cluster) -> bool {
    let (deployment, status) = (seen(cluster), status(cluster));
    let wanted = deployment.spec.replicas.filter(|r| *r > 0);
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
}

#[test]
fn a_rollout_never_has_less_than_allowed_available_and_never_more_than_allowed() {
    for seed in 0..20 {
        let chaos = (seed > 0).then_some(Chaos { lost: 0, turns: 4 });
        let mut cluster = cluster(seed, chaos);
        cluster.create(deployment(4, rolling(json!(1), json!(1))));
        cluster.until(60, "it is complete", complete);
        change(&mut cluster, json!({"template": template("v2")}));
        cluster.run_checked(SignedDuration::from_secs(90), |c| {
            assert!(available(c) >= 3, "seed {seed}");
            let active = c.list_of::<Pod>("n").iter().filter(|p| pod_state::is_active(p)).count();
            assert!(active <= 5, "seed {seed}: {active}");
        });
        assert!(complete(&cluster), "seed {seed}");
        assert_eq!(sizes(&cluster), [("v1".to_owned(), 0), ("v2".to_owned(), 4)]);
    }
}

#[test]
fn events_conditions_and_revisions_tell_of_a_rollout() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(2, rolling(json!(1), json!(0))));
    cluster.run(20);
    assert_eq!(is(condition(&cluster, "Available")), "True MinimumReplicasAvailable");
    assert_eq!(is(condition(&cluster, "Progressing")), "True NewReplicaSetAvailable");
    assert_eq!(seen(&cluster).metadata.annotations.unwrap()[sets::REVISION], "1");
    let first = cluster.list_of::<ReplicaSet>("n")[0].clone();
    let name = first.metadata.name.unwrap();
    let annotations = first.metadata.annotations.unwrap();
    assert_eq!((&*annotations[sets::DESIRED], &*annotations[sets::MAX]), ("2", "3"));
    let said = |text: String| ("ScalingReplicaSet".to_owned(), text);
    let scaling = |c: &Cluster| -> Vec<(String, String)> {
        let all = c.said().into_iter().filter(|(r, _)| *r == "ScalingReplicaSet");
        all.map(|(r, m)| (r.to_owned(), m.to_owned())).collect()
    };
    assert_eq!(scaling(&cluster), [said(format!("Scaled up replica set {name} from 0 to 2"))]);
    change(&mut cluster, json!({"template": template("v2")}));
    cluster.run(60);
    let log = scaling(&cluster);
    assert!(log.contains(&said(format!("Scaled down replica set {name} from 2 to 1"))), "{log:?}");
    assert!(log.contains(&said(format!("Scaled down replica set {name} from 1 to 0"))), "{log:?}");
    assert_eq!(seen(&cluster).metadata.annotations.unwrap()[sets::REVISION], "2");

    change(&mut cluster, json!({"template": template("v1")}));
    cluster.run(60);
    let old = cluster.get::<ReplicaSet>("n", &name).unwrap().metadata.annotations.unwrap();
    assert_eq!((&*old[sets::REVISION], &*old[sets::HISTORY]), ("3", "1"));
}

#[test]
fn a_stuck_rollout_is_told_after_its_deadline_and_a_mended_one_goes_on() {
    let mut cluster = cluster(1, None);
    let mut more = rolling(json!(1), json!(0));
    more["progressDeadlineSeconds"] = 30.into();
    cluster.create(deployment(3, more));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("bad")}));
    cluster.run(20);
    assert_eq!(is(condition(&cluster, "Progressing")), "True ReplicaSetUpdated");
    cluster.run(20);
    assert_eq!(is(condition(&cluster, "Progressing")), "False ProgressDeadlineExceeded");
    assert_eq!(is(condition(&cluster, "Available")), "True MinimumReplicasAvailable");
    change(&mut cluster, json!({"template": template("v2")}));
    cluster.run(60);
    assert_eq!(is(condition(&cluster, "Progressing")), "True NewReplicaSetAvailable");
    assert!(complete(&cluster));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_keeps_the_shares() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(10, rolling(json!(3), json!(2))));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("bad")}));
    cluster.run(60);
    assert_eq!(sizes(&cluster), [("v1".to_owned(), 8), ("bad".to_owned(), 5)]);
    change(&mut cluster, json!({"replicas": 30}));
    cluster.run(60);
    assert_eq!(sizes(&cluster), [("v1".to_owned(), 20), ("bad".to_owned(), 13)]);
    change(&mut cluster, json!({"replicas": 0}));
    cluster.run(60);
    assert_eq!(sizes(&cluster), [("v1".to_owned(), 0), ("bad".to_owned(), 0)]);
}

#[test]
fn recreate_waits_until_the_last_old_pod_has_ended() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(3, json!({"strategy": {"type": "Recreate"}})));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("v2")}));
    let images = |c: &Cluster| -> Vec<String> {
        let pods = c.list_of::<Pod>("n");
        let mut all: Vec<String> =
            pods.iter().map(|p| p.spec.as_ref().unwrap().containers[0].image.clone().unwrap()).collect();
        all.dedup();
        all
    };
    cluster.run_checked(SignedDuration::from_secs(60), |c| assert!(images(c).len() <= 1));
    assert!(complete(&cluster));
    assert_eq!(images(&cluster), ["v2"]);
}

#[test]
fn a_paused_deployment_is_scaled_but_not_rolled() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(2, json!({"paused": true})));
    cluster.run(10);
    assert!(sizes(&cluster).is_empty());
    assert_eq!(is(condition(&cluster, "Progressing")), "Unknown DeploymentPaused");
    change(&mut cluster, json!({"paused": false}));
    cluster.run(20);
    assert!(complete(&cluster));
    change(&mut cluster, json!({"paused": true, "replicas": 3, "template": template("v2")}));
    cluster.run(20);
    assert_eq!(sizes(&cluster), [("v1".to_owned(), 3)]);
    change(&mut cluster, json!({"paused": false}));
    cluster.run(60);
    assert!(complete(&cluster));
    assert_eq!(sizes(&cluster), [("v1".to_owned(), 0), ("v2".to_owned(), 3)]);
}

#[test]
fn old_revisions_beyond_the_limit_are_removed() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(1, json!({"revisionHistoryLimit": 1})));
    for image in ["v1", "v2", "v3", "v4"] {
        change(&mut cluster, json!({"template": template(image)}));
        cluster.run(60);
    }
    assert_eq!(sizes(&cluster), [("v3".to_owned(), 0), ("v4".to_owned(), 1)]);
}

#[test]
fn an_annotation_rolls_back() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(1, json!({})));
    cluster.run(20);
    change(&mut cluster, json!({"template": template("v2")}));
    cluster.run(60);
    let back = json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "0"}}});
    cluster.patch::<Deployment>("n", "web", &back);
    cluster.run(60);
    assert_eq!(sizes(&cluster), [("v2".to_owned(), 0), ("v1".to_owned(), 1)]);
    assert!(!seen(&cluster).metadata.annotations.unwrap().contains_key(sets::ROLLBACK_TO));
    assert!(cluster.said().contains(&("DeploymentRollback", "Rolled back deployment \"web\" to revision 1")));
    cluster.patch::<Deployment>(
        "n",
        "web",
        &json!({"metadata": {"annotations": {"deprecated.deployment.rollback.to": "9"}}}),
    );
    cluster.run(10);
    assert!(cluster.said().iter().any(|(reason, _)| *reason == "DeploymentRollbackRevisionNotFound"));
}

#[test]
fn a_taken_name_leads_to_another_hash() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(1, json!({"paused": true})));
    cluster.run(1);
    let sets = Sets::new(&seen(&cluster), vec![]);
    let mut squatter = serde_json::to_value(sets.wanted(&seen(&cluster))).unwrap();
    squatter["metadata"]["ownerReferences"] = json!([]);
    squatter["metadata"]["labels"] = json!({"app": "other"});
    squatter["spec"]["selector"]["matchLabels"] = json!({"app": "other"});
    squatter["spec"]["template"]["metadata"]["labels"] = json!({"app": "other"});
    squatter["spec"]["replicas"] = 0.into();
    cluster.create(squatter);
    change(&mut cluster, json!({"paused": false}));
    cluster.run(20);
    assert!(complete(&cluster));
    assert_eq!(status(&cluster).collision_count, Some(1));
}

#[test]
fn a_replica_set_that_was_there_before_is_adopted_and_used() {
    let mut cluster = cluster(1, None);
    cluster.create(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"namespace": "n", "name": "bare", "labels": {"app": "web"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("v1")}}));
    cluster.run(10);
    cluster.create(deployment(2, json!({})));
    cluster.run(20);
    assert_eq!(sizes(&cluster), [("v1".to_owned(), 2)]);
    assert!(complete(&cluster));
    assert_eq!(is(condition(&cluster, "Progressing")), "True NewReplicaSetAvailable");
}

#[test]
fn a_quota_is_told_by_the_deployment_too() {
    let mut cluster = cluster(1, None);
    cluster.api.admit(Some(Arc::new(|verb, kind, _| {
        let refused = verb == "create" && kind.kind == "Pod";
        if refused { Err(apimachinery::ApiError::forbidden("", "pods", "p", "quota")) } else { Ok(()) }
    })));
    cluster.create(deployment(1, json!({})));
    cluster.run(5);
    assert_eq!(is(condition(&cluster, "ReplicaFailure")), "True FailedCreate");
    cluster.api.admit(None);
    cluster.run(30);
    assert_eq!(condition(&cluster, "ReplicaFailure"), None);
    assert!(complete(&cluster));
}

#[test]
fn a_foreign_condition_and_a_wrong_number_are_kept_and_mended() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(1, json!({})));
    cluster.run(20);
    let mut conditions = serde_json::to_value(status(&cluster).conditions).unwrap();
    conditions.as_array_mut().unwrap().push(json!({"type": "StatusUpdate", "status": "True"}));
    let told = json!({"status": {"readyReplicas": 0, "availableReplicas": 0, "conditions": conditions}});
    assert!(cluster.patch_status::<Deployment>("n", "web", &told));
    cluster.run(10);
    assert_eq!(status(&cluster).ready_replicas, Some(1));
    assert!(condition(&cluster, "StatusUpdate").is_some());
}

#[test]
fn a_selector_that_selects_everything_is_only_warned_of() {
    use crate::testing::{at, object, put};
    let mut all = deployment(1, json!({"selector": {}}));
    all["metadata"]["generation"] = 1.into();
    let mut world = World::default();
    put::<Deployment>(&mut world, object(all));
    let key = Key { namespace: "n".to_owned(), name: "web".to_owned() };
    let plan = Deployments.reconcile(&key, &world, &Outcome::default(), at(0));
    assert_eq!(plan.notes[0].reason, "SelectingAll");
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn a_settled_deployment_costs_nothing() {
    let mut cluster = cluster(1, None);
    cluster.create(deployment(3, json!({})));
    cluster.run(20);
    let (plans, revision) = (cluster.plans, cluster.api.revision());
    cluster.run(100_000);
    assert_eq!((cluster.plans, cluster.api.revision()), (plans, revision));
}
