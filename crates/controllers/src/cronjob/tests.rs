use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;
use crate::{
    job::Jobs,
    testing::{
        cluster::{Chaos, Cluster},
        nodes::Life,
    },
};

fn loops() -> Vec<Box<dyn Controller>> {
    vec![Box::new(CronJobs), Box::new(Jobs)]
}

fn cron(schedule: &str, more: Value) -> Value {
    let mut spec = json!({"schedule": schedule, "jobTemplate": {
        "metadata": {"labels": {"from": "cron"}},
        "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i"}]}}}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"namespace": "n", "name": "c"}, "spec": spec})
}

/// Pods run for so many seconds. The clock stands at one second after the full hour.
fn cluster(seconds: i64) -> Cluster {
    let mut cluster = Cluster::new(2, 1, None, loops);
    cluster.nodes.set_fate(Arc::new(move |_: &Pod| Life::ends(seconds, 0)));
    cluster
}

fn status(cluster: &Cluster) -> CronJobStatus {
    cluster.get::<CronJob>("n", "c").unwrap().status.unwrap_or_default()
}

fn jobs(cluster: &Cluster) -> Vec<Job> {
    cluster.list_of::<Job>("n")
}

fn reasons<'a>(cluster: &'a Cluster, reason: &str) -> Vec<&'a str> {
    cluster.said().into_iter().filter(|(r, _)| *r == reason).map(|(_, m)| m).collect()
}

fn created(cluster: &Cluster) -> usize {
    reasons(cluster, "SuccessfulCreate").iter().filter(|m| m.starts_with("Created job ")).count()
}

#[test]
fn a_job_is_made_at_every_due_time_and_old_ones_are_forgotten() {
    let mut cluster = cluster(5);
    cluster.create(cron("*/1 * * * ?", json!({"successfulJobsHistoryLimit": 2})));
    cluster.run(58);
    assert!(jobs(&cluster).is_empty());
    cluster.run(3);
    let made = jobs(&cluster);
    assert_eq!(made.len(), 1);
    let minutes = cluster.now.as_second() / 60;
    assert_eq!(made[0].metadata.name, Some(format!("c-{minutes}")));
    assert_eq!(made[0].metadata.labels.as_ref().unwrap()["from"], "cron");
    let time = time_of(&made[0]).unwrap();
    assert_eq!(time.as_second() % 60, 0);
    assert_eq!(status(&cluster).active.unwrap()[0].name, made[0].metadata.name);
    cluster.run(310);
    assert_eq!(jobs(&cluster).len(), 2);
    let now = status(&cluster);
    assert!(now.last_schedule_time.unwrap().0 <= now.last_successful_time.unwrap().0);
    assert_eq!(created(&cluster), 6);
    assert!(reasons(&cluster, "SawCompletedJob")[0].ends_with("condition: Complete"));
    assert!(reasons(&cluster, "UnexpectedJob").is_empty() && reasons(&cluster, "MissingJob").is_empty());
}

#[test]
fn policies_decide_what_becomes_of_a_job_that_still_runs() {
    for (policy, running, started) in [("Allow", 3, 3), ("Forbid", 1, 1), ("Replace", 1, 3)] {
        let mut cluster = cluster(10_000);
        cluster.create(cron("* * * * *", json!({"concurrencyPolicy": policy})));
        cluster.run(200);
        let active = status(&cluster).active.unwrap().len();
        assert_eq!((active, created(&cluster)), (running, started), "{policy}");
        assert_eq!(reasons(&cluster, "JobAlreadyActive").is_empty(), policy != "Forbid");
    }
}

#[test]
fn of_missed_times_only_the_last_is_made_up_for() {
    let mut cluster = cluster(5);
    cluster.create(cron("*/10 * * * *", json!({"suspend": true})));
    cluster.run(3 * 3600);
    assert!(jobs(&cluster).is_empty());
    cluster.patch::<CronJob>("n", "c", &json!({"spec": {"suspend": false}}));
    cluster.run(1);
    assert_eq!(jobs(&cluster).len(), 1);
    assert_eq!(time_of(&jobs(&cluster)[0]).unwrap().as_second(), cluster.now.as_second() / 600 * 600);
    assert!(reasons(&cluster, "TooManyMissedTimes").is_empty());
}

#[test]
fn a_hundred_missed_times_are_warned_of_and_what_is_too_late_is_left() {
    let mut cluster = cluster(5);
    cluster.create(cron("* * * * *", json!({"suspend": true})));
    cluster.run(3 * 3600);
    cluster.patch::<CronJob>("n", "c", &json!({"spec": {"suspend": false}}));
    cluster.run(1);
    assert_eq!((jobs(&cluster).len(), reasons(&cluster, "TooManyMissedTimes").is_empty()), (1, false));

    let mut cluster = self::cluster(5);
    cluster.create(cron("0 * * * *", json!({"suspend": true, "startingDeadlineSeconds": 60})));
    cluster.run(3600 + 1800);
    cluster.patch::<CronJob>("n", "c", &json!({"spec": {"suspend": false}}));
    cluster.run(60);
    assert!(jobs(&cluster).is_empty());
    cluster.run(1800);
    assert_eq!(jobs(&cluster).len(), 1);
}

#[test]
fn a_new_schedule_does_not_make_up_for_what_it_would_have_done_before() {
    let mut cluster = cluster(5);
    cluster.create(cron("0 0 1 1 *", json!({})));
    cluster.run(1800);
    cluster.patch::<CronJob>("n", "c", &json!({"spec": {"schedule": "15 * * * *"}}));
    cluster.run(60);
    assert!(jobs(&cluster).is_empty());
    cluster.run(3600);
    assert_eq!(jobs(&cluster).len(), 1);
}

#[test]
fn what_cannot_be_a_schedule_is_warned_of() {
    use crate::testing::{at, object, put};
    for (schedule, zone, reason) in [
        ("x", None, "UnparseableSchedule"),
        ("0 0 31 2 *", None, "InvalidSchedule"),
        ("* * * * *", Some("Moon/Base"), "UnknownTimeZone"),
        ("TZ=UTC * * * * *", None, "UnsupportedSchedule"),
    ] {
        let mut wrong = cron(schedule, json!({"timeZone": zone}));
        wrong["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut world = World::default();
        put::<CronJob>(&mut world, object(wrong));
        let key = Key { namespace: "n".to_owned(), name: "c".to_owned() };
        let plan = CronJobs.reconcile(&key, &world, &Outcome::default(), at(1_767_225_630));
        assert_eq!(plan.notes[0].reason, reason);
        assert!(plan.steps.iter().flatten().all(|w| !matches!(w, Write::Create { .. })));
    }
}

#[test]
fn a_job_of_its_own_that_it_did_not_make_is_told_of() {
    let mut cluster = cluster(100);
    cluster.create(cron("0 0 1 1 *", json!({})));
    cluster.run(1);
    let owner = ownership::controller_reference(&cluster.get::<CronJob>("n", "c").unwrap());
    cluster.create(
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "n", "name": "by-hand",
        "ownerReferences": [owner]}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}}),
    );
    cluster.run(10);
    let text = "Saw a job that the controller did not create or forgot: by-hand";
    assert!(reasons(&cluster, "UnexpectedJob").contains(&text));
    assert_eq!(status(&cluster).active, None);
}

#[test]
fn whatever_happens_no_time_is_run_twice() {
    for seed in 0..15 {
        let mut cluster = Cluster::new(2, seed, Some(Chaos { lost: 10, turns: 4 }), loops);
        cluster.nodes.set_fate(Arc::new(|_: &Pod| Life::ends(5, 0)));
        cluster.create(cron("* * * * *", json!({"successfulJobsHistoryLimit": 100})));
        for _ in 0..4 {
            cluster.run(149);
            cluster.restart();
        }
        cluster.run(60);
        let jobs = jobs(&cluster);
        let times: std::collections::BTreeSet<_> = jobs.iter().filter_map(time_of).collect();
        assert_eq!((jobs.len(), times.len()), (10, 10), "seed {seed}");
        assert!(status(&cluster).last_schedule_time.is_some());
        assert!(reasons(&cluster, "MissingJob").is_empty(), "seed {seed}");
    }
}

#[test]
fn times_are_told_in_the_zone_of_the_schedule() {
    let mut cluster = cluster(5);
    cluster.create(cron("* * * * *", json!({"timeZone": "Asia/Tokyo"})));
    cluster.run(60);
    let annotations = jobs(&cluster)[0].metadata.annotations.clone().unwrap();
    assert!(annotations[SCHEDULED].ends_with("+09:00"), "{annotations:?}");
}
