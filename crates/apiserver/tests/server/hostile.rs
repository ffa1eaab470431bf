//! Requests that mean no good: paths that climb, scopes that do not fit, documents and bodies without end.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tower::Service as _;

use crate::{
    cluster::{Answer, Cluster, user},
    custom,
};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The largest body.
const LIMIT: usize = 3 << 20;
/// Whatever is refused is refused within this, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);

fn named(kind: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}})
}

/// Whether the answer shows an object of this name.
fn shows(answer: &Answer, name: &str) -> bool {
    answer.code < 400 && String::from_utf8_lossy(&answer.body).contains(name)
}

#[tokio::test]
async fn a_path_that_climbs_shows_nothing_of_its_neighbours() {
    let cluster = Cluster::new().await;
    cluster.create(SECRETS, &named("Secret", "treasure")).await.ok();
    let eve = user("eve", "guests");
    cluster.create("/api/v1/namespaces", &named("Namespace", "a")).await.ok();
    cluster.grant(&eve, "a", &["*"], &["*"]).await;
    let own = cluster.ask_as(&eve, "GET", "/api/v1/namespaces/a/secrets", &[], "").await;
    assert_eq!(own.code, 200, "she may look at her own");
    for namespace in [
        "..",
        ".",
        "%2e%2e",
        "%2e",
        "%2E%2E",
        "..%2fdefault",
        "a%2f..%2fdefault",
        "a/../default",
        "a%00",
        "",
        "a%2f%2e%2e%2fdefault",
        "*",
        "%2a",
        "a/",
        "/default",
        "default%2f..%2fdefault",
        "%c0%ae%c0%ae",
    ] {
        for rest in ["secrets", "secrets/treasure", "secrets/../secrets"] {
            let path = format!("/api/v1/namespaces/{namespace}/{rest}");
            let answer = cluster.ask_as(&eve, "GET", &path, &[], "").await;
            assert!(!shows(&answer, "treasure"), "{path}: {}", String::from_utf8_lossy(&answer.body));
            if !namespace.is_empty() {
                let answer = cluster.get(&path).await;
                assert!(!shows(&answer, "treasure"), "{path}: {}", String::from_utf8_lossy(&answer.body));
            }
        }
    }
    for name in ["..", "%2e%2e%2fdefault%2ftreasure", "x%2f..%2ftreasure", ".%2ftreasure"] {
        let path = format!("/api/v1/namespaces/a/secrets/{name}");
        for method in ["GET", "DELETE"] {
            let answer = cluster.ask_as(&eve, method, &path, &[], "").await;
            assert!(answer.code >= 400, "{method} {path}: {}", answer.code);
        }
    }
    assert_eq!(cluster.get(&format!("{SECRETS}/treasure")).await.code, 200, "it is still there");
    for namespace in ["..", ".", "%2e%2e"] {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let made = cluster.create(&path, &named("ConfigMap", "x")).await;
        assert!(made.code >= 400, "nothing is made in {namespace}");
    }
}

#[tokio::test]
async fn a_key_that_begins_like_another_is_another() {
    let cluster = Cluster::new().await;
    for namespace in ["a", "a-b", "ab"] {
        cluster.create("/api/v1/namespaces", &named("Namespace", namespace)).await.ok();
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        cluster.create(&path, &named("ConfigMap", &format!("of-{namespace}"))).await.ok();
    }
    let listed = cluster.get("/api/v1/namespaces/a/configmaps").await;
    assert!(shows(&listed, "of-a") && !shows(&listed, "of-ab") && !shows(&listed, "of-a-b"));
    // Kinds of one group, one whose name begins like the other's.
    custom::define(&cluster, custom::one_version(json!({"a": {"type": "string"}}))).await;
    let mut longer = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgetsets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "versions": custom::one_version(json!({}))},
    });
    longer["spec"]["names"] = json!({"plural": "widgetsets", "singular": "widgetset", "kind": "WidgetSet"});
    cluster.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &longer).await.ok();
    let sets = "/apis/example.com/v1/namespaces/default/widgetsets";
    cluster.until(sets, |answer| answer.code == 200).await;
    let set = json!({"apiVersion": "example.com/v1", "kind": "WidgetSet", "metadata": {"name": "hidden"}});
    cluster.create(sets, &set).await.ok();
    let eve = user("eve", "guests");
    cluster.grant(&eve, "", &["get", "list", "watch"], &["widgets"]).await;
    for path in [
        "/apis/example.com/v1/widgets",
        "/apis/example.com/v1/namespaces/default/widgets",
        "/apis/example.com/v1/widgets?watch=1&timeoutSeconds=1&resourceVersion=0",
        "/apis/example.com/v1/namespaces/default/widgets/..%2fwidgetsets%2fhidden",
        "/apis/example.com/v1/namespaces/default/widgetsets",
    ] {
        let answer = cluster.ask_as(&eve, "GET", path, &[], "").await;
        assert!(!shows(&answer, "hidden"), "{path}: {}", String::from_utf8_lossy(&answer.body));
    }
}

#[tokio::test]
async fn everything_in_a_namespace_is_nothing_of_the_cluster() {
    let cluster = Cluster::new().await;
    let eve = user("eve", "guests");
    cluster.grant(&eve, "default", &["*"], &["*"]).await;
    let node = named("Node", "n1");
    cluster.create("/api/v1/nodes", &node).await.ok();
    let inside = "namespaces/default";
    for (method, path) in [
        ("GET", format!("/api/v1/{inside}/nodes")),
        ("GET", format!("/api/v1/{inside}/nodes/n1")),
        ("DELETE", format!("/api/v1/{inside}/nodes/n1")),
        ("POST", format!("/api/v1/{inside}/nodes")),
        ("GET", format!("/api/v1/{inside}/persistentvolumes")),
        ("GET", format!("/apis/rbac.authorization.k8s.io/v1/{inside}/clusterroles")),
        ("POST", format!("/apis/rbac.authorization.k8s.io/v1/{inside}/clusterroles")),
        ("GET", format!("/apis/apiextensions.k8s.io/v1/{inside}/customresourcedefinitions")),
        ("GET", format!("/api/v1/watch/{inside}/nodes")),
        ("GET", format!("/api/v1/{inside}/namespaces/kube-system")),
        ("DELETE", format!("/api/v1/{inside}/namespaces/kube-system")),
        ("PATCH", format!("/api/v1/{inside}/namespaces/kube-system")),
        ("PUT", format!("/api/v1/{inside}/namespaces/kube-system/finalize")),
        ("GET", format!("/api/v1/{inside}/namespaces/kube-system/status")),
        ("GET", format!("/api/v1/{inside}/namespaces")),
        ("POST", format!("/api/v1/{inside}/namespaces")),
    ] {
        let body = if method == "POST" { node.to_string() } else { String::new() };
        let answer = cluster.ask_as(&eve, method, &path, &[], body).await;
        assert!(answer.code >= 400, "{method} {path}: {} {:#}", answer.code, answer.json());
    }
    assert_eq!(cluster.get("/api/v1/nodes/n1").await.code, 200);
    let system = cluster.get("/api/v1/namespaces/kube-system").await.ok();
    assert!(system["metadata"].get("deletionTimestamp").is_none());
    let own = cluster.ask_as(&eve, "GET", "/api/v1/namespaces/default", &[], "").await;
    assert_eq!(own.code, 200, "her own namespace is hers to see");
}

#[tokio::test]
async fn leave_to_watch_is_no_leave_to_write() {
    let cluster = Cluster::new().await;
    crate::cluster::account(&cluster).await;
    cluster.create(MAPS, &named("ConfigMap", "kept")).await.ok();
    let eve = user("eve", "guests");
    cluster.grant(&eve, "", &["get", "list", "watch", "proxy"], &["*"]).await;
    let inside = "namespaces/default";
    let token = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#;
    let map = named("ConfigMap", "made").to_string();
    for prefix in ["/api/v1/watch", "/api/v1/proxy"] {
        for (method, path, body) in [
            ("POST", format!("{inside}/serviceaccounts/default/token"), token),
            ("POST", format!("{inside}/configmaps"), map.as_str()),
            ("PUT", format!("{inside}/configmaps/kept"), map.as_str()),
            ("PATCH", format!("{inside}/configmaps/kept"), r#"{"data":{"a":"b"}}"#),
            ("DELETE", format!("{inside}/configmaps/kept"), ""),
            ("DELETE", format!("{inside}/configmaps"), ""),
            ("PUT", "namespaces/default/finalize".to_owned(), "{}"),
            ("PUT", "namespaces/default/status".to_owned(), "{}"),
            ("GET", "namespaces/default/status".to_owned(), ""),
        ] {
            let path = format!("{prefix}/{path}");
            let headers = [(
                "content-type",
                if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
            )];
            let answer = cluster.ask_as(&eve, method, &path, &headers, body.to_owned()).await;
            assert!(answer.code >= 400, "{method} {path}: {} {:#}", answer.code, answer.json());
        }
    }
    let maps = cluster.get(MAPS).await.ok();
    let names: Vec<_> =
        maps["items"].as_array().unwrap().iter().map(|map| map["metadata"]["name"].clone()).collect();
    assert!(names.contains(&json!("kept")) && !names.contains(&json!("made")), "{names:?}");
}

#[tokio::test]
async fn documents_without_end_are_refused_and_soon() {
    let cluster = Cluster::new().await;
    cluster.create(MAPS, &named("ConfigMap", "deep")).await.ok();
    let mut bomb = String::from(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n",
    );
    for level in 1..12 {
        let before = vec![format!("*a{}", level - 1); 10].join(",");
        let _ = writeln!(bomb, "a{level}: &a{level} [{before}]");
    }
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let object = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"deep"},"x":"#;
    let apply = format!("{MAPS}/deep?fieldManager=m");
    let (yaml, json) = ("application/yaml", "application/json");
    for (method, path, kind, body) in [
        ("POST", MAPS, yaml, bomb.clone()),
        ("POST", MAPS, yaml, format!("{object}{}}}", deep("[", "]"))),
        (
            "POST",
            MAPS,
            yaml,
            format!(
                "a:\n{}",
                (0..2000).fold(String::new(), |mut text, depth| {
                    let _ = writeln!(text, "{:1$}a:", "", depth + 1);
                    text
                })
            ),
        ),
        ("POST", MAPS, json, format!("{object}{}}}", deep("[", "]"))),
        ("POST", MAPS, json, format!("{object}{}}}", deep(r#"{"a":"#, "}"))),
        ("POST", MAPS, json, format!("{object}{}", "[".repeat(1_000_000))),
        ("PATCH", &apply, "application/apply-patch+yaml", bomb),
        ("PATCH", &apply, "application/apply-patch+yaml", format!("{object}{}}}", deep("[", "]"))),
        ("PATCH", &apply, "application/merge-patch+json", format!("{object}{}}}", deep("[", "]"))),
        ("PATCH", &apply, "application/strategic-merge-patch+json", format!("{object}{}}}", deep("[", "]"))),
        ("PATCH", &apply, "application/json-patch+json", deep("[", "]")),
    ] {
        let begun = Instant::now();
        let headers = [("content-type", kind)];
        let response = cluster.send(method, path, &headers, body).await;
        let code = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let status: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((code, &status["kind"]), (400, &json!("Status")), "{method} {kind}: {status}");
        assert!(text.len() < 10_000, "{method} {kind}: an error of {} bytes", text.len());
        assert!(begun.elapsed() < SOON, "{method} {kind}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_body_larger_than_three_mebibytes_is_refused_by_its_length_and_by_its_bytes() {
    let cluster = Cluster::new().await;
    let padded = |length: usize| {
        let empty =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}}).to_string();
        format!("{empty}{}", " ".repeat(length - empty.len()))
    };
    let post = async |body: String| {
        let response = cluster.send("POST", MAPS, &[], body).await;
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
    };
    let (code, body) = post(padded(LIMIT + 1)).await;
    let status: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &status["reason"]), (413, &json!("RequestEntityTooLarge")));
    assert_eq!(post(padded(LIMIT)).await.0, 201, "as large as may be");
}

#[tokio::test]
async fn a_body_without_end_is_read_no_further_than_its_limit() {
    let cluster = Cluster::new().await;
    let pulled = Arc::new(AtomicUsize::new(0));
    let counted = pulled.clone();
    let endless = futures::stream::repeat_with(move || {
        counted.fetch_add(1 << 16, Ordering::SeqCst);
        Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from(vec![b' '; 1 << 16])))
    });
    let request = http::Request::post(MAPS).body(StreamBody::new(endless)).unwrap();
    let mut service = cluster.server.service_as(user("admin", "system:masters"));
    let response = service.call(request).await.unwrap();
    assert_eq!(response.status(), 413);
    let pulled = pulled.load(Ordering::SeqCst);
    assert!(pulled <= LIMIT + (2 << 16), "{pulled} bytes were read");
}

#[tokio::test]
async fn a_compressed_body_is_not_inflated() {
    let cluster = Cluster::new().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, named("ConfigMap", "zipped").to_string().as_bytes()).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b' '), 1 << 20), &mut encoder).unwrap();
    let zipped = encoder.finish().unwrap();
    assert!(zipped.len() < LIMIT);
    let response = cluster.send("POST", MAPS, &[("content-encoding", "gzip")], zipped).await;
    assert!((400..500).contains(&response.status().as_u16()), "{}", response.status());
    assert_eq!(cluster.get(&format!("{MAPS}/zipped")).await.code, 404);
}
