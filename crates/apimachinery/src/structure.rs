//! The shape of objects: do the types fit, which fields are unknown, what is the canonical form.
//!
//! Each pass walks the value once beside its schema. Paths live on the stack and are printed only in errors.

mod canonical;
mod fit;
mod types;

use std::fmt::Write as _;

use serde_json::Value;

pub use canonical::{always, canonicalize, drop_nulls, forget_empty_lists, whole_numbers};
pub use fit::fit;
pub use types::{check, json_type};

use crate::schema::Schema;

/// One step on the way to a value.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    Field(&'a str),
    /// A field of embedded structs, which only Go's errors name.
    Embedded(&'a str, &'a str),
    Index(usize),
}

/// The way to a value, as a list on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    pub(crate) parent: Option<&'a Path<'a>>,
    pub(crate) at: At<'a>,
}

/// `spec.containers[0].foo`
pub(crate) fn print(path: Option<&Path<'_>>, last: &str) -> String {
    fn walk(path: Option<&Path<'_>>, out: &mut String) {
        let Some(path) = path else { return };
        walk(path.parent, out);
        match path.at {
            At::Field(name) | At::Embedded(_, name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            At::Index(index) => {
                let _ = write!(out, "[{index}]");
            }
        }
    }
    let mut out = String::new();
    walk(path, &mut out);
    if !last.is_empty() {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(last);
    }
    out
}

/// Fields that every whole object has, whatever its schema says.
fn of_every_object(name: &str) -> bool {
    matches!(name, "apiVersion" | "kind" | "metadata")
}

/// Drops fields that the schema does not know. Returns `unknown field "spec.containers[0].foo"` for each, at most 100,
/// in the order in which the map holds them (by name).
pub fn prune(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(value, schema, None, true, &mut unknown);
    unknown
}

/// The same for a value inside an object: it has no `apiVersion`, `kind` and `metadata` of its own.
pub fn prune_part(value: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    prune_at(value, schema, None, false, &mut unknown);
    unknown
}

fn prune_at(
    value: &mut Value,
    schema: &Schema,
    path: Option<&Path<'_>>,
    whole: bool,
    unknown: &mut Vec<String>,
) {
    match value {
        Value::Object(map) => {
            let whole = whole || schema.embedded_resource;
            // A schema without fields and kind (embedded JSON, int-or-string) says nothing about fields.
            let open = schema.preserve_unknown || schema.kind.is_none() && schema.properties.is_empty();
            let mut doomed = Vec::new();
            for (name, child) in map.iter_mut() {
                if let Some(property) = schema.field(name) {
                    let here = Path { parent: path, at: At::Field(name) };
                    prune_at(child, property, Some(&here), false, unknown);
                } else if !(open || whole && of_every_object(name)) {
                    doomed.push(name.clone());
                    if unknown.len() < 100 {
                        unknown.push(format!("unknown field {:?}", print(path, name)));
                    }
                }
            }
            for name in doomed {
                map.remove(&name);
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, item) in list.iter_mut().enumerate() {
                    let here = Path { parent: path, at: At::Index(index) };
                    prune_at(item, items, Some(&here), false, unknown);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
