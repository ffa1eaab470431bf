//! Resources with several versions: in which one a webhook sees them.

use serde_json::{Value, json};

use super::*;
use crate::custom::define;

fn version(name: &str, storage: bool) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"name": name, "served": true, "storage": storage, "schema": schema})
}

fn widgets(version: &str) -> String {
    format!("/apis/example.com/{version}/namespaces/default/widgets")
}

fn widget(version: &str) -> Value {
    json!({
        "apiVersion": format!("example.com/{version}"), "kind": "Widget", "metadata": {"name": "w"},
        "data": {"start": "yes"},
    })
}

fn only(version: &str) -> Value {
    json!({
        "operations": ["*"], "apiGroups": ["example.com"], "apiVersions": [version], "resources": ["widgets"], "scope": "*",
    })
}

fn add(_: &str, _: &Value) -> Value {
    patch(&json!([{"op": "add", "path": "/data/added", "value": "yes"}]))
}

#[tokio::test]
async fn an_equivalent_rule_sees_its_own_version_and_an_exact_one_only_what_it_names() {
    let webhooks = Webhooks::new(add);
    let cluster = webhooks.cluster().await;
    define(&cluster, json!([version("v1", true), version("v2", false)])).await;
    configure(&cluster, "Mutating", "a", json!([webhook("equivalent", only("v1"))])).await;
    let exact = with(webhook("exact", only("v1")), json!({"matchPolicy": "Exact"}));
    configure(&cluster, "Mutating", "b", json!([exact])).await;
    let made = cluster.create(&widgets("v2"), &widget("v2")).await.ok();
    assert_eq!(made["apiVersion"], "example.com/v2");
    assert_eq!(made["data"], json!({"start": "yes", "added": "yes"}));
    let asked = std::mem::take(&mut *webhooks.asked.lock());
    let [(path, review)] = &asked[..] else { panic!("{asked:?}") };
    assert!(path.starts_with("/equivalent?"), "{path}");
    let request = &review["request"];
    assert_eq!(request["object"]["apiVersion"], "example.com/v1");
    assert_eq!(request["kind"], json!({"group": "example.com", "version": "v1", "kind": "Widget"}));
    assert_eq!(request["resource"], json!({"group": "example.com", "version": "v1", "resource": "widgets"}));
    assert_eq!(request["requestKind"], json!({"group": "example.com", "version": "v2", "kind": "Widget"}));
    assert_eq!(
        request["requestResource"],
        json!({"group": "example.com", "version": "v2", "resource": "widgets"})
    );
    cluster.merge(&format!("{}/w", widgets("v1")), &json!({"data": {"more": "yes"}})).await.ok();
    assert_eq!(webhooks.paths(), ["/equivalent", "/exact"]);
}

#[tokio::test]
async fn a_custom_resource_is_changed_after_its_stored_version_has_changed() {
    let webhooks = Webhooks::new(add);
    let cluster = webhooks.cluster().await;
    define(&cluster, json!([version("v1", true), version("v2", false)])).await;
    cluster.create(&widgets("v1"), &widget("v1")).await.ok();
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com";
    let versions = json!([version("v1", false), version("v2", true)]);
    cluster.merge(definition, &json!({"spec": {"versions": versions}})).await.ok();
    configure(&cluster, "Mutating", "c", json!([webhook("add", only("*"))])).await;
    let patched = cluster.merge(&format!("{}/w", widgets("v2")), &json!({"dummy": "test"})).await.ok();
    assert_eq!(
        (&patched["dummy"], &patched["data"]),
        (&json!("test"), &json!({"start": "yes", "added": "yes"}))
    );
    assert_eq!(webhooks.requests()[0]["oldObject"]["apiVersion"], "example.com/v2");
}

#[tokio::test]
async fn events_of_both_groups_are_one_resource() {
    let webhooks = Webhooks::new(|_, request| {
        assert_eq!(request["object"]["note"], "said");
        patch(&json!([{"op": "replace", "path": "/note", "value": "changed"}]))
    });
    let cluster = webhooks.cluster().await;
    let grouped = json!({
        "operations": ["CREATE"], "apiGroups": ["events.k8s.io"], "apiVersions": ["v1"], "resources": ["events"], "scope": "*",
    });
    configure(&cluster, "Mutating", "c", json!([webhook("note", grouped)])).await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "said", "reason": "R", "type": "Normal",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "source": {"component": "test"},
    });
    let made = cluster.create("/api/v1/namespaces/default/events", &event).await.ok();
    assert_eq!((&made["apiVersion"], &made["message"]), (&json!("v1"), &json!("changed")));
    assert_eq!(webhooks.requests()[0]["object"]["apiVersion"], "events.k8s.io/v1");
}
