//! Defaults in a schema have to obey it.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting/validation.go`.

use crate::{
    field::{FieldError, FieldPath},
    schema::Schema,
    structure, validate,
};

/// What is wrong with the defaults of a schema. Those in metadata are forbidden elsewhere.
pub(super) fn check(schema: &Schema, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    // A default of the root is a whole object.
    if let Some(default) = &schema.default {
        for name in ["apiVersion", "kind"] {
            if default.get(name).is_none_or(|v| v.is_null() || v == "") {
                errors.push(FieldError::required(&path.child("default").child(name), ""));
            }
        }
    }
    node(schema, path, true, &mut errors);
    errors
}

fn node(schema: &Schema, path: &FieldPath, whole: bool, errors: &mut Vec<FieldError>) {
    if let Some(default) = &schema.default {
        let at = path.child("default");
        let mut pruned = default.clone();
        if !structure::prune_part(&mut pruned, schema).is_empty() {
            errors.push(FieldError::invalid(&at, default.clone(), "must not have unknown fields"));
        }
        errors.extend(validate::create(default, schema).into_iter().map(|error| {
            let below = error.field.as_str();
            let joint = if below.is_empty() || below.starts_with('[') { "" } else { "." };
            let field = FieldPath::from(format!("{at}{joint}{below}").as_str());
            FieldError { field, ..error }
        }));
    }
    if let Some(items) = &schema.items {
        node(items, &path.child("items"), items.embedded_resource, errors);
    }
    for (name, property) in &schema.properties {
        if whole && matches!(&**name, "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let at = path.child("properties").key(name);
        node(property, &at, property.embedded_resource, errors);
    }
}
