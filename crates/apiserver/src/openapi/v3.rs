//! OpenAPI v3.

use serde_json::{Map, Value, json};

use super::{
    operations::{self, Answer, Operation, Parameter, meta},
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
    let (mut group, mut own) = (String::new(), String::new());
    for served in version.resources.values() {
        schemas::add(&mut schemas, served, 3);
        let builtin = served.resource.builtin;
        (group, own) = (served.resource.group.to_string(), served.resource.version.to_string());
        let tag = operations::tag(&group, &own);
        let paths_of = operations::of(base, served, &name_of(served));
        for path in paths_of.into_iter().chain(operations::watches(base, served)) {
            paths.insert(path.path.clone(), item(&path, &tag, builtin));
        }
    }
    let tag = operations::tag(&group, &own);
    let list = content(&PRODUCED, &reference(&meta("APIResourceList"), 3));
    let mut discovery = json!({
        "operationId": operations::discovery(&group, &own), "tags": [tag],
        "responses": {"200": {"description": "OK", "content": list}, "401": {"description": "Unauthorized"}},
    });
    discovery["description"] = "get available resources".into();
    paths.insert(format!("/{base}/"), json!({"get": discovery}));
    schemas::add_meta(&mut schemas, &paths, &group, &own);
    let token = json!({"type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication"});
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": minor(crate::health::KUBERNETES)},
        "paths": paths, "components": {"schemas": schemas, "securitySchemes": {"BearerToken": token}},
    })
}

/// What answers may be encoded as: built-in kinds, custom ones, lists of built-in kinds.
const PRODUCED: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const CUSTOM: [&str; 2] = ["application/json", "application/yaml"];
const STREAMED: [&str; 5] = [
    "application/json",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch",
    "application/yaml",
];

/// A path. What all its operations take stands beside them.
fn item(path: &operations::Path, tag: &str, builtin: bool) -> Value {
    let taken = |op: &Operation| {
        let mut all = op.query.clone();
        all.extend(path.parameters.iter().map(|name| operations::in_path(name)));
        if op.action != "connect" {
            all.push(operations::in_query("pretty"));
        }
        all.sort_unstable();
        all
    };
    let all: Vec<Vec<_>> = path.operations.iter().map(taken).collect();
    let (shared, _): (Vec<_>, Vec<_>) =
        all.first().cloned().unwrap_or_default().into_iter().partition(|p| all.iter().all(|o| o.contains(p)));
    let mut item = Map::new();
    for (op, names) in path.operations.iter().zip(&all) {
        let own: Vec<Value> = names.iter().filter(|p| !shared.contains(p)).map(|p| parameter(*p)).collect();
        item.insert(op.method.to_owned(), operation(op, own, tag, builtin));
    }
    if !shared.is_empty() {
        item.insert("parameters".to_owned(), shared.iter().map(|p| parameter(*p)).collect());
    }
    Value::Object(item)
}

fn parameter(taken: Parameter) -> Value {
    let schema = json!({"type": taken.kind, "uniqueItems": true});
    let mut out = json!({"name": taken.name, "in": taken.place, "schema": schema});
    if taken.place == "path" {
        out["required"] = true.into();
    }
    out
}

fn content(types: &[&str], schema: &Value) -> Value {
    types.iter().map(|kind| ((*kind).to_owned(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

fn operation(op: &Operation, parameters: Vec<Value>, tag: &str, builtin: bool) -> Value {
    let produced: &[&str] = match (builtin, op.action) {
        (true, "list" | "watch" | "watchlist") => &STREAMED,
        (true, _) => &PRODUCED,
        (false, _) => &CUSTOM,
    };
    let mut responses = Map::new();
    let codes: &[(&str, &str)] = match op.action {
        "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        "put" | "patch" => &[("200", "OK"), ("201", "Created")],
        "delete" => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    for (code, words) in codes {
        let mut answer = json!({"description": words});
        let text = json!({"type": "string"});
        answer["content"] = match &op.answer {
            Answer::Object(name) => content(produced, &reference(name, 3)),
            Answer::Text => content(&[produced, &["text/plain"]].concat(), &text),
            Answer::Anything => content(&["*/*"], &text),
        };
        responses.insert((*code).to_owned(), answer);
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let (group, version, kind) = &op.gvk;
    let mut out = json!({
        "operationId": op.id, "responses": responses, "tags": [tag],
        "x-kubernetes-action": op.action, "x-kubernetes-group-version-kind": gvk(group, version, kind),
    });
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    let deletes = op.method == "delete";
    if let Some(body) = &op.body {
        let consumed: &[&str] = if builtin { &["*/*"] } else { &CUSTOM };
        out["requestBody"] = json!({"content": content(consumed, &reference(body, 3))});
    }
    if !op.patches.is_empty() {
        out["requestBody"] = json!({"content": content(op.patches, &reference(&meta("Patch"), 3))});
    }
    if !deletes && out["requestBody"].is_object() {
        out["requestBody"]["required"] = true.into();
    }
    if out["requestBody"].is_null()
        && let Some(fields) = out.as_object_mut()
    {
        fields.remove("requestBody");
    }
    out
}
