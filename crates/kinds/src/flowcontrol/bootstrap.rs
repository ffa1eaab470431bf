//! The priority levels and flow schemas that exist in every cluster. Two of each are mandatory: what they say is fixed.
//!
//! Source: `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap`.

use apimachinery::Object;
use serde_json::{Value, json};

/// Kind, name and spec, one object a line; priority levels first, in the order in which they have to be made.
const TABLE: &str = include_str!("bootstrap.jsonl");

/// The annotation of objects whose spec the server keeps as it is here.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Names of the mandatory objects of both kinds.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

fn entries() -> impl Iterator<Item = Value> {
    TABLE.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// All of them, in the order in which they have to be made.
#[must_use]
pub fn objects() -> Vec<Object> {
    let object = |entry: Value| {
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": entry["kind"],
            "metadata": {"name": entry["name"], "annotations": {AUTO_UPDATE: "true"}},
            "spec": entry["spec"],
        })
    };
    entries().map(object).collect()
}

/// What the spec of the object has to be, if it is a mandatory one.
pub fn mandatory_spec(kind: &str, name: &str) -> Option<Value> {
    if !MANDATORY.contains(&name) {
        return None;
    }
    entries()
        .find(|entry| entry["kind"] == kind && entry["name"] == name)
        .map(|mut entry| entry["spec"].take())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn every_object_is_one_that_the_rules_accept_as_it_stands() {
        let objects = objects();
        assert_eq!(objects.len(), TABLE.lines().count());
        for mut object in objects {
            let plural = format!("{}s", object["kind"].as_str().unwrap().to_lowercase());
            let resource = crate::find("flowcontrol.apiserver.k8s.io", "v1", &plural).unwrap();
            let before = object["spec"].clone();
            apimachinery::structure::check(&object, &resource.schema).unwrap();
            apimachinery::defaults::apply(&mut object, &resource.schema);
            resource.strategy.default(&mut object);
            resource.strategy.prepare_create(&mut object, DateTime::UNIX_EPOCH);
            assert_eq!(resource.strategy.validate(&object), [], "{}", object["metadata"]["name"]);
            assert_eq!(object["spec"], before, "defaults change what the table says");
        }
    }

    #[test]
    fn every_schema_leads_to_a_level() {
        let objects = objects();
        let levels: Vec<&Value> = objects
            .iter()
            .filter(|o| o["kind"] == "PriorityLevelConfiguration")
            .map(|o| &o["metadata"]["name"])
            .collect();
        for schema in objects.iter().filter(|o| o["kind"] == "FlowSchema") {
            assert!(levels.contains(&&schema["spec"]["priorityLevelConfiguration"]["name"]));
        }
    }
}
