//! Whether the types of a value are those that Go's decoder of the typed struct takes.

use base64::Engine as _;
use serde_json::Value;

use super::{At, Path};
use crate::schema::{Schema, Type};

/// Checks the JSON types of a built-in object. Null fits everywhere: it is absence.
///
/// # Errors
/// What Go says, `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn check(value: &Value, schema: &Schema) -> Result<(), String> {
    walk(value, schema, &Place::default())
}

/// Where a value is: its path, the struct that has the field, and the field's Go type where it has a name of its own.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    path: Option<&'a Path<'a>>,
    owner: Option<&'a Schema>,
    go: Option<&'a str>,
    /// What is below keeps the owner.
    pinned: bool,
}

/// The step to a field, which has to outlive its [`Place`].
pub(super) struct Step<'a> {
    path: Path<'a>,
    owner: &'a Schema,
    go: Option<&'a str>,
    pinned: bool,
}

impl<'a> Place<'a> {
    /// The step to a field of a struct that is here.
    pub(super) fn field(&self, owner: &'a Schema, name: &'a str) -> Step<'a> {
        let go = owner.properties.get(name).and_then(|property| property.go.as_deref());
        let at = match go.and_then(|go| go.within.as_deref()) {
            Some(within) => At::Embedded(within, name),
            None => At::Field(name),
        };
        let owner = self.owner.filter(|_| self.pinned).unwrap_or(owner);
        let go = go.and_then(|go| go.kind.as_deref());
        Step { path: Path { parent: self.path, at }, owner, go, pinned: self.pinned }
    }

    /// The same for a value that is decoded apart: fields in it are told as fields of the owner here.
    pub(super) fn pinned(&self) -> Self {
        Self { go: None, pinned: true, ..*self }
    }

    /// An item of the list, or a value of the map, that is here.
    pub(super) fn element(&self) -> Self {
        let element = |go: &'a str| {
            go.strip_prefix("[]")
                .or_else(|| go.strip_prefix("map[").and_then(|rest| Some(rest.split_once(']')?.1)))
        };
        Self { go: self.go.and_then(element), ..*self }
    }
}

impl Step<'_> {
    pub(super) fn place(&self) -> Place<'_> {
        Place { path: Some(&self.path), owner: Some(self.owner), go: self.go, pinned: self.pinned }
    }
}

/// `Container` of `io.k8s.api.core.v1.Container`
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The Go name of a type: `int32`, `[]v1.Container`, `map[string]string`.
pub(super) fn go_type(schema: &Schema) -> String {
    if let Some(name) = &schema.name {
        let mut parts = name.rsplit('.');
        let (kind, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        return format!("{package}.{kind}");
    }
    match schema.kind {
        Some(Type::String) if schema.format.as_deref() == Some("byte") => "[]uint8".to_owned(),
        Some(Type::String) => "string".to_owned(),
        Some(Type::Boolean) => "bool".to_owned(),
        Some(Type::Integer) => {
            if schema.format.as_deref() == Some("int64") { "int64" } else { "int32" }.to_owned()
        }
        Some(Type::Number) => "float64".to_owned(),
        Some(Type::Array) => {
            format!("[]{}", schema.items.as_ref().map_or_else(|| "interface {}".to_owned(), |i| go_type(i)))
        }
        Some(Type::Object) => match &schema.additional {
            Some(values) => format!("map[string]{}", go_type(values)),
            None => "map[string]interface {}".to_owned(),
        },
        None => "interface {}".to_owned(),
    }
}

/// What a value is called in errors of Go's JSON decoder.
#[must_use]
pub fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The fields on the way, without the steps into lists and maps, as Go's error names them.
fn fields(path: Option<&Path<'_>>, out: &mut String) {
    let Some(path) = path else { return };
    fields(path.parent, out);
    let mut step = |name: &str| {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
    };
    match path.at {
        At::Field(name) => step(name),
        At::Embedded(within, name) => {
            step(within);
            step(name);
        }
        At::Index(_) => {}
    }
}

fn mismatch(what: &str, schema: &Schema, place: &Place<'_>) -> String {
    let kind = match place.go {
        Some(name) => name.to_owned(),
        None => go_type(schema),
    };
    told(what, &kind, place)
}

/// The words about a value that is no `kind`.
fn told(what: &str, kind: &str, place: &Place<'_>) -> String {
    let Some(owner) = place.owner else {
        return format!("json: cannot unmarshal {what} into Go value of type {kind}");
    };
    let mut path = String::new();
    fields(place.path, &mut path);
    let owner = owner.name.as_deref().map_or("", short);
    format!("json: cannot unmarshal {what} into Go struct field {owner}.{path} of type {kind}")
}

fn walk(value: &Value, schema: &Schema, place: &Place<'_>) -> Result<(), String> {
    if !check_node(value, schema, place)? {
        return Ok(());
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(property) = schema.properties.get(name.as_str()) {
                    walk(child, property, &place.field(schema, name).place())?;
                } else if let Some(values) = &schema.additional {
                    walk(child, values, &place.element())?;
                }
            }
            Ok(())
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return Ok(()) };
            list.iter().try_for_each(|item| walk(item, items, &place.element()))
        }
        _ => Ok(()),
    }
}

/// Checks a value without what is in it. Whether that is to be checked too.
pub(super) fn check_node(value: &Value, schema: &Schema, place: &Place<'_>) -> Result<bool, String> {
    if value.is_null() {
        return Ok(false);
    }
    let format = schema.format.as_deref();
    if schema.int_or_string || format == Some("int-or-string") {
        let whole = value.as_i64().is_some_and(|n| i32::try_from(n).is_ok());
        return match value {
            Value::String(_) => Ok(false),
            Value::Number(_) if whole => Ok(false),
            Value::Number(number) => Err(told(&format!("number {number}"), "int32", place)),
            other => Err(told(json_type(other), "int32", place)),
        };
    }
    match format {
        // Read by `canonicalize`, which words its own errors.
        Some("quantity") => return Ok(false),
        Some("date-time" | "micro-time") if !value.is_string() => {
            return Err(told(json_type(value), "string", place));
        }
        _ => {}
    }
    match (schema.kind, value) {
        (None, _) | (Some(Type::Boolean), Value::Bool(_)) | (Some(Type::Number), Value::Number(_)) => {
            Ok(false)
        }
        (Some(Type::String), Value::String(text)) => {
            if format == Some("byte") {
                base64(text)?;
            }
            Ok(false)
        }
        (Some(Type::Integer), Value::Number(number)) => {
            let fits = number.as_i64().is_some_and(|n| format == Some("int64") || i32::try_from(n).is_ok());
            if fits { Ok(false) } else { Err(mismatch(&format!("number {number}"), schema, place)) }
        }
        (Some(Type::Object), Value::Object(_)) | (Some(Type::Array), Value::Array(_)) => Ok(true),
        _ => Err(mismatch(json_type(value), schema, place)),
    }
}

/// Go's standard encoding, which skips line breaks.
fn base64(text: &str) -> Result<(), String> {
    use base64::engine::general_purpose::STANDARD;
    let outcome = if text.contains(['\r', '\n']) {
        STANDARD.decode(text.replace(['\r', '\n'], ""))
    } else {
        STANDARD.decode(text)
    };
    outcome.map(drop).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                text.len() - text.len() % 4
            }
        };
        format!("illegal base64 data at input byte {at}")
    })
}
