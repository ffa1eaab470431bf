//! Webhooks that change objects: their order, what becomes of their patches, and who is asked twice.

use serde_json::{Value, json};

use super::*;
use crate::{
    cluster::account,
    custom::{define, one_version},
};

const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn maps() -> Value {
    rule(&["CREATE", "UPDATE"], &["configmaps"])
}

/// Adds the key `NAME` to the data of whatever has the key that it waits for.
fn stages(path: &str, request: &Value) -> Value {
    let name = path.trim_start_matches('/');
    let data = &request["object"]["data"];
    let before = match name {
        "stage-1" => "start",
        "stage-2" => "stage-1",
        _ => return allow(),
    };
    if data[before] == "yes" && data[name].is_null() {
        patch(&json!([{"op": "add", "path": format!("/data/{name}"), "value": "yes"}]))
    } else {
        allow()
    }
}

#[tokio::test]
async fn configurations_are_asked_by_name_and_webhooks_in_their_order() {
    let webhooks = Webhooks::new(stages);
    let cluster = webhooks.cluster().await;
    configure(&cluster, "Mutating", "b", json!([webhook("last", maps())])).await;
    configure(&cluster, "Mutating", "a", json!([webhook("stage-1", maps()), webhook("stage-2", maps())]))
        .await;
    let made = cluster.create(MAPS, &map("m", json!({"start": "yes"}))).await.ok();
    assert_eq!(made["data"], json!({"start": "yes", "stage-1": "yes", "stage-2": "yes"}));
    assert_eq!(webhooks.paths(), ["/stage-1", "/stage-2", "/last"]);
    let owners = made["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(owners.len(), 1);
    assert!(owners[0]["fieldsV1"]["f:data"].get("f:stage-1").is_none(), "nobody owns what admission adds");
}

#[tokio::test]
async fn what_a_patch_adds_is_defaulted() {
    let webhooks = Webhooks::new(|_, request| {
        assert_eq!(request["object"]["spec"]["initContainers"], Value::Null);
        let container = json!({"name": "webhook-added-init-container", "image": "i", "unknown": 1});
        patch(&json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}]))
    });
    let cluster = webhooks.cluster().await;
    account(&cluster).await;
    configure(&cluster, "Mutating", "c", json!([webhook("add", rule(&["CREATE"], &["pods"]))])).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let made = cluster.create("/api/v1/namespaces/default/pods", &pod).await.ok();
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(
        (&added["name"], &added["terminationMessagePolicy"], added.get("unknown")),
        (&json!("webhook-added-init-container"), &json!("File"), None)
    );
    assert!(
        added["volumeMounts"][0]["name"].as_str().unwrap().starts_with("kube-api-access-"),
        "the plugins before the webhooks have a second turn: {added}"
    );
}

#[tokio::test]
async fn custom_resources_are_changed_and_pruned() {
    let webhooks = Webhooks::new(|path, request| {
        let name = path.trim_start_matches('/');
        assert_eq!(request["object"]["spec"]["a"], "x");
        patch(&json!([{"op": "add", "path": format!("/spec/{name}"), "value": "y"}]))
    });
    let cluster = webhooks.cluster().await;
    let text = json!({"type": "string"});
    define(&cluster, one_version(json!({"a": text, "b": text, "d": {"type": "string", "default": "z"}})))
        .await;
    let widgets = || rule(&["CREATE"], &["widgets"]);
    configure(&cluster, "Mutating", "c", json!([webhook("b", widgets()), webhook("unknown", widgets())]))
        .await;
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"a": "x"}});
    let made = cluster.create(WIDGETS, &widget).await.ok();
    assert_eq!(made["spec"], json!({"a": "x", "b": "y", "d": "z"}));
    assert_eq!(cluster.get(&format!("{WIDGETS}/w")).await.ok()["spec"], made["spec"]);
}

#[tokio::test]
async fn a_patch_that_cannot_be_is_an_internal_error() {
    let webhooks = Webhooks::new(|path, _| match path {
        "/undecodable" => json!({"allowed": true, "patchType": "JSONPatch", "patch": "e30="}),
        "/missing" => patch(&json!([{"op": "remove", "path": "/data/none"}])),
        "/type" => patch(&json!([{"op": "add", "path": "/data", "value": "text"}])),
        "/kind" => patch(&json!([{"op": "replace", "path": "/kind", "value": "Secret"}])),
        "/empty" => patch(&json!([])),
        _ => patch(&json!([{"op": "add", "path": "/metadata/labels", "value": {}}])),
    });
    let cluster = webhooks.cluster().await;
    for (name, words) in [
        (
            "undecodable",
            "failed calling webhook \"undecodable.example.com\": received undecodable patch in webhook response: ",
        ),
        ("missing", "the server rejected our request due to an error in our request"),
        ("type", "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal"),
        ("kind", "converting (v1, Secret) to (v1, ConfigMap): unknown conversion"),
    ] {
        configure(&cluster, "Mutating", "c", json!([webhook(name, maps())])).await;
        let (code, message) = cluster.create(MAPS, &map("m", json!({}))).await.refused();
        assert!(
            code == 500 && message.starts_with(&format!("Internal error occurred: {words}")),
            "{message}"
        );
        cluster.delete(&format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/c")).await.ok();
    }
    cluster.create(MAPS, &map("m", json!({}))).await.ok();
    configure(&cluster, "Mutating", "c", json!([webhook("empty", rule(&["DELETE"], &["configmaps"]))])).await;
    configure(&cluster, "Mutating", "d", json!([webhook("delete", rule(&["DELETE"], &["configmaps"]))]))
        .await;
    let (code, message) = cluster.delete(&format!("{MAPS}/m")).await.refused();
    let wanted = "Internal error occurred: admission webhook \"delete.example.com\" attempted to modify the object, which is not supported for this operation";
    assert_eq!((code, message.as_str()), (500, wanted));
}

#[tokio::test]
async fn what_a_write_cannot_reach_a_webhook_cannot_either() {
    let webhooks = Webhooks::new(|_, _| {
        patch(&json!([
            {"op": "add", "path": "/status", "value": {"phase": "Bound"}},
            {"op": "add", "path": "/metadata/uid", "value": "mine"},
            {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
        ]))
    });
    let cluster = webhooks.cluster().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    cluster.create(claims, &claim).await.ok();
    configure(&cluster, "Mutating", "c", json!([webhook("x", rule(&["CREATE", "UPDATE"], &["*"]))])).await;
    let changed =
        cluster.merge(&format!("{claims}/c"), &json!({"metadata": {"annotations": {"c": "d"}}})).await;
    let (code, message) = changed.refused();
    assert!(code == 422 && message.contains("metadata.uid: Invalid value"), "{message}");
    let made = cluster.create(MAPS, &map("m", json!({}))).await.ok();
    assert_eq!((&made["metadata"]["labels"], made.get("status")), (&json!({"a": "b"}), None));
    assert_ne!(made["metadata"]["uid"], "mine");
}

#[tokio::test]
async fn whoever_wants_to_is_asked_again_after_a_later_change() {
    let webhooks = Webhooks::new(|path, request| {
        let data = &request["object"]["data"];
        let add = |key: &str| patch(&json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]));
        match path {
            "/late" if data["late"].is_null() => add("late"),
            "/eager" if data["late"] == "yes" => add("eager"),
            _ => allow(),
        }
    });
    let cluster = webhooks.cluster().await;
    let again = |name: &str| with(webhook(name, maps()), json!({"reinvocationPolicy": "IfNeeded"}));
    let hooks = json!([again("eager"), webhook("once", maps()), again("late"), again("after")]);
    configure(&cluster, "Mutating", "c", hooks).await;
    let made = cluster.create(MAPS, &map("m", json!({"a": "b"}))).await.ok();
    assert_eq!(made["data"], json!({"a": "b", "eager": "yes", "late": "yes"}));
    assert_eq!(
        webhooks.paths(),
        // The second time: who came before the change of `late`, and whoever comes after that of `eager`.
        ["/eager", "/once", "/late", "/after", "/eager", "/late", "/after"]
    );
    cluster.create(MAPS, &map("n", json!({"late": "yes", "eager": "yes"}))).await.ok();
    assert_eq!(webhooks.paths(), ["/eager", "/once", "/late", "/after"]);
}

#[tokio::test]
async fn a_configuration_counts_from_the_moment_it_is_written() {
    let webhooks = Webhooks::new(stages);
    let cluster = webhooks.cluster().await;
    let path = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/c");
    configure(&cluster, "Mutating", "c", json!([webhook("stage-1", rule(&["UPDATE"], &["configmaps"]))]))
        .await;
    let made = cluster.create(MAPS, &map("m", json!({"start": "yes"}))).await.ok();
    assert_eq!(made["data"].get("stage-1"), None);
    let hooks = json!([webhook("stage-1", rule(&["CREATE"], &["configmaps"]))]);
    cluster.merge(&path, &json!({"webhooks": hooks})).await.ok();
    let made = cluster.create(MAPS, &map("n", json!({"start": "yes"}))).await.ok();
    assert_eq!(made["data"]["stage-1"], "yes");
    cluster.delete(&path).await.ok();
    let made = cluster.create(MAPS, &map("o", json!({"start": "yes"}))).await.ok();
    assert_eq!(made["data"].get("stage-1"), None);
}

#[tokio::test]
async fn a_command_in_a_pod_is_run_as_a_webhook_changes_it() {
    let webhooks = Webhooks::new(|_, _| {
        patch(&json!([
            {"op": "replace", "path": "/command", "value": ["echo", "a b"]},
            {"op": "add", "path": "/container", "value": "two"},
        ]))
    });
    let cluster = webhooks.cluster().await;
    account(&cluster).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    cluster.create("/api/v1/nodes", &node).await.ok();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "one", "image": "i"}, {"name": "two", "image": "i"}]},
    });
    cluster.create("/api/v1/namespaces/default/pods", &pod).await.ok();
    configure(&cluster, "Mutating", "c", json!([webhook("c", rule(&["CONNECT"], &["pods/exec"]))])).await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let path = "/api/v1/namespaces/default/pods/p/exec?command=sh&container=one&stdout=true";
    let answer = cluster.send("POST", path, &upgrade, "").await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "kubelet /exec/default/p/two?output=1&command=echo&command=a+b");
}
