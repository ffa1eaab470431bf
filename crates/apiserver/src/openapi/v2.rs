//! OpenAPI v2 (Swagger 2.0): one document of all that is served.

use serde_json::{Map, Value, json};

use super::{
    operations::{self, Operation, Parameter},
    schemas::{self, gvk, name_of, reference},
};
use crate::catalogue::Catalogue;

/// The document.
pub fn document(catalogue: &Catalogue) -> Value {
    let mut definitions = Map::new();
    let mut paths = Map::new();
    for (group, found) in &catalogue.groups {
        for (version, resources) in &found.versions {
            let base =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            for served in resources.resources.values() {
                schemas::add(&mut definitions, served, 2);
                for path in operations::of(&base, served, &name_of(served)) {
                    let mut item: Map<String, Value> =
                        path.operations.iter().map(|op| (op.method.to_owned(), operation(op))).collect();
                    let parameters: Vec<Value> =
                        path.parameters.iter().map(|name| parameter(operations::in_path(name))).collect();
                    if !parameters.is_empty() {
                        item.insert("parameters".to_owned(), parameters.into());
                    }
                    paths.insert(path.path, Value::Object(item));
                }
            }
        }
    }
    json!({
        "swagger": "2.0", "info": {"title": "Kubernetes", "version": crate::health::KUBERNETES},
        "paths": paths, "definitions": definitions,
    })
}

fn parameter(taken: Parameter) -> Value {
    let mut out = json!({"name": taken.name, "in": taken.place, "type": taken.kind, "uniqueItems": true});
    if taken.place == "path" {
        out["required"] = true.into();
    }
    out
}

fn operation(op: &Operation) -> Value {
    let mut parameters: Vec<Value> = op.query.iter().copied().map(parameter).collect();
    let mut body = |schema: Value| {
        parameters.push(json!({"name": "body", "in": "body", "required": true, "schema": schema}));
    };
    if let Some(name) = op.body.as_ref().filter(|_| op.method != "delete") {
        body(reference(name, 2));
    }
    let consumes = if op.patches.is_empty() {
        &["*/*"]
    } else {
        body(json!({"type": "object"}));
        op.patches
    };
    let mut ok = json!({"description": "OK"});
    if let Some(name) = op.answer.object().filter(|_| op.method != "delete") {
        ok["schema"] = reference(name, 2);
    }
    let (group, version, kind) = &op.gvk;
    json!({
        "operationId": op.id, "consumes": consumes, "produces": ["application/json", "application/yaml"],
        "schemes": ["https"], "parameters": parameters, "responses": {"200": ok},
        "x-kubernetes-action": op.action, "x-kubernetes-group-version-kind": gvk(group, version, kind),
    })
}
