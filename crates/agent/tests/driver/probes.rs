//! Probes and hooks.

use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, condition};

fn restarts(pod: &Pod) -> i32 {
    let list = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
    list.and_then(|l| l.first()).map_or(0, |c| c.restart_count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_readiness_probe_takes_the_pod_out_and_back_in() {
    let cluster = Cluster::start().await;
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    cluster.fake.answers("check", 1);
    cluster
        .pod("web", json!({"containers": [{"name": "a", "image": "busybox", "readinessProbe": probe}]}))
        .await;
    let pod = cluster.until_phase("web", "Running").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    cluster.until_event("web", "Warning Unhealthy Readiness probe failed: out").await;
    cluster.fake.answers("check", 0);
    cluster.until_ready("web").await;
    cluster.fake.answers("check", 1);
    cluster.until("web", "unready", |p| condition(p, "Ready") == "False").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_liveness_probe_restarts_the_container_and_says_why() {
    let cluster = Cluster::start().await;
    let probe = json!({"exec": {"command": ["check"]}, "periodSeconds": 1, "failureThreshold": 1});
    let spec = json!({"containers": [{"name": "a", "image": "busybox", "livenessProbe": probe}]});
    cluster.pod("web", spec).await;
    cluster.until_ready("web").await;
    cluster.fake.answers("check", 1);
    cluster.until("web", "restarted", |p| restarts(p) > 0).await;
    cluster.until_event("web", "Normal Killing Container a failed liveness probe, will be restarted").await;
    cluster.until_event("web", "Warning Unhealthy Liveness probe failed: out").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_answers_by_http_and_tcp_is_ready() {
    let cluster = Cluster::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            if stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    });
    let spec = json!({"containers": [{"name": "a", "image": "busybox",
        "ports": [{"name": "web", "containerPort": port}],
        "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1},
        "readinessProbe": {"httpGet": {"port": "web", "path": "/healthz"}, "periodSeconds": 1}}]});
    cluster.pod("web", spec).await;
    cluster.until_ready("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_after_the_start_and_before_the_end() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [{"name": "a", "image": "busybox", "lifecycle": {
        "postStart": {"exec": {"command": ["hello"]}}, "preStop": {"exec": {"command": ["goodbye"]}}}}]});
    let pod = cluster.pod("web", spec).await;
    cluster.until_ready("web").await;
    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&pod).await;
    let told = cluster.fake.told();
    let of_interest: Vec<_> =
        told.iter().filter(|t| !t.starts_with("pull") && !t.starts_with("sandbox")).collect();
    assert_eq!(of_interest[..3], ["start a 0", "exec hello", "exec goodbye"]);
    assert!(of_interest[3].starts_with("stop a "), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_post_start_hook_ends_the_container() {
    let cluster = Cluster::start().await;
    cluster.fake.answers("hello", 1);
    let spec = json!({"containers": [{"name": "a", "image": "busybox",
        "lifecycle": {"postStart": {"exec": {"command": ["hello"]}}}}]});
    cluster.pod("web", spec).await;
    cluster.until_event("web", "Warning FailedPostStartHook PostStartHook failed").await;
    cluster.until_event("web", "Normal Killing FailedPostStartHook").await;
    cluster.fake.answers("hello", 0);
    cluster.until_ready("web").await;
}
