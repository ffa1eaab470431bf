//! What a schema says of values: their type, and how large they can be.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/schemas.go`, `…/cel/limits.go`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{REQUEST, Ty};
use crate::schema::{Schema, Type};

/// Sizes of the shortest values in JSON.
const STRING: u64 = 2;
const BOOLEAN: u64 = 4;
const NUMBER: u64 = 1;
const DURATION: u64 = 3;
const DATE: u64 = 12;
const TIME: u64 = 21;
/// The longest time or duration in JSON.
const LONGEST_TIME: u64 = 32;

/// A type with its bounds. What CEL does not see has none.
#[derive(Debug, PartialEq)]
pub struct Declared {
    /// The type.
    pub ty: Kind,
    /// The most items, entries or bytes it can have; 0 for what has no size.
    pub most: u64,
    /// The bytes that it takes in JSON at least.
    pub min_size: u64,
}

/// The type, with what is inside.
#[derive(Debug, PartialEq)]
pub enum Kind {
    /// Only known when it runs.
    Dyn,
    /// One without parts.
    Plain(Ty),
    /// A list of these.
    List(Arc<Declared>),
    /// A map from texts to these.
    Map(Arc<Declared>),
    /// Fields, by their escaped names.
    Object(BTreeMap<String, Arc<Declared>>),
}

impl Kind {
    /// The same, of what has no parts.
    fn shallow(&self) -> Self {
        match self {
            Self::Plain(ty) => Self::Plain(ty.clone()),
            _ => Self::Dyn,
        }
    }
}

impl Declared {
    /// The type that expressions give.
    pub fn as_type(self: &Arc<Self>) -> Ty {
        match &self.ty {
            Kind::Dyn => Ty::Dyn,
            Kind::Plain(ty) => ty.clone(),
            Kind::List(items) => Ty::List(Box::new(items.as_type())),
            Kind::Map(values) => Ty::Map(Box::new(Ty::String), Box::new(values.as_type())),
            Kind::Object(_) => Ty::Object(Arc::clone(self)),
        }
    }

    /// The part that a step of a path leads to.
    pub fn part(&self, step: &str) -> Option<&Arc<Declared>> {
        match (&self.ty, step) {
            (Kind::List(inner), "@items") | (Kind::Map(inner), "@values") => Some(inner),
            (Kind::Object(fields), name) => fields.get(name),
            _ => None,
        }
    }

    /// Of a schema; `root`: it describes a whole object.
    #[must_use]
    pub fn of(schema: &Schema, root: bool) -> Option<Arc<Self>> {
        let plain = |ty, most, min_size| Some(Arc::new(Self { ty: Kind::Plain(ty), most, min_size }));
        let max_length = schema.rules.as_ref().and_then(|r| r.max_length);
        if schema.int_or_string {
            let most = max_length.map_or(REQUEST - 2, |n| n.saturating_mul(4));
            return Some(Arc::new(Self { ty: Kind::Dyn, most, min_size: 1 }));
        }
        match schema.kind? {
            Type::Array => {
                let items = schema.items.as_ref()?;
                let items = Self::of(items, items.embedded_resource)?;
                let most = schema.rules.as_ref().and_then(|r| r.max_items);
                let most = most.unwrap_or((REQUEST - 2) / (items.min_size + 1));
                Some(Arc::new(Self { ty: Kind::List(items), most, min_size: 2 }))
            }
            Type::Object => match schema.additional.as_ref().filter(|_| !root) {
                Some(values) => {
                    let values = Self::of(values, values.embedded_resource)?;
                    let most = schema.rules.as_ref().and_then(|r| r.max_properties);
                    let most = most.unwrap_or((REQUEST - 2) / (values.min_size + 6));
                    Some(Arc::new(Self { ty: Kind::Map(values), most, min_size: 2 }))
                }
                None => Some(Arc::new(Self::object(schema, root))),
            },
            Type::String => match schema.format.as_deref() {
                Some("byte") => plain(Ty::Bytes, max_length.unwrap_or(REQUEST - 2), STRING),
                Some("duration") => plain(Ty::Duration, LONGEST_TIME, DURATION),
                Some("date") => plain(Ty::Timestamp, DATE, DATE),
                Some("date-time") => plain(Ty::Timestamp, LONGEST_TIME, TIME),
                _ => {
                    let values = schema.rules.as_ref().map_or(&[][..], |r| &r.one_of_values);
                    let longest = values.iter().filter_map(|v| v.as_str()).map(|v| v.len() as u64).max();
                    let most = match max_length {
                        Some(characters) => characters.saturating_mul(4),
                        None if values.is_empty() => REQUEST - 2,
                        None => longest.unwrap_or_default(),
                    };
                    plain(Ty::String, most, STRING)
                }
            },
            Type::Boolean => plain(Ty::Bool, 0, BOOLEAN),
            Type::Number => plain(Ty::Double, 0, NUMBER),
            Type::Integer => plain(Ty::Int, 0, NUMBER),
        }
    }

    /// Of values as they are: what a schema allows, but as large as the largest of these.
    #[must_use]
    pub fn measured(values: &[&Value], schema: &Schema, root: bool) -> Option<Arc<Self>> {
        let declared = Self::of(schema, root)?;
        let larger =
            |size: fn(&Value) -> usize| values.iter().map(|value| size(value)).max().unwrap_or(0) as u64;
        let (ty, most) = match &declared.ty {
            Kind::List(_) => {
                let items = schema.items.as_ref()?;
                let inside: Vec<&Value> = values.iter().filter_map(|v| v.as_array()).flatten().collect();
                let most = larger(|value| value.as_array().map_or(0, Vec::len));
                (Kind::List(Self::measured(&inside, items, items.embedded_resource)?), most)
            }
            Kind::Map(_) => {
                let each = schema.additional.as_ref()?;
                let inside: Vec<&Value> =
                    values.iter().filter_map(|v| v.as_object()).flat_map(|map| map.values()).collect();
                let most = larger(|value| value.as_object().map_or(0, serde_json::Map::len));
                (Kind::Map(Self::measured(&inside, each, each.embedded_resource)?), most)
            }
            Kind::Object(fields) => {
                let mut measured = fields.clone();
                for (name, property) in &schema.properties {
                    let Some(name_in_cel) = super::super::escaped(name) else { continue };
                    if root && matches!(&**name, "apiVersion" | "kind" | "metadata")
                        || !measured.contains_key(&name_in_cel)
                    {
                        continue;
                    }
                    let inside: Vec<&Value> = values.iter().filter_map(|v| v.get(&**name)).collect();
                    if let Some(part) = Self::measured(&inside, property, property.embedded_resource) {
                        measured.insert(name_in_cel, part);
                    }
                }
                (Kind::Object(measured), 0)
            }
            Kind::Plain(Ty::String | Ty::Bytes) | Kind::Dyn => {
                let most = larger(|value| value.as_str().map_or(1, |text| text.chars().count()));
                (declared.ty.shallow(), most)
            }
            Kind::Plain(_) => return Some(declared),
        };
        Some(Arc::new(Self { ty, most, min_size: declared.min_size }))
    }

    fn object(schema: &Schema, root: bool) -> Self {
        let text = || Arc::new(Self { ty: Kind::Plain(Ty::String), most: REQUEST - 2, min_size: STRING });
        let mut fields = BTreeMap::new();
        let mut min_size = 2;
        for (name, property) in &schema.properties {
            if root && matches!(&**name, "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let Some(declared) = Self::of(property, property.embedded_resource) else { continue };
            if property.default.is_none() && schema.required.contains(name) {
                min_size += name.len() as u64 + declared.min_size + 4;
            }
            if let Some(name) = super::super::escaped(name) {
                fields.insert(name, declared);
            }
        }
        if root {
            fields.insert("apiVersion".to_owned(), text());
            fields.insert("kind".to_owned(), text());
            let own = schema.properties.get("metadata");
            let names = ["name", "generateName"].map(|name| {
                let own = own.and_then(|metadata| metadata.properties.get(name));
                let declared = own.and_then(|own| Self::of(own, false));
                (name.to_owned(), declared.unwrap_or_else(text))
            });
            let metadata = Self { ty: Kind::Object(names.into()), most: 0, min_size: 2 };
            fields.insert("metadata".to_owned(), Arc::new(metadata));
        }
        Self { ty: Kind::Object(fields), most: 0, min_size }
    }
}
