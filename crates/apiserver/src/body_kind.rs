//! What a body says it is: `apiVersion` and `kind`, and the words of a 400 when it is no object or another one.
//!
//! Source: `k8s.io/apimachinery/pkg/runtime/serializer/json`, `…/apiserver/pkg/endpoints/handlers/rest.go`
//! (`transformDecodeError`).

use std::sync::{Arc, OnceLock};

use apimachinery::{ApiError, Object, Schema, decode, go, structure};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{catalogue::Served, negotiate::Encoding, shape};

/// Where upstream's built-in kinds are registered: its errors name the place.
const SCHEME: &str = "pkg/runtime/scheme.go:111";

/// Reads a body that is to be an object of `kind`.
pub fn read(bytes: &Bytes, encoding: Encoding, kind: &str) -> Result<decode::Decoded, ApiError> {
    shape::parse(bytes, encoding).map_err(|error| {
        let why = match encoding {
            Encoding::Json => unread(&error.message),
            Encoding::Yaml | Encoding::Protobuf => error.message,
        };
        decode::unrecognized(kind, &why, bytes)
    })
}

fn unread(why: &str) -> String {
    format!("couldn't get version/kind; json parse error: {why}")
}

/// Checks and fills in `apiVersion` and `kind` of a body; `bytes` is the body as it came.
pub fn check(
    served: &Served,
    kind: &str,
    api_version: &str,
    object: &mut Object,
    bytes: &Bytes,
) -> Result<(), ApiError> {
    // `null` is a struct with nothing in it.
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    let (version, body_kind) = stated(object).map_err(|why| decode::unrecognized(kind, &why, bytes))?;
    let (wanted_group, wanted_version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (group, short) = match version.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            let why = format!("unexpected GroupVersion string: {version}");
            return Err(decode::unrecognized(kind, &why, bytes));
        }
        Some(parts) => parts,
        None if version.is_empty() => (wanted_group, wanted_version),
        None => ("", version.as_str()),
    };
    let body_kind = if body_kind.is_empty() { kind } else { &body_kind };
    let stated = if group.is_empty() { short.to_owned() } else { format!("{group}/{short}") };
    let other_version = || {
        ApiError::bad_request(format!(
            "the API version in the data ({stated}) does not match the expected API version ({api_version})"
        ))
    };
    if !served.resource.builtin {
        if stated != api_version {
            return Err(other_version());
        }
        if body_kind != kind {
            // Custom resources are asked for their kind like for all else.
            let path = apimachinery::FieldPath::root().child("kind");
            let error = apimachinery::FieldError::invalid(&path, body_kind, format!("must be {kind}"));
            let name = apimachinery::meta::name(object);
            return Err(ApiError::invalid(wanted_group, body_kind, name, &[error]));
        }
    } else if (stated.as_str(), body_kind) != (api_version, kind) {
        let list = (stated.as_str(), body_kind) == ("v1", "List");
        let why = if !list && !kinds::protobuf::is_registered(&stated, body_kind) {
            let (kind, version) = (go::quoted(body_kind), go::quoted(&stated));
            format!("no kind {kind} is registered for version {version} in scheme {SCHEME:?}")
        } else if body_kind == kind {
            return Err(other_version());
        } else {
            let internal = wanted_group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
            // It is read as what it says before anything is made of it.
            let schema = kinds::schema_of(&stated, body_kind);
            match schema.map(|schema| structure::check(object, &schema)) {
                Some(Err(why)) => why,
                _ => format!("converting ({short}.{body_kind}) to ({internal}.{kind}): unknown conversion"),
            }
        };
        return Err(decode::unhandled(body_kind, short, kind, &why));
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    Ok(())
}

/// The body of a DELETE: `DeleteOptions` of any group. Its errors are the decoder's own words.
pub fn delete_options(bytes: &Bytes, encoding: Encoding) -> Result<Value, ApiError> {
    static SCHEMA: OnceLock<Option<Arc<Schema>>> = OnceLock::new();
    let mut value = match (shape::parse(bytes, encoding), encoding) {
        (Err(error), Encoding::Json) => return Err(ApiError::bad_request(unread(&error.message))),
        (read, _) => read?.value,
    };
    if value.is_null() {
        value = Value::Object(Map::new());
    }
    let (version, kind) = stated(&value).map_err(ApiError::bad_request)?;
    if !matches!(kind.as_str(), "" | "DeleteOptions") {
        let version = if version.is_empty() { "meta.k8s.io/v1" } else { &version };
        return Err(ApiError::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \
             {SCHEME:?}"
        )));
    }
    if let Some(schema) = SCHEMA.get_or_init(|| kinds::schema_of("v1", "DeleteOptions")) {
        structure::check(&value, schema).map_err(ApiError::bad_request)?;
    }
    Ok(value)
}

/// `apiVersion` and `kind`, empty where absent. The error is the decoder's.
fn stated(object: &Object) -> Result<(String, String), String> {
    const TARGET: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let Some(map) = object.as_object() else {
        return Err(unread(&format!(
            "json: cannot unmarshal {} into Go value of type {TARGET}",
            structure::json_type(object)
        )));
    };
    // Go's decoder takes a name in any case where it does not find it as it is.
    let anyhow =
        |name: &str| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let text = |name: &str| match map.get(name).or_else(|| anyhow(name)) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(unread(&format!(
            "json: cannot unmarshal {} into Go struct field .{name} of type string",
            structure::json_type(other)
        ))),
    };
    Ok((text("apiVersion")?, text("kind")?))
}
