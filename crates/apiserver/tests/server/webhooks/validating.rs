//! Who refuses, how that reads, and what becomes of a webhook that cannot be asked.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{Barrier, Notify};

use super::*;
use crate::cluster::account;

fn maps(operations: &[&str]) -> Value {
    rule(operations, &["configmaps"])
}

#[tokio::test]
async fn a_refusal_reads_as_the_webhook_says() {
    let webhooks = Webhooks::new(|_, request| match request["name"].as_str().unwrap() {
        "good" => allow(),
        "bad" => deny("the configmap contains unwanted key and value"),
        _ => {
            json!({"allowed": false, "status": {"code": 418, "reason": "Teapot", "details": {"retryAfterSeconds": 7}}})
        }
    });
    let cluster = webhooks.cluster().await;
    configure(&cluster, "Validating", "c", json!([webhook("deny", maps(&["CREATE", "UPDATE", "DELETE"]))]))
        .await;
    cluster.create(MAPS, &map("good", json!({}))).await.ok();
    assert_eq!(
        cluster.create(MAPS, &map("bad", json!({}))).await.refused(),
        (
            400,
            "admission webhook \"deny.example.com\" denied the request: the configmap contains unwanted key and value"
                .to_owned()
        )
    );
    assert_eq!(cluster.get(&format!("{MAPS}/bad")).await.code, 404);
    let odd = cluster.create(MAPS, &map("odd", json!({}))).await;
    assert_eq!((odd.code, &odd.headers["retry-after"]), (418, &http::HeaderValue::from_static("7")));
    let status = odd.json();
    assert_eq!(status["reason"], "Teapot");
    assert_eq!(status["message"], "admission webhook \"deny.example.com\" denied the request: Teapot");
}

#[tokio::test]
async fn updates_patches_deletions_and_collections_are_asked_about() {
    let webhooks = Webhooks::new(|_, request| {
        let (old, new) = (&request["oldObject"]["data"], &request["object"]["data"]);
        if old["keep"] == "yes" && new["keep"] != "yes" { deny("it must stay") } else { allow() }
    });
    let cluster = webhooks.cluster().await;
    configure(&cluster, "Validating", "c", json!([webhook("keep", maps(&["*"]))])).await;
    let path = format!("{MAPS}/m");
    cluster.create(MAPS, &map("m", json!({"keep": "yes"}))).await.ok();
    cluster.merge(&path, &json!({"data": {"more": "x"}})).await.ok();
    let mut made = cluster.get(&path).await.ok();
    made["data"] = json!({});
    let refusals = [
        cluster.update(&path, &made).await,
        cluster.merge(&path, &json!({"data": {"keep": "no"}})).await,
        cluster.apply(&path, "m", &map("m", json!({"keep": "no"}))).await,
        cluster.delete(&path).await,
        cluster.delete(MAPS).await,
    ];
    for (index, refusal) in refusals.into_iter().enumerate() {
        // The apply conflicts with the owner of the field before anybody is asked.
        let wanted = if index == 2 { "conflict" } else { "denied the request: it must stay" };
        let (_, message) = refusal.refused();
        assert!(message.contains(wanted), "{index}: {message}");
    }
    assert_eq!(cluster.get(&path).await.ok()["data"]["keep"], "yes");
    let last = webhooks.requests().pop().unwrap();
    assert_eq!(
        (&last["operation"], &last["object"], last.get("name")),
        (&json!("DELETE"), &Value::Null, None)
    );
}

#[tokio::test]
async fn a_connection_to_a_pod_can_be_refused() {
    let webhooks = Webhooks::new(|_, request| match request["subResource"].as_str() {
        Some("attach") => deny("attaching to pod 'to-be-attached-pod' is not allowed"),
        _ => allow(),
    });
    let cluster = webhooks.cluster().await;
    account(&cluster).await;
    cluster
        .create("/api/v1/nodes", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}))
        .await
        .ok();
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    });
    cluster.create("/api/v1/namespaces/default/pods", &pod).await.ok();
    configure(&cluster, "Validating", "c", json!([webhook("connect", rule(&["CONNECT"], &["pods/*"]))]))
        .await;
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let pods = "/api/v1/namespaces/default/pods/p";
    let refused = cluster.send("POST", &format!("{pods}/attach?stdin=true&container=c"), &upgrade, "").await;
    assert_eq!(refused.status(), 400);
    let exec = cluster
        .send("POST", &format!("{pods}/exec?command=sh&command=-c&stdout=1&container=c"), &upgrade, "")
        .await;
    assert_eq!(exec.status(), 200, "what is not refused reaches the kubelet");
    let [attach, exec] = webhooks.requests().try_into().unwrap();
    assert_eq!((&attach["operation"], &attach["name"]), (&json!("CONNECT"), &json!("p")));
    assert_eq!(
        attach["object"],
        json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "container": "c"})
    );
    assert_eq!((&attach["oldObject"], &attach["options"]), (&Value::Null, &Value::Null));
    assert_eq!(attach["kind"], json!({"group": "", "version": "v1", "kind": "PodAttachOptions"}));
    assert_eq!(
        exec["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdout": true, "container": "c", "command": ["sh", "-c"]})
    );
}

#[tokio::test]
async fn failure_policy_says_what_a_webhook_that_cannot_be_asked_means() {
    let webhooks = Webhooks::later(|path, review| {
        Box::pin(async move {
            match path.as_str() {
                "/broken" => (500, json!("out of order")),
                "/absent" => (404, json!("no such page")),
                "/mute" => (200, json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"})),
                _ => (
                    200,
                    respond(&review, json!({"allowed": true, "patch": "W10=", "patchType": "JSONPatch"})),
                ),
            }
        })
    });
    let cluster = webhooks.cluster().await;
    let untrusted = json!({"url": "https://192.0.2.1:8443/untrusted"});
    let cases = [
        (
            with(webhook("untrusted", maps(&["CREATE"])), json!({"clientConfig": untrusted})),
            "failed to call webhook: Post \"https://192.0.2.1:8443/untrusted?timeout=10s\": ",
        ),
        (
            webhook("broken", maps(&["CREATE"])),
            "failed to call webhook: an error on the server (\"\\\"out of order\\\"\") has prevented the request from succeeding",
        ),
        (
            webhook("absent", maps(&["CREATE"])),
            "failed to call webhook: the server could not find the requested resource",
        ),
        (
            webhook("mute", maps(&["CREATE"])),
            "received invalid webhook response: webhook response was absent",
        ),
        (
            webhook("patching", maps(&["CREATE"])),
            "received invalid webhook response: validating webhook may not return response.patch",
        ),
    ];
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/c");
    for (hook, words) in cases {
        let name = hook["name"].as_str().unwrap().to_owned();
        configure(&cluster, "Validating", "c", json!([hook])).await;
        let answer = cluster.create(MAPS, &map("m", json!({}))).await;
        assert_eq!(answer.json()["reason"], "InternalError");
        let (code, message) = answer.refused();
        let wanted = format!("Internal error occurred: failed calling webhook \"{name}\": {words}");
        assert!(code == 500 && message.starts_with(&wanted), "{message}");
        cluster
            .merge(&path, &json!({"webhooks": [with(hook, json!({"failurePolicy": "Ignore"}))]}))
            .await
            .ok();
        cluster.create(MAPS, &map("m", json!({}))).await.ok();
        cluster.delete(&format!("{MAPS}/m")).await.ok();
        cluster.delete(&path).await.ok();
    }
}

#[tokio::test]
async fn a_slow_webhook_is_cut_at_its_timeout() {
    let webhooks = Webhooks::later(|_, _| Box::pin(futures::future::pending()));
    let cluster = webhooks.cluster().await;
    let slow = with(webhook("slow", maps(&["CREATE"])), json!({"timeoutSeconds": 1}));
    configure(&cluster, "Validating", "c", json!([slow])).await;
    assert_eq!(
        cluster.create(MAPS, &map("m", json!({}))).await.refused(),
        (
            500,
            "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \
             \"https://192.0.2.1:8443/slow?timeout=1s\": context deadline exceeded"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn all_are_asked_at_once_and_the_first_refusal_wins() {
    let (both, second) = (Arc::new(Barrier::new(2)), Arc::new(Notify::new()));
    let webhooks = Webhooks::later(move |path, review| {
        let (both, second) = (both.clone(), second.clone());
        Box::pin(async move {
            both.wait().await;
            if path == "/one" {
                second.notified().await;
            }
            let answer =
                respond(&review, json!({"allowed": false, "status": {"message": path}, "warnings": [path]}));
            second.notify_one();
            (200, answer)
        })
    });
    let cluster = webhooks.cluster().await;
    let hooks = json!([webhook("one", maps(&["CREATE"])), webhook("two", maps(&["CREATE"]))]);
    configure(&cluster, "Validating", "c", hooks).await;
    let answer = cluster.create(MAPS, &map("m", json!({}))).await;
    let warnings: Vec<_> =
        answer.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    assert_eq!(warnings, ["299 - \"/two\"", "299 - \"/one\""]);
    let (_, message) = answer.refused();
    assert_eq!(message, "admission webhook \"two.example.com\" denied the request: /two");
}

#[tokio::test]
async fn configurations_and_reviews_are_never_asked_about() {
    let webhooks = Webhooks::new(|_, _| deny("never"));
    let cluster = webhooks.cluster().await;
    let all = rule(&["*"], &["*/*"]);
    for sort in ["Mutating", "Validating"] {
        configure(&cluster, sort, "all", json!([webhook("all", all.clone())])).await;
        configure(&cluster, sort, "other", json!([])).await;
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}},
    });
    cluster.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await.ok();
    for sort in ["mutating", "validating"] {
        let path = format!("{CONFIGURATIONS}/{sort}webhookconfigurations");
        cluster.merge(&format!("{path}/other"), &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
        cluster.delete(&format!("{path}/other")).await.ok();
    }
    assert_eq!(webhooks.paths(), [""; 0]);
    let (_, message) = cluster.create(MAPS, &map("m", json!({}))).await.refused();
    assert!(message.ends_with("denied the request: never"), "{message}");
    for sort in ["mutating", "validating"] {
        cluster.delete(&format!("{CONFIGURATIONS}/{sort}webhookconfigurations")).await.ok();
    }
    cluster.create(MAPS, &map("m", json!({}))).await.ok();
}

#[tokio::test]
async fn a_service_is_asked_at_one_of_its_ready_endpoints() {
    let webhooks = Webhooks::new(|_, _| deny("no"));
    let cluster = webhooks.cluster().await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 8443, "targetPort": 8444}]},
    });
    cluster.create("/api/v1/namespaces/default/services", &service).await.ok();
    let client = json!({"service": {"namespace": "default", "name": "s", "path": "/deny", "port": 8443}, "caBundle": "Z29vZA=="});
    let hook = with(webhook("deny", maps(&["CREATE"])), json!({"clientConfig": client}));
    configure(&cluster, "Validating", "c", json!([hook])).await;
    let (code, message) = cluster.create(MAPS, &map("m", json!({}))).await.refused();
    let wanted = "failed to call webhook: Post \"https://s.default.svc:8443/deny?timeout=10s\": no endpoints available for service \"s\"";
    assert!(code == 500 && message.ends_with(wanted), "{message}");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
        ],
        "ports": [{"port": 8444}],
    });
    cluster.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await.ok();
    let (code, _) = cluster.create(MAPS, &map("m", json!({}))).await.refused();
    assert_eq!(code, 400);
    assert_eq!(*webhooks.dialled.lock(), [("10.0.0.2".parse().unwrap(), 8444)]);
}

#[tokio::test]
async fn a_dry_run_is_told_to_webhooks_that_say_they_do_nothing_then() {
    let webhooks = Webhooks::new(|_, _| deny("asked"));
    let cluster = webhooks.cluster().await;
    let hook = with(webhook("dry", maps(&["CREATE"])), json!({"sideEffects": "NoneOnDryRun"}));
    configure(&cluster, "Validating", "c", json!([hook])).await;
    let (_, message) = cluster.create(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.refused();
    assert!(message.ends_with("asked"), "{message}");
    let request = webhooks.requests().pop().unwrap();
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
}

#[tokio::test]
async fn a_dry_run_is_refused_where_a_webhook_may_do_something() {
    use store::Store as _;
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    let hook = with(webhook("dry", maps(&["CREATE"])), json!({"failurePolicy": "Ignore"}));
    configure(&cluster, "Validating", "c", json!([hook])).await;
    // As it was stored by a version that let this be written.
    let key = "/registry/admissionregistration.k8s.io/validatingwebhookconfigurations/c";
    let entry = cluster.store.get(key).unwrap();
    let text = String::from_utf8(entry.value.to_vec()).unwrap();
    let value = text.replace(r#""sideEffects":"None""#, r#""sideEffects":"Some""#);
    assert_ne!(value, text);
    let expect = store::Expect::At(entry.modified);
    let put = store::Op::Put { key: entry.key.clone(), value: value.into(), revision_at: None, expect };
    cluster.store.commit(vec![put]).await.unwrap();
    assert_eq!(
        cluster.create(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.refused(),
        (400, "admission webhook \"dry.example.com\" does not support dry run".to_owned())
    );
    assert_eq!(webhooks.paths(), [""; 0]);
    cluster.create(MAPS, &map("m", json!({}))).await.ok();
    assert_eq!(webhooks.paths(), ["/dry"]);
}
