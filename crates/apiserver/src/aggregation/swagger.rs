//! OpenAPI v2 documents of other servers: the part of one version, and its place in the one document of everything.
//!
//! Nothing in such a document is trusted: what has not the expected shape is left out, so that one broken server does not
//! take the document of all with it (metrics-server#1868).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// How references to definitions begin.
const REFERENCE: &str = "#/definitions/";
/// Deeper documents are not followed.
const DEEPEST: usize = 64;

/// Paths below `base`, and the definitions that they need; `None` if there are none or the document is broken.
pub fn of_version(document: &[u8], base: &str) -> Option<Map<String, Value>> {
    let mut document: Value = serde_json::from_slice(document).ok()?;
    let mut take = |name: &str| document.get_mut(name).map(Value::take);
    let Some(Value::Object(mut paths)) = take("paths") else { return None };
    let Some(Value::Object(mut all)) = take("definitions") else { return None };
    let below = format!("{base}/");
    paths.retain(|path, item| (path == base || path.starts_with(&below)) && item.is_object());
    if paths.is_empty() {
        return None;
    }
    let mut wanted: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    paths.values().for_each(|item| references(item, 0, &mut wanted));
    let mut definitions = Map::new();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if let Some(definition) = all.remove(&name).filter(Value::is_object) {
            references(&definition, 0, &mut wanted);
            definitions.insert(name, definition);
        }
    }
    let mut part = Map::new();
    part.insert("paths".to_owned(), paths.into());
    part.insert("definitions".to_owned(), definitions.into());
    Some(part)
}

fn references(value: &Value, depth: usize, found: &mut Vec<String>) {
    if depth > DEEPEST {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(name) =
                map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE))
            {
                found.push(name.to_owned());
            }
            map.values().for_each(|value| references(value, depth + 1, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, depth + 1, found)),
        _ => {}
    }
}

/// Puts a part into the document. A definition of a name that means something else there gets another name.
pub(crate) fn merge(document: &mut Value, part: &Map<String, Value>) {
    let empty = Map::new();
    let map = |name: &str| part.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let Some(definitions) = document["definitions"].as_object_mut() else { return };
    let mut renamed: BTreeMap<&str, String> = BTreeMap::new();
    for (name, definition) in map("definitions") {
        match definitions.get(name) {
            None => {}
            Some(known) if known == definition => {}
            // The machinery's own types are the same everywhere, whatever release describes them.
            Some(_) if name.starts_with("io.k8s.apimachinery.") => {}
            Some(_) => {
                let free = (2..).map(|n| format!("{name}_v{n}")).find(|new| !definitions.contains_key(new));
                renamed.insert(name, free.unwrap_or_default());
            }
        }
    }
    for (name, definition) in map("definitions") {
        let place = renamed.get(name.as_str()).unwrap_or(name);
        if !definitions.contains_key(place) {
            definitions.insert(place.clone(), rewritten(definition, &renamed, 0));
        }
    }
    let Some(paths) = document["paths"].as_object_mut() else { return };
    for (path, item) in map("paths") {
        paths.insert(path.clone(), rewritten(item, &renamed, 0));
    }
}

fn rewritten(value: &Value, renamed: &BTreeMap<&str, String>, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let name = value.as_str().and_then(|text| text.strip_prefix(REFERENCE));
                let new = name.filter(|_| key == "$ref").and_then(|name| renamed.get(name));
                let value = match new {
                    Some(new) => format!("{REFERENCE}{new}").into(),
                    None => rewritten(value, renamed, depth + 1),
                };
                (key.clone(), value)
            })
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(list) => list.iter().map(|value| rewritten(value, renamed, depth + 1)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn remote() -> Vec<u8> {
        let answer = |name: &str| json!({"get": {"responses": {"200": {"schema": {"$ref": format!("#/definitions/{name}")}}}}});
        json!({
            "paths": {"/apis/g/v1/things": answer("Thing"), "/apis/other/v1/x": answer("Other"), "/apis/g/v1/bad": 7},
            "definitions": {
                "Thing": {"properties": {"part": {"$ref": "#/definitions/Part"}}},
                "Part": {"type": "string"}, "Other": {"type": "object"},
            },
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn only_what_one_version_needs_is_taken() {
        let part = of_version(&remote(), "/apis/g/v1").unwrap();
        assert_eq!(part["paths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/apis/g/v1/things"]);
        assert_eq!(part["definitions"].as_object().unwrap().keys().collect::<Vec<_>>(), ["Part", "Thing"]);
        assert!(of_version(b"{", "/apis/g/v1").is_none());
        assert!(of_version(b"[]", "/apis/g/v1").is_none());
    }

    #[test]
    fn a_name_that_is_taken_by_something_else_is_changed_wherever_it_is_used() {
        let mut document = json!({"paths": {}, "definitions": {"Part": {"type": "integer"}}});
        merge(&mut document, &of_version(&remote(), "/apis/g/v1").unwrap());
        assert_eq!(document["definitions"]["Part"], json!({"type": "integer"}));
        assert_eq!(document["definitions"]["Part_v2"], json!({"type": "string"}));
        assert_eq!(document["definitions"]["Thing"]["properties"]["part"]["$ref"], "#/definitions/Part_v2");
        assert!(document["paths"].get("/apis/g/v1/things").is_some());
    }
}
