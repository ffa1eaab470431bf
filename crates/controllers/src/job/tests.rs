use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    pod_state,
    testing::{
        cluster::{Chaos, Cluster},
        nodes::{Fate, Life},
    },
};

fn loops() -> Vec<Box<dyn Controller>> {
    vec![Box::new(Jobs)]
}

fn job(more: Value) -> Value {
    let mut spec = json!({"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "n", "name": "j"}, "spec": spec})
}

fn cluster(fate: impl Fn(&Pod) -> Life + Send + Sync + 'static) -> Cluster {
    stormy(0, None, fate)
}

fn stormy(seed: u64, chaos: Option<Chaos>, fate: impl Fn(&Pod) -> Life + Send + Sync + 'static) -> Cluster {
    let mut cluster = Cluster::new(3, seed, chaos, loops);
    let fate: Fate = Arc::new(fate);
    cluster.nodes.set_fate(fate);
    cluster
}

fn status(cluster: &Cluster) -> JobStatus {
    cluster.get::<Job>("n", "j").unwrap().status.unwrap()
}

fn over(cluster: &Cluster) -> Option<(String, String)> {
    let status = status(cluster);
    let last = ["Complete", "Failed"].into_iter().find_map(|kind| find(Some(&status), kind).cloned())?;
    Some((last.type_, last.reason.unwrap()))
}

fn is_over(cluster: &Cluster, kind: &str, reason: &str) {
    assert_eq!(over(cluster), Some((kind.to_owned(), reason.to_owned())));
    let status = status(cluster);
    assert_eq!((status.active, status.ready, status.terminating), (None, Some(0), Some(0)));
    assert_eq!(status.uncounted_terminated_pods, Some(Default::default()));
    assert_eq!(status.completion_time.is_some(), kind == "Complete");
    assert!(cluster.list_of::<Pod>("n").iter().all(|pod| !pods::is_tracked(pod)));
}

fn change(cluster: &mut Cluster, spec: Value) {
    assert!(cluster.patch::<Job>("n", "j", &json!({"spec": spec})));
}

#[test]
fn a_job_is_complete_when_enough_pods_have_succeeded() {
    let mut cluster = cluster(|_| Life::ends(5, 0));
    cluster.create(job(json!({"completions": 5, "parallelism": 2})));
    cluster.run_checked(SignedDuration::from_secs(120), |c| {
        let active = c.list_of::<Pod>("n").iter().filter(|p| pod_state::is_active(p)).count();
        assert!(active <= 2);
    });
    is_over(&cluster, "Complete", "CompletionsReached");
    assert_eq!((status(&cluster).succeeded, status(&cluster).failed), (Some(5), None));
    assert!(cluster.said().contains(&("Completed", "Job completed")));
    let interim = find(Some(&status(&cluster)), "SuccessCriteriaMet").cloned().unwrap();
    assert_eq!(interim.message.as_deref(), Some("Reached expected number of succeeded pods"));
}

#[test]
fn without_completions_one_success_is_enough() {
    let mut cluster = cluster(|_| Life::ends(5, 0));
    cluster.create(job(json!({"parallelism": 3, "completions": null})));
    cluster.run(60);
    is_over(&cluster, "Complete", "CompletionsReached");
    assert_eq!(status(&cluster).succeeded, Some(3));
}

#[test]
fn failures_are_retried_later_each_time_until_the_limit() {
    let mut cluster = cluster(|_| Life::ends(1, 3));
    cluster.create(job(json!({"backoffLimit": 2})));
    cluster.run(25);
    assert_eq!(over(&cluster), None);
    cluster.run(20);
    is_over(&cluster, "Failed", "BackoffLimitExceeded");
    assert_eq!(status(&cluster).failed, Some(3));
    assert!(
        cluster.said().contains(&("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
    );
    let mut made: Vec<i64> = cluster
        .list_of::<Pod>("n")
        .iter()
        .map(|p| p.metadata.creation_timestamp.as_ref().unwrap().0.as_second())
        .collect();
    made.sort_unstable();
    let waits: Vec<i64> = made.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!(waits, [11, 21]);
}

#[test]
fn a_deadline_ends_what_runs() {
    let mut cluster = cluster(|_| Life::long());
    cluster.create(job(json!({"parallelism": 2, "completions": 2, "activeDeadlineSeconds": 10})));
    cluster.run(9);
    assert_eq!((status(&cluster).active, status(&cluster).ready), (Some(2), Some(2)));
    cluster.run(20);
    is_over(&cluster, "Failed", "DeadlineExceeded");
    assert_eq!(status(&cluster).failed, Some(2));
}

#[test]
fn a_suspended_job_has_no_pods_and_its_time_stands_still() {
    let mut cluster = cluster(|_| Life::ends(30, 0));
    cluster.create(job(json!({"suspend": true, "activeDeadlineSeconds": 60})));
    cluster.run(100);
    assert!(cluster.list_of::<Pod>("n").is_empty());
    assert_eq!(find(Some(&status(&cluster)), "Suspended").unwrap().status, "True");
    assert_eq!(status(&cluster).start_time, None);
    change(&mut cluster, json!({"suspend": false}));
    cluster.run(10);
    assert_eq!(status(&cluster).active, Some(1));
    change(&mut cluster, json!({"suspend": true}));
    cluster.run(10);
    assert_eq!((status(&cluster).active, status(&cluster).start_time), (None, None));
    change(&mut cluster, json!({"suspend": false}));
    cluster.run(60);
    is_over(&cluster, "Complete", "CompletionsReached");
    assert_eq!(status(&cluster).failed, None, "pods that were taken away have not failed");
    let said: Vec<&str> = cluster.said().into_iter().map(|(r, _)| r).filter(|r| r.ends_with("ed")).collect();
    assert_eq!(said.iter().filter(|r| **r == "Suspended").count(), 2);
    assert_eq!(said.iter().filter(|r| **r == "Resumed").count(), 2);
}

#[test]
fn indexes_are_done_one_by_one_and_told_in_short() {
    let mut cluster = cluster(|_| Life::ends(3, 0));
    cluster.create(job(json!({"completionMode": "Indexed", "completions": 5, "parallelism": 2})));
    cluster.run(1);
    let pods = cluster.list_of::<Pod>("n");
    assert_eq!(pods.iter().filter_map(pods::index).collect::<Vec<_>>(), [0, 1]);
    let pod = &pods[0];
    assert!(pod.metadata.name.as_deref().unwrap().starts_with("j-0-"));
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.hostname.as_deref(), Some("j-0"));
    assert_eq!(spec.containers[0].env.as_ref().unwrap()[0].name, "JOB_COMPLETION_INDEX");
    cluster.run(60);
    is_over(&cluster, "Complete", "CompletionsReached");
    assert_eq!(status(&cluster).completed_indexes.as_deref(), Some("0-4"));
}

#[test]
fn an_index_fails_by_itself_after_its_own_limit() {
    let odd = |pod: &Pod| Life::ends(1, pods::index(pod).unwrap_or(0) % 2);
    let mut cluster = cluster(odd);
    cluster.create(job(json!({"completionMode": "Indexed", "completions": 4, "parallelism": 4,
        "backoffLimitPerIndex": 1})));
    cluster.run(60);
    is_over(&cluster, "Failed", "FailedIndexes");
    let now = status(&cluster);
    assert_eq!(now.failed_indexes.as_deref(), Some("1,3"));
    assert_eq!(now.completed_indexes.as_deref(), Some("0,2"));
    assert_eq!((now.failed, now.succeeded), (Some(4), Some(2)));
}

#[test]
fn too_many_failed_indexes_end_the_job() {
    let mut cluster = cluster(|pod| Life::ends(i64::from(pods::index(pod).unwrap_or(0)) + 1, 1));
    cluster.create(job(json!({"completionMode": "Indexed", "completions": 10, "parallelism": 10,
        "backoffLimitPerIndex": 0, "maxFailedIndexes": 0})));
    cluster.run(60);
    is_over(&cluster, "Failed", "MaxFailedIndexesExceeded");
    assert_eq!(status(&cluster).failed_indexes.as_deref(), Some("0"));
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let mut cluster = cluster(|pod| match pods::index(pod) {
        Some(0) => Life::ends(2, 0),
        _ => Life::long(),
    });
    cluster.create(job(json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}})));
    cluster.run(60);
    is_over(&cluster, "Complete", "SuccessPolicy");
    let now = status(&cluster);
    assert_eq!((now.completed_indexes.as_deref(), now.failed), (Some("0"), None));
    let text = find(Some(&now), "SuccessCriteriaMet").unwrap().message.clone();
    assert_eq!(text.as_deref(), Some("Matched rules at index 0"));
}

#[test]
fn a_failure_policy_ignores_disruptions_and_ends_the_job_on_others() {
    let mut cluster = cluster(|_| Life::ends(10, 42));
    cluster.create(job(json!({"backoffLimit": 0, "podFailurePolicy": {"rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}})));
    cluster.run(2);
    let name = cluster.list_of::<Pod>("n")[0].metadata.name.clone().unwrap();
    let target = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}});
    assert!(cluster.patch_status::<Pod>("n", &name, &target));
    cluster.delete::<Pod>("n", &name);
    cluster.run(14);
    assert_eq!(over(&cluster), None);
    assert_eq!((status(&cluster).failed, status(&cluster).active), (None, Some(1)));
    cluster.run(60);
    is_over(&cluster, "Failed", "PodFailurePolicy");
    assert_eq!(status(&cluster).failed, Some(1));
}

#[test]
fn less_parallelism_takes_pods_away_without_counting_them() {
    let mut cluster = cluster(|_| Life::ends(60, 0));
    cluster.create(job(json!({"parallelism": 4, "completions": 4})));
    cluster.run(5);
    change(&mut cluster, json!({"parallelism": 1}));
    cluster.run(10);
    assert_eq!((status(&cluster).active, status(&cluster).failed), (Some(1), None));
    change(&mut cluster, json!({"parallelism": 0}));
    cluster.run(10);
    assert_eq!(status(&cluster).active, None);
}

#[test]
fn adopted_pods_get_the_finalizer_and_released_ones_lose_it() {
    let mut cluster = cluster(|_| Life::ends(1000, 0));
    cluster.create(job(json!({})));
    cluster.run(5);
    let pod = cluster.list_of::<Pod>("n")[0].clone();
    let name = pod.metadata.name.clone().unwrap();
    let bare = json!({"metadata": {"ownerReferences": null}});
    cluster.patch::<Pod>("n", &name, &bare);
    cluster.run(5);
    let adopted = cluster.get::<Pod>("n", &name).unwrap();
    assert_eq!(cluster.list_of::<Pod>("n").len(), 1);
    assert!(pods::is_tracked(&adopted) && ownership::controller_of(&adopted.metadata).is_some());
    cluster.patch::<Pod>("n", &name, &json!({"metadata": {"labels": null}}));
    cluster.run(5);
    let released = cluster.get::<Pod>("n", &name).unwrap();
    assert!(!pods::is_tracked(&released) && ownership::controller_of(&released.metadata).is_none());
    assert_eq!(status(&cluster).active, Some(1));
}

#[test]
fn pods_of_a_job_that_is_gone_lose_their_finalizer() {
    let mut cluster = cluster(|_| Life::ends(1000, 0));
    cluster.create(job(json!({"parallelism": 2, "completions": 2})));
    cluster.run(5);
    cluster.delete::<Job>("n", "j");
    cluster.run(5);
    let pods = cluster.list_of::<Pod>("n");
    assert!(pods.len() == 2 && pods.iter().all(|pod| !pods::is_tracked(pod)));
}

#[test]
fn a_job_that_another_controller_manages_is_left_alone() {
    let mut cluster = cluster(|_| Life::ends(1, 0));
    cluster.create(job(json!({"managedBy": "example.com/queue"})));
    cluster.run(10);
    assert!(cluster.list_of::<Pod>("n").is_empty());
    assert_eq!(cluster.get::<Job>("n", "j").unwrap().status, Some(JobStatus::default()));
}

#[test]
fn whatever_happens_every_pod_is_counted_once() {
    for seed in 0..30 {
        let lost = if seed % 2 == 0 { 0 } else { 10 };
        // Which pods fail depends on their names only.
        let fate = |pod: &Pod| {
            let letters = pod.metadata.name.as_deref().unwrap_or_default().bytes();
            Life::ends(2, i32::from(letters.map(u32::from).sum::<u32>() % 3 == 0))
        };
        let mut cluster = stormy(seed, Some(Chaos { lost, turns: 4 }), fate);
        let indexed = seed % 3 == 0;
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        cluster.create(job(json!({"completions": 6, "parallelism": 3, "backoffLimit": 1000,
            "completionMode": mode})));
        let mut seen = std::collections::BTreeMap::new();
        let watch = |c: &Cluster, seen: &mut std::collections::BTreeMap<String, String>| {
            for pod in c.list_of::<Pod>("n") {
                let phase = pod_state::phase(&pod).to_owned();
                seen.insert(pod.metadata.uid.unwrap(), phase);
            }
            let now = status(c);
            assert!(now.succeeded.unwrap_or(0) <= 6 || lost > 0, "seed {seed}");
        };
        cluster.run_checked(SignedDuration::from_secs(3), |c| watch(c, &mut seen));
        cluster.restart();
        cluster.run_checked(SignedDuration::from_secs(25), |c| watch(c, &mut seen));
        if seed % 5 == 0 {
            cluster.lose_node("node-1");
        }
        cluster.restart();
        cluster.run_checked(SignedDuration::from_hours(3), |c| watch(c, &mut seen));
        is_over(&cluster, "Complete", "CompletionsReached");
        let ended = |wanted: &str| seen.values().filter(|phase| *phase == wanted).count();
        let now = status(&cluster);
        let succeeded = usize::try_from(now.succeeded.unwrap_or(0)).unwrap();
        if indexed {
            assert_eq!((now.completed_indexes.as_deref(), succeeded), (Some("0-5"), 6), "seed {seed}");
        } else {
            assert_eq!(succeeded, ended("Succeeded"), "seed {seed}");
            assert_eq!(usize::try_from(now.failed.unwrap_or(0)).unwrap(), ended("Failed"), "seed {seed}");
        }
    }
}
