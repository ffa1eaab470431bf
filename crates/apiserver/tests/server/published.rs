//! What upstream's conformance tests of published custom resources look for in the OpenAPI documents.

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn foo() -> Value {
    let text = |words: &str| json!({"description": words, "type": "string"});
    json!({
        "description": "Foo CRD for Testing", "type": "object",
        "properties": {
            "spec": {
                "type": "object", "description": "Specification of Foo",
                "properties": {"bars": {
                    "description": "List of Bars and their specs.", "type": "array",
                    "items": {
                        "type": "object", "required": ["name"],
                        "properties": {
                            "name": text("Name of Bar."), "age": text("Age of Bar."),
                            "feeling": {"description": "Whether Bar is feeling great.", "type": "string", "enum": ["Great", "Down"]},
                            "bazs": {"description": "List of Bazs.", "items": {"type": "string"}, "type": "array"},
                        },
                    },
                }},
            },
            "status": {
                "description": "Status of Foo", "type": "object",
                "properties": {"bars": {
                    "description": "List of Bars and their statuses.", "type": "array",
                    "items": {"type": "object", "properties": {
                        "name": text("Name of Bar."),
                        "quxType": {"description": "Indicates to external qux type.", "pattern": "in-tree|out-of-tree", "type": "string"},
                    }},
                }},
            },
        },
    })
}

async fn define(cluster: &Cluster, group: &str, plural: &str, versions: &[&str], schema: &Value) -> String {
    let kind = format!("{}{}", plural[..1].to_uppercase(), &plural[1..plural.len() - 1]);
    let list: Vec<Value> = versions
        .iter()
        .enumerate()
        .map(|(i, name)| json!({"name": name, "served": true, "storage": i == 0, "schema": {"openAPIV3Schema": schema}}))
        .collect();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced", "versions": list,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
        },
    });
    cluster.create(DEFINITIONS, &definition).await.ok();
    kind
}

/// The definition of a kind in the old document, without what every kind has.
fn definition_of(answer: &Answer, name: &str) -> Option<Value> {
    let mut found = answer.json()["definitions"].get(name)?.clone();
    let map = found.as_object_mut()?;
    map.remove("x-kubernetes-group-version-kind");
    map.remove("x-kubernetes-selectable-fields");
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for name in ["metadata", "apiVersion", "kind"] {
            properties.remove(name);
        }
    }
    Some(found)
}

async fn published(cluster: &Cluster, name: &str, schema: &Value) {
    cluster.until("/openapi/v2", |a| definition_of(a, name).as_ref() == Some(schema)).await;
}

async fn vanished(cluster: &Cluster, name: &str) {
    cluster.until("/openapi/v2", |a| definition_of(a, name).is_none()).await;
}

#[tokio::test]
async fn a_schema_is_published_as_it_was_declared_and_explained() {
    let cluster = Cluster::new().await;
    define(&cluster, "foo.example.com", "foos", &["v1"], &foo()).await;
    published(&cluster, "com.example.foo.v1.Foo", &foo()).await;
    let document = cluster.get("/openapi/v3/apis/foo.example.com/v1").await.ok();
    let schemas = &document["components"]["schemas"];
    let root = &schemas["com.example.foo.v1.Foo"];
    let words = |value: &Value| value["description"].as_str().unwrap_or_default().to_owned();
    assert_eq!(words(root), "Foo CRD for Testing");
    assert!(words(&root["properties"]["apiVersion"]).starts_with("APIVersion defines"));
    assert!(words(&root["properties"]["metadata"]).starts_with("Standard object's metadata"));
    assert_eq!(
        root["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let metadata = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]["properties"];
    assert!(words(&metadata["creationTimestamp"]).starts_with("CreationTimestamp is a timestamp"));
    assert_eq!(words(&root["properties"]["spec"]["properties"]["bars"]), "List of Bars and their specs.");
    let patch = &document["paths"]["/apis/foo.example.com/v1/namespaces/{namespace}/foos/{name}"]["patch"];
    let query = patch["parameters"].as_array().unwrap();
    assert!(
        query.iter().any(|p| p["name"] == "fieldValidation"),
        "kubectl leaves the validation to the server"
    );
    // What kubectl's validation by the server answers.
    let path = "/apis/foo.example.com/v1/namespaces/default/foos?fieldValidation=Strict";
    let with = |spec: Value| json!({"apiVersion": "foo.example.com/v1", "kind": "Foo", "metadata": {"name": "test-foo"}, "spec": spec});
    cluster.create(path, &with(json!({"bars": [{"name": "test-bar"}]}))).await.ok();
    for (spec, words) in [
        (
            json!({"bars": [{"name": "x", "feeling": "NonExistentValue"}]}),
            "Unsupported value: \"NonExistentValue\"",
        ),
        (json!({"foo": true}), "unknown field \"spec.foo\""),
        (json!({"bars": [{"age": "10"}]}), "spec.bars[0].name: Required value"),
    ] {
        let (_, why) = cluster.create(path, &with(spec)).await.refused();
        assert!(why.contains(words), "{why}");
    }
}

#[tokio::test]
async fn a_kind_that_keeps_any_field_is_a_bare_object() {
    let cluster = Cluster::new().await;
    let bare = json!({"type": "object"});
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(&cluster, "empty.example.com", "foos", &["v1"], &open).await;
    published(&cluster, "com.example.empty.v1.Foo", &bare).await;
    let mut root = foo();
    root["x-kubernetes-preserve-unknown-fields"] = true.into();
    define(&cluster, "root.example.com", "foos", &["v1"], &root).await;
    published(&cluster, "com.example.root.v1.Foo", &bare).await;
    let document = cluster.get("/openapi/v3/apis/root.example.com/v1").await.ok();
    assert_eq!(
        document["components"]["schemas"]["com.example.root.v1.Foo"]["description"],
        "Foo CRD for Testing"
    );
    // Below the root only the place itself is open.
    let mut nested = foo();
    nested["properties"]["spec"]["x-kubernetes-preserve-unknown-fields"] = true.into();
    define(&cluster, "nested.example.com", "foos", &["v1"], &nested).await;
    let mut shown = foo();
    shown["properties"]["spec"] =
        json!({"description": "Specification of Foo", "x-kubernetes-preserve-unknown-fields": true});
    published(&cluster, "com.example.nested.v1.Foo", &shown).await;
}

#[tokio::test]
async fn groups_versions_and_kinds_stand_side_by_side_and_vanish_with_their_definition() {
    let cluster = Cluster::new().await;
    let waldo = json!({"description": "Waldo CRD for Testing", "type": "object", "properties": {
        "spec": {"description": "Specification of Waldo", "type": "object", "properties": {"dummy": {"description": "Dummy property.", "type": "object"}}},
    }});
    define(&cluster, "common.example.com", "foos", &["v6"], &foo()).await;
    define(&cluster, "common.example.com", "waldos", &["v6"], &waldo).await;
    define(&cluster, "other.example.com", "waldos", &["v1beta1"], &waldo).await;
    for (name, schema) in [
        ("com.example.common.v6.Foo", foo()),
        ("com.example.common.v6.Waldo", waldo.clone()),
        ("com.example.other.v1beta1.Waldo", waldo.clone()),
    ] {
        published(&cluster, name, &schema).await;
    }
    cluster.delete(&format!("{DEFINITIONS}/waldos.common.example.com")).await.ok();
    vanished(&cluster, "com.example.common.v6.Waldo").await;
    published(&cluster, "com.example.common.v6.Foo", &foo()).await;
}

#[tokio::test]
async fn a_version_that_is_renamed_or_not_served_any_more_vanishes() {
    let cluster = Cluster::new().await;
    define(&cluster, "multi.example.com", "foos", &["v2", "v3"], &foo()).await;
    published(&cluster, "com.example.multi.v3.Foo", &foo()).await;
    let path = format!("{DEFINITIONS}/foos.multi.example.com");
    let patch = json!([
        {"op": "test", "path": "/spec/versions/1/name", "value": "v3"},
        {"op": "replace", "path": "/spec/versions/1/name", "value": "v4"},
    ]);
    let headers = [("content-type", "application/json-patch+json")];
    let answer = cluster.send("PATCH", &path, &headers, patch.to_string()).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.into_body().collect().await.unwrap().to_bytes());
    published(&cluster, "com.example.multi.v4.Foo", &foo()).await;
    vanished(&cluster, "com.example.multi.v3.Foo").await;
    published(&cluster, "com.example.multi.v2.Foo", &foo()).await;
    let mut fewer = cluster.get(&path).await.ok();
    fewer["spec"]["versions"][1]["served"] = false.into();
    cluster.update(&path, &fewer).await.ok();
    vanished(&cluster, "com.example.multi.v4.Foo").await;
    published(&cluster, "com.example.multi.v2.Foo", &foo()).await;
}
