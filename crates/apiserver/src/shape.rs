//! From the bytes of a body to an object of its kind: decoded, pruned, canonical, defaulted.
//!
//! Built-in kinds and custom resources differ here in one place only: a built-in is read as the typed struct that
//! upstream decodes into (null is absent, wrong types are a 400), a custom resource by its structural schema.

use apimachinery::{ApiError, Object, decode, defaults, structure};
use bytes::Bytes;
use kinds::Resource;
use serde_json::{Map, Value};

use crate::{catalogue::Served, negotiate::Encoding, options::FieldValidation};

/// Reads a body into any JSON value, and the duplicate fields in it.
pub fn parse(bytes: &Bytes, encoding: Encoding) -> Result<decode::Decoded, ApiError> {
    match encoding {
        Encoding::Json => decode::json(bytes),
        Encoding::Yaml => decode::yaml(bytes),
        Encoding::Protobuf => kinds::protobuf::decode(bytes)
            .map(|value| decode::Decoded { value, duplicates: Vec::new() })
            .map_err(ApiError::bad_request),
    }
}

/// Brings `object` into the shape of `resource`. Returns the unknown fields that were dropped.
pub fn apply(resource: &Resource, object: &mut Object) -> Result<Vec<String>, ApiError> {
    let schema = &resource.schema;
    let cannot = |why: &str| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}",
            kind = resource.kind,
            version = resource.version,
        ))
    };
    if resource.builtin {
        structure::check(object, schema).map_err(|why| cannot(&why))?;
    } else if let (Some(metadata), Some(schema)) = (object.get("metadata"), schema.properties.get("metadata"))
    {
        structure::check(metadata, schema).map_err(|why| cannot(&why))?;
    }
    let unknown = structure::prune(object, schema);
    if resource.builtin {
        structure::canonicalize(object, schema).map_err(|why| cannot(&why))?;
    } else {
        structure::drop_nulls(object, schema);
        canonical_metadata(resource, object);
    }
    default(resource, object);
    Ok(unknown)
}

/// Metadata of custom resources is the same typed struct as everywhere.
fn canonical_metadata(resource: &Resource, object: &mut Object) {
    if let (Some(metadata), Some(schema)) =
        (object.get_mut("metadata"), resource.schema.properties.get("metadata"))
    {
        // A bad time was refused by `check` before.
        let _ = structure::canonicalize(metadata, schema);
    }
}

/// Fills in what is absent. Runs after every decode, patch and merge.
pub fn default(resource: &Resource, object: &mut Object) {
    if resource.builtin {
        structure::always(object, &resource.schema);
    }
    defaults::apply(object, &resource.schema);
    if resource.builtin {
        resource.strategy.default(object);
    }
}

/// A custom resource that came from another version: what its own does not know goes. Its defaults were those of the
/// other version.
pub fn converted(resource: &Resource, object: &mut Object) {
    structure::prune(object, &resource.schema);
    structure::drop_nulls(object, &resource.schema);
}

/// A custom resource as it was stored, perhaps under another schema.
pub fn stored_custom(resource: &Resource, object: &mut Object) {
    converted(resource, object);
    defaults::apply(object, &resource.schema);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("generation").is_none_or(|g| g == 0)
    {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Checks and fills in `apiVersion` and `kind` of a body.
fn type_meta(served: &Served, kind: &str, api_version: &str, object: &mut Object) -> Result<(), ApiError> {
    let Some(map) = object.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            go_type(object),
        )));
    };
    let text = |map: &Map<String, Value>, name: &str| match map.get(name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(ApiError::bad_request(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {} into Go struct field .{name} of type string",
            go_type(other)
        ))),
    };
    let (has_version, has_kind) = (text(map, "apiVersion")?, text(map, "kind")?);
    if !has_kind.is_empty() && has_kind != kind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let (other_group, other_version) = has_version.split_once('/').unwrap_or(("", &has_version));
        let shown = if has_version.is_empty() { (group, version) } else { (other_group, other_version) };
        return Err(ApiError::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {kind}: no kind \"{}\" is registered for version \"{}\" in scheme",
            has_kind,
            shown.1,
            has_kind,
            if shown.0.is_empty() { shown.1.to_owned() } else { format!("{}/{}", shown.0, shown.1) },
        ))
        .into_mismatch(served, kind));
    }
    if !has_version.is_empty() && has_version != api_version {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({has_version}) does not match the expected API version ({api_version})"
        )));
    }
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.into());
    Ok(())
}

trait Mismatch {
    fn into_mismatch(self, served: &Served, kind: &str) -> Self;
}
impl Mismatch for ApiError {
    /// Custom resources word a foreign kind in their own way.
    fn into_mismatch(self, served: &Served, kind: &str) -> Self {
        if served.resource.builtin {
            return self;
        }
        let group = &served.resource.group;
        ApiError::bad_request(format!(
            "the kind in the data does not match the expected kind ({kind}.{group})"
        ))
    }
}

/// How Go's JSON decoder names a value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A body as an object of `served`: the one way from bytes to an object. Warnings go to `warnings`.
pub fn body(
    served: &Served,
    bytes: &Bytes,
    encoding: Encoding,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Object, ApiError> {
    let decode::Decoded { mut value, duplicates } = parse(bytes, encoding)?;
    type_meta(served, &served.resource.kind, &served.api_version, &mut value)?;
    let mut found = duplicates;
    found.extend(apply(&served.resource, &mut value)?);
    // A typed struct is decoded field by field, a custom resource is read first and looked at then.
    if served.resource.builtin && encoding == Encoding::Json && found.len() > 1 {
        found = decode::in_order(bytes, found);
    }
    strict(&served.resource, validation, found.into_iter(), warnings)?;
    Ok(value)
}

/// A body of another kind than the resource's own: `Scale`, `Binding`, `Eviction`, …
pub fn foreign(
    served: &Served,
    bytes: &Bytes,
    encoding: Encoding,
    api_version: &str,
    kind: &str,
) -> Result<Object, ApiError> {
    let mut value = parse(bytes, encoding)?.value;
    type_meta(served, kind, api_version, &mut value)?;
    Ok(value)
}

/// Refuses, tells or ignores what was dropped.
pub fn strict(
    resource: &Resource,
    validation: FieldValidation,
    found: impl Iterator<Item = String>,
    warnings: &mut Vec<String>,
) -> Result<(), ApiError> {
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            warnings.extend(found);
            Ok(())
        }
        FieldValidation::Strict => {
            let list: Vec<String> = found.collect();
            if list.is_empty() {
                return Ok(());
            }
            Err(ApiError::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
                list.join(", "),
                kind = resource.kind,
                version = resource.version,
            )))
        }
    }
}
