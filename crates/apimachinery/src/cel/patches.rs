//! `Object{…}` and `JSONPatch{…}`: what mutating policies make.
//!
//! The interpreter makes no objects of types that are named as they are used (`Object.spec.template`). So an object is a
//! map that also holds the name it was made with, under a key that no object has.

use ::cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr, IdedEntryExpr, LiteralValue, MapEntryExpr, MapExpr},
    objects::Key,
};
use serde_json::{Map, Value as Json};

use super::{Value, scope};

/// Where the name of an object's type is.
const TYPE: &str = "@type";

/// An object's literal as a map's.
pub(super) fn as_map(node: &mut IdedExpr) {
    let id = node.id;
    let Expr::Struct(made) = &mut node.expr else { return };
    let text = |text: String| IdedExpr { id, expr: Expr::Literal(LiteralValue::String(text.into())) };
    let entry = |key: String, value: IdedExpr, optional: bool| {
        let entry = MapEntryExpr { key: text(key), value, optional };
        IdedEntryExpr { id, expr: EntryExpr::MapEntry(entry) }
    };
    let mut entries = vec![entry(TYPE.to_owned(), text(std::mem::take(&mut made.type_name)), false)];
    for field in std::mem::take(&mut made.entries) {
        if let EntryExpr::StructField(field) = field.expr {
            entries.push(entry(unescape(&field.field), field.value, field.optional));
        }
    }
    node.expr = Expr::Map(MapExpr { entries });
}

/// A field's name as it is in the object: `a__dash__b` is `a-b`.
fn unescape(name: &str) -> String {
    let bare = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"));
    if let Some(word) = bare.filter(|word| super::escape(word) == name) {
        return word.to_owned();
    }
    name.replace("__dash__", "-")
        .replace("__dot__", ".")
        .replace("__slash__", "/")
        .replace("__underscores__", "__")
}

/// The configuration that an expression of `ApplyConfiguration` made.
///
/// # Errors
/// It is no `Object`, an object in it is named for another place, or a value has no form in JSON.
pub fn configuration(value: &Value) -> Result<Json, String> {
    if type_of(value) != Some("Object") {
        return Err("unsupported return type from ApplyConfiguration expression".to_owned());
    }
    json(value, "Object")
}

/// The operations that an expression of `JSONPatch` made.
///
/// # Errors
/// As [`configuration`]; or it is no list of `JSONPatch`.
pub fn operations(value: &Value) -> Result<Vec<Json>, String> {
    let Value::List(list) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut operations = Vec::with_capacity(list.len());
    for item in list.iter() {
        let (Some("JSONPatch"), Value::Map(map)) = (type_of(item), item) else {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".to_owned()
            );
        };
        let mut operation = Map::new();
        for (key, value) in map.map.iter() {
            let Key::String(name) = key else { continue };
            if name.as_str() == TYPE {
                continue;
            }
            let root = type_of(value).unwrap_or("Object");
            operation.insert(name.as_str().to_owned(), json(value, root)?);
        }
        operations.push(Json::Object(operation));
    }
    Ok(operations)
}

fn type_of(value: &Value) -> Option<&str> {
    let Value::Map(map) = value else { return None };
    match map.get(&Key::from(TYPE)) {
        Some(Value::String(name)) => Some(name.as_str()),
        _ => None,
    }
}

/// A value as JSON; `path` is the name that an object here has to have.
fn json(value: &Value, path: &str) -> Result<Json, String> {
    match value {
        Value::List(list) => {
            Ok(Json::Array(list.iter().map(|item| json(item, path)).collect::<Result<_, _>>()?))
        }
        Value::Map(map) => {
            let named = type_of(value);
            if let Some(name) = named.filter(|name| *name != path) {
                return Err(format!(
                    "type mismatch: unexpected type name {name:?}, expected {path:?}, which matches field name path from \
                     root Object type"
                ));
            }
            let mut fields = Map::new();
            for (key, child) in map.map.iter() {
                let Key::String(name) = key else { return Err(format!("map key {key:?} is not a string")) };
                if name.as_str() == TYPE {
                    continue;
                }
                let below = if named.is_some() { &format!("{path}.{name}") } else { path };
                fields.insert(name.as_str().to_owned(), json(child, below)?);
            }
            Ok(Json::Object(fields))
        }
        other => scope::to_json(other).map_err(|error| error.to_string()),
    }
}
