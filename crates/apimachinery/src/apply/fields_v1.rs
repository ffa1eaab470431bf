//! FieldsV1: a field set as the JSON that `managedFields` carries.

use serde_json::{Map, Value};

use super::{
    element::{Element, Unreadable},
    set::FieldSet,
};

/// `{"f:spec":{".":{},"f:replicas":{}}}`
#[must_use]
pub fn encode(set: &FieldSet<'_>) -> Value {
    Value::Object(level(set, false))
}

fn level(set: &FieldSet<'_>, member: bool) -> Map<String, Value> {
    let itself = (member && !set.is_empty()).then(|| (".".to_owned(), Value::Object(Map::new())));
    let below = set.nodes().map(|(element, member, below)| {
        let inside = if below.is_empty() { Map::new() } else { level(below, member) };
        (element.encode(), Value::Object(inside))
    });
    itself.into_iter().chain(below).collect()
}

/// Reads FieldsV1. Steps of an unknown sort are dropped.
///
/// # Errors
/// Why it is no FieldsV1.
pub fn decode(fields: &Value) -> Result<FieldSet<'_>, String> {
    read(fields).map(|(set, _)| set)
}

/// What is below, and whether the path itself is a member.
fn read(fields: &Value) -> Result<(FieldSet<'_>, bool), String> {
    let Value::Object(map) = fields else {
        return Err(format!("expected an object of fields, got {fields}"));
    };
    let mut set = FieldSet::new();
    let mut member = false;
    for (key, value) in map {
        if key == "." {
            member = true;
            continue;
        }
        match Element::parse(key) {
            Ok(element) => {
                let (below, inside) = read(value)?;
                set.put(element, inside, below);
            }
            Err(Unreadable::Unknown) => {}
            Err(Unreadable::Bad(why)) => return Err(why),
        }
    }
    member |= set.is_empty();
    Ok((set, member))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_with_children_is_marked_by_a_dot() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
        });
        let set = decode(&fields).expect("readable");
        assert_eq!(
            set.to_string(),
            ".metadata.labels\n.metadata.labels.app\n.spec.ports[port=80,protocol=\"TCP\"]\n\
             .spec.ports[port=80,protocol=\"TCP\"].port\n"
        );
        assert_eq!(encode(&set), fields);
    }

    #[test]
    fn unknown_steps_are_skipped_and_malformed_ones_refused() {
        assert_eq!(decode(&json!({"q:x": {"f:a": {}}, "f:b": {}})).expect("readable").to_string(), ".b\n");
        assert!(decode(&json!({"f:a": 1})).is_err());
        assert!(decode(&json!({"k:{": {}})).is_err());
        assert!(decode(&json!([])).is_err());
    }
}
