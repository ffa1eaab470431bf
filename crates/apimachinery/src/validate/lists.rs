//! Lists whose items occur once: `x-kubernetes-list-type: set` and `map`.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::at;
use crate::{
    field::{FieldError, FieldErrors},
    schema::{ListType, Schema},
    structure::{At, Path},
};

pub(super) fn walk(value: &Value, schema: &Schema, path: Option<&Path<'_>>, errors: &mut FieldErrors) {
    if errors.is_full() {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(property) = schema.field(name) {
                    walk(child, property, Some(&Path { parent: path, at: At::Field(name) }), errors);
                }
            }
        }
        Value::Array(list) => {
            let mut seen = HashSet::new();
            for (index, item) in list.iter().enumerate() {
                let here = Path { parent: path, at: At::Index(index) };
                let id = match schema.list_type {
                    ListType::Atomic => None,
                    ListType::Set => Some(item.clone()),
                    ListType::Map => Some(keys(item, schema)),
                };
                if let Some(id) = id
                    && !seen.insert(id.to_string())
                {
                    errors.push(FieldError::duplicate(&at(Some(&here)), id));
                }
                if let Some(items) = &schema.items {
                    walk(item, items, Some(&here), errors);
                }
            }
        }
        _ => {}
    }
}

/// The key fields of an item; an absent one counts with its default.
fn keys(item: &Value, schema: &Schema) -> Value {
    let mut found = Map::new();
    for key in &schema.list_map_keys {
        let default = || schema.items.as_ref()?.properties.get(key)?.default.clone();
        if let Some(value) = item.get(&**key).cloned().or_else(default) {
            found.insert(key.to_string(), value);
        }
    }
    Value::Object(found)
}
