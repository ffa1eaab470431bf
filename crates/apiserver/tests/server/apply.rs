//! Ownership of fields, as the engine notes it on every way of writing.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

/// `manager operation subresource` of every entry.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let text = |e: &Value, f: &str| e[f].as_str().unwrap_or_default().to_owned();
    entries
        .map(|e| {
            format!("{} {} {}", text(e, "manager"), text(e, "operation"), text(e, "subresource"))
                .trim()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn every_way_of_writing_is_owned_by_the_manager_or_the_head_of_the_user_agent() {
    let cluster = Cluster::new().await;
    let made = cluster.create(MAPS, &map(json!({"a": "1"}))).await.ok();
    assert_eq!(owners(&made), ["tester Update"]);
    let path = format!("{MAPS}/m");
    cluster.merge(&format!("{path}?fieldManager=patcher"), &json!({"data": {"b": "2"}})).await.ok();
    let mut put = cluster.get(&path).await.ok();
    put["data"]["c"] = "3".into();
    let put = cluster.update(&format!("{path}?fieldManager=putter"), &put).await.ok();
    let applied = cluster.apply(&path, "applier", &map(json!({"d": "4"}))).await.ok();
    assert_eq!(put["data"], json!({"a": "1", "b": "2", "c": "3"}));
    let mut all = owners(&applied);
    all.sort();
    assert_eq!(all, ["applier Apply", "patcher Update", "putter Update", "tester Update"]);
    let entry = |manager: &str| {
        let entries = applied["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().find(|e| e["manager"] == *manager).unwrap()["fieldsV1"].clone()
    };
    assert_eq!(entry("tester"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(entry("putter"), json!({"f:data": {"f:c": {}}}));
}

#[tokio::test]
async fn an_apply_makes_changes_conflicts_and_prunes() {
    let cluster = Cluster::new().await;
    let path = format!("{MAPS}/m");
    let made = cluster.apply(&path, "one", &map(json!({"a": "1", "b": "1"}))).await;
    assert_eq!(made.code, 201);
    let first = made.ok();
    assert_eq!(
        first["metadata"]["resourceVersion"],
        cluster.apply(&path, "one", &map(json!({"a": "1", "b": "1"}))).await.ok()["metadata"]["resourceVersion"]
    );
    let conflict = cluster.apply(&path, "two", &map(json!({"a": "2"}))).await;
    let status = conflict.json();
    assert_eq!((conflict.code, status["reason"].as_str()), (409, Some("Conflict")));
    assert_eq!(status["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    assert_eq!(
        status["details"],
        json!({"causes": [{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}]})
    );
    cluster.apply(&format!("{path}?force=true"), "two", &map(json!({"a": "2"}))).await.ok();
    let left = cluster.apply(&path, "one", &map(json!({}))).await.ok();
    assert_eq!(left["data"], json!({"a": "2"}));
    let (code, message) = cluster
        .apply(
            &format!("{path}?dryRun=All&force=true"),
            "two",
            &json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"},
            }),
        )
        .await
        .refused();
    assert_eq!(
        (code, message.as_str()),
        (400, "the name of the object (other) does not match the name on the URL (m)")
    );
}

#[tokio::test]
async fn options_of_an_apply_are_checked() {
    let cluster = Cluster::new().await;
    let path = format!("{MAPS}/m");
    let (code, message) = cluster.apply(&path, "", &map(json!({}))).await.refused();
    assert_eq!(code, 422);
    assert!(message.contains("fieldManager: Required value: is required for apply patch"), "{message}");
    let (code, message) = cluster.merge(&format!("{path}?force=true"), &json!({})).await.refused();
    assert!(
        code == 422 && message.contains("force: Forbidden: may not be specified for non-apply patch"),
        "{message}"
    );
    let mut with_uid = map(json!({}));
    with_uid["metadata"]["uid"] = "1".into();
    let (code, message) = cluster.apply(&path, "m", &with_uid).await.refused();
    assert!(
        code == 409
            && message.contains(
                "uid mismatch: the provided object specified uid 1, and no existing object was found"
            ),
        "{message}"
    );
    let (code, message) = cluster
        .apply(&path, "m", &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "m"}}))
        .await
        .refused();
    assert_eq!((code, message.as_str()), (400, "invalid object type: /v1, Kind=Secret"));
}

#[tokio::test]
async fn replicas_scaled_belong_to_whoever_scaled() {
    let cluster = Cluster::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = |replicas: i64| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        })
    };
    let d = format!("{path}/d");
    cluster.apply(&d, "owner", &deployment(1)).await.ok();
    let scale = |n: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": n}});
    let (code, message) = cluster.apply(&format!("{d}/scale"), "scaler", &scale(3)).await.refused();
    assert!(code == 409 && message.ends_with("conflict with \"owner\": .spec.replicas"), "{message}");
    let scaled = cluster.apply(&format!("{d}/scale?force=true"), "scaler", &scale(3)).await.ok();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let (code, message) = cluster.apply(&d, "owner", &deployment(1)).await.refused();
    assert!(
        code == 409
            && message.ends_with("conflict with \"scaler\" with subresource \"scale\": .spec.replicas"),
        "{message}"
    );
}

#[tokio::test]
async fn a_write_without_effect_stays_without_effect() {
    let cluster = Cluster::new().await;
    let limits = "/api/v1/namespaces/default/limitranges/l";
    let range = |cpu: &str| {
        json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
            "spec": {"limits": [{"type": "Pod", "max": {"cpu": cpu}}]},
        })
    };
    let made = cluster.apply(limits, "m", &range("1")).await.ok();
    // The same amount written in another way: the time of the entry is taken back, too.
    let again = cluster.apply(limits, "m", &range("1000m")).await.ok();
    assert_eq!(again, made);
}
