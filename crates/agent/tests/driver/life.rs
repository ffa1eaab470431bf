//! A pod's life from binding to its end.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::DeleteParams;
use serde_json::json;

use crate::cluster::{Cluster, condition};

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_runs_becomes_ready_and_is_deleted_without_a_trace() {
    let cluster = Cluster::start().await;
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    let pod = cluster.until_ready("web").await;
    let status = pod.status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("127.0.0.1"), Some("192.0.2.7")));
    assert_eq!(status.observed_generation, pod.metadata.generation);
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    for kind in ["PodReadyToStartContainers", "Initialized", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, kind), "True", "{kind}");
    }
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.container_id.as_ref().unwrap().starts_with("plimsoll://c"));
    let mut told = cluster.fake.told();
    assert_eq!(told.pop().as_deref(), Some("start a 0"));
    told.sort();
    assert_eq!(told, ["pull busybox", "sandbox web 0"], "image and sandbox come at the same time");
    let uid = pod.metadata.uid.clone().unwrap();
    assert!(cluster.root().join("pods").join(&uid).exists());

    cluster.pods().delete("web", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&pod).await;
    assert_eq!(cluster.fake.told(), ["stop a 30"]);
    assert_eq!(cluster.fake.counts(), (0, 0));
    assert!(!cluster.root().join("pods").join(&uid).exists());
    for part in [
        "Normal Pulled",
        "Normal Created Container created",
        "Normal Started",
        "Normal Killing Stopping container a",
    ] {
        cluster.until_event("web", part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_like_pod_succeeds_and_keeps_its_logs_until_it_is_deleted() {
    let cluster = Cluster::start().await;
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "busybox", "command": ["exit", "0"]}],
        "containers": [{"name": "a", "image": "busybox", "command": ["exit", "0"]}]});
    cluster.pod("job", spec).await;
    let pod = cluster.until_phase("job", "Succeeded").await;
    let told = cluster.fake.told();
    assert_eq!(
        told.iter().filter(|t| t.starts_with("start")).collect::<Vec<_>>(),
        ["start i 0", "start a 0"]
    );
    let status = pod.status.as_ref().unwrap();
    let ended = status.container_statuses.as_ref().unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!((ended.exit_code, ended.reason.as_deref()), (0, Some("Completed")));
    assert_eq!(condition(&pod, "Ready"), "False");
    let view = cluster.view.as_ref().unwrap().container("default", "job", "a").unwrap();
    assert!(!view.running && view.log.unwrap().ends_with("a/0.log"));
    cluster.pods().delete("job", &DeleteParams::default()).await.unwrap();
    // the object of a finished pod goes at once, what it left on the node right after
    cluster.until_gone(&pod).await;
    cluster.eventually("nothing left", async || cluster.fake.counts() == (0, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_keeps_failing_is_restarted_with_back_off_and_says_so() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [{"name": "a", "image": "busybox", "command": ["exit", "3"]}]});
    cluster.pod("crash", spec).await;
    let waits = |p: &Pod| {
        let c = first(p);
        let waiting = c.and_then(|c| c.state.clone()?.waiting?.reason);
        waiting.as_deref() == Some("CrashLoopBackOff") && c.is_some_and(|c| c.restart_count >= 2)
    };
    let pod = cluster.until("crash", "in back-off", waits).await;
    let last = first(&pod).unwrap().last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    cluster
        .until_event("crash", "Warning BackOff Back-off restarting failed container a in pod crash_default(")
        .await;
    // two instances are kept: the last one and the one before it
    assert!(cluster.fake.counts().1 <= 2, "{:?}", cluster.fake.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist_says_so_and_is_tried_again() {
    let cluster = Cluster::start().await;
    cluster.pod("img", json!({"containers": [{"name": "a", "image": "missing:1"}]})).await;
    let waiting = |reason: &'static str| move |p: &Pod| waiting_reason(p).as_deref() == Some(reason);
    cluster.until("img", "ErrImagePull", waiting("ErrImagePull")).await;
    let pod = cluster.until("img", "ImagePullBackOff", waiting("ImagePullBackOff")).await;
    let message = first(&pod).unwrap().state.clone().unwrap().waiting.unwrap().message.unwrap();
    assert!(message.starts_with("Back-off pulling image \"missing:1\": ErrImagePull: "), "{message}");
    for part in [
        "Normal Pulling Pulling image \"missing:1\"",
        "Warning Failed Failed to pull image \"missing:1\"",
        "Warning Failed Error: ErrImagePull",
        "Normal BackOff Back-off pulling image \"missing:1\"",
    ] {
        cluster.until_event("img", part).await;
    }
    let pod = cluster.pods().get("img").await.unwrap();
    cluster.pods().delete("img", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_start_is_tried_again() {
    let cluster = Cluster::start().await;
    cluster.fake.fail_starts(2);
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    cluster.until_ready("web").await;
    cluster.until_event("web", "Warning Failed Error: no such executable").await;
    assert_eq!(cluster.fake.counts(), (1, 1), "what did not start does not stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_grace_period_ends_a_stubborn_container_sooner() {
    let cluster = Cluster::start().await;
    cluster
        .pod("slow", json!({"containers": [{"name": "a", "image": "busybox", "command": ["stubborn"]}]}))
        .await;
    let pod = cluster.until_ready("slow").await;
    cluster.fake.told();
    cluster.pods().delete("slow", &DeleteParams::default().grace_period(600)).await.unwrap();
    cluster.eventually("told to stop", async || cluster.fake.asked("stop a 600")).await;
    cluster.pods().delete("slow", &DeleteParams::default().grace_period(1)).await.unwrap();
    cluster.until_gone(&pod).await;
    let told = cluster.fake.told();
    assert_eq!(told, ["stop a 600", "stop a 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_deleted_by_force_is_ended_and_taken_away_behind_it() {
    let cluster = Cluster::start().await;
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    cluster.until_ready("web").await;
    cluster.pods().delete("web", &DeleteParams::default().grace_period(0)).await.unwrap();
    cluster.eventually("nothing left", async || cluster.fake.counts() == (0, 0)).await;
    cluster.eventually("no longer shown", async || cluster.view.as_ref().unwrap().list().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_dies_is_replaced_with_its_containers() {
    let cluster = Cluster::start().await;
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    cluster.until_ready("web").await;
    cluster.fake.kill_sandbox("web");
    let again = |p: &Pod| first(p).is_some_and(|c| c.restart_count == 1 && c.ready);
    cluster.until("web", "running again", again).await;
    assert_eq!(cluster.fake.counts(), (1, 1));
    cluster.until_event("web", "Normal SandboxChanged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_has_changed_is_not_written() {
    let cluster = Cluster::start().await;
    cluster.pod("one", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    let one = cluster.until_ready("one").await;
    cluster.pod("two", json!({"containers": [{"name": "b", "image": "busybox"}]})).await;
    cluster.until_ready("two").await;
    let later = cluster.pods().get("one").await.unwrap();
    assert_eq!(later.metadata.resource_version, one.metadata.resource_version);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_gates_of_others_decide_and_are_kept() {
    let cluster = Cluster::start().await;
    let spec = json!({"readinessGates": [{"conditionType": "example.com/lb"}],
        "containers": [{"name": "a", "image": "busybox"}]});
    cluster.pod("web", spec).await;
    let pod = cluster.until("web", "running", |p| condition(p, "ContainersReady") == "True").await;
    assert_eq!(condition(&pod, "Ready"), "False");
    let gate = json!({"status": {"conditions": [{"type": "example.com/lb", "status": "True"}]}});
    let path = "/api/v1/namespaces/default/pods/web/status";
    cluster.request("PATCH", path, "application/strategic-merge-patch+json", gate).await;
    let pod = cluster.until_ready("web").await;
    assert_eq!(condition(&pod, "example.com/lb"), "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_container_joins_a_running_pod() {
    let cluster = Cluster::start().await;
    cluster.pod("web", json!({"containers": [{"name": "a", "image": "busybox"}]})).await;
    cluster.until_ready("web").await;
    let target = cluster.fake.running("a").unwrap();
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox", "targetContainerName": "a"}]}});
    let path = "/api/v1/namespaces/default/pods/web/ephemeralcontainers";
    cluster.request("PATCH", path, "application/strategic-merge-patch+json", debug).await;
    cluster
        .until("web", "with a debugger", |p| {
            let list =
                p.status.as_ref().and_then(|s| s.ephemeral_container_statuses.clone()).unwrap_or_default();
            list.iter().any(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()))
        })
        .await;
    let config = cluster.fake.config(&cluster.fake.running("debug").unwrap());
    let namespaces = config.linux.unwrap().security_context.unwrap().namespace_options.unwrap();
    assert_eq!(namespaces.target_id, target);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_active_deadline_fails_a_pod() {
    let cluster = Cluster::start().await;
    let spec = json!({"activeDeadlineSeconds": 1, "containers": [{"name": "a", "image": "busybox"}]});
    cluster.pod("late", spec).await;
    let pod = cluster.until_phase("late", "Failed").await;
    assert_eq!(pod.status.unwrap().reason.as_deref(), Some("DeadlineExceeded"));
}

fn resize(cpu: &str) -> serde_json::Value {
    json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resize_is_given_refused_or_waits_for_room() {
    let mut cluster = Cluster::start().await;
    let spec = |cpu: &str| json!({"containers": [{"name": "a", "image": "busybox", "resources": {"requests": {"cpu": cpu}}}]});
    cluster.pod("web", spec("1")).await;
    cluster.pod("other", spec("2")).await;
    let other = cluster.until_ready("other").await;
    cluster.until_ready("web").await;
    cluster.fake.told();
    let path = "/api/v1/namespaces/default/pods/web/resize";
    let patch = "application/strategic-merge-patch+json";
    let has = |cpu: &'static str| {
        move |p: &Pod| {
            let resources = first(p).and_then(|c| c.resources.clone()).unwrap_or_default();
            resources.requests.is_some_and(|r| r["cpu"].0 == cpu)
                && p.status.as_ref().and_then(|s| s.observed_generation) == p.metadata.generation
        }
    };
    let pending = |reason: &'static str| {
        move |p: &Pod| {
            let conditions = p.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some(reason))
        }
    };
    cluster.request("PATCH", path, patch, resize("1500m")).await;
    let pod = cluster.until("web", "resized", has("1500m")).await;
    assert_eq!(first(&pod).unwrap().restart_count, 0);
    assert_eq!(cluster.fake.told(), ["resize 1536 0"]);
    cluster.request("PATCH", path, patch, resize("9")).await;
    cluster.until("web", "infeasible", pending("Infeasible")).await;
    cluster.request("PATCH", path, patch, resize("3")).await;
    cluster.until("web", "deferred", pending("Deferred")).await;
    cluster.stop_agent().await;
    cluster.run_agent().await;
    cluster.pods().delete("other", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&other).await;
    let pod = cluster.until("web", "resized", has("3")).await;
    assert_eq!(condition(&pod, "PodResizePending"), "");
}

fn first(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn waiting_reason(pod: &Pod) -> Option<String> {
    first(pod)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}
