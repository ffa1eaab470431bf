//! What upstream's field manager makes of random applies and updates, replayed. The cases are written by
//! `conformance/cmd/applycases`.

use std::sync::Arc;

use apimachinery::{
    apply::{self, Reach, Write},
    openapi::from_json_schema,
    schema::Schema,
};
use chrono::DateTime;
use serde_json::{Value, json};

fn thing() -> Schema {
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "object", "additionalProperties": text()});
    let items = json!({"type": "object", "properties": {
        "k": {"type": "integer"}, "p": {"type": "string", "default": "TCP"}, "v": text(),
        "sub": {"type": "object", "properties": {"x": text(), "y": text()}},
    }, "required": ["k"]});
    let inner = json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {
            "name": text(), "uid": text(), "labels": texts(),
            "managedFields": {"type": "array", "items": {"type": "object"}},
        }},
        "spec": {"type": "object", "properties": {
            "n": {"type": "integer"}, "text": text(), "map": texts(),
            "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text(), "b": text()}},
            "list": {"type": "array", "items": text()},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text()},
            "items": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "p"],
                "items": items,
            },
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "either": {"x-kubernetes-int-or-string": true},
        }},
    }});
    // Read inside another object: the metadata of a whole one would be left open.
    let outer = from_json_schema(&json!({"type": "object", "properties": {"inner": inner}})).unwrap();
    let mut thing = Schema::clone(&outer.properties["inner"]);
    for name in ["apiVersion", "kind"] {
        let text = Schema { kind: Some(apimachinery::schema::Type::String), ..Schema::default() };
        thing.properties.insert(name.into(), Arc::new(text));
    }
    thing
}

/// Lines of an error in one order: upstream walks its maps in any order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn applies_and_updates_end_as_upstream_ends_them() {
    let schema = thing();
    let empty = json!({"apiVersion": "example.com/v1", "kind": "Thing"});
    let cases = include_str!("data/apply_upstream.jsonl");
    let mut steps = 0;
    for (number, line) in cases.lines().enumerate() {
        let case: Vec<Value> = serde_json::from_str(line).unwrap();
        let mut live: Option<Value> = None;
        for (index, step) in case.iter().enumerate() {
            let write = Write {
                manager: step["manager"].as_str().unwrap(),
                api_version: "example.com/v1",
                subresource: "",
                schema: &schema,
                others: &[],
                empty: &empty,
                reach: Reach::All,
                now: DateTime::from_timestamp(1_672_531_200, 0).unwrap(),
            };
            let outcome = if step["operation"] == "Apply" {
                apply::apply(live.as_ref(), &step["sent"], &write, step["force"] == true).map(|a| a.object)
            } else {
                let mut new = step["sent"].clone();
                apply::update(live.as_ref(), &mut new, &write);
                Ok(new)
            };
            let place = format!("case {number} step {index}: {step:#}\nbefore: {live:#?}");
            match (outcome, step.get("error").and_then(Value::as_str)) {
                (Err(error), Some(text)) => assert_eq!(sorted(&error.message), sorted(text), "{place}"),
                (Ok(mut made), None) => {
                    made["metadata"]["uid"] = "1".into();
                    assert_eq!(made, step["live"], "{place}\nmade: {made:#}");
                    live = Some(made);
                }
                (Err(error), None) => panic!("{error}\n{place}"),
                (Ok(made), Some(_)) => panic!("not refused: {made:#}\n{place}"),
            }
            steps += 1;
        }
    }
    assert!(steps > 500);
}
