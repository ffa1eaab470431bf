//! Answers: documents, stored objects in the asked form, errors.

use std::collections::HashSet;

use apimachinery::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use store::Entry;

use crate::{
    Response,
    body::Body,
    catalogue::Served,
    encoding,
    negotiate::{Form, Media, PROTOBUF, Transform},
    table,
    verbs::update::Changed,
};

/// An answer with this body.
#[must_use]
pub fn plain(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = http::Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// There is nothing to show.
#[must_use]
pub fn nothing() -> Response {
    let mut response = http::Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// An answer in plain text.
#[must_use]
pub fn text(status: u16, text: impl Into<String>) -> Response {
    plain(status, "text/plain; charset=utf-8", text.into().into_bytes())
}

/// A JSON document in the asked form.
#[must_use]
pub fn document(status: u16, media: Media, value: &Value) -> Response {
    if media.beta {
        return document(status, Media { beta: false, ..media }, &older(value));
    }
    if media.form == Form::Protobuf {
        return match protobuf(value) {
            Some(bytes) => plain(status, PROTOBUF, bytes),
            None => document(status, Media { form: Form::Json, ..media }, value),
        };
    }
    let bytes = if media.form == Form::Yaml {
        serde_yaml_ng::to_string(value).unwrap_or_default().into_bytes()
    } else if media.pretty {
        serde_json::to_vec_pretty(value).unwrap_or_default()
    } else {
        let mut bytes = serde_json::to_vec(value).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    };
    plain(status, media.content_type(), bytes)
}

/// A transformed answer as `meta.k8s.io/v1beta1`, whose fields are the same.
fn older(value: &Value) -> Value {
    let mut value = value.clone();
    let mark = |object: &mut Value| {
        if object["apiVersion"] == "meta.k8s.io/v1" {
            object["apiVersion"] = "meta.k8s.io/v1beta1".into();
        }
    };
    mark(&mut value);
    for (list, inner) in [("rows", "/object"), ("items", "")] {
        let items = value.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        items.filter_map(|item| item.pointer_mut(inner)).filter(|o| o.is_object()).for_each(mark);
    }
    value
}

/// The protobuf form of a document, if it has one.
pub fn protobuf(value: &Value) -> Option<Vec<u8>> {
    let text = |field: &str| value[field].as_str().unwrap_or_default();
    kinds::protobuf::encode(value, text("apiVersion"), text("kind"))
}

/// The protobuf form of an object, from its wire bytes. `None`: another form is asked for, or it has none.
pub fn protobuf_of(media: Media, served: &Served, wire: &[u8]) -> Result<Option<Vec<u8>>, ApiError> {
    let (api_version, kind) = match media.transform {
        _ if media.form != Form::Protobuf || media.beta => return Ok(None),
        Transform::None => (&*served.api_version, &*served.resource.kind),
        Transform::Partial | Transform::PartialList => ("meta.k8s.io/v1", "PartialObjectMetadata"),
        Transform::Table => return Ok(None),
    };
    kinds::protobuf::encode_json(wire, api_version, kind).map_err(ApiError::internal)
}

/// The `Status` of an error.
#[must_use]
pub fn error(error: &ApiError, media: Media) -> Response {
    let media = Media { transform: Transform::None, aggregated: false, beta: false, ..media };
    let mut response = document(error.code, media, &error.to_status());
    let seconds = error.details.as_ref().and_then(|d| d["retryAfterSeconds"].as_u64());
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The error of somebody who does not get as far as a handler: no browser shall take it for a page.
#[must_use]
pub fn refusal(reason: &ApiError, media: Media) -> Response {
    let mut response = error(reason, media);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The bytes of an object as it is served: the kind's head and the stored bytes.
#[must_use]
pub fn whole(served: &Served, wire: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(served.head.len() + wire.len());
    out.put_slice(&served.head);
    out.put_slice(&wire[1..]);
    out.put_u8(b'\n');
    out.freeze()
}

/// One object, from its wire bytes (see [`Served::wire`]).
pub fn object(
    status: u16,
    media: Media,
    served: &Served,
    wire: &Bytes,
    query: &crate::request::Query,
) -> Result<Response, ApiError> {
    media.fits(&served.resource, false)?;
    if let Some(bytes) = protobuf_of(media, served, wire)? {
        return Ok(plain(status, PROTOBUF, bytes));
    }
    match media.transform {
        Transform::None if media.form == Form::Json && !media.pretty => {
            Ok(plain(status, "application/json", Body::from(whole(served, wire))))
        }
        Transform::None => {
            let value = encoding::decode(wire, &served.api_version, &served.resource.kind)?;
            Ok(document(status, media, &value))
        }
        Transform::Partial | Transform::PartialList => Ok(document(status, media, &partial(served, wire)?)),
        Transform::Table => {
            let value = encoding::decode(wire, &served.api_version, &served.resource.kind)?;
            let include = table::Include::parse(query.text("includeObject"))?;
            let mut table = table::head(&served.resource);
            table["metadata"] = json!({"resourceVersion": encoding::revision(wire)});
            table["rows"] = json!([table::row(&served.resource, &value, include, chrono::Utc::now())]);
            Ok(document(status, media, &table))
        }
    }
}

/// `PartialObjectMetadata` of a wire value.
pub fn partial(served: &Served, wire: &[u8]) -> Result<Value, ApiError> {
    let metadata = serde_json::from_str(encoding::metadata(wire)?.get()).map_err(ApiError::internal)?;
    let metadata = table::metadata_alone(&served.resource, metadata);
    Ok(json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}))
}

/// An object that was just written, at its new revision.
pub(crate) fn written(
    status: u16,
    media: Media,
    served: &Served,
    written: &Changed,
    query: &crate::request::Query,
) -> Result<Response, ApiError> {
    let encoded = match &written.value {
        Some(value) => value.clone(),
        None => served.encode(&written.object)?,
    };
    let wire = if written.revision.is_empty() {
        encoding::never_stored(&encoded)
    } else {
        encoding::with_revision(&encoded, &written.revision)
    };
    object(status, media, served, &wire, query)
}

/// One object from the store.
pub fn entry(
    status: u16,
    media: Media,
    served: &Served,
    entry: &Entry,
    query: &crate::request::Query,
) -> Result<Response, ApiError> {
    object(status, media, served, &served.wire(entry)?, query)
}

/// `Status` of Success for a deletion or a virtual create.
#[must_use]
pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource});
    if !group.is_empty() {
        details["group"] = group.into();
    }
    if !uid.is_empty() {
        details["uid"] = uid.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Adds `Warning` headers: once each, and short when there are many. What has control characters in it cannot be one.
pub fn warn(response: &mut Response, warnings: &[String]) {
    const TOTAL: usize = 4096;
    const EACH: usize = 256;
    let mut known = HashSet::new();
    let fit = |warning: &&String| !warning.is_empty() && !warning.chars().any(char::is_control);
    let unlike: Vec<&String> =
        warnings.iter().filter(fit).filter(|warning| known.insert(warning.as_str())).collect();
    let many = unlike.iter().map(|warning| warning.chars().count()).sum::<usize>() > TOTAL;
    let mut written = 0;
    for warning in unlike {
        if many && written >= TOTAL {
            break;
        }
        let cut: String = warning.chars().take(if many { EACH } else { usize::MAX }).collect();
        written += cut.chars().count();
        let mut line = String::from("299 - \"");
        for c in cut.chars() {
            match c {
                '"' | '\\' => {
                    line.push('\\');
                    line.push(c);
                }
                c => line.push(c),
            }
        }
        line.push('"');
        if let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}
