//! Whether an applied configuration fits its type: known fields, scalars of the right sort, no item twice.
//!
//! Source of the wording: `sigs.k8s.io/structured-merge-diff/typed/validate.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    element::Element,
    shape::{Atom, ListOf, MapOf, Place, Scalar, TypeErrors},
};
use crate::{
    go,
    schema::{ListType, Schema},
};

/// The most errors that one configuration is told.
const MOST: usize = 100;

/// Checks a configuration before it is merged.
///
/// # Errors
/// Everything that does not fit, at most 100 of it.
pub fn check(config: &Value, schema: &Schema) -> Result<(), TypeErrors> {
    let mut errors = TypeErrors::default();
    let mut path = Vec::new();
    place(config, Place::root(schema), &mut path, &mut errors);
    if errors.0.is_empty() { Ok(()) } else { Err(errors) }
}

fn place<'v>(value: &'v Value, at: Place<'v>, path: &mut Vec<Element<'v>>, errors: &mut TypeErrors) {
    if errors.0.len() >= MOST {
        return;
    }
    match at.atom(Some(value)) {
        Atom::Map(map) => fields(value, map, path, errors),
        Atom::List(list) => items(value, list, path, errors),
        Atom::Scalar(kind) => {
            if let Some(why) = scalar(value, kind) {
                errors.push(print(path), why);
            }
        }
    }
}

fn fields<'v>(value: &'v Value, of: MapOf<'v>, path: &mut Vec<Element<'v>>, errors: &mut TypeErrors) {
    let map = match value {
        Value::Null => return,
        Value::Object(map) => map,
        other => return errors.push(print(path), format!("expected map, got &{{{}}}", go::print(other))),
    };
    for (name, child) in map {
        path.push(Element::field(name));
        match of.field(name) {
            Some((at, _)) => place(child, at, path, errors),
            None => errors.push(print(path), "field not declared in schema"),
        }
        path.pop();
    }
}

fn items<'v>(value: &'v Value, of: ListOf<'v>, path: &mut Vec<Element<'v>>, errors: &mut TypeErrors) {
    let list = match value {
        Value::Null => return,
        Value::Array(list) => list,
        other => return errors.push(print(path), format!("expected list, got &{{{}}}", go::print(other))),
    };
    let mut seen = BTreeSet::new();
    for (index, item) in list.iter().enumerate() {
        let element = if of.kind == ListType::Atomic {
            Element::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            match of.element(item) {
                Ok(element) => element,
                Err(why) => return errors.push(print(path), format!("element {index}: {why}")),
            }
        };
        if of.kind != ListType::Atomic && !seen.insert(element.clone()) {
            errors.push(print(path), format!("duplicate entries for key {element}"));
        }
        path.push(element);
        place(item, of.item(), path, errors);
        path.pop();
    }
}

fn print(path: &[Element<'_>]) -> String {
    path.iter().map(ToString::to_string).collect()
}

/// The Go type of a decoded value.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn scalar(value: &Value, kind: Scalar) -> Option<String> {
    match (kind, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::Text, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Any, Value::Number(_) | Value::String(_) | Value::Bool(_)) => None,
        (Scalar::Numeric, other) => Some(format!("expected numeric (int or float), got {}", go_type(other))),
        (Scalar::Text, other) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go::syntax(other)))
        }
        (Scalar::Boolean, other) => Some(format!("expected boolean, got &{{{}}}", go::print(other))),
        (Scalar::Any, other) => Some(format!("expected any scalar, got &{{{}}}", go::print(other))),
    }
}
