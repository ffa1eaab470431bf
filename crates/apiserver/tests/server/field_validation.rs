//! What upstream's conformance tests of server-side field validation do, with the words they look for.

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const STRICT: &str = "fieldManager=field_validation_mgr&fieldValidation=Strict";

/// The code and the text of an answer.
async fn ask(cluster: &Cluster, method: &str, path: &str, kind: &str, body: String) -> (u16, String) {
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{joint}{STRICT}");
    let answer = cluster.send(method, &path, &[("content-type", kind)], body).await;
    let code = answer.status().as_u16();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(text.to_vec()).unwrap())
}

async fn apply(cluster: &Cluster, body: &str) -> (u16, String) {
    let path = "/apis/mygroup.example.com/v1beta1/noxus/mytest";
    ask(cluster, "PATCH", path, "application/apply-patch+yaml", body.to_owned()).await
}

fn spec(open: bool, more: Value) -> Value {
    let mut properties = json!({
        "foo": {"type": "string"},
        "cronSpec": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
        "ports": {
            "type": "array", "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-list-type": "map",
            "items": {
                "type": "object", "required": ["containerPort", "protocol"],
                "properties": {
                    "containerPort": {"type": "integer", "format": "int32"}, "hostIP": {"type": "string"},
                    "hostPort": {"type": "integer", "format": "int32"}, "name": {"type": "string"}, "protocol": {"type": "string"},
                },
            },
        },
    });
    for (name, schema) in more.as_object().unwrap() {
        properties[name] = schema.clone();
    }
    let mut spec = json!({"type": "object", "properties": properties});
    if open {
        spec["x-kubernetes-preserve-unknown-fields"] = true.into();
    }
    json!({"type": "object", "properties": {"spec": spec}})
}

async fn define(schema: Value) -> Cluster {
    let cluster = Cluster::new().await;
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}})
    };
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "noxus.mygroup.example.com"},
        "spec": {
            "group": "mygroup.example.com", "scope": "Cluster", "versions": [version("v1beta1", true), version("v1", false)],
            "names": {"plural": "noxus", "singular": "noxu", "kind": "Noxu", "listKind": "NoxuList"},
        },
    });
    cluster.create(DEFINITIONS, &definition).await.ok();
    cluster.until("/apis/mygroup.example.com/v1beta1/noxus", |answer| answer.code == 200).await;
    cluster
}

const TAIL: &str =
    "  cronSpec: \"* * * * */5\"\n  ports:\n  - name: x\n    containerPort: 80\n    protocol: TCP\n";

fn body(metadata: &str, fields: &str) -> String {
    format!(
        "\napiVersion: mygroup.example.com/v1beta1\nkind: Noxu\nmetadata:\n  name: mytest\n{metadata}spec:\n{fields}{TAIL}"
    )
}

#[tokio::test]
async fn unknown_and_duplicate_fields_of_a_typed_object_are_told_in_their_order() {
    let cluster = Cluster::new().await;
    let template = r#""template": {"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [{"name": "nginx", "image": "nginx:latest"}]}}"#;
    let odd = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "my-dep", "labels": {{"app": "nginx"}}}},
        "spec": {{"unknownField": "foo", "replicas": 2, "replicas": 3, "selector": {{"matchLabels": {{"app": "nginx"}}}}, {template}}}}}"#
    );
    let (code, text) = ask(&cluster, "POST", DEPLOYMENTS, "application/json", odd).await;
    let words =
        r#"strict decoding error: unknown field \"spec.unknownField\", duplicate field \"spec.replicas\""#;
    assert!(code == 400 && text.contains(words), "{text}");
    let odd = format!(
        r#"{{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {{"name": "my-dep", "unknownMeta": "foo", "labels": {{"app": "nginx"}}}},
        "spec": {{"selector": {{"matchLabels": {{"app": "nginx"}}}}, {template}}}}}"#
    );
    let (code, text) = ask(&cluster, "POST", DEPLOYMENTS, "application/json", odd).await;
    assert!(
        code == 400 && text.contains(r#"strict decoding error: unknown field \"metadata.unknownMeta\""#),
        "{text}"
    );
}

#[tokio::test]
async fn what_obeys_the_schema_is_applied_and_what_it_does_not_know_is_refused() {
    let cluster = define(spec(false, json!({}))).await;
    let (code, text) = apply(&cluster, &body("", "  foo: foo1\n")).await;
    assert_eq!(code, 201, "{text}");
    let odd = body("", "  foo: foo1\n").replace("spec:\n", "unknownField: unknown\nspec:\n");
    let (code, text) = apply(&cluster, &odd).await;
    assert!(code >= 400 && text.contains(".unknownField: field not declared in schema"), "{text}");
}

#[tokio::test]
async fn without_a_schema_any_field_is_applied() {
    let cluster = define(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).await;
    let (code, text) = apply(&cluster, &body("", "  unknown: uk1\n")).await;
    assert_eq!(code, 201, "{text}");
}

#[tokio::test]
async fn unknown_metadata_is_refused_at_the_root_and_in_embedded_objects() {
    let template = json!({
        "type": "object", "x-kubernetes-embedded-resource": true,
        "properties": {
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}}, "spec": {"type": "object"},
        },
    });
    let cluster = define(spec(true, json!({"template": template}))).await;
    let inner = |more: &str| {
        format!(
            "  template:\n    apiVersion: foo/v1\n    kind: Sub\n    metadata:\n      name: subobject\n      namespace: default\n{more}  foo: foo1\n"
        )
    };
    let (code, text) = apply(&cluster, &body("  unknownMeta: unknown\n", &inner(""))).await;
    assert!(code >= 400 && text.contains(".metadata.unknownMeta: field not declared in schema"), "{text}");
    // By POST the decoder tells of both.
    let object = json!({
        "apiVersion": "mygroup.example.com/v1beta1", "kind": "Noxu", "metadata": {"name": "mytest", "unknownMeta": "x"},
        "spec": {"template": {"apiVersion": "foo/v1", "kind": "Sub", "metadata": {"name": "n", "unknownSubMeta": "x"}}},
    });
    let path = "/apis/mygroup.example.com/v1beta1/noxus";
    let (code, text) = ask(&cluster, "POST", path, "application/json", object.to_string()).await;
    assert!(
        code == 400 && text.contains(r#"unknown field \"metadata.unknownMeta\", unknown field \"spec.template.metadata.unknownSubMeta\""#),
        "{text}"
    );
    // Metadata that nobody restricted is kept.
    let (code, text) = apply(&cluster, &body("", &inner("      labels: {a: b}\n"))).await;
    assert!(code == 201 && text.contains(r#""labels":{"a":"b"}"#), "{text}");
}

#[tokio::test]
async fn duplicates_are_refused_even_where_unknown_fields_are_kept() {
    let cluster = define(spec(true, json!({}))).await;
    let (code, text) = apply(&cluster, &body("", "  unknown: uk1\n  foo: foo1\n  foo: foo2\n")).await;
    assert!(code == 400 && text.contains(r#"line 9: key \"foo\" already set in map"#), "{text}");
}
