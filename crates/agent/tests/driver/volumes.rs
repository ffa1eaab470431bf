//! Volumes and environment.

use std::path::PathBuf;

use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::Cluster;

fn container(mounts: Value) -> Value {
    json!({"name": "a", "image": "busybox", "volumeMounts": mounts})
}

/// Where a container sees a path on the host.
fn mounted(cluster: &Cluster, path: &str) -> PathBuf {
    let config = cluster.fake.config(&cluster.fake.running("a").unwrap());
    config.mounts.iter().find(|m| m.container_path == path).expect(path).host_path.clone().into()
}

async fn holds(cluster: &Cluster, file: PathBuf, text: &str) {
    let what = format!("{} holds {text:?}", file.display());
    cluster.eventually(&what, async || std::fs::read_to_string(&file).is_ok_and(|t| t == text)).await;
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn config_maps_secrets_labels_and_tokens_become_files_and_follow_their_changes() {
    let cluster = Cluster::start().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    cluster.create(maps, json!({"metadata": {"name": "m"}, "data": {"k": "1"}})).await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "x"}});
    cluster.create("/api/v1/namespaces/default/secrets", secret).await;
    let spec = json!({"containers": [container(json!([
            {"name": "m", "mountPath": "/m"}, {"name": "s", "mountPath": "/s"}, {"name": "d", "mountPath": "/d"}]))],
        "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "s", "secret": {"secretName": "s"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]});
    cluster.pod("web", spec).await;
    cluster.until_ready("web").await;
    let map = mounted(&cluster, "/m");
    assert_eq!(std::fs::read_to_string(map.join("k")).unwrap(), "1");
    assert_eq!(std::fs::read_to_string(mounted(&cluster, "/s").join("password")).unwrap(), "x");
    if is_root() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let place = mounted(&cluster, "/s").display().to_string();
        assert!(
            mounts.lines().any(|l| l.starts_with(&format!("tmpfs {place} "))),
            "secrets stay off the disk"
        );
    }
    let account = mounted(&cluster, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(std::fs::read_to_string(account.join("ca.crt")).unwrap(), "CA");
    assert_eq!(std::fs::read_to_string(account.join("namespace")).unwrap(), "default");
    assert_eq!(std::fs::read_to_string(account.join("token")).unwrap().split('.').count(), 3, "a JWT");

    cluster.patch(&format!("{maps}/m"), json!({"data": {"k": "2"}})).await;
    holds(&cluster, map.join("k"), "2").await;
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.patch("/api/v1/namespaces/default/pods/web", labels).await;
    holds(&cluster, mounted(&cluster, "/d").join("labels"), "a=\"b\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_a_config_map_and_goes_on_when_it_comes() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [{"name": "a", "image": "busybox",
        "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "later", "key": "k"}}}]}]});
    cluster.pod("web", spec).await;
    cluster
        .until("web", "waiting for its ConfigMap", |p| {
            let status = p.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first().cloned());
            let waiting = status.and_then(|c| c.state?.waiting);
            waiting.is_some_and(|w| {
                w.reason.as_deref() == Some("CreateContainerConfigError")
                    && w.message.as_deref() == Some("configmap \"later\" not found")
            })
        })
        .await;
    let later = json!({"metadata": {"name": "later"}, "data": {"k": "v"}});
    cluster.create("/api/v1/namespaces/default/configmaps", later).await;
    cluster.until_ready("web").await;
    let config = cluster.fake.config(&cluster.fake.running("a").unwrap());
    assert!(config.envs.iter().any(|e| e.key == "K" && e.value == "v"));
    assert!(
        config.envs.iter().any(|e| e.key == "KUBERNETES_SERVICE_HOST"),
        "services are known before any start"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_volume_source_is_told_of_and_waited_for() {
    let cluster = Cluster::start().await;
    let spec = json!({"containers": [container(json!([{"name": "s", "mountPath": "/s"}]))],
        "volumes": [{"name": "s", "secret": {"secretName": "later"}}]});
    cluster.pod("web", spec).await;
    let part = "Warning FailedMount MountVolume.SetUp failed for volume \"s\" : secret \"later\" not found";
    cluster.until_event("web", part).await;
    let later = json!({"metadata": {"name": "later"}, "stringData": {"k": "v"}});
    cluster.create("/api/v1/namespaces/default/secrets", later).await;
    cluster.until_ready("web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_followed_to_its_volume_on_the_host() {
    let cluster = Cluster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": dir.path()},
        "claimRef": {"namespace": "default", "name": "data"}}});
    cluster.create("/api/v1/persistentvolumes", volume).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "pv",
        "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.create(claims, claim).await;
    cluster.patch(&format!("{claims}/data/status"), json!({"status": {"phase": "Bound"}})).await;
    let spec = json!({"containers": [container(json!([{"name": "data", "mountPath": "/data"}]))],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    let pod = cluster.pod("db", spec).await;
    cluster.until_ready("db").await;
    assert_eq!(mounted(&cluster, "/data"), dir.path());
    std::fs::write(dir.path().join("kept"), "x").unwrap();
    cluster.pods().delete("db", &DeleteParams::default()).await.unwrap();
    cluster.until_gone(&pod).await;
    assert!(dir.path().join("kept").exists(), "what a claim holds outlives its pod");
}
