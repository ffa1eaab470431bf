//! What admission adds to events.

use serde_json::{Value, json};

use super::{EVERYTHING, Lines, audit, cluster};
use crate::cluster::{Cluster, account};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const RULE: &str = "[{level: Metadata, resources: [{resources: [pods, configmaps, serviceaccounts/token]}]}]";

fn annotations(event: &Value) -> Value {
    let mut annotations = event["annotations"].clone();
    annotations.as_object_mut().unwrap().retain(|key, _| !key.starts_with("authorization.k8s.io/"));
    annotations
}

#[tokio::test]
async fn pods_that_go_beyond_the_standard_of_their_namespace_are_told() {
    let (cluster, lines) = cluster(RULE).await;
    account(&cluster).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]},
        })
    };
    cluster.create(pods, &pod("a")).await.ok();
    let open = json!({"pod-security.kubernetes.io/enforce-policy": "privileged:latest"});
    assert_eq!(annotations(&lines.one(&cluster).await), open);
    let label = |mode: &str, level: &str| json!({"metadata": {"labels": {format!("pod-security.kubernetes.io/{mode}"): level}}});
    cluster.merge("/api/v1/namespaces/default", &label("audit", "baseline")).await.ok();
    cluster.create(pods, &pod("b")).await.ok();
    assert_eq!(
        annotations(&lines.one(&cluster).await),
        json!({
            "pod-security.kubernetes.io/enforce-policy": "privileged:latest",
            "pod-security.kubernetes.io/audit-violations":
                "would violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)",
        })
    );
    cluster.merge("/api/v1/namespaces/default", &label("enforce", "baseline")).await.ok();
    assert_eq!(cluster.create(pods, &pod("c")).await.code, 403);
    let told = annotations(&lines.one(&cluster).await);
    assert_eq!(told["pod-security.kubernetes.io/enforce-policy"], "baseline:latest");
    assert!(told["pod-security.kubernetes.io/audit-violations"].is_string());
}

#[tokio::test]
async fn policies_tell_what_they_are_told_to_tell_and_what_they_only_audit() {
    let (cluster, lines) = cluster(RULE).await;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]},
            ]},
            "validations": [
                {"expression": "true"},
                {"expression": "object.data.a == 'x'", "message": "a is not x"},
            ],
            "auditAnnotations": [
                {"key": "a", "valueExpression": "'a is ' + object.data.a + ' '"},
                {"key": "none", "valueExpression": "null"},
                {"key": "empty", "valueExpression": "' '"},
            ],
        },
    });
    cluster.create(&format!("{GROUP}/validatingadmissionpolicies"), &policy).await.ok();
    for name in ["b1", "b2"] {
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": "p", "validationActions": ["Audit"]},
        });
        cluster.create(&format!("{GROUP}/validatingadmissionpolicybindings"), &binding).await.ok();
    }
    cluster.create(super::MAPS, &super::map("one")).await.ok();
    let told = annotations(&lines.one(&cluster).await);
    assert_eq!(told["p/a"], "a is b", "once, though two bindings say it");
    let failures: Value =
        serde_json::from_str(told["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap())
            .unwrap();
    let failure = |binding: &str| {
        json!({
            "message": "a is not x", "policy": "p", "binding": binding, "expressionIndex": 1, "validationActions": ["Audit"],
        })
    };
    assert_eq!(failures, json!([failure("b1"), failure("b2")]));
    assert_eq!(told.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_token_is_known_by_its_number_and_a_deprecated_kind_as_one() {
    let lines = Lines::default();
    let audit = audit(EVERYTHING, "omitStages: [RequestReceived], ", &lines);
    let pem = access::token::Issuer::generate_key().unwrap();
    let issuer = access::token::Issuer::new("https://kubernetes.default.svc", &pem).unwrap();
    let cluster = Cluster::with(|config| {
        config.audit = Some(audit);
        config.issuer = Some(std::sync::Arc::new(issuer));
    })
    .await;
    account(&cluster).await;
    lines.take(&cluster).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    cluster.create("/api/v1/namespaces/default/serviceaccounts/default/token", &request).await.ok();
    let event = lines.one(&cluster).await;
    let id = event["annotations"]["authentication.kubernetes.io/issued-credential-id"].as_str().unwrap();
    assert_eq!(id.strip_prefix("JTI=").map(str::len), Some(36), "{id}");
    cluster.get("/api/v1/namespaces/default/endpoints").await.ok();
    assert_eq!(lines.one(&cluster).await["annotations"]["k8s.io/deprecated"], "true");
}
