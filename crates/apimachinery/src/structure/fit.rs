//! Check, prune and canonical form of a built-in object in one walk: each field's schema is looked up once.
//!
//! A type inside itself is cut in its schema ([`Schema`]); here it is the one around it with the same name.

use serde_json::Value;

use super::{
    At, Path,
    canonical::{left_out, printed, whole_number, zero},
    of_every_object, print,
    types::{Place, Step, check_node},
};
use crate::schema::{Schema, Type};

/// Brings a built-in object into its canonical form. Returns the unknown fields that were dropped, as [`super::prune`]
/// tells them.
///
/// # Errors
/// What [`super::check`], else what [`super::canonicalize`] says of it; the value is of no use then.
pub fn fit(value: &mut Value, schema: &Schema) -> Result<Vec<String>, String> {
    let mut walk = Walk::default();
    let at = Where { path: None, place: Some(&Place::default()), whole: true, around: None };
    walk.value(value, schema, at)?;
    match walk.bad {
        None => Ok(walk.unknown),
        Some(why) => Err(why),
    }
}

#[derive(Default)]
struct Walk {
    unknown: Vec<String>,
    /// The first bad quantity or time: a wrong type anywhere counts before it.
    bad: Option<String>,
}

#[derive(Clone, Copy)]
struct Where<'a> {
    path: Option<&'a Path<'a>>,
    /// How errors of types name it; `None`: types are not looked at.
    place: Option<&'a Place<'a>>,
    /// It has `apiVersion`, `kind` and `metadata`.
    whole: bool,
    /// The structs around it.
    around: Option<&'a Around<'a>>,
}

/// A struct and the structs around it, as a list on the stack.
#[derive(Clone, Copy)]
struct Around<'a> {
    schema: &'a Schema,
    parent: Option<&'a Around<'a>>,
}

impl<'a> Around<'a> {
    fn find(around: Option<&Around<'a>>, name: &str) -> Option<&'a Schema> {
        let mut next = around;
        while let Some(here) = next {
            if here.schema.name.as_deref().is_some_and(|known| known == name) {
                return Some(here.schema);
            }
            next = here.parent;
        }
        None
    }
}

/// A JSON schema, as the definitions of custom resources hold it.
const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

impl Walk {
    fn value<'a>(&mut self, value: &mut Value, schema: &'a Schema, at: Where<'a>) -> Result<(), String> {
        let cut = schema.preserve_unknown && schema.properties.is_empty();
        let schema = match &schema.name {
            Some(name) if cut => Around::find(at.around, name).unwrap_or(schema),
            _ => schema,
        };
        if schema.kind.is_none()
            && let Some(kind) = schema.go.as_ref().and_then(|go| go.kind.as_deref())
        {
            return self.choice(value, kind, at);
        }
        let place = match at.place {
            Some(place) if check_node(value, schema, place)? => Some(place),
            _ => None,
        };
        let at = Where { place, ..at };
        match value {
            Value::Object(_) => self.object(value, schema, at),
            Value::Array(list) => {
                let Some(items) = &schema.items else { return Ok(()) };
                let element = at.place.map(Place::element);
                for (index, item) in list.iter_mut().enumerate() {
                    if item.is_null() {
                        *item = zero(items);
                    }
                    let here = Path { parent: at.path, at: At::Index(index) };
                    let below = Where { path: Some(&here), place: element.as_ref(), whole: false, ..at };
                    self.value(item, items, below)?;
                }
                Ok(())
            }
            Value::Number(number) if schema.kind == Some(Type::Number) => {
                if let Some(whole) = whole_number(number) {
                    *value = whole;
                }
                Ok(())
            }
            leaf => {
                match schema.format.as_deref().map(|format| printed(leaf, format)) {
                    Some(Ok(Some(text))) => *leaf = Value::String(text),
                    Some(Err(why)) => _ = self.bad.get_or_insert(why),
                    Some(Ok(None)) | None => {}
                }
                Ok(())
            }
        }
    }

    /// One of the types that read themselves: a JSON schema or something else. Of what they hold upstream tells no
    /// unknown fields, and errors name the struct that has the field.
    ///
    /// Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/marshal.go`.
    fn choice<'a>(&mut self, value: &mut Value, kind: &str, at: Where<'a>) -> Result<(), String> {
        let place = at.place.map(Place::pinned);
        let Some(schema) = Around::find(at.around, JSON_SCHEMA) else { return Ok(()) };
        let mut inside = Self::default();
        let below = Where { place: place.as_ref(), whole: false, ..at };
        match (kind, &mut *value) {
            (_, Value::Null) | ("v1.JSONSchemaPropsOrBool", Value::Bool(_)) => Ok(()),
            (_, Value::Object(_)) => inside.value(value, schema, below),
            ("v1.JSONSchemaPropsOrBool", _) => Err("boolean or JSON schema expected".to_owned()),
            ("v1.JSONSchemaPropsOrArray", Value::Array(list)) => {
                for item in list {
                    if item.is_null() {
                        *item = zero(schema);
                    }
                    inside.value(item, schema, below)?;
                }
                Ok(())
            }
            ("v1.JSONSchemaPropsOrStringArray", Value::Array(_)) => Ok(()),
            _ => {
                *value = Value::Null;
                Ok(())
            }
        }
    }

    fn object<'a>(&mut self, value: &mut Value, schema: &'a Schema, at: Where<'a>) -> Result<(), String> {
        let Value::Object(map) = value else { return Ok(()) };
        let here = Around { schema, parent: at.around };
        let at = Where { around: Some(&here), ..at };
        let element = at.place.map(Place::element);
        let whole = at.whole || schema.embedded_resource;
        let open = schema.preserve_unknown || schema.kind.is_none() && schema.properties.is_empty();
        let mut doomed = Vec::new();
        for (name, child) in map.iter_mut() {
            let here = Path { parent: at.path, at: At::Field(name) };
            let below = Where { path: Some(&here), whole: false, ..at };
            if let Some(property) = schema.properties.get(name.as_str()) {
                if !child.is_null() {
                    let step = at.place.map(|place| place.field(schema, name));
                    let place = step.as_ref().map(Step::place);
                    self.value(child, property, Where { place: place.as_ref(), ..below })?;
                }
                if left_out(child, property) {
                    doomed.push(name.clone());
                }
            } else if let Some(values) = &schema.additional {
                if child.is_null() {
                    *child = zero(values);
                }
                self.value(child, values, Where { place: element.as_ref(), ..below })?;
            } else if !(open || whole && of_every_object(name)) {
                if self.unknown.len() < 100 {
                    self.unknown.push(format!("unknown field {:?}", print(at.path, name)));
                }
                doomed.push(name.clone());
            }
        }
        for name in doomed {
            map.remove(&name);
        }
        Ok(())
    }
}
