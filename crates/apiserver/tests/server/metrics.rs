//! `metrics.k8s.io`, asked of kubelets.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use apimachinery::{ApiError, Object};
use apiserver::{Body, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::cluster::{Cluster, account};

/// Kubelets of which only one answers.
struct Kubelets {
    asked: Arc<AtomicUsize>,
    pod: parking_lot::Mutex<String>,
}

#[async_trait]
impl NodeConnector for Kubelets {
    async fn kubelet(
        &self,
        node: &Object,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        assert_eq!(request.uri(), "/stats/summary?only_cpu_and_memory=true");
        self.asked.fetch_add(1, Ordering::SeqCst);
        if node["metadata"]["name"] != "up" {
            return Err(ApiError::internal("no route to host"));
        }
        let usage = |cpu: u64, memory: u64| json!({"cpu": {"time": "2026-01-02T03:04:05Z", "usageNanoCores": cpu}, "memory": {"workingSetBytes": memory}});
        let mut node = usage(250_000_000, 1 << 30);
        node["nodeName"] = "up".into();
        let mut container = usage(1_500_000, 10 << 20);
        container["name"] = "c".into();
        let uid = self.pod.lock().clone();
        let summary = json!({"node": node, "pods": [{"podRef": {"name": "p", "namespace": "default", "uid": uid}, "containers": [container]}]});
        Ok(http::Response::new(summary.to_string().into_bytes().into()))
    }

    async fn address(
        &self,
        _: IpAddr,
        _: u16,
        _: Tls,
        _: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        Err(ApiError::internal("not here"))
    }
}

#[tokio::test]
async fn what_nodes_and_pods_use_is_asked_of_the_kubelets_that_answer() {
    let asked = Arc::new(AtomicUsize::new(0));
    let kubelets = Arc::new(Kubelets { asked: asked.clone(), pod: parking_lot::Mutex::default() });
    let connector = kubelets.clone();
    let cluster = Cluster::with(|config| config.nodes = Some(connector)).await;
    account(&cluster).await;
    for name in ["up", "down"] {
        let node =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"a": name}}});
        cluster.create("/api/v1/nodes", &node).await.ok();
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "up", "containers": [{"name": "c", "image": "i"}]},
    });
    let pod = cluster.create("/api/v1/namespaces/default/pods", &pod).await.ok();
    pod["metadata"]["uid"].as_str().unwrap().clone_into(&mut kubelets.pod.lock());

    let groups = cluster.get("/apis").await.ok();
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "metrics.k8s.io"));
    let nodes = cluster.get("/apis/metrics.k8s.io/v1beta1/nodes").await.ok();
    assert_eq!(nodes["kind"], "NodeMetricsList");
    let items = nodes["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "the node that does not answer is left out");
    assert_eq!(items[0]["usage"], json!({"cpu": "250000000n", "memory": "1Gi"}));
    assert_eq!(
        (&items[0]["timestamp"], &items[0]["metadata"]["labels"]["a"]),
        (&json!("2026-01-02T03:04:05Z"), &json!("up"))
    );
    let one = cluster.get("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/p").await.ok();
    assert_eq!(one["containers"], json!([{"name": "c", "usage": {"cpu": "1500000n", "memory": "10Mi"}}]));
    assert_eq!(asked.load(Ordering::SeqCst), 2, "answers are shared for a moment");
    let none: Value = cluster.get("/apis/metrics.k8s.io/v1beta1/pods?labelSelector=a%3Db").await.ok();
    assert_eq!(none["items"], json!([]));
    assert_eq!(
        cluster.get("/apis/metrics.k8s.io/v1beta1/nodes/down").await.refused(),
        (404, "nodes.metrics.k8s.io \"down\" not found".to_owned())
    );
    assert_eq!(cluster.delete("/apis/metrics.k8s.io/v1beta1/nodes/up").await.code, 405);
    let role = cluster
        .get("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:aggregated-metrics-reader")
        .await
        .ok();
    assert_eq!(role["rules"][0]["apiGroups"], json!(["metrics.k8s.io"]));
}
