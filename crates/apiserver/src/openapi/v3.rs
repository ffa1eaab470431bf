//! OpenAPI v3.

use serde_json::{Map, Value, json};

use super::{
    operations::{self, Operation},
    schemas::{self, gvk, name_of, reference},
};
use crate::catalogue::{Catalogue, Version};

/// Every document with its path.
pub fn documents(catalogue: &Catalogue) -> impl Iterator<Item = (String, Value)> {
    catalogue.groups.iter().flat_map(|(group, found)| {
        found.versions.iter().map(move |(version, resources)| {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let document = document(&path, resources);
            (path, document)
        })
    })
}

/// `v1.37.2` → `1.37`
fn minor(version: &str) -> &str {
    let version = version.trim_start_matches('v');
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

fn document(base: &str, version: &Version) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for served in version.resources.values() {
        schemas::add(&mut schemas, served, 3);
        for path in operations::of(base, served, &name_of(served)) {
            let mut item: Map<String, Value> =
                path.operations.iter().map(|op| (op.method.to_owned(), operation(op))).collect();
            let parameters: Vec<Value> = path.parameters.iter().map(|name| parameter(name, "path")).collect();
            if !parameters.is_empty() {
                item.insert("parameters".to_owned(), parameters.into());
            }
            paths.insert(path.path, Value::Object(item));
        }
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": minor(crate::health::KUBERNETES)},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn parameter(name: &str, place: &str) -> Value {
    let mut out = json!({"name": name, "in": place, "schema": {"type": "string", "uniqueItems": true}});
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

fn content(name: &str) -> Value {
    json!({"content": {"application/json": {"schema": reference(name, 3)}}})
}

fn operation(op: &Operation) -> Value {
    let parameters: Vec<Value> = op.query.iter().map(|name| parameter(name, "query")).collect();
    let mut ok = op.answer.as_deref().map_or_else(|| json!({}), content);
    ok["description"] = "OK".into();
    let (group, version, kind) = &op.gvk;
    let mut out = json!({
        "operationId": op.id, "parameters": parameters, "responses": {"200": ok},
        "x-kubernetes-action": op.action, "x-kubernetes-group-version-kind": gvk(group, version, kind),
    });
    if let Some(body) = &op.body {
        out["requestBody"] = content(body);
    }
    if !op.patches.is_empty() {
        let types: Map<String, Value> = op
            .patches
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "object"}})))
            .collect();
        out["requestBody"] = json!({"content": types});
    }
    out
}
