//! Which writes a webhook is asked about.

use serde_json::{Value, json};

use super::*;

async fn label_namespace(cluster: &Cluster, labels: Value) {
    cluster.merge("/api/v1/namespaces/default", &json!({"metadata": {"labels": labels}})).await.ok();
}

fn labelled(name: &str, labels: Value) -> Value {
    let mut map = map(name, json!({}));
    map["metadata"]["labels"] = labels;
    map
}

#[tokio::test]
async fn a_namespace_selector_looks_at_the_namespace_and_at_a_namespace_itself() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    let hook = with(
        webhook("w", rule(&["*"], &["configmaps", "namespaces", "nodes"])),
        json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}),
    );
    configure(&cluster, "Validating", "c", json!([hook])).await;
    cluster.create(MAPS, &map("one", json!({}))).await.ok();
    assert_eq!(webhooks.paths(), [""; 0]);
    label_namespace(&cluster, json!({"a": "b"})).await;
    cluster.create(MAPS, &map("two", json!({}))).await.ok();
    let requests = webhooks.requests();
    let seen: Vec<_> =
        requests.iter().map(|r| (r["name"].as_str().unwrap(), r["namespace"].as_str().unwrap())).collect();
    assert_eq!(seen, [("default", "default"), ("two", "default")], "the labels it will have count");
    label_namespace(&cluster, json!({"a": null})).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    cluster.create("/api/v1/nodes", &node).await.ok();
    let requests = webhooks.requests();
    assert_eq!(requests.len(), 1, "a namespace is asked about by its new labels; what has none always is");
    assert_eq!((&requests[0]["name"], requests[0].get("namespace")), (&json!("n"), None));
}

#[tokio::test]
async fn an_object_selector_looks_at_both_states() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    let selector = json!({"objectSelector": {"matchLabels": {"a": "b"}}});
    let hook = with(webhook("w", rule(&["*"], &["configmaps"])), selector);
    configure(&cluster, "Validating", "c", json!([hook])).await;
    let path = format!("{MAPS}/m");
    let labels = |value: Value| json!({"metadata": {"labels": {"a": value}}});
    cluster.create(MAPS, &labelled("m", json!({"a": "c"}))).await.ok();
    assert_eq!(webhooks.requests().len(), 0);
    cluster.merge(&path, &labels(json!("b"))).await.ok();
    cluster.merge(&path, &labels(Value::Null)).await.ok();
    assert_eq!(webhooks.requests().len(), 2);
    cluster.merge(&path, &labels(json!("c"))).await.ok();
    cluster.delete(&path).await.ok();
    assert_eq!(webhooks.requests().len(), 0);
}

#[tokio::test]
async fn rules_name_scopes_and_subresources() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    let scoped = |name: &str, scope: &str| {
        webhook(name, with(rule(&["CREATE", "UPDATE"], &["*", "*/status"]), json!({"scope": scope})))
    };
    let hooks = json!([
        scoped("cluster", "Cluster"),
        scoped("namespaced", "Namespaced"),
        webhook("status", rule(&["UPDATE"], &["nodes/status"])),
    ]);
    configure(&cluster, "Mutating", "c", hooks).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    cluster.create("/api/v1/namespaces", &namespace).await.ok();
    assert_eq!(webhooks.paths(), ["/cluster"], "a namespace is of the cluster");
    cluster.create(MAPS, &map("m", json!({}))).await.ok();
    assert_eq!(webhooks.paths(), ["/namespaced"]);
    cluster
        .create("/api/v1/nodes", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}))
        .await
        .ok();
    assert_eq!(webhooks.paths(), ["/cluster"]);
    cluster.merge("/api/v1/nodes/n/status", &json!({"status": {"phase": "Running"}})).await.ok();
    assert_eq!(webhooks.paths(), ["/cluster", "/status"]);
}

fn conditions(list: &[&str]) -> Value {
    let condition =
        |(index, expression): (usize, &&str)| json!({"name": format!("c{index}"), "expression": expression});
    list.iter().enumerate().map(condition).collect()
}

#[tokio::test]
async fn conditions_have_to_hold() {
    let webhooks = Webhooks::new(|_, _| deny("asked"));
    let cluster = webhooks.cluster().await;
    let hook = with(
        webhook("w", rule(&["CREATE", "UPDATE"], &["configmaps"])),
        json!({"matchConditions": conditions(&[
            "object.metadata.name != 'skip-me'",
            "request.operation == 'CREATE' && request.resource.resource == 'configmaps' && oldObject == null",
            "request.userInfo.username == 'admin' && !request.dryRun",
        ])}),
    );
    configure(&cluster, "Validating", "c", json!([hook])).await;
    assert_eq!(cluster.create(MAPS, &map("m", json!({}))).await.code, 400);
    cluster.create(MAPS, &map("skip-me", json!({}))).await.ok();
    cluster.merge(&format!("{MAPS}/skip-me"), &json!({"data": {"a": "b"}})).await.ok();
    cluster.create(&format!("{MAPS}?dryRun=All"), &map("m", json!({}))).await.ok();
}

#[tokio::test]
async fn a_condition_that_fails_counts_as_the_webhooks_failure_unless_another_is_false() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    let path = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/c");
    let hook = |policy: &str, list: &[&str]| {
        let fields = json!({"matchConditions": conditions(list), "failurePolicy": policy});
        json!([with(webhook("w", rule(&["CREATE"], &["configmaps"])), fields)])
    };
    let failing = "object.data.none == 'x'";
    configure(&cluster, "Mutating", "c", hook("Fail", &[failing])).await;
    let (code, message) = cluster.create(MAPS, &map("m", json!({}))).await.refused();
    let wanted = format!("configmaps \"m\" is forbidden: expression '{failing}' resulted in error: ");
    assert!(code == 403 && message.starts_with(&wanted), "{message}");
    cluster.merge(&path, &json!({"webhooks": hook("Fail", &[failing, "false"])})).await.ok();
    cluster.create(MAPS, &map("m", json!({}))).await.ok();
    cluster.merge(&path, &json!({"webhooks": hook("Ignore", &[failing])})).await.ok();
    cluster.create(MAPS, &map("n", json!({}))).await.ok();
    assert_eq!(webhooks.paths(), [""; 0]);
}

#[tokio::test]
async fn a_condition_that_does_not_compile_is_refused_when_it_is_written() {
    let webhooks = Webhooks::new(|_, _| allow());
    let cluster = webhooks.cluster().await;
    for sort in ["Mutating", "Validating"] {
        let conditions = json!({"matchConditions": conditions(&["... [] bad expression"])});
        let hook = with(webhook("w", rule(&["CREATE"], &["configmaps"])), conditions);
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{sort}WebhookConfiguration"),
            "metadata": {"name": "c"}, "webhooks": [hook],
        });
        let path = format!("{CONFIGURATIONS}/{}webhookconfigurations", sort.to_lowercase());
        let (code, message) = cluster.create(&path, &configuration).await.refused();
        assert!(code == 422 && message.contains("compilation failed"), "{message}");
    }
}

#[tokio::test]
async fn conditions_can_ask_what_the_writer_may_do() {
    let webhooks = Webhooks::new(|_, _| deny("asked"));
    let cluster = webhooks.cluster().await;
    let unless =
        "!authorizer.group('').resource('configmaps').namespace('default').check('delete').allowed()";
    let hook = with(
        webhook("w", rule(&["CREATE"], &["configmaps"])),
        json!({"matchConditions": conditions(&[unless])}),
    );
    configure(&cluster, "Validating", "c", json!([hook])).await;
    cluster.create(MAPS, &map("m", json!({}))).await.ok();
}
