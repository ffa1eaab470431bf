//! What a configuration would replace as a whole.

use serde_json::Value;

use super::{
    element::Element,
    shape::{Atom, Place},
};
use crate::schema::{ListType, Schema};

/// The paths of the atomic maps and lists in a configuration. Whoever lays it over an object without owning fields would
/// lose what these held before.
#[must_use]
pub fn atomic(config: &Value, schema: &Schema) -> Vec<String> {
    let mut found = Vec::new();
    place(config, Place::root(schema), "", &mut found);
    found
}

fn place(value: &Value, at: Place<'_>, path: &str, found: &mut Vec<String>) {
    match (at.atom(Some(value)), value) {
        (Atom::Map(of), Value::Object(map)) => {
            if of.atomic {
                found.push(path.to_owned());
            }
            for (name, child) in map {
                if let Some((below, _)) = of.field(name) {
                    place(child, below, &format!("{path}{}", Element::field(name)), found);
                }
            }
        }
        (Atom::List(of), Value::Array(list)) => {
            if of.kind == ListType::Atomic {
                found.push(path.to_owned());
            }
            for (index, item) in list.iter().enumerate() {
                place(item, of.item(), &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
