//! Custom resources as the engine serves them: changes of definitions, versions, watches, deletion.

use crate::cluster::{Answer, Cluster};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn schema(fields: Value) -> Value {
    json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}})
}

fn definition(versions: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": versions,
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        },
    })
}

pub fn one_version(fields: Value) -> Value {
    json!([{"name": "v1", "served": true, "storage": true, "schema": schema(fields)}])
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

pub async fn define(cluster: &Cluster, versions: Value) {
    cluster.create(DEFINITIONS, &definition(versions)).await.ok();
    cluster.until(WIDGETS, |answer| answer.code == 200).await;
}

/// Replaces the versions, and waits until `seen` is served.
async fn redefine(cluster: &Cluster, versions: Value) {
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut old = cluster.get(&path).await.ok();
    old["spec"]["versions"] = versions;
    cluster.update(&path, &old).await.ok();
}

#[tokio::test]
async fn what_a_newer_schema_does_not_know_is_dropped_on_reading_and_its_defaults_are_added() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({"a": {"type": "string"}, "b": {"type": "string"}}))).await;
    cluster.create(WIDGETS, &widget(json!({"a": "x", "b": "y"}))).await.ok();
    redefine(&cluster, one_version(json!({"b": {"type": "string"}, "c": {"type": "integer", "default": 3}})))
        .await;
    let seen = cluster.until(&format!("{WIDGETS}/w"), |a| a.json()["spec"]["c"] == 3).await.ok();
    assert_eq!(seen["spec"], json!({"b": "y", "c": 3}));
    let listed = cluster.get(WIDGETS).await.ok();
    assert_eq!(listed["items"][0]["spec"], json!({"b": "y", "c": 3}));
    assert_eq!(listed["items"][0]["kind"], "Widget");
    assert_eq!(listed["kind"], "WidgetList");
}

#[tokio::test]
async fn all_versions_show_the_same_object() {
    let cluster = Cluster::new().await;
    let fields = json!({"a": {"type": "string"}});
    define(&cluster, json!([
        {"name": "v1", "served": true, "storage": true, "schema": schema(fields.clone())},
        {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema(json!({"a": {"type": "string"}, "old": {"type": "string"}}))},
        {"name": "v1alpha1", "served": false, "storage": false, "schema": schema(fields)},
    ])).await;
    cluster.create(WIDGETS, &widget(json!({"a": "x"}))).await.ok();
    let old = cluster.get("/apis/example.com/v1beta1/namespaces/default/widgets/w").await;
    let warning = old.headers.get("warning").unwrap().to_str().unwrap().to_owned();
    assert_eq!(warning, "299 - \"example.com/v1beta1 Widget is deprecated\"");
    assert_eq!(old.ok()["apiVersion"], "example.com/v1beta1");
    assert_eq!(cluster.get("/apis/example.com/v1alpha1/namespaces/default/widgets").await.code, 404);
    let group = cluster.get("/apis/example.com").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    assert_eq!(group["versions"].as_array().unwrap().len(), 2);
    let hash = |version: &str| {
        let path = format!("/apis/example.com/{version}");
        let cluster = &cluster;
        async move { cluster.get(&path).await.ok()["resources"][0]["storageVersionHash"].clone() }
    };
    assert_eq!(hash("v1").await, hash("v1beta1").await);
    // Written through the older version, with a field that only that one has.
    let beta = json!({"apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"old": "z"}});
    cluster.apply("/apis/example.com/v1beta1/namespaces/default/widgets/w", "m", &beta).await.ok();
    assert_eq!(cluster.get(&format!("{WIDGETS}/w")).await.ok()["spec"], json!({"a": "x"}));
}

#[tokio::test]
async fn a_watch_ends_cleanly_when_its_definition_changes_and_tells_of_deletions_before() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({"a": {"type": "string"}}))).await;
    cluster.create(WIDGETS, &widget(json!({"a": "x"}))).await.ok();
    let watch = |path: String| {
        let cluster = &cluster;
        async move { cluster.send("GET", &path, &[], "").await.into_body() }
    };
    let first = watch(format!("{WIDGETS}?watch=1")).await;
    let read = tokio::spawn(async move { first.collect().await.unwrap().to_bytes() });
    redefine(&cluster, one_version(json!({"a": {"type": "string"}, "b": {"type": "string"}}))).await;
    let text = String::from_utf8(read.await.unwrap().to_vec()).unwrap();
    assert!(text.contains(r#"{"type":"ADDED""#) && !text.contains("ERROR"), "{text}");

    let second = watch(format!("{WIDGETS}?watch=1")).await;
    let read = tokio::spawn(async move { second.collect().await.unwrap().to_bytes() });
    cluster.until(&format!("{WIDGETS}/w"), |a| a.code == 200).await;
    let deleted = cluster.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.ok();
    assert_eq!(deleted["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    let text = String::from_utf8(read.await.unwrap().to_vec()).unwrap();
    assert!(text.contains(r#"{"type":"DELETED""#), "{text}");
    cluster.until(&format!("{DEFINITIONS}/widgets.example.com"), |a| a.code == 404).await;
    cluster.until(WIDGETS, |a| a.code == 404).await;
    assert_eq!(cluster.get("/apis/example.com").await.code, 404);
}

#[tokio::test]
async fn an_object_with_a_finalizer_holds_its_definition() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({"a": {"type": "string"}}))).await;
    let mut held = widget(json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    cluster.create(WIDGETS, &held).await.ok();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    cluster.delete(&path).await.ok();
    let reason = |a: &Answer| {
        a.json()["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|c| c["reason"] == "InstanceDeletionInProgress")
    };
    cluster.until(&path, reason).await;
    cluster.until(&format!("{WIDGETS}/w"), |a| a.json()["metadata"]["deletionTimestamp"].is_string()).await;
    let mut another = widget(json!({}));
    another["metadata"]["name"] = "v".into();
    let (code, message) = cluster.create(WIDGETS, &another).await.refused();
    assert_eq!(
        (code, message.as_str()),
        (
            403,
            "widgets.example.com \"v\" is forbidden: create not allowed while custom resource definition is terminating"
        )
    );
    cluster.merge(&format!("{WIDGETS}/w"), &json!({"metadata": {"finalizers": null}})).await.ok();
    cluster.until(&path, |a| a.code == 404).await;
}

#[tokio::test]
async fn two_definitions_cannot_have_one_kind() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({}))).await;
    let mut other = definition(one_version(json!({})));
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"]["plural"] = "gadgets".into();
    other["spec"]["names"]["singular"] = "gadget".into();
    cluster.create(DEFINITIONS, &other).await.ok();
    let path = format!("{DEFINITIONS}/gadgets.example.com");
    let condition = |a: &Answer, reason: &str| {
        a.json()["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["reason"] == *reason)
    };
    let seen = cluster.until(&path, |a| condition(a, "ListKindConflict")).await;
    assert!(condition(&seen, "NotAccepted"));
    assert_eq!(cluster.get("/apis/example.com/v1/namespaces/default/gadgets").await.code, 404);
    cluster.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.ok();
    cluster.until("/apis/example.com/v1/namespaces/default/gadgets", |a| a.code == 200).await;
}

#[tokio::test]
async fn a_status_write_keeps_the_rest_and_is_owned_apart() {
    let cluster = Cluster::new().await;
    let mut versions = one_version(json!({"a": {"type": "string"}}));
    versions[0]["subresources"] = json!({"status": {}});
    versions[0]["schema"]["openAPIV3Schema"]["properties"]["status"] =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}});
    define(&cluster, versions).await;
    let mut object = widget(json!({"a": "x"}));
    object["status"] = json!({"n": 1});
    let made = cluster.create(WIDGETS, &object).await.ok();
    assert!(made.get("status").is_none());
    let patch = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"a": "y"}, "status": {"n": 2}});
    let changed = cluster.merge(&format!("{WIDGETS}/w/status?fieldManager=loop"), &patch).await.ok();
    assert_eq!((&changed["spec"]["a"], &changed["status"]["n"]), (&json!("x"), &json!(2)));
    assert!(changed["metadata"].get("labels").is_none());
    assert_eq!(changed["metadata"]["generation"], 1);
    let owned = changed["metadata"]["managedFields"].as_array().unwrap();
    let status = owned.iter().find(|e| e["subresource"] == "status").unwrap();
    assert_eq!(
        (&status["manager"], &status["fieldsV1"]),
        (&json!("loop"), &json!({"f:status": {".": {}, "f:n": {}}}))
    );
    let (code, _) = cluster.apply(&format!("{WIDGETS}/w/status"), "other", &json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "status": {"n": 3},
    })).await.refused();
    assert_eq!(code, 409);
}

#[tokio::test]
async fn the_first_object_after_its_definition_is_the_same_in_get_list_and_watch() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({"a": {"type": "string", "default": "d"}}))).await;
    let watch = cluster.send("GET", &format!("{WIDGETS}?watch=1&resourceVersion=0"), &[], "").await;
    let made = cluster.create(WIDGETS, &widget(json!({"unknown": 1}))).await.ok();
    assert_eq!(made["spec"], json!({"a": "d"}));
    assert_eq!(cluster.get(&format!("{WIDGETS}/w")).await.ok(), made);
    assert_eq!(cluster.get(WIDGETS).await.ok()["items"], json!([made]));
    let frame = watch.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    assert_eq!(event, json!({"type": "ADDED", "object": made}));
}

#[tokio::test]
async fn a_scope_is_kept_to_in_every_path() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({}))).await;
    let mut wide = definition(one_version(json!({})));
    wide["metadata"]["name"] = "planets.example.com".into();
    wide["spec"]["scope"] = "Cluster".into();
    wide["spec"]["names"] = json!({"plural": "planets", "singular": "planet", "kind": "Planet"});
    cluster.create(DEFINITIONS, &wide).await.ok();
    let planets = "/apis/example.com/v1/planets";
    cluster.until(planets, |answer| answer.code == 200).await;
    let mars = json!({"apiVersion": "example.com/v1", "kind": "Planet", "metadata": {"name": "mars"}});
    cluster.create(planets, &mars).await.ok();
    for path in [
        "/apis/example.com/v1/namespaces/default/planets",
        "/apis/example.com/v1/namespaces/default/planets/mars",
        "/apis/example.com/v1/widgets/w",
        "/apis/example.com/v1/namespaces/../planets",
    ] {
        assert_eq!(cluster.get(path).await.code, 404, "{path}");
    }
}

#[tokio::test]
async fn a_number_is_stored_as_it_was_sent_however_often_it_is_written() {
    let cluster = Cluster::new().await;
    define(&cluster, one_version(json!({"a": {"type": "number"}, "b": {"type": "string"}}))).await;
    // Two that a fast reader takes for a neighbour.
    for sent in ["4.4444444444444455e112", "9.5e-323"] {
        let text = widget(json!({"a": 0})).to_string().replace("\"a\":0", &format!("\"a\":{sent}"));
        let number: f64 = sent.parse().unwrap();
        let mut seen = cluster.ask("POST", WIDGETS, &[], text.into_bytes()).await.ok();
        for round in 0..3 {
            assert_eq!(seen["spec"]["a"].as_f64().map(f64::to_bits), Some(number.to_bits()), "{sent}");
            let patch = json!({"spec": {"b": round.to_string()}});
            seen = cluster.merge(&format!("{WIDGETS}/w"), &patch).await.ok();
        }
        cluster.delete(&format!("{WIDGETS}/w")).await.ok();
    }
}
