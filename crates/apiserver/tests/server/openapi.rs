//! The published schemas.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Every `$ref` of a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str() {
                    Some(name) if key == "$ref" => {
                        found.insert(name.to_owned());
                    }
                    _ => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_reference_of_every_document_leads_somewhere() {
    let cluster = Cluster::new().await;
    crate::custom::define(&cluster, crate::custom::one_version(json!({"a": {"type": "string"}}))).await;
    let index = cluster.get("/openapi/v3").await.ok();
    let mut seen = 0;
    for (path, entry) in index["paths"].as_object().unwrap() {
        let url = entry["serverRelativeURL"].as_str().unwrap();
        let answer = cluster.get(url).await;
        assert!(answer.headers["cache-control"].to_str().unwrap().contains("immutable"));
        let document = answer.ok();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        for name in found {
            let pointer = name.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{path}: {name}");
        }
        seen += 1;
    }
    assert!(seen > 10);
    let document = cluster.get("/openapi/v3/apis/example.com/v1").await.ok();
    let schemas = &document["components"]["schemas"];
    let widget = &schemas["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["a"]["type"], "string");
    assert_eq!(
        widget["properties"]["metadata"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}])
    );
    assert_eq!(schemas["com.example.v1.WidgetList"]["properties"]["items"]["type"], "array");
    let paths = document["paths"].as_object().unwrap();
    let list = &paths["/apis/example.com/v1/namespaces/{namespace}/widgets"]["get"];
    assert_eq!(list["operationId"], "listExampleComV1NamespacedWidget");
}

#[tokio::test]
async fn the_old_document_is_one_for_all_in_json_and_in_protobuf() {
    let cluster = Cluster::new().await;
    crate::custom::define(&cluster, crate::custom::one_version(json!({"a": {"type": "string"}}))).await;
    let answer = cluster.get("/openapi/v2").await;
    let tag = answer.headers["etag"].to_str().unwrap().to_owned();
    let document = answer.ok();
    assert_eq!(document["swagger"], "2.0");
    let definitions = document["definitions"].as_object().unwrap();
    for name in ["io.k8s.api.core.v1.Pod", "io.k8s.api.apps.v1.DeploymentList", "com.example.v1.Widget"] {
        assert!(definitions.contains_key(name), "{name}");
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for name in found {
        assert!(document.pointer(name.trim_start_matches('#')).is_some(), "{name}");
    }
    let again = cluster.send("GET", "/openapi/v2", &[("if-none-match", &tag)], "").await;
    assert_eq!(again.status(), 304);
    let accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = cluster.get_as("/openapi/v2", accept).await;
    assert_eq!(answer.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let wire = |bytes: &[u8], tag| -> Vec<Vec<u8>> {
        let fields = kinds::protobuf::wire::message(bytes).unwrap();
        let of = fields.iter().filter(|(t, _)| *t == tag);
        of.map(|(_, wire)| wire.bytes().unwrap().to_vec()).collect()
    };
    assert_eq!(wire(&answer.body, 1), [b"2.0"]);
    let named = wire(&wire(&answer.body, 9)[0], 1);
    assert_eq!(named.len(), definitions.len());
    let paths = wire(&wire(&answer.body, 8)[0], 2);
    assert_eq!(paths.len(), document["paths"].as_object().unwrap().len());
}

#[tokio::test]
async fn a_new_document_is_there_in_protobuf_too() {
    const ACCEPT: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let cluster = Cluster::new().await;
    let document = cluster.get("/openapi/v3/apis/apps/v1").await;
    let answer = cluster.get_as("/openapi/v3/apis/apps/v1", ACCEPT).await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "application/com.github.proto-openapi.spec.v3.v1.0+protobuf");
    assert_eq!(answer.headers["etag"], document.headers["etag"], "both forms go by the hash of the JSON");
    assert_eq!(answer.headers["vary"], "Accept");
    let document = document.ok();
    let wire = |bytes: &[u8], tag| -> Vec<Vec<u8>> {
        let fields = kinds::protobuf::wire::message(bytes).unwrap();
        let of = fields.iter().filter(|(t, _)| *t == tag);
        of.map(|(_, wire)| wire.bytes().unwrap().to_vec()).collect()
    };
    assert_eq!(wire(&answer.body, 1), [b"3.0.0"]);
    let paths = wire(&wire(&answer.body, 4)[0], 1);
    assert_eq!(paths.len(), document["paths"].as_object().unwrap().len());
    let schemas = wire(&wire(&wire(&answer.body, 5)[0], 1)[0], 1);
    assert_eq!(schemas.len(), document["components"]["schemas"].as_object().unwrap().len());

    let index = cluster.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let hashed = cluster.get_as(url, ACCEPT).await;
    assert_eq!((hashed.code, &hashed.body), (200, &answer.body));
    assert_eq!(hashed.headers["cache-control"], "public, immutable");
    let tag = answer.headers["etag"].to_str().unwrap();
    let headers = [("accept", ACCEPT), ("if-none-match", tag)];
    assert_eq!(cluster.send("GET", url, &headers, "").await.status(), 304);
    let other = cluster.get_as("/openapi/v3/apis/apps/v1", "text/html").await;
    assert_eq!((other.code, other.body.len()), (406, 0));
}
