//! What upstream's conformance tests of CustomResourceDefinitions themselves do: lists, status, discovery, defaults,
//! watches of single objects.

use apiserver::Body;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn noxu(plural: &str, labels: Value) -> Value {
    let kind = format!("{}{}", plural[..1].to_uppercase(), &plural[1..]);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.mygroup.example.com"), "labels": labels},
        "spec": {
            "group": "mygroup.example.com", "scope": "Cluster",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": [format!("{plural}short")], "categories": ["all"]},
            "versions": [{"name": "v1beta1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            }}}],
        },
    })
}

fn established(answer: &Answer) -> bool {
    let conditions = answer.json()["status"]["conditions"].clone();
    conditions.as_array().into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True")
}

async fn patch(cluster: &Cluster, path: &str, patch: Value) -> Value {
    let headers = [("content-type", "application/json-patch+json")];
    let answer = cluster.send("PATCH", path, &headers, patch.to_string()).await;
    let code = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(code, 200, "{value:#}");
    value
}

#[tokio::test]
async fn definitions_are_listed_and_deleted_by_their_labels() {
    let cluster = Cluster::new().await;
    let labels = json!({"e2e-list-test-uuid": "x"});
    let mut made = Vec::new();
    for name in ["aoxus", "boxus", "coxus"] {
        made.push(cluster.create(DEFINITIONS, &noxu(name, labels.clone())).await.ok());
        cluster.until(&format!("{DEFINITIONS}/{name}.mygroup.example.com"), established).await;
    }
    cluster.create(DEFINITIONS, &noxu("doxus", json!({}))).await.ok();
    let path = format!("{DEFINITIONS}?labelSelector=e2e-list-test-uuid%3Dx");
    let listed = cluster.get(&path).await.ok();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 3);
    for (listed, made) in items.iter().zip(&made) {
        assert_eq!(listed["spec"], made["spec"]);
    }
    cluster.delete(&path).await.ok();
    cluster.until(&path, |answer| answer.json()["items"] == json!([])).await;
    assert_eq!(cluster.get(&format!("{DEFINITIONS}/doxus.mygroup.example.com")).await.code, 200);
}

#[tokio::test]
async fn the_status_of_a_definition_is_written_apart() {
    let cluster = Cluster::new().await;
    cluster.create(DEFINITIONS, &noxu("noxus", json!({}))).await.ok();
    let path = format!("{DEFINITIONS}/noxus.mygroup.example.com");
    cluster.until(&path, established).await;
    let status = format!("{path}/status");
    let mut object = cluster.get(&status).await.ok();
    let spec = object["spec"].clone();
    object["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": "", "status": "", "lastTransitionTime": null, "message": "updated"}));
    object["spec"]["scope"] = "Namespaced".into();
    let updated = cluster.update(&status, &object).await.ok();
    assert_eq!(updated["spec"], spec);
    let has = |object: &Value, message: &str| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|c| {
            c["message"] == message && c["type"] == "" && c["status"] == "" && c.get("reason").is_none()
        })
    };
    assert!(has(&updated, "updated"), "{updated:#}");
    let patched = patch(
        &cluster,
        &status,
        json!([{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]),
    )
    .await;
    assert!(has(&patched, "patched"), "{patched:#}");
    // A definition whose conditions somebody took away can still go.
    cluster.delete(&path).await.ok();
    cluster.until(&path, |answer| answer.code == 404).await;
}

#[tokio::test]
async fn definitions_and_what_they_define_are_discovered() {
    let cluster = Cluster::new().await;
    cluster.create(DEFINITIONS, &noxu("noxus", json!({}))).await.ok();
    cluster.until("/apis/mygroup.example.com/v1beta1", |answer| answer.code == 200).await;
    let groups = cluster.get("/apis").await.ok();
    for group in groups["groups"].as_array().unwrap() {
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.contains(&group["preferredVersion"]), "{group}");
    }
    let named = |name: &str| groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == *name);
    assert!(named("apiextensions.k8s.io") && named("mygroup.example.com"));
    let group = cluster.get("/apis/apiextensions.k8s.io").await.ok();
    assert_eq!(group["versions"][0]["groupVersion"], "apiextensions.k8s.io/v1");
    let resources = cluster.get("/apis/apiextensions.k8s.io/v1").await.ok();
    assert!(
        resources["resources"].as_array().unwrap().iter().any(|r| r["name"] == "customresourcedefinitions")
    );
    let custom = cluster.get("/apis/mygroup.example.com/v1beta1").await.ok();
    let resource = &custom["resources"][0];
    assert_eq!(
        (&resource["name"], &resource["kind"], &resource["shortNames"], &resource["categories"]),
        (&json!("noxus"), &json!("Noxus"), &json!(["noxusshort"]), &json!(["all"]))
    );
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = cluster.get_as("/apis", accept).await.ok();
    let found = aggregated["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "mygroup.example.com");
    assert_eq!(found.unwrap()["versions"][0]["resources"][0]["resource"], "noxus");
}

#[tokio::test]
async fn a_default_is_read_from_storage_and_stays_once_it_was_stored() {
    let cluster = Cluster::new().await;
    cluster.create(DEFINITIONS, &noxu("noxus", json!({}))).await.ok();
    let objects = "/apis/mygroup.example.com/v1beta1/noxus";
    cluster.until(objects, |answer| answer.code == 200).await;
    let one = |name: &str| json!({"apiVersion": "mygroup.example.com/v1beta1", "kind": "Noxus", "metadata": {"name": name}});
    cluster.create(objects, &one("cr-1")).await.ok();
    let definition = format!("{DEFINITIONS}/noxus.mygroup.example.com");
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties";
    patch(&cluster, &definition, json!([{"op": "add", "path": format!("{at}/a/default"), "value": "A"}]))
        .await;
    cluster.until(&format!("{objects}/cr-1"), |answer| answer.json()["a"] == "A").await;
    let second = cluster.create(objects, &one("cr-2")).await.ok();
    assert_eq!(second["a"], "A");
    patch(
        &cluster,
        &definition,
        json!([
            {"op": "remove", "path": format!("{at}/a/default")},
            {"op": "add", "path": format!("{at}/b/default"), "value": "B"},
        ]),
    )
    .await;
    let seen = cluster.until(&format!("{objects}/cr-2"), |answer| answer.json()["b"] == "B").await.ok();
    assert_eq!(seen["a"], "A", "it was stored");
    assert!(cluster.get(&format!("{objects}/cr-1")).await.ok().get("a").is_none(), "it never was");
}

/// The next event of a watch.
async fn event(body: &mut Body) -> (String, Value) {
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let event: Value = serde_json::from_slice(&frame).unwrap();
    (event["type"].as_str().unwrap().to_owned(), event["object"].clone())
}

#[tokio::test]
async fn a_watch_of_one_name_sees_that_object_alone() {
    let cluster = Cluster::new().await;
    cluster.create(DEFINITIONS, &noxu("noxus", json!({}))).await.ok();
    let objects = "/apis/mygroup.example.com/v1beta1/noxus";
    cluster.until(objects, |answer| answer.code == 200).await;
    let watch = async |name: &str| {
        let path = format!("{objects}?watch=1&fieldSelector=metadata.name%3D{name}&timeoutSeconds=600");
        cluster.send("GET", &path, &[], "").await.into_body()
    };
    let mut watches = [("name1", watch("name1").await), ("name2", watch("name2").await)];
    for (name, body) in &mut watches {
        let object = json!({
            "apiVersion": "mygroup.example.com/v1beta1", "kind": "Noxus", "metadata": {"name": name},
            "content": {"key": "value"}, "num": {"num1": 9_223_372_036_854_775_807_i64},
        });
        let made = cluster.create(objects, &object).await.ok();
        assert_eq!(made["num"], object["num"]);
        assert_eq!(event(body).await, ("ADDED".to_owned(), made));
    }
    for (name, body) in &mut watches {
        let change = json!([{"op": "add", "path": "/dummy", "value": "test"}]);
        let changed = patch(&cluster, &format!("{objects}/{name}"), change).await;
        assert_eq!(event(body).await, ("MODIFIED".to_owned(), changed));
    }
    for (name, body) in &mut watches {
        cluster.delete(&format!("{objects}/{name}")).await.ok();
        let (kind, object) = event(body).await;
        assert_eq!((kind.as_str(), &object["metadata"]["name"]), ("DELETED", &json!(name)));
    }
}
