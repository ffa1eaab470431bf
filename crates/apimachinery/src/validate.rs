//! Whether an object obeys its schema: the JSON-schema keywords, unique list items, CEL rules.
//!
//! An update is forgiven what it leaves as it was ("ratcheting"): equal parts of old and new are not looked into.
//! Wording: `kube-openapi/pkg/validation` as `k8s.io/apiextensions-apiserver` turns it into field errors.

mod embedded;
mod keywords;
mod lists;
mod rules;

use std::{collections::HashMap, sync::Arc};

use serde_json::Value;

use crate::{
    field::{FieldError, FieldErrorKind, FieldErrors, FieldPath},
    schema::{ListType, Schema},
    structure::{self, Path},
};

fn at(path: Option<&Path<'_>>) -> FieldPath {
    FieldPath::from(structure::print(path, "").as_str())
}

/// What is wrong with a new object.
#[must_use]
pub fn create(value: &Value, schema: &Schema) -> Vec<FieldError> {
    object(value, None, schema, Vec::new())
}

/// What is wrong with a changed object.
#[must_use]
pub fn update(new: &Value, old: &Value, schema: &Schema) -> Vec<FieldError> {
    object(new, Some(old), schema, Vec::new())
}

/// What is wrong with a new object, or with one that was `old`. `more` is what was found beyond the schema: it is told
/// after what the keywords find, before the expressions are asked.
#[must_use]
pub fn object(value: &Value, old: Option<&Value>, schema: &Schema, more: Vec<FieldError>) -> Vec<FieldError> {
    let mut errors = FieldErrors::default();
    keywords::walk(value, old, schema, None, &mut errors);
    errors.extend(more);
    embedded::walk(value, schema, None, &mut errors);
    if old.is_none_or(|old| {
        let mut before = FieldErrors::default();
        lists::walk(old, schema, None, &mut before);
        before.is_empty()
    }) {
        lists::walk(value, schema, None, &mut errors);
    }
    if !rules::any(schema) {
        return errors.into_vec();
    }
    let blocked = errors.is_full()
        || errors.iter().any(|e| {
            matches!(
                e.kind,
                FieldErrorKind::NotSupported
                    | FieldErrorKind::Required
                    | FieldErrorKind::TooLong
                    | FieldErrorKind::TooMany
                    | FieldErrorKind::TypeInvalid
            )
        });
    if blocked {
        let words = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
        errors.push(FieldError::invalid(&FieldPath::root(), Value::Null, words));
    } else {
        rules::walk(value, old, schema, &mut errors);
    }
    errors.into_vec()
}

/// The items of an old list by their keys, where a new list's items are told apart by keys.
struct Counterparts<'a> {
    by_keys: HashMap<String, &'a Value>,
    keys: &'a [Arc<str>],
}

impl<'a> Counterparts<'a> {
    fn new(old: Option<&'a Value>, schema: &'a Schema) -> Self {
        let keys = &*schema.list_map_keys;
        let mut by_keys = HashMap::new();
        if schema.list_type == ListType::Map {
            for item in old.and_then(Value::as_array).into_iter().flatten() {
                by_keys.entry(identity(item, keys)).or_insert(item);
            }
        }
        Self { by_keys, keys }
    }

    /// The old item that a new one stands for.
    fn of(&self, item: &Value) -> Option<&'a Value> {
        if self.by_keys.is_empty() { None } else { self.by_keys.get(&identity(item, self.keys)).copied() }
    }
}

/// The values of the keys as text, absent ones as nothing.
fn identity(item: &Value, keys: &[Arc<str>]) -> String {
    let values = keys.iter().map(|key| item.get(&**key).map(Value::to_string).unwrap_or_default());
    values.collect::<Vec<_>>().join("\0")
}

#[cfg(test)]
mod tests;
