//! From the bytes of a body to an object of its kind: decoded, pruned, canonical, defaulted.
//!
//! Built-in kinds and custom resources differ here in one place only: a built-in is read as the typed struct that
//! upstream decodes into (null is absent, wrong types are a 400), a custom resource by its structural schema.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use apimachinery::{ApiError, Object, Schema, decode, defaults, structure};
use bytes::Bytes;
use kinds::Resource;
use parking_lot::Mutex;
use serde_json::Value;

use crate::{body_kind, catalogue::Served, negotiate::Encoding, options::FieldValidation, server::Call};

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
    shaped(resource, object, true)
}

/// The same for what applying a configuration has led to. Nulls that a custom resource may not have are left for it to be
/// refused.
pub fn applied(resource: &Resource, object: &mut Object) -> Result<Vec<String>, ApiError> {
    shaped(resource, object, false)
}

fn shaped(resource: &Resource, object: &mut Object, sent: bool) -> Result<Vec<String>, ApiError> {
    let schema = &resource.schema;
    let cannot = |why: &str| {
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}",
            kind = resource.kind,
            version = resource.version,
        ))
    };
    let unknown = if resource.builtin {
        structure::fit(object, schema).map_err(|why| cannot(&why))?
    } else {
        if let (Some(metadata), Some(schema)) = (object.get("metadata"), schema.properties.get("metadata")) {
            structure::check(metadata, schema).map_err(|why| cannot(&why))?;
        }
        let unknown = structure::prune(object, schema);
        if sent {
            structure::drop_nulls(object, schema);
        } else {
            structure::whole_numbers(object);
        }
        canonical_metadata(resource, object);
        unknown
    };
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

/// A body as an object of `served`: the one way from bytes to an object. Warnings go to the call's.
pub fn body(
    served: &Served,
    bytes: &Bytes,
    encoding: Encoding,
    validation: FieldValidation,
    call: &mut Call,
) -> Result<Object, ApiError> {
    let decode::Decoded { mut value, duplicates } = body_kind::read(bytes, encoding, &served.resource.kind)?;
    let spelled = |mut error: ApiError| {
        let text = (encoding == Encoding::Json).then(|| decode::as_spelled(bytes, &error.message));
        error.message = text.flatten().unwrap_or(error.message);
        error
    };
    if let Err(error) =
        body_kind::check(served, &served.resource.kind, &served.api_version, &mut value, bytes)
    {
        if !served.resource.builtin && validation == FieldValidation::Warn {
            call.warnings.extend(unknown_version(served, &value));
        }
        return Err(spelled(error));
    }
    let mut found = duplicates;
    found.extend(apply(&served.resource, &mut value).map_err(spelled)?);
    // A typed struct is decoded field by field, a custom resource is read first and looked at then.
    if served.resource.builtin && encoding == Encoding::Json && found.len() > 1 {
        found = decode::in_order(bytes, found);
    }
    let resource = &served.resource;
    let refuse = |why: String| unfit(&resource.version, &resource.kind, &why);
    strict(validation, found.into_iter(), &mut call.warnings, refuse)?;
    call.note_sent(&value);
    Ok(value)
}

/// Of another version of a custom resource nothing but the metadata is known.
fn unknown_version(served: &Served, object: &Object) -> Vec<String> {
    let (version, kind) = (&object["apiVersion"], &object["kind"]);
    let group = version.as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    if group != Some(&*served.resource.group)
        || *version == served.api_version
        || *kind != *served.resource.kind
    {
        return Vec::new();
    }
    let fields = object.as_object().into_iter().flatten().map(|(name, _)| name);
    let unknown = fields.filter(|name| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    unknown.map(|name| format!("unknown field {name:?}")).collect()
}

/// A body of another kind than the resource's own: `Scale`, `Binding`, `Eviction`, …
pub fn foreign(
    served: &Served,
    bytes: &Bytes,
    encoding: Encoding,
    (api_version, kind): (&'static str, &'static str),
    validation: FieldValidation,
    call: &mut Call,
) -> Result<Object, ApiError> {
    let decode::Decoded { mut value, duplicates } = body_kind::read(bytes, encoding, kind)?;
    if value.get("apiVersion").and_then(Value::as_str) == older(kind) && older(kind).is_some() {
        value["apiVersion"] = api_version.into();
    }
    body_kind::check(served, kind, api_version, &mut value, bytes)?;
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    let mut found = duplicates;
    if let Some(schema) = foreign_schema(api_version, kind) {
        structure::check(&value, &schema).map_err(|why| unfit(version, kind, &why))?;
        found.extend(structure::prune(&mut value, &schema));
    }
    strict(validation, found.into_iter(), &mut call.warnings, |why| unfit(version, kind, &why))?;
    call.note_sent(&value);
    Ok(value)
}

/// A version of the kind that is still read though nothing else is served in it.
fn older(kind: &str) -> Option<&'static str> {
    (kind == "Eviction").then_some("policy/v1beta1")
}

/// Schemas of the kinds that are no resources, each made once.
fn foreign_schema(api_version: &'static str, kind: &'static str) -> Option<Arc<Schema>> {
    type Made = BTreeMap<(&'static str, &'static str), Option<Arc<Schema>>>;
    static SCHEMAS: LazyLock<Mutex<Made>> = LazyLock::new(Mutex::default);
    let mut made = SCHEMAS.lock();
    made.entry((api_version, kind)).or_insert_with(|| kinds::schema_of(api_version, kind)).clone()
}

/// A body that is none of its kind.
fn unfit(version: &str, kind: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// Ignores what was dropped, tells it, or refuses it with the error that `refuse` makes of the reason.
pub fn strict(
    validation: FieldValidation,
    found: impl Iterator<Item = String>,
    warnings: &mut Vec<String>,
    refuse: impl FnOnce(String) -> ApiError,
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
            Err(refuse(format!("strict decoding error: {}", list.join(", "))))
        }
    }
}
