//! Check, prune and canonical form of a built-in object in one walk: each field's schema is looked up once.

use serde_json::Value;

use super::{
    At, Path,
    canonical::{left_out, printed, zero},
    of_every_object, print,
    types::{Place, Step, check_node},
};
use crate::schema::Schema;

/// Brings a built-in object into its canonical form. Returns the unknown fields that were dropped, as [`super::prune`]
/// tells them.
///
/// # Errors
/// What [`super::check`], else what [`super::canonicalize`] says of it; the value is of no use then.
pub fn fit(value: &mut Value, schema: &Schema) -> Result<Vec<String>, String> {
    let mut walk = Walk::default();
    walk.value(value, schema, Where { path: None, place: Some(&Place::default()), whole: true })?;
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
}

impl Walk {
    fn value(&mut self, value: &mut Value, schema: &Schema, at: Where<'_>) -> Result<(), String> {
        let place = match at.place {
            Some(place) if check_node(value, schema, place)? => Some(place),
            _ => None,
        };
        let at = Where { place, ..at };
        match value {
            Value::Object(_) => self.object(value, schema, at),
            Value::Array(list) => {
                let Some(items) = &schema.items else { return Ok(()) };
                for (index, item) in list.iter_mut().enumerate() {
                    if item.is_null() {
                        *item = zero(items);
                    }
                    let here = Path { parent: at.path, at: At::Index(index) };
                    self.value(item, items, Where { path: Some(&here), whole: false, ..at })?;
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

    fn object(&mut self, value: &mut Value, schema: &Schema, at: Where<'_>) -> Result<(), String> {
        let Value::Object(map) = value else { return Ok(()) };
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
                self.value(child, values, below)?;
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
