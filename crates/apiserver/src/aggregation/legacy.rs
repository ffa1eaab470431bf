//! An `APIResourceList`, which older servers answer with, in the form of aggregated discovery.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints` (`ConvertGroupVersionIntoToDiscovery`).

use serde_json::{Map, Value, json};

/// The resources of the list; entries without sense are left out.
pub fn resources(list: &Value, group: &str, version: &str) -> Value {
    let mut found: Map<String, Value> = Map::new();
    let entries = || list["resources"].as_array().into_iter().flatten();
    let kind = |entry: &Value| {
        let or = |field: &str, other: &str| {
            entry[field].as_str().filter(|text| !text.is_empty()).unwrap_or(other).to_owned()
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": entry["kind"]})
    };
    for entry in entries() {
        let Some(name) = entry["name"].as_str().filter(|name| !name.contains('/')) else { continue };
        let mut resource = json!({
            "resource": name, "responseKind": kind(entry),
            "scope": if entry["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "singularResource": entry["singularName"].as_str().unwrap_or_default(),
            "verbs": entry["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if entry[field].is_array() {
                resource[field] = entry[field].clone();
            }
        }
        found.insert(name.to_owned(), resource);
    }
    for entry in entries() {
        let Some((parent, name)) = entry["name"].as_str().and_then(|name| name.split_once('/')) else {
            continue;
        };
        let sub = json!({"subresource": name, "responseKind": kind(entry), "verbs": entry["verbs"]});
        // A subresource may stand alone: the resource is then known by it only.
        let resource = found.entry(parent).or_insert_with(|| {
            json!({
                "resource": parent, "singularResource": "", "verbs": [],
                "scope": if entry["namespaced"] == true { "Namespaced" } else { "Cluster" },
                "responseKind": {"group": "", "version": "", "kind": ""},
            })
        });
        match resource["subresources"].as_array_mut() {
            Some(list) => list.push(sub),
            None => resource["subresources"] = json!([sub]),
        }
    }
    found.into_iter().map(|(_, resource)| resource).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_carry_their_subresources() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["get", "patch"]},
            {"name": 7}, "x",
        ]});
        let got = resources(&list, "wardle.example.com", "v1alpha1");
        assert_eq!(got.as_array().map(Vec::len), Some(1));
        assert_eq!(got[0]["scope"], "Namespaced");
        let kind = json!({"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"});
        assert_eq!((&got[0]["responseKind"], &got[0]["subresources"][0]["responseKind"]), (&kind, &kind));
        assert_eq!(resources(&json!(null), "g", "v1"), json!([]));
    }
}
