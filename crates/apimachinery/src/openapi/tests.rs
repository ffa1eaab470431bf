use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{structure, validate};

fn words(json: Value) -> Vec<String> {
    from_json_schema(&json).expect_err("must be refused").iter().map(ToString::to_string).collect()
}

fn sample() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "replicas": {"type": "integer", "format": "int32", "minimum": 0, "default": 1},
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "hosts": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
                    }
                },
                "x-kubernetes-validations": [{"rule": "self.replicas < 5", "message": "too many"}]
            }
        }
    })
}

#[test]
fn a_structural_schema_is_read_and_obeyed() {
    let schema = from_json_schema(&sample()).expect("structural");
    let mut object = json!({
        "apiVersion": "a/v1", "kind": "X", "metadata": {"name": "n", "labels": {"a": "b"}},
        "spec": {"replicas": 7, "port": "http", "extra": 1}
    });
    assert_eq!(structure::prune(&mut object, &schema), [r#"unknown field "spec.extra""#]);
    assert_eq!(object["metadata"]["labels"]["a"], "b");
    let errors = validate::create(&object, &schema);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["spec: Invalid value: too many"]);
}

#[test]
fn what_is_not_structural_is_told_with_its_path() {
    assert_eq!(
        words(json!({"type": "object", "properties": {"spec": {"properties": {"a": {"type": "string"}}}}})),
        [
            "spec.validation.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"
        ]
    );
    assert_eq!(
        words(json!({"type": "string"})),
        ["spec.validation.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root"]
    );
    assert_eq!(
        words(json!({"type": "object", "properties": {"l": {"type": "array"}}})),
        ["spec.validation.openAPIV3Schema.properties[l].items: Required value: must be specified"]
    );
    assert_eq!(
        words(json!({"type": "object", "allOf": [{"type": "object"}]})),
        ["spec.validation.openAPIV3Schema.allOf[0].type: Forbidden: must be empty to be structural"]
    );
}

#[test]
fn publishing_gives_back_what_was_declared() {
    let schema = from_json_schema(&sample()).expect("structural");
    let spec = &to_json(&schema, 3)["properties"]["spec"];
    assert_eq!(spec["properties"]["replicas"], sample()["properties"]["spec"]["properties"]["replicas"]);
    assert_eq!(spec["x-kubernetes-validations"], sample()["properties"]["spec"]["x-kubernetes-validations"]);
    let old = to_json(&schema, 2);
    assert!(old["properties"]["spec"]["properties"]["replicas"]["default"].is_null());
}

#[test]
fn a_schema_nested_too_deeply_is_refused() {
    let mut json = json!({"type": "object"});
    for _ in 0..150 {
        json = json!({"type": "object", "properties": {"a": json}});
    }
    assert!(from_json_schema(&json).is_err());
}

proptest! {
    #[test]
    fn no_json_makes_the_reader_panic(kind in "[a-z]{0,6}|object|array", key in "properties|items|anyOf|not|default|enum|pattern", value in "[\\[\\]{}\"a-z:,0-9]{0,20}") {
        let inner: Value = serde_json::from_str(&value).unwrap_or(Value::String(value));
        let mut json = json!({"type": kind});
        json[key] = inner;
        let _ = from_json_schema(&json);
    }
}
