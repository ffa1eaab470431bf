//! Kinds that guard and extend the API, through their life as upstream's conformance tests lead them.

use serde_json::{Value, json};

use crate::cluster::Cluster;

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1/storageversionmigrations";
const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

#[tokio::test]
async fn a_migration_gets_its_status_by_every_sort_of_patch() {
    let cluster = Cluster::new().await;
    let object = json!({
        "apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
        "metadata": {"name": "test"}, "spec": {"resource": {"group": "", "resource": "foo"}},
    });
    let path = format!("{MIGRATIONS}/test");
    let conditions = json!([{
        "type": "TestCondition", "status": "True", "reason": "TestReason", "message": "TestMessage",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    for sort in ["apply", "strategic-merge-patch", "merge-patch", "json-patch"] {
        let made = cluster.create(MIGRATIONS, &object).await.ok();
        assert_eq!(made["status"], json!({}));
        assert_eq!(made["metadata"]["generation"], Value::Null);
        let patch = if sort == "json-patch" {
            json!([{"op": "add", "path": "/status/conditions", "value": conditions}])
        } else {
            json!({
                "apiVersion": "storagemigration.k8s.io/v1", "kind": "StorageVersionMigration",
                "metadata": {"name": "test", "uid": made["metadata"]["uid"]}, "status": {"conditions": conditions},
            })
        };
        let patched = cluster.patch(sort, &format!("{path}/status"), &patch).await.ok();
        assert_eq!(patched["status"]["conditions"], conditions, "{sort}");
        let changed = json!({"spec": {"resource": {"resource": "bar"}}});
        assert_eq!(cluster.merge(&path, &changed).await.code, 422, "the spec stays");
        cluster.delete(&path).await.ok();
    }
}

#[tokio::test]
async fn priority_levels_and_flow_schemas_are_there_from_the_beginning() {
    let cluster = Cluster::new().await;
    for (plural, count) in [("prioritylevelconfigurations", 8), ("flowschemas", 11)] {
        let list = cluster.get(&format!("{FLOW}/{plural}")).await.ok();
        let items = list["items"].as_array().unwrap();
        assert_eq!(items.len(), count);
        let marked =
            |item: &Value| item["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"] == "true";
        assert!(items.iter().all(marked));
    }
    let change = json!({"spec": {"matchingPrecedence": 5}});
    let (code, why) = cluster.merge(&format!("{FLOW}/flowschemas/catch-all"), &change).await.refused();
    assert_eq!(code, 422);
    assert!(why.contains("spec of 'catch-all' must equal the fixed value"), "{why}");
}

#[tokio::test]
async fn a_flow_schemas_spec_and_status_are_written_apart() {
    let cluster = Cluster::new().await;
    let object = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"generateName": "e2e-"},
        "spec": {
            "matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "nobody"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        },
    });
    let made = cluster.create(&format!("{FLOW}/flowschemas"), &object).await.ok();
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{FLOW}/flowschemas/{}", made["metadata"]["name"].as_str().unwrap());
    let patch = json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"matchingPrecedence": 9999}});
    assert_eq!(cluster.merge(&path, &patch).await.ok()["metadata"]["generation"], 2);
    let patch = json!({
        "metadata": {"annotations": {"a": "2"}}, "spec": {"matchingPrecedence": 1},
        "status": {"conditions": [{"type": "PatchStatusFailed", "status": "False", "reason": "e2e"}]},
    });
    let mut patched = cluster.merge(&format!("{path}/status"), &patch).await.ok();
    assert_eq!(patched["status"]["conditions"][0]["type"], "PatchStatusFailed");
    assert_eq!(patched["spec"]["matchingPrecedence"], 9999);
    assert_eq!(patched["metadata"]["annotations"]["a"], "1");
    patched["status"]["conditions"].as_array_mut().unwrap().push(json!({"type": "More", "status": "False"}));
    let updated = cluster.update(&format!("{path}/status"), &patched).await.ok();
    assert_eq!(updated["status"]["conditions"].as_array().unwrap().len(), 2);
    assert_eq!(updated["metadata"]["generation"], 2);
}

fn webhooks(expression: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "w"},
        "webhooks": [{
            "name": "deny.example.com", "clientConfig": {"service": {"namespace": "b", "name": "s", "path": "/x"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
            "matchConditions": [{"name": "first", "expression": expression}],
        }],
    })
}

#[tokio::test]
async fn a_webhook_configuration_is_defaulted_and_its_conditions_compile() {
    let cluster = Cluster::new().await;
    let path = format!("{ADMISSION}/validatingwebhookconfigurations");
    let (code, why) = cluster.create(&path, &webhooks("... - bad syntax [")).await.refused();
    assert_eq!(code, 422);
    assert!(
        why.contains("webhooks[0].matchConditions[0].expression") && why.contains("compilation failed"),
        "{why}"
    );
    let mut made = cluster.create(&path, &webhooks("object.metadata.name != 'a'")).await.ok();
    let hook = &made["webhooks"][0];
    for (field, value) in [
        ("failurePolicy", json!("Fail")),
        ("matchPolicy", json!("Equivalent")),
        ("timeoutSeconds", json!(10)),
        ("namespaceSelector", json!({})),
        ("objectSelector", json!({})),
    ] {
        assert_eq!(hook[field], value, "{field}");
    }
    assert_eq!(hook["clientConfig"]["service"]["port"], 443);
    assert_eq!(hook["rules"][0]["scope"], "*");
    made["webhooks"][0]["rules"][0]["operations"] = json!(["UPDATE"]);
    let changed = cluster.update(&format!("{path}/w"), &made).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    let patch = json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations/0", "value": "CREATE"}]);
    let patched = cluster.patch("json-patch", &format!("{path}/w"), &patch).await.ok();
    assert_eq!(patched["webhooks"][0]["rules"][0]["operations"], json!(["CREATE"]));
    let listed = cluster.get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(listed["rows"][0]["cells"][1], 1);
}

#[tokio::test]
async fn a_policys_status_is_written_apart_from_its_spec() {
    let cluster = Cluster::new().await;
    let path = format!("{ADMISSION}/validatingadmissionpolicies");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p", "labels": {"a": "1"}},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]},
            ]},
            "validations": [{"expression": "object.spec.replicas <= 100"}],
        },
    });
    let made = cluster.create(&path, &policy).await.ok();
    assert_eq!(made["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
    assert_eq!(made["metadata"]["generation"], 1);
    let patch = json!({
        "metadata": {"labels": {"a": "2"}},
        "status": {"conditions": [{
            "type": "PatchStatusFailed", "status": "False", "reason": "e2e", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    let patched = cluster.merge(&format!("{path}/p/status"), &patch).await.ok();
    assert_eq!(patched["status"]["conditions"][0]["reason"], "e2e");
    assert_eq!(patched["metadata"]["labels"]["a"], "1");
    let patched =
        cluster.merge(&format!("{path}/p"), &json!({"spec": {"failurePolicy": "Ignore"}})).await.ok();
    assert_eq!(
        (&patched["metadata"]["generation"], &patched["spec"]["failurePolicy"]),
        (&json!(2), &json!("Ignore"))
    );
}

#[tokio::test]
async fn a_local_api_service_is_available_from_the_beginning() {
    let cluster = Cluster::new().await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.example.com"},
        "spec": {"group": "example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10},
    });
    let made = cluster.create(path, &service).await.ok();
    assert_eq!(made["status"]["conditions"][0]["reason"], "Local");
    let table = cluster.get_as(path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("v1.example.com"), json!("Local"), json!("True")]
    );
}
