//! Objects of any kind with one long list or map in them, made from nothing but the kind's schema.

use std::fmt;

use apimachinery::{Schema, schema::Type};
use kinds::Resource;
use serde_json::{Map, Value, json};

/// A list or a map of a kind: the fields on the way to it, `[]` for an item and `{}` for a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub Vec<String>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// What the many items of the long list or map are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    /// Each another.
    Distinct,
    /// All alike.
    Same,
    /// Nothing in them.
    Empty,
}

impl Items {
    pub const ALL: [Self; 3] = [Self::Distinct, Self::Same, Self::Empty];
}

/// Every list and map of a kind.
pub fn places(resource: &Resource) -> Vec<Place> {
    let mut found = Vec::new();
    collect(&resource.schema, &mut Vec::new(), &mut found);
    found
}

fn collect(schema: &Schema, way: &mut Vec<String>, found: &mut Vec<Place>) {
    for (name, field) in &schema.properties {
        // Who owns what is written by the server.
        if **name == *"managedFields" {
            continue;
        }
        way.push(name.to_string());
        collect(field, way, found);
        way.pop();
    }
    for (below, step) in [(&schema.items, "[]"), (&schema.additional, "{}")] {
        if let Some(below) = below {
            found.push(Place(way.clone()));
            way.push(step.to_owned());
            collect(below, way, found);
            way.pop();
        }
    }
}

/// An object whose list or map at `place` has `length` items or values; all others on the way have one, and there are
/// scalars of every other field near the way.
pub fn object(resource: &Resource, place: &Place, length: usize, items: Items) -> Value {
    let mut value = filled(&resource.schema, "", 0, Some((&place.0, length, items)), 2);
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = (&*resource.kind).into();
    value
}

type Long<'p> = Option<(&'p [String], usize, Items)>;

/// A value for the schema. `number` tells one item from another; structs outside the way are filled `depth` levels deep.
fn filled(schema: &Schema, name: &str, number: usize, long: Long<'_>, depth: usize) -> Value {
    if let Some(([], length, items)) = long {
        return many(schema, length, items);
    }
    let below = |step: &str| {
        long.and_then(|(way, length, items)| {
            let (first, rest) = way.split_first()?;
            (first == step).then_some((rest, length, items))
        })
    };
    if let Some(items) = &schema.items {
        let reach = depth.saturating_sub(1);
        return Value::Array(vec![filled(items, name, number, below("[]"), reach)]);
    }
    if let Some(values) = &schema.additional {
        let reach = depth.saturating_sub(1);
        return json!({ key(number): filled(values, "value", number, below("{}"), reach) });
    }
    match schema.kind {
        Some(Type::Object) => {
            let mut map = Map::new();
            for (name, field) in &schema.properties {
                let on_the_way = below(name);
                let scalar =
                    field.properties.is_empty() && field.items.is_none() && field.additional.is_none();
                if on_the_way.is_some() || scalar || depth > 0 && field.items.is_none() && !is_union(name) {
                    map.insert(
                        name.to_string(),
                        filled(field, name, number, on_the_way, depth.saturating_sub(1)),
                    );
                }
            }
            Value::Object(map)
        }
        Some(Type::Integer) => json!(number % 60_000 + 1),
        Some(Type::Number) => json!(1.5),
        Some(Type::Boolean) => json!(true),
        Some(Type::String) => text(schema, name, number).into(),
        Some(Type::Array) | None => json!(1),
    }
}

/// Fields that forbid others and end the judgement of the rest.
fn is_union(name: &str) -> bool {
    matches!(name, "managedFields" | "deletionTimestamp")
}

fn many(schema: &Schema, length: usize, items: Items) -> Value {
    if let Some(item) = &schema.items {
        let one = |at: usize| match items {
            Items::Distinct => filled(item, "name", at, None, 1),
            Items::Same => filled(item, "name", 0, None, 1),
            Items::Empty => empty(item),
        };
        return (0..length).map(one).collect();
    }
    let Some(values) = &schema.additional else { return Value::Null };
    let one = |at: usize| match items {
        Items::Distinct => (key(at), filled(values, "value", at, None, 1)),
        Items::Same => (key(at), filled(values, "value", 0, None, 1)),
        Items::Empty => (format!("?{at}"), empty(values)),
    };
    Value::Object((0..length).map(one).collect())
}

fn empty(schema: &Schema) -> Value {
    match schema.kind {
        Some(Type::Object) => json!({}),
        Some(Type::Array) => json!([]),
        Some(Type::String) if schema.format.is_none() => json!(""),
        Some(Type::Integer | Type::Number) => json!(0),
        Some(Type::Boolean) => json!(false),
        _ => Value::Null,
    }
}

fn key(number: usize) -> String {
    format!("k{number}")
}

/// A string that the field may hold, as far as its schema or its name tells.
fn text(schema: &Schema, name: &str, number: usize) -> String {
    if let Some(value) = schema.published.as_ref().and_then(|published| published.values.first()) {
        return value.to_string();
    }
    match schema.format.as_deref() {
        Some("quantity") => return (number + 1).to_string(),
        Some("date-time") => return "2026-01-02T03:04:05Z".to_owned(),
        Some("micro-time") => return "2026-01-02T03:04:05.000000Z".to_owned(),
        Some("byte") => return "AAAA".to_owned(),
        _ => {}
    }
    let lower = name.to_lowercase();
    match () {
        () if lower.contains("cidr") => format!("10.{}.{}.0/24", number / 256 % 256, number % 256),
        () if lower.ends_with("ip") || lower.ends_with("ips") || lower.contains("address") => {
            format!("10.{}.{}.1", number / 256 % 256, number % 256)
        }
        () if lower.contains("path") => format!("/p{number}"),
        () => format!("n{number}"),
    }
}
