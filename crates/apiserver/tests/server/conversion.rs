//! Custom resources in several versions: what upstream's conformance tests of conversion webhooks and of selectable
//! fields do, step by step, with a webhook in this process.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use apimachinery::{ApiError, Object};
use apiserver::{Body, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GROUP: &str = "/apis/stable.example.com";

/// A change of an answer.
type Spoil = fn(&mut Value);

/// `hostPort` in v1 is `host` and `port` in v2. `spoil` changes its answers.
struct Webhook {
    calls: AtomicUsize,
    objects: AtomicUsize,
    spoil: parking_lot::Mutex<Option<Spoil>>,
}

fn convert(object: &mut Value, to: &str) {
    let (host, port) = (object["host"].take(), object["port"].take());
    let both = object["hostPort"].take();
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    if to.ends_with("/v1") && (host.is_string() || port.is_string()) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        object["hostPort"] = format!("{}:{}", text(&host), text(&port)).into();
    }
    if let (true, Some((host, port))) = (to.ends_with("/v2"), both.as_str().and_then(|b| b.split_once(':'))) {
        (object["host"], object["port"]) = (host.into(), port.into());
    }
    object["apiVersion"] = to.into();
}

#[async_trait]
impl NodeConnector for Webhook {
    async fn kubelet(
        &self,
        _: &Object,
        _: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        Err(ApiError::internal("not here"))
    }

    async fn address(
        &self,
        _: IpAddr,
        port: u16,
        tls: Tls,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        assert_eq!((port, request.uri().path()), (9443, "/crdconvert"));
        assert!(matches!(tls, Tls::Verified { name, .. } if name == "127.0.0.1"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (&review["kind"], &review["apiVersion"]),
            (&json!("ConversionReview"), &json!("apiextensions.k8s.io/v1"))
        );
        let to = review["request"]["desiredAPIVersion"].as_str().unwrap();
        let mut objects = review["request"]["objects"].as_array().unwrap().clone();
        assert!(objects.iter().all(|object| object["apiVersion"] != to), "what has the version is not sent");
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.objects.fetch_add(objects.len(), Ordering::SeqCst);
        objects.iter_mut().for_each(|object| convert(object, to));
        let mut answer = json!({
            "kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": review["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects},
        });
        if let Some(spoil) = *self.spoil.lock() {
            spoil(&mut answer);
        }
        Ok(http::Response::new(answer.to_string().into_bytes().into()))
    }
}

impl Webhook {
    fn asked(&self) -> (usize, usize) {
        (self.calls.swap(0, Ordering::SeqCst), self.objects.swap(0, Ordering::SeqCst))
    }
}

fn versions(storage: &str) -> Value {
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|f| ((*f).to_owned(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> = fields.iter().map(|f| json!({"jsonPath": format!(".{f}")})).collect();
        json!({
            "name": name, "served": true, "storage": name == storage, "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        })
    };
    json!([version("v1", &["hostPort"]), version("v2", &["host", "port"])])
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "versions": versions("v1"),
            "names": {"plural": "hosts", "singular": "host", "kind": "Host", "listKind": "HostList"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": "https://127.0.0.1:9443/crdconvert"}, "conversionReviewVersions": ["v1", "v1beta1"],
            }},
        },
    })
}

fn path(version: &str) -> String {
    format!("{GROUP}/{version}/namespaces/default/hosts")
}

fn host(version: &str, name: &str, fields: Value) -> Value {
    let mut object = fields;
    object["apiVersion"] = format!("stable.example.com/{version}").into();
    object["kind"] = "Host".into();
    object["metadata"] = json!({"name": name});
    object
}

async fn start() -> (Cluster, Arc<Webhook>) {
    let webhook = Arc::new(Webhook {
        calls: AtomicUsize::new(0),
        objects: AtomicUsize::new(0),
        spoil: parking_lot::Mutex::default(),
    });
    let connector = webhook.clone();
    let cluster = Cluster::with(|config| config.nodes = Some(connector)).await;
    cluster.create(DEFINITIONS, &definition()).await.ok();
    cluster.until(&path("v2"), |answer| answer.code == 200).await;
    (cluster, webhook)
}

/// Reads so many events of a watch.
async fn events(body: &mut Body, count: usize) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    while found.len() < count {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        for line in frame.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            found.push((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
        }
    }
    found
}

fn named(events: &[(String, Value)]) -> Vec<(&str, &str)> {
    events.iter().map(|(kind, o)| (kind.as_str(), o["metadata"]["name"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn an_object_is_converted_from_v1_to_v2() {
    let (cluster, webhook) = start().await;
    // The stub with which the test finds out that the webhook answers.
    let made = cluster.create(&path("v2"), &host("v2", "stub", json!({}))).await.ok();
    assert_eq!(made["apiVersion"], "stable.example.com/v2");
    cluster.delete(&format!("{}/stub", path("v2"))).await.ok();
    webhook.asked();
    cluster.create(&path("v1"), &host("v1", "one", json!({"hostPort": "localhost:8080"}))).await.ok();
    assert_eq!(webhook.asked(), (0, 0), "the stored version needs no conversion");
    let seen = cluster.get(&format!("{}/one", path("v2"))).await.ok();
    assert_eq!((&seen["host"], &seen["port"]), (&json!("localhost"), &json!("8080")));
    assert!(seen.get("hostPort").is_none());
    assert_eq!(seen["apiVersion"], "stable.example.com/v2");
    let old = cluster.get(&format!("{}/one", path("v1"))).await.ok();
    assert_eq!(seen["metadata"], old["metadata"]);
}

#[tokio::test]
async fn a_list_of_objects_stored_in_different_versions_is_shown_in_either() {
    let (cluster, webhook) = start().await;
    cluster.create(&path("v1"), &host("v1", "one", json!({"hostPort": "localhost:8080"}))).await.ok();
    let at = format!("{DEFINITIONS}/hosts.stable.example.com");
    let mut stored = cluster.get(&at).await.ok();
    stored["spec"]["versions"] = versions("v2");
    let changed = cluster.update(&at, &stored).await.ok();
    assert_eq!(changed["status"]["storedVersions"], json!(["v1", "v2"]));
    cluster
        .until(&format!("{GROUP}/v1"), |a| a.json()["resources"][0]["storageVersionHash"] != Value::Null)
        .await;
    // Until the new storage version is in force: it is when writing v2 asks nobody.
    loop {
        webhook.asked();
        cluster.create(&path("v2"), &host("v2", "stub", json!({}))).await.ok();
        let asked = webhook.asked();
        cluster.delete(&format!("{}/stub", path("v2"))).await.ok();
        if asked == (0, 0) {
            break;
        }
        tokio::task::yield_now().await;
    }
    cluster.create(&path("v1"), &host("v1", "two", json!({"hostPort": "localhost:8080"}))).await.ok();
    webhook.asked();
    for version in ["v1", "v2"] {
        let list = cluster.get(&path(version)).await.ok();
        assert_eq!(webhook.asked(), (1, 1), "one call with the one object that needs it");
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), 2);
        for item in items {
            assert_eq!(item["apiVersion"], format!("stable.example.com/{version}"));
            match version {
                "v1" => assert_eq!((&item["hostPort"], item.get("host")), (&json!("localhost:8080"), None)),
                _ => assert_eq!((&item["host"], item.get("hostPort")), (&json!("localhost"), None)),
            }
        }
    }
    // A write that changes nothing brings an old object to the new storage version.
    let one = cluster.get(&format!("{}/one", path("v1"))).await.ok();
    let moved = cluster.update(&format!("{}/one", path("v1")), &one).await.ok();
    assert_ne!(moved["metadata"]["resourceVersion"], one["metadata"]["resourceVersion"]);
    webhook.asked();
    cluster.get(&path("v2")).await.ok();
    assert_eq!(webhook.asked(), (0, 0));
    let again = cluster.update(&format!("{}/one", path("v1")), &moved).await.ok();
    assert_eq!(again["metadata"]["resourceVersion"], moved["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn lists_watches_and_deletions_select_by_the_fields_of_their_version() {
    let (cluster, _) = start().await;
    let watch = |version: &str, selector: &str| {
        let path = format!("{}?watch=1&fieldSelector={selector}", path(version));
        let cluster = &cluster;
        async move { cluster.send("GET", &path, &[], "").await.into_body() }
    };
    let mut by_host = watch("v2", "host%3Dhost1").await;
    let mut by_both = watch("v2", "host%3Dhost1,port%3D80").await;
    let mut by_old = watch("v1", "hostPort%3Dhost1:80").await;
    for (name, fields) in [
        ("a", json!({"host": "host1", "port": "80"})),
        ("b", json!({"host": "host1", "port": "8080"})),
        ("c", json!({"host": "host2"})),
    ] {
        cluster.create(&path("v2"), &host("v2", name, fields)).await.ok();
    }
    let names = async |version: &str, selector: &str| {
        let list = cluster.get(&format!("{}?fieldSelector={selector}", path(version))).await.ok();
        let items = list["items"].as_array().unwrap().clone();
        items.iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("v2", "host%3Dhost1").await, ["a", "b"]);
    assert_eq!(names("v2", "host%3Dhost1,port%3D80").await, ["a"]);
    assert_eq!(names("v1", "hostPort%3Dhost1:80").await, ["a"]);
    assert_eq!(names("v1", "hostPort%3Dhost1:8080").await, ["b"]);
    let (code, why) = cluster.get(&format!("{}?fieldSelector=host%3Dhost1", path("v1"))).await.refused();
    assert_eq!((code, why.as_str()), (400, "field label not supported: host"));
    assert_eq!(named(&events(&mut by_host, 2).await), [("ADDED", "a"), ("ADDED", "b")]);
    assert_eq!(named(&events(&mut by_both, 1).await), [("ADDED", "a")]);
    assert_eq!(named(&events(&mut by_old, 1).await), [("ADDED", "a")]);

    cluster.delete(&format!("{}?fieldSelector=host%3Dhost1,port%3D80", path("v2"))).await.ok();
    let mut b = cluster.get(&format!("{}/b", path("v2"))).await.ok();
    b["host"] = "host2".into();
    let b = cluster.update(&format!("{}/b", path("v2")), &b).await.ok();
    assert_eq!(names("v2", "host%3Dhost1").await, [""; 0]);
    let gone = events(&mut by_host, 2).await;
    assert_eq!(named(&gone), [("DELETED", "a"), ("DELETED", "b")]);
    assert_eq!(gone[1].1["host"], "host1", "the last content that was selected");
    assert_eq!(gone[1].1["metadata"]["resourceVersion"], b["metadata"]["resourceVersion"]);
    assert_eq!(named(&events(&mut by_both, 1).await), [("DELETED", "a")]);
    let old = events(&mut by_old, 1).await;
    assert_eq!((named(&old), &old[0].1["hostPort"]), (vec![("DELETED", "a")], &json!("host1:80")));
}

#[tokio::test]
async fn what_a_webhook_may_not_do_is_refused_in_every_verb() {
    let (cluster, webhook) = start().await;
    cluster.create(&path("v1"), &host("v1", "one", json!({"hostPort": "localhost:8080"}))).await.ok();
    let whose = "conversion webhook for stable.example.com/v1, Kind=Host";
    let cases: [(Spoil, &str); 5] = [
        (|a| a["response"]["result"] = json!({"status": "Failure", "message": "no way"}), "failed: no way"),
        (|a| a["response"]["convertedObjects"] = json!([]), "returned 0 objects, expected 1"),
        (
            |a| a["response"]["convertedObjects"][0]["metadata"]["name"] = "two".into(),
            "returned invalid object: must have the same name: one != two",
        ),
        (
            |a| a["response"]["convertedObjects"][0]["apiVersion"] = "stable.example.com/v1".into(),
            "returned invalid object: invalid groupVersion (expected stable.example.com/v2, received stable.example.com/v1)",
        ),
        (|a| a["response"]["uid"] = "x".into(), "failed: expected response.uid="),
    ];
    for (spoil, words) in cases {
        *webhook.spoil.lock() = Some(spoil);
        for at in [format!("{}/one", path("v2")), path("v2")] {
            let (code, why) = cluster.get(&at).await.refused();
            assert!(code == 500 && why.starts_with(&format!("{whose} {words}")), "{why}");
        }
        assert_eq!(cluster.get(&path("v1")).await.code, 200, "the stored version needs no webhook");
    }
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, _) = cluster.merge(&format!("{}/one", path("v2")), &patch).await.refused();
    assert_eq!(code, 500);
    let mut watch = cluster.send("GET", &format!("{}?watch=1", path("v2")), &[], "").await.into_body();
    let told = events(&mut watch, 1).await;
    assert_eq!((told[0].0.as_str(), &told[0].1["code"]), ("ERROR", &json!(500)));
    assert!(watch.frame().await.is_none(), "the watch ends");
    // Labels are the webhook's to convert, the rest of metadata is not.
    *webhook.spoil.lock() = Some(|a| {
        a["response"]["convertedObjects"][0]["metadata"]["labels"] = json!({"converted": "yes"});
        a["response"]["convertedObjects"][0]["metadata"]["finalizers"] = json!(["example.com/x"]);
    });
    let seen = cluster.get(&format!("{}/one", path("v2"))).await.ok();
    assert_eq!(seen["metadata"]["labels"], json!({"converted": "yes"}));
    assert!(seen["metadata"].get("finalizers").is_none());
    let list = cluster.get(&format!("{}?labelSelector=converted%3Dyes", path("v2"))).await.ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_version_without_a_webhook_keeps_what_its_schema_knows() {
    let cluster = Cluster::new().await;
    let version = |name: &str, storage: bool, properties: Value| {
        json!({"name": name, "served": true, "storage": storage,
               "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    let mut plain = definition();
    plain["spec"]["conversion"] = json!({"strategy": "None"});
    plain["spec"]["versions"] = json!([
        version("v1", true, json!({"a": {"type": "string"}, "d": {"type": "string", "default": "one"}})),
        version(
            "v2",
            false,
            json!({"a": {"type": "string"}, "d": {"type": "string", "default": "two"}, "new": {"type": "string"}})
        ),
    ]);
    cluster.create(DEFINITIONS, &plain).await.ok();
    cluster.until(&path("v2"), |answer| answer.code == 200).await;
    let mut watch = cluster.send("GET", &format!("{}?watch=1", path("v1")), &[], "").await.into_body();
    let made = cluster.create(&path("v2"), &host("v2", "x", json!({"a": "1", "new": "2"}))).await.ok();
    assert_eq!(
        (&made["apiVersion"], &made["a"], &made["d"], made.get("new")),
        (&json!("stable.example.com/v2"), &json!("1"), &json!("two"), None),
        "the stored version does not know the new field"
    );
    let told = events(&mut watch, 1).await;
    assert_eq!((&told[0].1["apiVersion"], &told[0].1["d"]), (&json!("stable.example.com/v1"), &json!("two")));
    let applied =
        json!({"apiVersion": "stable.example.com/v1", "kind": "Host", "metadata": {"name": "x"}, "a": "9"});
    let (code, _) = cluster.apply(&format!("{}/x", path("v1")), "m", &applied).await.refused();
    assert_eq!(code, 409, "owned by whoever wrote it through the other version");
    let forced = cluster.apply(&format!("{}/x?force=true", path("v1")), "m", &applied).await.ok();
    assert_eq!((&forced["a"], &forced["apiVersion"]), (&json!("9"), &json!("stable.example.com/v1")));
    // The storage version changes; what lies there in the old one is read as before.
    let at = format!("{DEFINITIONS}/hosts.stable.example.com");
    let mut changed = cluster.get(&at).await.ok();
    changed["spec"]["versions"][0]["storage"] = false.into();
    changed["spec"]["versions"][1]["storage"] = true.into();
    cluster.update(&at, &changed).await.ok();
    let keeps = json!({"apiVersion": "stable.example.com/v2", "kind": "Host", "metadata": {"name": "x"}, "new": "kept"});
    let path_of = format!("{}/x", path("v2"));
    loop {
        let seen = cluster.merge(&path_of, &keeps).await.ok();
        if seen["new"] == "kept" {
            assert_eq!(seen["a"], "9");
            break;
        }
    }
    // A version that objects may lie in cannot be taken away.
    let mut fewer = cluster.get(&at).await.ok();
    fewer["spec"]["versions"].as_array_mut().unwrap().remove(0);
    let (code, why) = cluster.update(&at, &fewer).await.refused();
    assert!(code == 422 && why.contains("v1 was previously a storage version"), "{why}");
}

#[tokio::test]
async fn policies_of_another_version_see_and_change_the_converted_object() {
    let (cluster, webhook) = start().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let make = async |kind: &str, mut spec: Value, mut bound: Value| {
        spec["matchConstraints"] = json!({"matchPolicy": "Equivalent", "resourceRules": [{
            "apiGroups": ["stable.example.com"], "apiVersions": ["v1"], "resources": ["hosts"], "operations": ["*"],
        }]});
        bound["policyName"] = "p".into();
        let small = kind.to_lowercase();
        for (plural, suffix, spec) in [("policies", "", spec), ("policybindings", "Binding", bound)] {
            let object = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}AdmissionPolicy{suffix}"),
                "metadata": {"name": "p"}, "spec": spec,
            });
            cluster.create(&format!("{group}/{small}admission{plural}"), &object).await.ok();
        }
    };
    let add = "[JSONPatch{op: 'replace', path: '/hostPort', value: object.hostPort + '80'}]";
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": add}});
    make("Mutating", json!({"reinvocationPolicy": "Never", "mutations": [mutation]}), json!({})).await;
    let validation = json!({"expression": "object.hostPort != 'localhost:180'"});
    make("Validating", json!({"validations": [validation]}), json!({"validationActions": ["Deny"]})).await;
    webhook.asked();

    let made =
        cluster.create(&path("v2"), &host("v2", "one", json!({"host": "localhost", "port": "2"}))).await;
    let made = made.ok();
    assert_eq!((&made["apiVersion"], &made["port"]), (&json!("stable.example.com/v2"), &json!("280")));
    // To v1 for the first policy and back from it; to v1 for its second turn, for the second policy and for the store, and
    // back for the answer. That the first policy has a condition and a mutation to evaluate costs no call more.
    assert_eq!(webhook.asked(), (6, 6));
    let refused =
        cluster.create(&path("v2"), &host("v2", "two", json!({"host": "localhost", "port": "1"}))).await;
    let (_, message) = refused.refused();
    assert!(message.contains("failed expression: object.hostPort"), "{message}");

    // A write whose policies cannot be shown it is refused.
    *webhook.spoil.lock() =
        Some(|answer| answer["response"]["result"] = json!({"status": "Failure", "message": "broken"}));
    let refused = cluster.create(&path("v2"), &host("v2", "three", json!({"host": "h", "port": "3"}))).await;
    let (_, message) = refused.refused();
    assert!(message.contains("broken"), "{message}");
}
