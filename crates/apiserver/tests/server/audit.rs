//! The audit log: what is told of requests, and when.

mod admission;

use std::{io::Write, net::IpAddr, sync::Arc};

use access::UserInfo;
use apimachinery::{ApiError, Object};
use apiserver::{Audit, Body, Log, NodeConnector, Policy, RequestBody, Tls};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tower::Service as _;

use crate::cluster::{Cluster, account, user};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const EVERYTHING: &str = "[{level: RequestResponse}]";

/// Where lines go.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The events since the last time.
    pub async fn take(&self, cluster: &Cluster) -> Vec<Value> {
        cluster.server.flush().await;
        let bytes = std::mem::take(&mut *self.0.lock());
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// The only event since the last time.
    pub async fn one(&self, cluster: &Cluster) -> Value {
        let mut events = self.take(cluster).await;
        assert_eq!(events.len(), 1, "{events:#?}");
        events.remove(0)
    }
}

/// The audit log of a policy of these rules, `more` before them.
pub fn audit(rules: &str, more: &str, lines: &Lines) -> Arc<Audit> {
    let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, {more}rules: {rules}}}");
    Audit::new(Policy::parse(&text).unwrap(), Log::to(Box::new(lines.clone())).unwrap())
}

/// A cluster that tells only of complete requests.
async fn cluster(rules: &str) -> (Cluster, Lines) {
    let lines = Lines::default();
    let audit = audit(rules, "omitStages: [RequestReceived], ", &lines);
    (Cluster::with(|config| config.audit = Some(audit)).await, lines)
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
}

fn stages(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["stage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_write_is_told_when_it_comes_and_when_it_is_done() {
    let lines = Lines::default();
    let audit = audit(EVERYTHING, "", &lines);
    let cluster = Cluster::with(|config| config.audit = Some(audit)).await;
    let headers =
        [("user-agent", "tester/1"), ("audit-id", "mine"), ("x-forwarded-for", "192.0.2.1, 192.0.2.2")];
    let path = format!("{MAPS}?fieldManager=x");
    let answer = cluster.ask("POST", &path, &headers, map("one").to_string().into_bytes()).await;
    assert_eq!(answer.headers["audit-id"], "mine");
    let made = answer.ok();
    let events = lines.take(&cluster).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    let mut done = events[1].clone();
    let mut received = done.clone();
    for field in ["responseStatus", "requestObject", "responseObject", "annotations"] {
        received.as_object_mut().unwrap().remove(field);
    }
    (received["stage"], received["stageTimestamp"]) =
        ("RequestReceived".into(), received["requestReceivedTimestamp"].clone());
    received["objectRef"].as_object_mut().unwrap().remove("name");
    assert_eq!(events[0], received, "what comes later is not there yet");
    let times = ["requestReceivedTimestamp", "stageTimestamp"].map(|field| {
        let time = done.as_object_mut().unwrap().remove(field).unwrap();
        let time = time.as_str().unwrap().to_owned();
        assert_eq!(time.len(), "2026-12-01T04:00:00.000000Z".len(), "{time}");
        time
    });
    assert!(times[0] <= times[1]);
    assert_eq!(
        done,
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "mine",
            "stage": "ResponseComplete", "requestURI": path, "verb": "create",
            "user": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
            "sourceIPs": ["192.0.2.1", "192.0.2.2"], "userAgent": "tester/1",
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "one", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "requestObject": map("one"), "responseObject": made,
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
        })
    );
}

#[tokio::test]
async fn metadata_is_told_without_objects() {
    let (cluster, lines) = cluster("[{level: Metadata}]").await;
    cluster.create(MAPS, &map("one")).await.ok();
    let event = lines.one(&cluster).await;
    assert_eq!(event["objectRef"]["name"], "one", "though it stands in the body only");
    assert!(event.get("requestObject").is_none() && event.get("responseObject").is_none());
    cluster.delete(&format!("{MAPS}/one")).await.ok();
    let event = lines.one(&cluster).await;
    assert_eq!(event["verb"], "delete");
    assert_eq!(event["responseStatus"]["status"], "Success");
    assert_eq!(event["responseStatus"]["code"], 200);
    assert_eq!(event["responseStatus"]["details"]["name"], "one");
}

#[tokio::test]
async fn a_level_of_none_tells_nothing() {
    let (cluster, lines) = cluster("[{level: None, verbs: [get]}, {level: Metadata}]").await;
    cluster.get("/version").await.ok();
    cluster.get(MAPS).await.ok();
    let event = lines.one(&cluster).await;
    assert_eq!((&event["verb"], event.get("responseObject")), (&json!("list"), None));
    let metrics = String::from_utf8(cluster.get("/metrics").await.body.to_vec()).unwrap();
    for line in ["event_total 1", "level_total{level=\"None\"} 2", "level_total{level=\"Metadata\"} 1"] {
        assert!(metrics.contains(&format!("\napiserver_audit_{line}\n")), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_told_with_the_reason() {
    let (cluster, lines) = cluster(EVERYTHING).await;
    let answer = cluster.ask_as(&user("eve", "x"), "GET", MAPS, &[], "").await;
    let status = answer.json();
    assert_eq!(status["code"], 403);
    let event = lines.one(&cluster).await;
    assert_eq!(event["user"]["username"], "eve");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(event["responseObject"], status);
    let mut told = status.clone();
    ["kind", "apiVersion"].iter().for_each(|field| _ = told.as_object_mut().unwrap().remove(*field));
    assert_eq!(event["responseStatus"], told);
}

#[tokio::test]
async fn whoever_is_not_recognized_is_told_once() {
    let lines = Lines::default();
    let audit = audit("[{level: None, users: ['']}, {level: Metadata}]", "", &lines);
    let cluster = Cluster::with(|config| config.audit = Some(audit)).await;
    let request =
        |path: &str| http::Request::get(path).body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = cluster.server.service().call(request("/version")).await.unwrap();
    assert_eq!(response.status(), 401);
    let event = lines.one(&cluster).await;
    assert_eq!(event["stage"], "ResponseStarted");
    assert_eq!(event["user"], json!({}));
    assert_eq!(event["responseStatus"]["reason"], "Unauthorized");
    let response = cluster.server.service().call(request("/version?timeout=soon")).await.unwrap();
    assert_eq!(response.status(), 400);
    let event = lines.one(&cluster).await;
    assert_eq!((&event["stage"], &event["responseStatus"]["code"]), (&json!("ResponseStarted"), &json!(400)));
}

#[tokio::test]
async fn who_acts_as_somebody_else_is_told_as_both() {
    let (cluster, lines) = cluster("[{level: Metadata, users: [admin]}]").await;
    let headers =
        [("impersonate-user", "bob"), ("impersonate-group", "devs"), ("impersonate-extra-why", "test")];
    assert_eq!(cluster.ask("GET", MAPS, &headers, Vec::new()).await.code, 403);
    let event = lines.one(&cluster).await;
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(
        event["impersonatedUser"],
        json!({"username": "bob", "groups": ["devs", "system:authenticated"], "extra": {"why": ["test"]}})
    );
}

#[tokio::test]
async fn a_watch_is_told_when_it_begins_and_when_it_ends() {
    let lines = Lines::default();
    let audit = audit("[{level: RequestResponse, verbs: [watch]}]", "", &lines);
    let cluster = Cluster::with(|config| config.audit = Some(audit)).await;
    let mut watch = cluster.send("GET", &format!("{MAPS}?watch=1"), &[], "").await;
    cluster.create(MAPS, &map("one")).await.ok();
    watch.body_mut().frame().await.unwrap().unwrap();
    let events = lines.take(&cluster).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseStarted"]);
    assert_eq!(events[1]["responseStatus"], json!({"metadata": {}, "code": 200}));
    drop(watch);
    let event = lines.one(&cluster).await;
    assert_eq!((&event["stage"], event.get("responseObject")), (&json!("ResponseComplete"), None));
}

#[tokio::test]
async fn objects_are_told_as_json_in_whatever_form_they_travel() {
    let (cluster, lines) = cluster(EVERYTHING).await;
    cluster.create(MAPS, &map("one")).await.ok();
    lines.take(&cluster).await;
    let json = cluster.get(MAPS).await.ok();
    let plain = lines.one(&cluster).await;
    assert_eq!(plain["responseObject"], json, "a list is streamed");
    for accept in ["application/yaml", "application/vnd.kubernetes.protobuf"] {
        let answer = cluster.get_as(MAPS, accept).await;
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with(accept));
        let told = lines.one(&cluster).await;
        let (told, wanted) = (&told["responseObject"], &plain["responseObject"]);
        assert_eq!(told["items"][0]["data"], wanted["items"][0]["data"], "{accept}");
        assert_eq!(told["items"][0]["metadata"]["uid"], wanted["items"][0]["metadata"]["uid"], "{accept}");
        assert_eq!(told["kind"], "ConfigMapList", "{accept}");
    }
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n";
    cluster.ask("POST", MAPS, &[("content-type", "application/yaml")], body.into()).await.ok();
    assert_eq!(lines.one(&cluster).await["requestObject"]["metadata"]["name"], "two");
    cluster.merge(&format!("{MAPS}/two"), &json!({"data": {"x": null}})).await.ok();
    assert_eq!(lines.one(&cluster).await["requestObject"], json!({"data": {"x": null}}), "a patch as it is");
    cluster.apply(&format!("{MAPS}/three"), "tester", &map("three")).await.ok();
    let event = lines.one(&cluster).await;
    assert_eq!((&event["requestObject"], &event["responseStatus"]["code"]), (&map("three"), &json!(201)));
    let options = json!({"propagationPolicy": "Background"});
    cluster.ask("DELETE", &format!("{MAPS}/two"), &[], options.to_string().into()).await.ok();
    assert_eq!(lines.one(&cluster).await["requestObject"], options);
}

#[tokio::test]
async fn managed_fields_are_left_out_when_the_policy_says_so() {
    let (cluster, lines) = cluster(
        "[{level: RequestResponse, omitManagedFields: true, verbs: [list]}, {level: RequestResponse}]",
    )
    .await;
    cluster.create(MAPS, &map("one")).await.ok();
    let event = lines.one(&cluster).await;
    assert!(event["responseObject"]["metadata"]["managedFields"].is_array());
    cluster.get(MAPS).await.ok();
    let event = lines.one(&cluster).await;
    let metadata = &event["responseObject"]["items"][0]["metadata"];
    assert!(metadata["uid"].is_string() && metadata.get("managedFields").is_none());
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_marked_and_not_told() {
    let (cluster, lines) = cluster("[{level: RequestResponse, verbs: [list]}]").await;
    for name in ["a", "b", "c", "d"] {
        let mut map = map(name);
        map["data"]["a"] = "x".repeat(900_000).into();
        cluster.create(MAPS, &map).await.ok();
    }
    assert_eq!(cluster.get(MAPS).await.ok()["items"].as_array().unwrap().len(), 4);
    let event = lines.one(&cluster).await;
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert!(event.get("responseObject").is_none());
}

/// Asked about the path `/boom`, it panics.
struct Fragile;

impl access::Authorizer for Fragile {
    fn authorize(&self, request: &access::Attributes) -> access::Decision {
        assert!(request.path != "/boom", "on purpose");
        access::Decision::NoOpinion(String::new())
    }
}

#[tokio::test]
async fn a_panic_is_the_last_thing_that_is_told() {
    let lines = Lines::default();
    let audit = audit("[{level: Metadata}]", "", &lines);
    let cluster = Cluster::with(|config| {
        config.audit = Some(audit);
        config.authorizers.insert(0, Arc::new(Fragile));
    })
    .await;
    assert_eq!(cluster.send("GET", "/boom", &[], "").await.status(), 500);
    let events = lines.take(&cluster).await;
    assert_eq!(stages(&events), ["RequestReceived", "Panic"]);
    assert_eq!(
        events[1]["responseStatus"],
        json!({"metadata": {}, "status": "Failure", "message": "APIServer panic'd: on purpose", "reason": "InternalError", "code": 500})
    );
}

/// A node whose log has no end.
struct Node;

#[async_trait]
impl NodeConnector for Node {
    async fn kubelet(
        &self,
        _: &Object,
        _: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        std::future::pending().await
    }

    async fn address(
        &self,
        _: IpAddr,
        _: u16,
        _: Tls,
        _: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        Err(ApiError::internal("there is nobody"))
    }
}

#[tokio::test]
async fn a_client_that_goes_before_it_is_answered_is_told_all_the_same() {
    let lines = Lines::default();
    let audit = audit("[{level: Metadata, resources: [{resources: [pods/log]}]}]", "", &lines);
    let cluster = Cluster::with(|config| {
        config.audit = Some(audit);
        config.nodes = Some(Arc::new(Node));
    })
    .await;
    account(&cluster).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    cluster.create("/api/v1/nodes", &node).await.ok();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    });
    cluster.create("/api/v1/namespaces/default/pods", &pod).await.ok();
    let asked = cluster.send("GET", "/api/v1/namespaces/default/pods/p/log", &[], "");
    assert!(futures::FutureExt::now_or_never(asked).is_none(), "nobody answers");
    let events = lines.take(&cluster).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    assert_eq!(events[2]["objectRef"]["subresource"], "log");
    assert_eq!(
        events[2]["responseStatus"],
        json!({"metadata": {}, "status": "Success", "message": "Connection closed early", "code": 200})
    );
}

#[tokio::test]
async fn somebody_who_is_nobody_in_particular_has_a_name_too() {
    let lines = Lines::default();
    let audit = audit("[{level: Metadata, userGroups: ['system:unauthenticated']}]", "", &lines);
    let cluster = Cluster::with(|config| (config.audit, config.anonymous) = (Some(audit), true)).await;
    let request = http::Request::get("/version").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    assert_eq!(cluster.server.service().call(request).await.unwrap().status(), 403);
    let events = lines.take(&cluster).await;
    assert_eq!(stages(&events), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[1]["user"]["username"], UserInfo::anonymous().name.as_str());
    assert!(events[1].get("objectRef").is_none());
}
