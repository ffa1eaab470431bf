//! OpenAPI: one v3 document a group and version, one v2 document of everything. They are made when they are asked for and
//! kept until what is served changes.
//!
//! `kubectl explain`, the merging of `kubectl apply` and the check that a write takes `fieldValidation` read v3; older
//! clients and code generators read v2. Reading order: [`operations`] (what paths take) → [`schemas`] (types by name) →
//! [`v3`], [`v2`] → [`gnostic`] (both as protobuf).

mod gnostic;
mod operations;
mod schemas;
mod v2;
mod v3;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use apimachinery::ApiError;
use bytes::Bytes;
use http::{HeaderValue, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::{
    Response,
    aggregation::{self, Table},
    catalogue::Catalogue,
    negotiate::{self, Media},
    respond,
    server::{Call, Inner},
};

/// A document and its hash.
struct Document {
    bytes: Bytes,
    /// Of the bytes; their protobuf form goes by it too.
    hash: String,
    protobuf: OnceLock<Bytes>,
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        let hash = Sha512::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
        Self { bytes: bytes.into(), hash, protobuf: OnceLock::new() }
    }

    /// A v3 document as protobuf.
    fn protobuf(&self) -> Bytes {
        let encode = || {
            serde_json::from_slice(&self.bytes)
                .map_or_else(|_| Bytes::new(), |v| gnostic::v3::encode(&v).into())
        };
        self.protobuf.get_or_init(encode).clone()
    }
}

/// The documents of one generation of the catalogue.
#[derive(Default)]
struct Made {
    generation: u64,
    /// By path: `api/v1`, `apis/apps/v1`.
    v3: BTreeMap<String, Document>,
    v2: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

/// What is kept of the documents.
#[derive(Default)]
pub struct Documents(Mutex<Arc<Made>>);

impl Documents {
    fn of(&self, catalogue: &Catalogue) -> Arc<Made> {
        let mut kept = self.0.lock();
        if kept.generation != catalogue.generation || kept.v3.is_empty() {
            let v3 = v3::documents(catalogue);
            let v3 = v3.map(|(path, text)| (path, Document::new(text.to_string().into_bytes()))).collect();
            *kept = Arc::new(Made { generation: catalogue.generation, v3, ..Made::default() });
        }
        Arc::clone(&kept)
    }

    /// Other servers describe something else: what is made of their documents is made anew.
    pub fn forget(&self) {
        *self.0.lock() = Arc::default();
    }
}

/// The v2 document with what other servers add to it.
fn swagger(catalogue: &Catalogue, table: &Table) -> Value {
    let mut document = v2::document(catalogue);
    for remote in table.remotes() {
        if let Some(documents) = &*remote.learned.documents.load()
            && let Some(part) = &documents.v2
        {
            aggregation::merge_swagger(&mut document, part);
        }
    }
    document
}

/// `/openapi/v3` and what is below it.
pub(crate) async fn v3(inner: &Arc<Inner>, call: &Call, path: &str) -> Result<Response, ApiError> {
    let table = inner.aggregation.table.load_full();
    if let Some(remote) = table.of_path(path) {
        let documents = remote.learned.documents.load_full();
        return match documents.filter(|d| !d.v3.is_empty()) {
            Some(documents) => aggregation::document(inner, call, remote, &documents.v3).await,
            None => Ok(crate::route::not_found()),
        };
    }
    let made = inner.documents.of(&inner.catalogue.load());
    if path.is_empty() {
        let url =
            |path: &str, hash: &str| json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
        let mut paths: Map<String, Value> =
            made.v3.iter().map(|(p, d)| (p.clone(), url(p, &d.hash))).collect();
        for remote in table.remotes() {
            let place = remote.backend.path().trim_start_matches('/').to_owned();
            paths.remove(&place);
            if let Some(documents) = remote.learned.documents.load_full().filter(|d| !d.v3.is_empty()) {
                paths.insert(place, json!({"serverRelativeURL": documents.v3}));
            }
        }
        return Ok(respond::document(200, Media::default(), &json!({"paths": paths})));
    }
    let Some(document) = made.v3.get(path) else { return Ok(no_document()) };
    let Some(form) = negotiate::openapi(&call.headers, 3) else { return Ok(unacceptable(&["Accept"])) };
    match call.query.get("hash") {
        Some(asked) if asked != document.hash => {
            let mut response = respond::text(301, "");
            if let Ok(value) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={}", document.hash)) {
                response.headers_mut().insert(header::LOCATION, value);
            }
            Ok(response)
        }
        asked => {
            let (kind, bytes) = match form {
                negotiate::Form::Protobuf => {
                    ("application/com.github.proto-openapi.spec.v3.v1.0+protobuf", document.protobuf())
                }
                negotiate::Form::Json | negotiate::Form::Yaml => ("application/json", document.bytes.clone()),
            };
            let mut response = answer(call, &document.hash, bytes, kind);
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
            if asked.is_some() {
                let forever = HeaderValue::from_static("public, immutable");
                response.headers_mut().insert(header::CACHE_CONTROL, forever);
            }
            Ok(response)
        }
    }
}

/// `/openapi/v2`, in JSON or protobuf.
pub(crate) fn v2(inner: &Arc<Inner>, call: &Call) -> Result<Response, ApiError> {
    let (catalogue, table) = (inner.catalogue.load(), inner.aggregation.table.load());
    let made = inner.documents.of(&catalogue);
    let mut response = match negotiate::openapi(&call.headers, 2) {
        Some(negotiate::Form::Protobuf) => {
            let encode = || Document::new(gnostic::v2::encode(&swagger(&catalogue, &table)));
            let document = made.v2_protobuf.get_or_init(encode);
            let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
            answer(call, &document.hash, document.bytes.clone(), kind)
        }
        Some(negotiate::Form::Json | negotiate::Form::Yaml) => {
            let json = || Document::new(swagger(&catalogue, &table).to_string().into_bytes());
            let document = made.v2.get_or_init(json);
            answer(call, &document.hash, document.bytes.clone(), "application/json")
        }
        None => return Ok(unacceptable(&["Accept-Encoding", "Accept"])),
    };
    for header in ["Accept-Encoding", "Accept"] {
        response.headers_mut().append(header::VARY, HeaderValue::from_static(header));
    }
    Ok(response)
}

/// 404 of a document that there is not: other than the router's answer, it has no text.
pub(crate) fn no_document() -> Response {
    empty(404)
}

/// 406 in no form: the asked one is none of the document's.
fn unacceptable(vary: &[&'static str]) -> Response {
    let mut response = empty(406);
    for header in vary {
        response.headers_mut().append(header::VARY, HeaderValue::from_static(header));
    }
    response
}

fn empty(code: u16) -> Response {
    let mut response = respond::text(code, "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// The document, unless the client has it already.
fn answer(call: &Call, hash: &str, bytes: Bytes, content_type: &'static str) -> Response {
    let tag = format!("\"{hash}\"");
    let asked = call.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let mut response = if asked.is_some_and(|asked| asked.split(',').any(|asked| asked.trim() == tag)) {
        let mut response = respond::plain(304, content_type, Bytes::new());
        response.headers_mut().remove(header::CONTENT_TYPE);
        response
    } else {
        respond::plain(200, content_type, bytes)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
