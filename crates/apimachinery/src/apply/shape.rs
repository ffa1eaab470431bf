//! A schema as merging sees it: each place is a map, a list or a scalar, granular or atomic.
//!
//! Source of the rules: `k8s.io/kube-openapi/pkg/schemaconv`. What the schema does not describe is "deduced" from the
//! value: maps are granular, lists atomic.

use std::borrow::Cow;

use serde_json::Value;

use super::element::Element;
use crate::schema::{ListType, Schema, Type};

/// The type of a place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'s> {
    /// As a schema says. `open`: unknown fields are deduced, here and below (`x-kubernetes-preserve-unknown-fields`).
    Of { schema: &'s Schema, open: bool },
    /// Whatever the value is.
    Deduced,
    /// Whatever the value is, as a whole.
    Untyped,
}

/// What a place is, once the value is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Atom<'s> {
    Map(MapOf<'s>),
    List(ListOf<'s>),
    Scalar(Scalar),
}

/// A struct, or a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapOf<'s> {
    pub atomic: bool,
    place: Place<'s>,
}

/// A list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListOf<'s> {
    pub kind: ListType,
    place: Place<'s>,
}

/// What a scalar has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    Text,
    Boolean,
    Any,
}

impl<'s> Place<'s> {
    /// The place of a whole object.
    pub fn root(schema: &'s Schema) -> Self {
        Self::Of { schema, open: false }.entered()
    }

    fn entered(self) -> Self {
        match self {
            Self::Of { schema, open } => Self::Of { schema, open: open || schema.preserve_unknown },
            other => other,
        }
    }

    /// What it is for this value. Null is whatever the place allows, maps first.
    pub fn atom(self, value: Option<&Value>) -> Atom<'s> {
        let map = Atom::Map(MapOf { atomic: matches!(self, Self::Untyped), place: self });
        let list = Atom::List(ListOf { kind: ListType::Atomic, place: self });
        let schema = match self {
            Self::Of { schema, .. } => schema,
            Self::Deduced | Self::Untyped => return any(value, map, list),
        };
        match schema.kind {
            Some(Type::Object) => Atom::Map(MapOf { atomic: schema.atomic_map, place: self }),
            Some(Type::Array) => Atom::List(ListOf { kind: schema.list_type, place: self }),
            Some(Type::Integer | Type::Number) => Atom::Scalar(Scalar::Numeric),
            Some(Type::Boolean) => Atom::Scalar(Scalar::Boolean),
            Some(Type::String) => match schema.format.as_deref() {
                None | Some("" | "byte") => Atom::Scalar(Scalar::Text),
                Some(_) => Atom::Scalar(Scalar::Any),
            },
            None if matches!(schema.format.as_deref(), Some("quantity" | "int-or-string")) => {
                Atom::Scalar(Scalar::Any)
            }
            None => any(
                value,
                Atom::Map(MapOf { atomic: schema.atomic_map, place: self }),
                Atom::List(ListOf { kind: schema.list_type, place: self }),
            ),
        }
    }
}

/// The type of a place that may be anything.
fn any<'s>(value: Option<&Value>, map: Atom<'s>, list: Atom<'s>) -> Atom<'s> {
    match value {
        Some(Value::Array(_)) => list,
        Some(Value::Number(_) | Value::String(_) | Value::Bool(_)) => Atom::Scalar(Scalar::Any),
        _ => map,
    }
}

impl<'s> MapOf<'s> {
    /// The place of a field, and whether the schema declares it by name; `None` if there is no such field.
    pub fn field(&self, name: &str) -> Option<(Place<'s>, bool)> {
        match self.place {
            Place::Deduced => Some((Place::Deduced, false)),
            Place::Untyped => Some((Place::Untyped, false)),
            Place::Of { schema, open } => {
                if let Some(property) = schema.properties.get(name) {
                    return Some((Place::Of { schema: property, open }.entered(), true));
                }
                if let Some(values) = &schema.additional {
                    return Some((Place::Of { schema: values, open }.entered(), false));
                }
                (open || schema.properties.is_empty()).then_some((Place::Deduced, false))
            }
        }
    }

    /// Nothing is declared and everything is deduced.
    pub fn is_deduced(&self) -> bool {
        match self.place {
            Place::Deduced | Place::Untyped => true,
            Place::Of { schema, .. } => schema.properties.is_empty() && schema.additional.is_none(),
        }
    }
}

impl<'s> ListOf<'s> {
    /// The place of an item.
    pub fn item(&self) -> Place<'s> {
        match self.place {
            Place::Of { schema, open } => match &schema.items {
                Some(items) => Place::Of { schema: items, open }.entered(),
                None => Place::Untyped,
            },
            _ => Place::Untyped,
        }
    }

    /// How an item of a granular list is told from the others.
    pub fn element<'v>(&self, item: &'v Value) -> Result<Element<'v>, String>
    where
        's: 'v,
    {
        let Place::Of { schema, .. } = self.place else {
            return Err("invalid indexing of non-associative list".to_owned());
        };
        if schema.list_type == ListType::Map { keyed(schema, item) } else { valued(item) }
    }
}

fn valued(item: &Value) -> Result<Element<'_>, String> {
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        scalar => Ok(Element::Value(Cow::Borrowed(scalar))),
    }
}

fn keyed<'v>(schema: &'v Schema, item: &'v Value) -> Result<Element<'v>, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let mut keys = Vec::with_capacity(schema.list_map_keys.len());
    for name in &schema.list_map_keys {
        let value = map.get(&**name).or_else(|| {
            let property = schema.items.as_ref()?.properties.get(name)?;
            // What is left out is what the published schema says that it is then: often an empty name.
            property.default.as_ref().or_else(|| property.published.as_ref()?.default.as_ref())
        });
        if let Some(value) = value {
            keys.push((Cow::Borrowed(&**name), Cow::Borrowed(value)));
        }
    }
    if keys.is_empty() {
        let names: Vec<String> = schema.list_map_keys.iter().map(|k| format!("{k:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            names.join(" ")
        ));
    }
    keys.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Element::Key(keys))
}

/// Where a value does not fit its type, and why: `.spec.ports: duplicate entries for key [port=80]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeErrors(pub(super) Vec<(String, String)>);

impl TypeErrors {
    pub(super) fn push(&mut self, path: String, why: impl Into<String>) {
        self.0.push((path, why.into()));
    }
}

impl std::fmt::Display for TypeErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |f: &mut std::fmt::Formatter<'_>, (path, why): &(String, String)| {
            if path.is_empty() { f.write_str(why) } else { write!(f, "{path}: {why}") }
        };
        if let [only] = self.0.as_slice() {
            return one(f, only);
        }
        f.write_str("errors:")?;
        for error in &self.0 {
            f.write_str("\n  ")?;
            one(f, error)?;
        }
        Ok(())
    }
}
impl std::error::Error for TypeErrors {}
