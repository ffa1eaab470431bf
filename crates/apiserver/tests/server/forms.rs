//! The forms of answers: JSON and protobuf.

use serde_json::json;

use crate::cluster::Cluster;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[tokio::test]
async fn built_in_kinds_are_answered_in_protobuf_and_others_are_not() {
    let cluster = Cluster::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}});
    let made = cluster.create(path, &map).await.ok();
    let one = cluster.get_as(&format!("{path}/m"), PROTOBUF).await;
    assert_eq!(one.headers["content-type"], PROTOBUF);
    assert_eq!(kinds::protobuf::decode(&one.body).unwrap(), made);
    // A client that would rather have a table gets JSON; one that takes anything but JSON first gets protobuf.
    let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
    assert_eq!(cluster.get_as(path, table).await.ok()["kind"], "ConfigMapList");
    let list = cluster.get_as(path, &format!("{PROTOBUF}, */*")).await;
    let list = kinds::protobuf::decode(&list.body).unwrap();
    assert_eq!((&list["kind"], &list["items"][0]["data"]), (&json!("ConfigMapList"), &json!({"a": "1"})));
    assert_eq!(
        list["metadata"]["resourceVersion"],
        cluster.get(path).await.ok()["metadata"]["resourceVersion"]
    );
    let gone = cluster.get_as(&format!("{path}/x"), PROTOBUF).await;
    assert_eq!(
        (gone.code, &kinds::protobuf::decode(&gone.body).unwrap()["reason"]),
        (404, &json!("NotFound"))
    );
    let version = cluster.get_as("/version", PROTOBUF).await;
    assert_eq!(version.headers["content-type"], "application/json");
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    crate::custom::define(&cluster, crate::custom::one_version(json!({}))).await;
    assert_eq!(cluster.get_as(definitions, PROTOBUF).await.code, 200);
    let custom = cluster.get_as("/apis/example.com/v1/namespaces/default/widgets", PROTOBUF).await;
    assert_eq!(custom.code, 406);
}

#[tokio::test]
async fn a_watch_in_protobuf_is_a_row_of_messages_with_their_lengths() {
    use http_body_util::BodyExt as _;
    let cluster = Cluster::new().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let watch = format!("{path}?watch=1&timeoutSeconds=2");
    let stream = cluster.send("GET", &watch, &[("accept", &format!("{PROTOBUF};stream=watch"))], "").await;
    assert_eq!(stream.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"}});
    let made = cluster.create(path, &map).await.ok();
    let mut body = stream.into_body();
    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    assert_eq!(length, frame.len() - 4);
    let fields = kinds::protobuf::wire::message(&frame[4..]).unwrap();
    assert_eq!(kinds::protobuf::wire::last(&fields, 1).unwrap().text().unwrap(), "ADDED");
    let extension = kinds::protobuf::wire::last(&fields, 2).unwrap().bytes().unwrap();
    let extension = kinds::protobuf::wire::message(extension).unwrap();
    let object = kinds::protobuf::wire::last(&extension, 1).unwrap().bytes().unwrap();
    assert_eq!(kinds::protobuf::decode(object).unwrap(), made);
}
