//! What upstream's conformance tests of validation rules in definitions do: rules that are right, wrong, too expensive.

use serde_json::{Value, json};

use crate::cluster::{Answer, Cluster};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const OBJECTS: &str = "/apis/example.com/v1/namespaces/default/checks";

async fn define(cluster: &Cluster, spec: Value, status: Option<Value>) -> Answer {
    let mut schema = json!({"type": "object", "properties": {"spec": spec}});
    if let Some(status) = status {
        schema["properties"]["status"] = status;
    }
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "checks.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            "names": {"plural": "checks", "singular": "check", "kind": "Check", "listKind": "CheckList"},
        },
    });
    let answer = cluster.create(DEFINITIONS, &definition).await;
    if answer.code == 201 {
        cluster.until(OBJECTS, |answer| answer.code == 200).await;
    }
    answer
}

fn with(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Check", "metadata": {"name": "c"}, "spec": spec})
}

fn numbers(most: u64) -> Value {
    json!({"type": "array", "maxItems": most, "items": {"type": "integer"}})
}

#[tokio::test]
async fn rules_hold_when_objects_are_made() {
    let cluster = Cluster::new().await;
    let spec = json!({
        "type": "object",
        "x-kubernetes-validations": [
            {"rule": "self.x + self.y > 0"},
            {"rule": "self.firstArray.isSorted() && self.secondArray.isSorted() && ((self.firstArray.sum() + self.secondArray.sum()) % 2 == 0)"},
            {"rule": "self.largeArray.all(x, self.largeArray.all(y, y == x))"},
        ],
        "properties": {
            "x": {"type": "integer"}, "y": {"type": "integer"},
            "firstArray": numbers(1000), "secondArray": numbers(1000), "largeArray": numbers(725),
        },
    });
    let status = json!({
        "type": "object", "properties": {"health": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "self.health == 'ok' || self.health == 'unhealthy'"}],
    });
    define(&cluster, spec, Some(status)).await.ok();
    let good = json!({"x": 1, "y": 0, "firstArray": [3, 4], "secondArray": [5, 10], "largeArray": [2, 2]});
    cluster.create(OBJECTS, &with(good)).await.ok();
    let (code, why) = cluster.create(OBJECTS, &with(json!({"x": 0, "y": 0}))).await.refused();
    assert!(code == 422 && why.contains("failed rule"), "{why}");
    let large = json!({"x": 1, "y": 0, "firstArray": [], "secondArray": [], "largeArray": vec![20; 725]});
    let (code, why) = cluster.create(OBJECTS, &with(large)).await.refused();
    assert!(code == 422 && why.contains("call cost exceeds limit"), "{why}");
}

#[tokio::test]
async fn rules_that_cannot_be_right_or_cost_too_much_are_refused_with_their_definition() {
    let cluster = Cluster::new().await;
    let rule = |rule: &str| json!({"type": "object", "properties": {"x": {"type": "integer"}}, "x-kubernetes-validations": [{"rule": rule}]});
    for (source, words) in [("self.z == 100", "undefined field 'z'"), ("self = 42", "Syntax error")] {
        let (code, why) = define(&cluster, rule(source), None).await.refused();
        assert!(code == 422 && why.contains(words), "{why}");
    }
    let expensive = json!({"type": "object", "properties": {"x": {"type": "array", "items": {
        "type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(s, s == 'string constant')"}],
    }}}});
    let (code, why) = define(&cluster, expensive, None).await.refused();
    assert!(
        code == 422 && why.contains("estimated rule cost exceeds budget by factor of more than 100x"),
        "{why}"
    );
    assert!(why.contains("estimated rule cost total for entire OpenAPIv3 schema exceeds budget"), "{why}");
}

#[tokio::test]
async fn a_transition_rule_compares_with_the_state_before() {
    let cluster = Cluster::new().await;
    let number = json!({"type": "integer", "x-kubernetes-validations": [
        {"rule": "self > oldSelf", "messageExpression": "self < 10 ? 'less than ten' : 'not more than before'", "reason": "FieldValueForbidden"},
    ]});
    let optional = json!({"type": "integer", "x-kubernetes-validations": [
        {"rule": "oldSelf.hasValue() || self == 1", "optionalOldSelf": true, "message": "begins with one"},
    ]});
    define(&cluster, json!({"type": "object", "properties": {"num": number, "first": optional}}), None)
        .await
        .ok();
    let (_, why) = cluster.create(OBJECTS, &with(json!({"num": 10, "first": 2}))).await.refused();
    assert!(why.contains("spec.first: Invalid value: 2: begins with one"), "{why}");
    let made = cluster.create(OBJECTS, &with(json!({"num": 10, "first": 1}))).await.ok();
    let mut less = made.clone();
    less["spec"] = json!({"num": 9, "first": 2});
    let (code, why) = cluster.update(&format!("{OBJECTS}/c"), &less).await.refused();
    assert!(code == 422 && why.contains("spec.num: Forbidden: less than ten"), "{why}");
    less["spec"]["num"] = 11.into();
    cluster.update(&format!("{OBJECTS}/c"), &less).await.ok();
}
