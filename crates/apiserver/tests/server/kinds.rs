//! What the engine does differently for single kinds.

use serde_json::json;

use crate::cluster::Cluster;

#[tokio::test]
async fn annotations_of_a_deployment_raise_its_generation_but_not_with_its_status() {
    let cluster = Cluster::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let made = cluster
        .create(
            path,
            &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
                "selector": {"matchLabels": {"a": "b"}}, "template": {
                    "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        )
        .await
        .ok();
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{path}/web");
    let generation = async |path: &str, patch| {
        cluster.merge(path, &patch).await.ok()["metadata"]["generation"].as_i64().unwrap()
    };
    assert_eq!(generation(&path, json!({"metadata": {"labels": {"a": "1"}}})).await, 1);
    assert_eq!(generation(&path, json!({"metadata": {"annotations": {"a": "1"}}})).await, 2);
    let status = format!("{path}/status");
    let patch = json!({"metadata": {"annotations": {"a": "2"}}, "status": {"replicas": 1}});
    assert_eq!(generation(&status, patch).await, 2);
    assert_eq!(generation(&path, json!({"spec": {"replicas": 3}})).await, 3);
}

#[tokio::test]
async fn odd_objects_and_deprecated_kinds_are_warned_for() {
    let cluster = Cluster::new().await;
    let warnings = |answer: &crate::cluster::Answer| -> Vec<String> {
        let all = answer.headers.get_all("warning").iter();
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let endpoints = cluster.get("/api/v1/namespaces/default/endpoints").await;
    let words = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    assert_eq!(warnings(&endpoints), [format!("299 - \"{words}\"")]);
    let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
        "spec": {"podSelector": {}}});
    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let made = cluster.create(policies, &policy).await;
    assert!(warnings(&made)[0].contains("traffic is not restricted"), "{:?}", made.headers);
    assert_eq!(made.ok()["spec"]["policyTypes"], json!(["Ingress"]));
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a",
        "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    let made = cluster.create("/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert!(warnings(&made)[0].contains("deprecated in v1.32+"), "{:?}", made.headers);
    let patch = json!({"metadata": {"labels": {"a": "b"}}});
    let again = cluster.merge("/api/v1/namespaces/default/serviceaccounts/a", &patch).await;
    assert!(warnings(&again).is_empty());
}

#[tokio::test]
async fn a_body_of_the_wrong_type_is_told_with_the_names_of_gos_structs() {
    let cluster = Cluster::new().await;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": "3"}});
    let (code, message) =
        cluster.create("/apis/apps/v1/namespaces/default/deployments", &deployment).await.refused();
    assert_eq!(
        (code, message.as_str()),
        (
            400,
            "Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into Go \
             struct field DeploymentSpec.spec.replicas of type int32"
        )
    );
}
