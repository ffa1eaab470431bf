//! What an agent that starts anew makes of what an earlier one left.

use kube::api::DeleteParams;
use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn running_pods_are_taken_over_as_they_are() {
    let mut cluster = Cluster::start().await;
    let spec = json!({"initContainers": [{"name": "i", "image": "busybox", "command": ["exit", "0"]}],
        "containers": [{"name": "a", "image": "busybox",
            "readinessProbe": {"exec": {"command": ["check"]}, "periodSeconds": 1}}]});
    cluster.pod("web", spec).await;
    let before = cluster.until_ready("web").await;
    cluster.stop_agent().await;
    assert!(cluster.fake.running("a").is_some());
    cluster.fake.told();
    cluster.run_agent().await;
    cluster.pod("new", json!({"containers": [{"name": "b", "image": "busybox"}]})).await;
    cluster.until_ready("new").await;
    let told = cluster.fake.told();
    assert!(
        !told.iter().any(|t| t.starts_with("start i") || t.starts_with("start a") || t.starts_with("stop")),
        "{told:?}"
    );
    let after = cluster.pods().get("web").await.unwrap();
    assert_eq!(after.status, before.status, "not even a flicker of readiness");
    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_meanwhile_is_restarted_and_counted() {
    let mut cluster = Cluster::start().await;
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    cluster.until_ready("web").await;
    cluster.stop_agent().await;
    cluster.fake.exit("a", 5);
    cluster.run_agent().await;
    let pod = cluster
        .until("web", "running again", |p| {
            let c = p.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first().cloned());
            c.is_some_and(|c| c.restart_count == 1 && c.ready)
        })
        .await;
    let status = pod.status.unwrap().container_statuses.unwrap().remove(0);
    assert_eq!(status.last_state.unwrap().terminated.unwrap().exit_code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_were_deleted_meanwhile_are_ended_and_cleaned() {
    let mut cluster = Cluster::start().await;
    for name in ["forced", "graceful"] {
        cluster.pod(name, json!({"containers": [{"name": name, "image": "busybox"}]})).await;
    }
    let graceful = cluster.until_ready("graceful").await;
    cluster.until_ready("forced").await;
    cluster.stop_agent().await;
    cluster.pods().delete("forced", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.pods().delete("graceful", &DeleteParams::default()).await.unwrap();
    let left = cluster.root().join("pods").join("0000-left-over");
    std::fs::create_dir_all(left.join("volumes")).unwrap();
    cluster.run_agent().await;
    cluster.until_gone(&graceful).await;
    cluster.eventually("nothing left", async || cluster.fake.counts() == (0, 0)).await;
    cluster
        .eventually("no directory left", async || {
            std::fs::read_dir(cluster.root().join("pods")).unwrap().count() == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_missed_is_found_when_the_event_stream_comes_back() {
    let cluster = Cluster::start().await;
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    cluster.until_ready("web").await;
    cluster.fake.exit_unseen("a", 1);
    cluster.fake.break_events();
    cluster
        .until("web", "restarted", |p| {
            let c = p.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first().cloned());
            c.is_some_and(|c| c.restart_count == 1)
        })
        .await;
}
