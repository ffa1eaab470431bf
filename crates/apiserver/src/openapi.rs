//! OpenAPI v3, one document a group and version, made when it is asked for and kept until what is served changes.
//!
//! Schemas are written out in full instead of by reference. `kubectl explain` and the check that a write takes
//! `fieldValidation` read them.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::ApiError;
use bytes::Bytes;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::{
    Response,
    catalogue::{Catalogue, Served, Version},
    negotiate::Media,
    respond, route,
    server::{Call, Inner},
};

/// Document and hash by path (`api/v1`, `apis/apps/v1`).
type Made = BTreeMap<String, (Bytes, String)>;

/// The documents of one generation of the catalogue.
#[derive(Default)]
pub struct Documents(Mutex<(u64, Arc<Made>)>);

impl Documents {
    fn of(&self, catalogue: &Catalogue) -> Arc<Made> {
        let mut kept = self.0.lock();
        if kept.0 != catalogue.generation || kept.1.is_empty() {
            *kept = (catalogue.generation, Arc::new(make(catalogue)));
        }
        Arc::clone(&kept.1)
    }
}

fn make(catalogue: &Catalogue) -> Made {
    let mut made = Made::new();
    for (group, found) in &catalogue.groups {
        for (version, resources) in &found.versions {
            let path =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let text = document(&path, resources).to_string();
            let hash = hex_upper(&Sha512::digest(&text));
            made.insert(path, (text.into(), hash));
        }
    }
    made
}

/// `/openapi/v3` and what is below it.
pub(crate) fn v3(inner: &Arc<Inner>, call: &Call, path: &str) -> Result<Response, ApiError> {
    let made = inner.documents.of(&inner.catalogue.load());
    if path.is_empty() {
        let url =
            |path: &str, hash: &str| json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
        let paths: Map<String, Value> = made.iter().map(|(p, (_, hash))| (p.clone(), url(p, hash))).collect();
        return Ok(respond::document(200, Media::default(), &json!({"paths": paths})));
    }
    let Some((bytes, hash)) = made.get(path) else { return Ok(route::not_found()) };
    match call.query.get("hash") {
        Some(asked) if asked != hash => {
            let mut response = respond::text(301, "");
            if let Ok(value) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
                response.headers_mut().insert(header::LOCATION, value);
            }
            Ok(response)
        }
        asked => {
            let mut response = respond::plain(200, "application/json", bytes.clone());
            if asked.is_some() {
                let forever = HeaderValue::from_static("public, immutable");
                response.headers_mut().insert(header::CACHE_CONTROL, forever);
            }
            if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            Ok(response)
        }
    }
}

fn document(path: &str, version: &Version) -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for served in version.resources.values() {
        let name = component(served);
        let mut schema = apimachinery::openapi::to_json(&served.resource.schema, 3);
        schema["x-kubernetes-group-version-kind"] = json!([gvk(served)]);
        schemas.insert(name.clone(), schema);
        describe(path, served, &name, &mut paths);
    }
    json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.37.2"},
        "paths": paths, "components": {"schemas": schemas},
    })
}

fn gvk(served: &Served) -> Value {
    let r = &served.resource;
    json!({"group": &*r.group, "version": &*r.version, "kind": &*r.kind})
}

/// `io.k8s.api.apps.v1.Deployment`; a custom group is turned round: `com.example.v1.Widget`.
fn component(served: &Served) -> String {
    let r = &served.resource;
    if r.builtin {
        let group = match r.group.split('.').next() {
            None | Some("") => "core",
            Some(first) => first,
        };
        return format!("io.k8s.api.{group}.{}.{}", r.version, r.kind);
    }
    let reversed: Vec<&str> = r.group.split('.').rev().collect();
    format!("{}.{}.{}", reversed.join("."), r.version, r.kind)
}

/// Bytes as upper-case hexadecimal digits.
fn hex_upper(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

const WRITE_PARAMETERS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];

fn describe(path: &str, served: &Served, name: &str, paths: &mut Map<String, Value>) {
    let r = &served.resource;
    let place = if r.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{path}{place}/{}", r.plural);
    let body = || json!({"content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}}});
    let operation = |action: &str, parameters: &[&str]| {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|p| json!({"name": p, "in": "query", "schema": {"type": "string", "uniqueItems": true}}))
            .collect();
        let mut ok = body();
        ok["description"] = "OK".into();
        json!({
            "parameters": parameters, "responses": {"200": ok}, "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(served),
        })
    };
    let has = |verb: &str| r.verbs.iter().any(|v| &**v == verb);
    let mut many = Map::new();
    let mut one = Map::new();
    if has("list") {
        many.insert(
            "get".to_owned(),
            operation("list", &["labelSelector", "fieldSelector", "limit", "continue", "watch"]),
        );
    }
    if has("create") {
        let mut post = operation("post", &WRITE_PARAMETERS);
        post["requestBody"] = body();
        many.insert("post".to_owned(), post);
    }
    for (verb, method, action) in [
        ("get", "get", "get"),
        ("update", "put", "put"),
        ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ] {
        if has(verb) {
            let parameters: &[&str] =
                if matches!(verb, "update" | "patch") { &WRITE_PARAMETERS } else { &[] };
            one.insert(method.to_owned(), operation(action, parameters));
        }
    }
    paths.insert(format!("{collection}/{{name}}"), Value::Object(one));
    paths.insert(collection, Value::Object(many));
}
