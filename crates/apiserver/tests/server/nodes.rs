//! What a node may do over the API, and what it may not: CVE-2025-5187, CVE-2025-4563, CVE-2021-25735.

use std::sync::Arc;

use access::{UserInfo, node::NodeAuthorizer};
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster, account, user};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");

fn node(name: &str) -> UserInfo {
    user(&format!("system:node:{name}"), "system:nodes")
}

/// The nodes `one` and `two`, a pod on each (`on-one`, `on-two`), and a secret that the pod on `two` needs.
async fn two_nodes() -> Cluster {
    let cluster = Cluster::with(|config| {
        let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
        config.authorizers.insert(0, Arc::new(NodeAuthorizer::new(reader)));
    })
    .await;
    account(&cluster).await;
    for name in ["one", "two"] {
        let object =
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"team": "a"}}});
        cluster.create("/api/v1/nodes", &object).await.ok();
        let volume = json!({"name": "s", "secret": {"secretName": format!("of-{name}")}});
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("on-{name}")},
            "spec": {"nodeName": name, "volumes": [volume], "containers": [{"name": "c", "image": "i"}]},
        });
        cluster.create(PODS, &pod).await.ok();
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("of-{name}")}});
        cluster.create("/api/v1/namespaces/default/secrets", &secret).await.ok();
    }
    cluster
}

async fn patch(cluster: &Cluster, path: &str, patch: &Value) -> Answer {
    cluster.ask_as(&node("one"), "PATCH", path, &[MERGE], patch.to_string()).await
}

#[tokio::test]
async fn a_node_changes_itself_within_bounds_and_nothing_of_others() {
    let cluster = two_nodes().await;
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "u"}]);
    let taint = json!([{"key": "k", "effect": "NoSchedule"}]);
    for (path, change) in [
        ("/api/v1/nodes/one", json!({"metadata": {"ownerReferences": owner}})),
        ("/api/v1/nodes/one/status", json!({"metadata": {"ownerReferences": owner}})),
        ("/api/v1/nodes/one", json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})),
        (
            "/api/v1/nodes/one/status",
            json!({"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}}),
        ),
        ("/api/v1/nodes/one", json!({"spec": {"taints": taint}})),
        ("/api/v1/nodes/two", json!({"metadata": {"labels": {"team": "b"}}})),
        ("/api/v1/nodes/two/status", json!({"status": {"phase": "Running"}})),
        (&format!("{PODS}/on-two/status"), json!({"status": {"phase": "Failed"}})),
        (&format!("{PODS}/on-one/status"), json!({"metadata": {"labels": {"app": "db"}}})),
        (&format!("{PODS}/on-one"), json!({"metadata": {"labels": {"app": "db"}}})),
    ] {
        let answer = patch(&cluster, path, &change).await;
        let before = answer.code;
        assert!(
            before == 403 || path.ends_with("/one/status") && unchanged(&answer, &change),
            "{path} {change}: {before} {:#}",
            answer.json()
        );
    }
    patch(&cluster, "/api/v1/nodes/one", &json!({"metadata": {"labels": {"kubelet.kubernetes.io/a": "b"}}}))
        .await
        .ok();
    patch(&cluster, &format!("{PODS}/on-one/status"), &json!({"status": {"phase": "Running"}})).await.ok();
    let deleted = cluster.ask_as(&node("one"), "DELETE", &format!("{PODS}/on-two"), &[], "").await;
    assert_eq!(deleted.code, 403);
    let evicted = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "on-two"}});
    let path = format!("{PODS}/on-two/eviction");
    assert_eq!(cluster.ask_as(&node("one"), "POST", &path, &[], evicted.to_string()).await.code, 403);
}

/// A write through the status that was taken, but has left the metadata as it was.
fn unchanged(answer: &Answer, change: &Value) -> bool {
    let metadata = &answer.json()["metadata"];
    change["metadata"].as_object().into_iter().flatten().all(|(field, wanted)| metadata[field] != *wanted)
}

#[tokio::test]
async fn a_node_does_not_come_into_being_with_trust_it_was_not_given() {
    let cluster = two_nodes().await;
    for (more, code) in [
        (json!({"labels": {"node-role.kubernetes.io/control-plane": ""}}), 403),
        (json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "two", "uid": "u"}]}), 403),
        (json!({"labels": {"kubernetes.io/hostname": "three"}}), 201),
    ] {
        let mut object = json!({"apiVersion": "v1", "kind": "Node", "metadata": more});
        object["metadata"]["name"] = "three".into();
        let answer = cluster.ask_as(&node("three"), "POST", "/api/v1/nodes", &[], object.to_string()).await;
        assert_eq!(answer.code, code, "{object}: {:#}", answer.json());
    }
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "four"}});
    let answer = cluster.ask_as(&node("three"), "POST", "/api/v1/nodes", &[], object.to_string()).await;
    assert_eq!(answer.code, 403, "another one");
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need_and_no_more() {
    let cluster = two_nodes().await;
    let read = async |path: &str| cluster.ask_as(&node("one"), "GET", path, &[], "").await.code;
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(read(&format!("{secrets}/of-one")).await, 200);
    assert_eq!(read(&format!("{PODS}/on-one")).await, 200);
    assert_eq!(read("/api/v1/pods?fieldSelector=spec.nodeName%3Done").await, 200);
    for path in [
        format!("{secrets}/of-two"),
        secrets.to_owned(),
        format!("{secrets}?fieldSelector=metadata.name%3Dof-two"),
        format!("{PODS}/on-two"),
        format!("{PODS}?fieldSelector=metadata.name%3Don-two"),
        "/api/v1/pods".to_owned(),
        // Two of the same parameter; one term that only looks like two.
        "/api/v1/pods?fieldSelector=&fieldSelector=spec.nodeName%3Done".to_owned(),
        r"/api/v1/pods?fieldSelector=metadata.name!%3Dx%5C,spec.nodeName%3Done".to_owned(),
        "/api/v1/nodes".to_owned(),
        "/api/v1/nodes/two".to_owned(),
    ] {
        assert_eq!(read(&path).await, 403, "{path}");
    }
}

#[tokio::test]
async fn a_mirror_pod_gives_its_node_no_secret() {
    let cluster = two_nodes().await;
    let one = cluster.get("/api/v1/nodes/one").await.ok();
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "one", "uid": one["metadata"]["uid"], "controller": true});
    let mirror = |volumes: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "static-one", "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "one", "volumes": volumes, "containers": [{"name": "c", "image": "i"}]},
        })
        .to_string()
    };
    let secret = json!([{"name": "s", "secret": {"secretName": "of-two"}}]);
    let refused = cluster.ask_as(&node("one"), "POST", PODS, &[], mirror(secret)).await.refused();
    assert_eq!(refused.0, 403);
    assert!(
        refused.1.ends_with("can not create pods that reference secrets (via secret volumes)"),
        "{}",
        refused.1
    );
    let claims =
        cluster.ask_as(&node("one"), "GET", "/api/v1/namespaces/default/secrets/of-two", &[], "").await;
    assert_eq!(claims.code, 403);
    let host = json!([{"name": "h", "hostPath": {"path": "/etc"}}]);
    cluster.ask_as(&node("one"), "POST", PODS, &[], mirror(host)).await.ok();
}

#[tokio::test]
async fn admission_compares_with_what_is_stored_whatever_the_request_says() {
    let cluster = two_nodes().await;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "keep"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes", "nodes/status"],
            }]},
            "validations": [{"expression": "object.metadata.labels.team == oldObject.metadata.labels.team"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "keep"}, "spec": {"policyName": "keep", "validationActions": ["Deny"]},
    });
    let group = "/apis/admissionregistration.k8s.io/v1";
    cluster.create(&format!("{group}/validatingadmissionpolicies"), &policy).await.ok();
    cluster.create(&format!("{group}/validatingadmissionpolicybindings"), &binding).await.ok();
    let mut changed = cluster.get("/api/v1/nodes/two").await.ok();
    changed["metadata"]["labels"]["team"] = "b".into();
    let relabelled = json!({"metadata": {"labels": {"team": "b"}}});
    for path in ["/api/v1/nodes/two", "/api/v1/nodes/two/status"] {
        let (put, merged) = (cluster.update(path, &changed).await, cluster.merge(path, &relabelled).await);
        for answer in [put, merged] {
            let kept =
                answer.code == 422 || answer.code < 300 && answer.json()["metadata"]["labels"]["team"] == "a";
            assert!(kept, "{path}: {} {:#}", answer.code, answer.json());
        }
    }
    let stored = cluster.get("/api/v1/nodes/two").await.ok();
    assert_eq!(stored["metadata"]["labels"]["team"], "a");
    cluster.merge("/api/v1/nodes/two", &json!({"metadata": {"labels": {"other": "b"}}})).await.ok();
}
