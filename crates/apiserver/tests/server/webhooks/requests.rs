//! What a webhook is told about a write.

use serde_json::{Value, json};

use super::*;
use crate::cluster::account;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn seen(fields: &[&str], request: &Value) -> Value {
    fields
        .iter()
        .map(|field| ((*field).to_owned(), request[field].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn a_creation_is_shown_with_who_asks_for_it_and_how() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    let all = rule(&["*"], &["configmaps"]);
    configure(&cluster, "Mutating", "c", json!([webhook("m", all.clone())])).await;
    configure(&cluster, "Validating", "c", json!([webhook("v", all)])).await;
    let mut named = map("", json!({"a": "b"}));
    named["metadata"] = json!({"generateName": "m-"});
    let path = format!("{MAPS}?fieldManager=me&fieldValidation=Strict");
    let made = cluster.create(&path, &named).await.ok();
    let [mutating, validating] = webhooks.requests().try_into().unwrap();
    assert_eq!(mutating.get("name"), None, "there is no name yet");
    assert_eq!(validating["name"], made["metadata"]["name"]);
    assert_ne!(mutating["uid"], validating["uid"]);
    let fields = [
        "kind",
        "resource",
        "requestKind",
        "requestResource",
        "namespace",
        "operation",
        "userInfo",
        "oldObject",
        "dryRun",
        "options",
    ];
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let resource = json!({"group": "", "version": "v1", "resource": "configmaps"});
    assert_eq!(
        seen(&fields, &validating),
        json!({
            "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "namespace": "default", "operation": "CREATE", "oldObject": null, "dryRun": false,
            "userInfo": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
            "options": {
                "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "fieldValidation": "Strict",
            },
        })
    );
    assert_eq!(validating["object"]["kind"], "ConfigMap");
    assert_eq!(validating["object"]["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(validating.get("subResource"), None);
}

#[tokio::test]
async fn changes_and_deletions_are_shown_with_what_was_there() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    configure(&cluster, "Validating", "c", json!([webhook("v", rule(&["*"], &["configmaps"]))])).await;
    let path = format!("{MAPS}/m");
    cluster.apply(&path, "one", &map("m", json!({"a": "1"}))).await.ok();
    cluster.apply(&path, "one", &map("m", json!({"a": "2"}))).await.ok();
    let options = json!({
        "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "gracePeriodSeconds": 0,
    });
    let headers = [("content-type", "application/json")];
    let deleted = cluster.send("DELETE", &path, &headers, options.to_string()).await;
    assert_eq!(deleted.status(), 200);
    let [create, update, delete] = webhooks.requests().try_into().unwrap();
    let options = |kind: &str| json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "fieldManager": "one"});
    assert_eq!((&create["operation"], &create["options"]), (&json!("CREATE"), &options("CreateOptions")));
    assert_eq!((&update["operation"], &update["options"]), (&json!("UPDATE"), &options("UpdateOptions")));
    assert_eq!(
        (&update["oldObject"]["data"]["a"], &update["object"]["data"]["a"]),
        (&json!("1"), &json!("2"))
    );
    assert_eq!((&delete["object"], &delete["oldObject"]["data"]["a"]), (&Value::Null, &json!("2")));
    assert_eq!(
        delete["options"],
        json!({
            "kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "propagationPolicy": "Background", "gracePeriodSeconds": 0,
        })
    );
}

#[tokio::test]
async fn a_namespace_is_in_itself() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    configure(&cluster, "Mutating", "c", json!([webhook("v", rule(&["*"], &["namespaces"]))])).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    cluster.create("/api/v1/namespaces", &namespace).await.ok();
    cluster.merge("/api/v1/namespaces/n", &json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    cluster.delete("/api/v1/namespaces/n").await.ok();
    for request in webhooks.requests() {
        assert_eq!(
            (&request["name"], &request["namespace"]),
            (&json!("n"), &json!("n")),
            "{}",
            request["operation"]
        );
    }
}

#[tokio::test]
async fn a_scale_is_shown_as_a_scale_and_changed_as_one() {
    let webhooks =
        Webhooks::new(|_, _| patch(&json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])));
    let cluster = webhooks.cluster().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    });
    cluster.create(deployments, &deployment).await.ok();
    configure(&cluster, "Mutating", "c", json!([webhook("s", rule(&["UPDATE"], &["deployments/scale"]))]))
        .await;
    let scaled =
        cluster.merge(&format!("{deployments}/d/scale"), &json!({"spec": {"replicas": 9}})).await.ok();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    assert_eq!(cluster.get(&format!("{deployments}/d")).await.ok()["spec"]["replicas"], 3);
    let request = webhooks.requests().remove(0);
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&request["resource"]["resource"], &request["subResource"]),
        (&json!("deployments"), &json!("scale"))
    );
    assert_eq!(
        (&request["oldObject"]["spec"]["replicas"], &request["object"]["spec"]["replicas"]),
        (&json!(1), &json!(9))
    );
}

#[tokio::test]
async fn bindings_and_evictions_are_creations_of_their_own_kinds() {
    let webhooks = Webhooks::new(|_, request| match request["subResource"].as_str() {
        Some("eviction") => deny("not now"),
        _ => allow(),
    });
    let cluster = webhooks.cluster().await;
    account(&cluster).await;
    for name in ["p", "q"] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        cluster.create(PODS, &pod).await.ok();
    }
    let hooks = json!([webhook("v", rule(&["*"], &["pods", "pods/*", "bindings"]))]);
    configure(&cluster, "Validating", "c", hooks).await;
    let binding = |name: &str| json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    cluster.create(&format!("{PODS}/p/binding"), &binding("p")).await.ok();
    cluster.create("/api/v1/namespaces/default/bindings", &binding("q")).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let (_, message) = cluster.create(&format!("{PODS}/p/eviction"), &eviction).await.refused();
    assert!(message.ends_with("not now"), "{message}");
    let [of_pod, plain, eviction] = webhooks.requests().try_into().unwrap();
    let fields = ["operation", "name", "subResource", "kind", "oldObject"];
    let kind = |group: &str, kind: &str| json!({"group": group, "version": "v1", "kind": kind});
    assert_eq!(
        seen(&fields, &of_pod),
        json!({"operation": "CREATE", "name": "p", "subResource": "binding", "kind": kind("", "Binding"), "oldObject": null})
    );
    assert_eq!((&plain["resource"]["resource"], &plain["name"]), (&json!("bindings"), &json!("q")));
    assert_eq!((&plain["kind"], plain.get("subResource")), (&kind("", "Binding"), None));
    assert_eq!(eviction["kind"], kind("policy", "Eviction"));
    assert_eq!(eviction["resource"], json!({"group": "", "version": "v1", "resource": "pods"}));
    assert_eq!(cluster.get(&format!("{PODS}/p")).await.ok()["spec"]["nodeName"], "n");
}

#[tokio::test]
async fn the_older_form_is_spoken_to_who_wants_it() {
    let webhooks = Webhooks::later(|_, review| {
        let answer = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": {"allowed": false}});
        Box::pin(async move { (200, answer) })
    });
    let cluster = webhooks.cluster().await;
    let old = with(
        webhook("old", rule(&["*"], &["configmaps"])),
        json!({"admissionReviewVersions": ["v2", "v1beta1", "v1"]}),
    );
    configure(&cluster, "Validating", "c", json!([old])).await;
    let (_, message) = cluster.create(MAPS, &map("m", json!({}))).await.refused();
    assert_eq!(message, "admission webhook \"old.example.com\" denied the request without explanation");
    assert_eq!(webhooks.asked.lock()[0].1["apiVersion"], "admission.k8s.io/v1beta1");
}
