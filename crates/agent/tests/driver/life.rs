//! A pod's life from binding to its end.

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
