//! Reading and writing places inside an object by dotted path. Absent, null and of another type are the same here:
//! the schema has been checked before.

use apimachinery::field::steps;
use serde_json::{Map, Value, json};

/// The value at `spec.template.metadata`, `Null` when it is not there.
pub fn at<'v>(value: &'v Value, path: &str) -> &'v Value {
    steps(path).fold(value, |value, name| value.get(name).unwrap_or(&Value::Null))
}

/// The string there, else empty.
pub fn text<'v>(value: &'v Value, path: &str) -> &'v str {
    at(value, path).as_str().unwrap_or_default()
}

/// The number there, else 0.
pub fn number(value: &Value, path: &str) -> i64 {
    at(value, path).as_i64().unwrap_or_default()
}

/// The boolean there, else false.
pub fn flag(value: &Value, path: &str) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The list there, else an empty one.
pub fn list<'v>(value: &'v Value, path: &str) -> &'v [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The entries of the map there, else none.
pub fn entries<'v>(value: &'v Value, path: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    at(value, path).as_object().into_iter().flatten()
}

/// Something is there, and not null.
pub fn has(value: &Value, path: &str) -> bool {
    !at(value, path).is_null()
}

/// The value at the path, to be changed, if it is there.
pub fn at_mut<'v>(value: &'v mut Value, path: &str) -> Option<&'v mut Value> {
    steps(path).try_fold(value, |value, name| value.get_mut(name)).filter(|value| !value.is_null())
}

/// The items of the list there, to be changed; none if there is none.
pub fn items_mut<'v>(value: &'v mut Value, path: &str) -> impl Iterator<Item = &'v mut Value> {
    at_mut(value, path).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The map at the path, made with its parents where it is not there. `None` if a parent is no object.
pub fn map_mut<'v>(value: &'v mut Value, path: &str) -> Option<&'v mut Map<String, Value>> {
    let mut here = value;
    for name in steps(path) {
        here = here.as_object_mut()?.entry(name).or_insert(Value::Null);
        if here.is_null() {
            *here = json!({});
        }
    }
    here.as_object_mut()
}

/// Writes a field, making its parents.
pub fn set(value: &mut Value, path: &str, new: impl Into<Value>) {
    match path.rsplit_once('.') {
        Some((parent, name)) => {
            if let Some(map) = map_mut(value, parent) {
                map.insert(name.to_owned(), new.into());
            }
        }
        None => {
            if let Some(map) = value.as_object_mut() {
                map.insert(path.to_owned(), new.into());
            }
        }
    }
}

/// Writes a field of an object that is there, unless the field is there or empty text.
pub fn fill(value: &mut Value, name: &str, new: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        let old = map.get(name).unwrap_or(&Value::Null);
        if old.is_null() || old == "" {
            map.insert(name.to_owned(), new.into());
        }
    }
}

/// Takes a field away.
pub fn remove(value: &mut Value, path: &str) {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (at_mut(value, parent), name),
        None => (Some(value), path),
    };
    if let Some(map) = parent.and_then(Value::as_object_mut) {
        map.remove(name);
    }
}

/// Makes the field what it is in `old`.
pub fn restore(new: &mut Value, old: &Value, path: &str) {
    match at(old, path) {
        Value::Null => remove(new, path),
        value => set(new, path, value.clone()),
    }
}

/// Equal as Go's semantic equality sees it: null and an empty list are one. An empty object is there: the canonical form
/// has no empty maps, and a struct is told from none.
pub fn same(a: &Value, b: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
                && b.iter().all(|(key, value)| a.contains_key(key) || empty(value))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b || (empty(a) && empty(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_empty_are_the_same() {
        assert!(same(&json!({"a": 1, "b": null}), &json!({"a": 1, "c": []})));
        assert!(!same(&json!({"a": {}}), &json!({})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 2})));
        assert!(!same(&json!({"a": ""}), &json!({"a": "x"})));
    }

    #[test]
    fn writing_a_path_makes_its_parents() {
        let mut object = json!({"metadata": {"labels": null}});
        set(&mut object, "metadata.labels.app", "web");
        assert_eq!(object, json!({"metadata": {"labels": {"app": "web"}}}));
    }
}
