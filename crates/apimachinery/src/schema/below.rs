//! What a walk over an object finds below a place of its schema, found out once a place: most places have nothing to
//! default and nothing to add, and need not be visited.

use std::{
    fmt,
    sync::{Arc, LazyLock, OnceLock},
};

use serde_json::Value;

use super::Schema;

/// See [`Schema::below`].
#[derive(Debug, Default)]
pub(crate) struct Below {
    /// The properties that have a default.
    pub defaulted: Box<[(Arc<str>, Arc<Schema>)]>,
    /// There are defaults here or further below.
    pub defaults: bool,
    /// The properties that are always encoded.
    pub always: Box<[(Arc<str>, Arc<Schema>)]>,
    /// There are such properties here or further below.
    pub encodes_empty: bool,
    /// There are properties here or further below that are `null` when they are empty.
    pub encodes_null: bool,
}

impl Below {
    fn of(schema: &Schema) -> Self {
        let those = |wanted: fn(&Schema) -> bool| {
            let all = schema.properties.iter().filter(|(_, property)| wanted(property));
            all.map(|(name, property)| (name.clone(), property.clone())).collect::<Box<[_]>>()
        };
        let mut below = Self {
            defaulted: those(|property| property.default.is_some()),
            always: those(|property| property.always.is_some()),
            ..Self::default()
        };
        below.defaults = !below.defaulted.is_empty();
        below.encodes_empty = !below.always.is_empty();
        below.encodes_null = below.always.iter().any(|(_, property)| property.always == Some(Value::Null));
        let values = schema.additional.iter().chain(&schema.items);
        for value in values.clone() {
            below.defaults |= value.default.is_some();
            below.encodes_null |= value.always == Some(Value::Null);
        }
        for child in schema.properties.values().chain(values) {
            let child = child.below();
            below.defaults |= child.defaults;
            below.encodes_empty |= child.encodes_empty;
            below.encodes_null |= child.encodes_null;
        }
        below
    }
}

/// What was found out; no part of what a schema is: two that differ in nothing else are equal, and a copy, which may be
/// changed, begins without it.
#[derive(Default)]
pub struct Surveyed(OnceLock<Box<Below>>);

impl Clone for Surveyed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Surveyed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Surveyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surveyed")
    }
}

impl Schema {
    /// What lies below this place. A schema is not changed any more once this was asked.
    pub(crate) fn below(&self) -> &Below {
        static NOTHING: LazyLock<Below> = LazyLock::new(Below::default);
        if self.properties.is_empty() && self.additional.is_none() && self.items.is_none() {
            return &NOTHING;
        }
        self.surveyed.0.get_or_init(|| Box::new(Below::of(self)))
    }
}
