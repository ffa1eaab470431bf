//! Whether an object obeys its schema: the JSON-schema keywords, unique list items, CEL rules.
//!
//! An update is forgiven what it leaves as it was ("ratcheting"): equal parts of old and new are not looked into.
//! Wording: `kube-openapi/pkg/validation` as `k8s.io/apiextensions-apiserver` turns it into field errors.

mod embedded;
mod keywords;
mod lists;
mod rules;

use serde_json::Value;

use crate::{
    field::{FieldError, FieldErrorKind, FieldPath},
    schema::Schema,
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
    let mut errors = Vec::new();
    keywords::walk(value, old, schema, None, &mut errors);
    errors.extend(more);
    embedded::walk(value, schema, None, &mut errors);
    if old.is_none_or(|old| {
        let mut before = Vec::new();
        lists::walk(old, schema, None, &mut before);
        before.is_empty()
    }) {
        lists::walk(value, schema, None, &mut errors);
    }
    if !rules::any(schema) {
        return errors;
    }
    let blocked = errors.iter().any(|e| {
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
    errors
}

/// The item of `old` that stands for `item`, in a list whose items are told apart by keys.
fn counterpart<'a>(item: &Value, old: &'a [Value], schema: &Schema) -> Option<&'a Value> {
    if schema.list_type != crate::schema::ListType::Map {
        return None;
    }
    old.iter().find(|o| schema.list_map_keys.iter().all(|key| o.get(&**key) == item.get(&**key)))
}

#[cfg(test)]
mod tests;
