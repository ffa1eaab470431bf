//! Value validation may only speak of what the structure declares.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/complete.go`.

use std::sync::Arc;

use crate::{
    field::{FieldError, FieldPath},
    schema::{Rules, Schema},
};

/// Tells of fields and items below `allOf` and the like that are not declared.
pub(super) fn check(schema: &Schema, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if let Some(rules) = &schema.rules {
        branches(rules, Some(schema), path, path, errors);
    }
}

fn branches(
    rules: &Rules,
    declared: Option<&Schema>,
    at: &FieldPath,
    from: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    if let Some(not) = &rules.not {
        branch(not, declared, at, &from.child("not"), errors);
    }
    for (name, list) in [("allOf", &rules.all_of), ("anyOf", &rules.any_of), ("oneOf", &rules.one_of)] {
        for (index, schema) in list.iter().enumerate() {
            branch(schema, declared, at, &from.child(name).index(index), errors);
        }
    }
}

fn branch(
    schema: &Arc<Schema>,
    declared: Option<&Schema>,
    at: &FieldPath,
    from: &FieldPath,
    errors: &mut Vec<FieldError>,
) {
    let Some(declared) = declared else {
        errors.push(FieldError::required(at, format!("because it is defined in {from}")));
        return;
    };
    if let Some(rules) = &schema.rules {
        branches(rules, Some(declared), at, from, errors);
    }
    if let Some(items) = &schema.items {
        branch(items, declared.items.as_deref(), &at.child("items"), &from.child("items"), errors);
    }
    for (name, property) in &schema.properties {
        let (at, from) = (at.child("properties").key(name), from.child("properties").key(name));
        branch(property, declared.properties.get(name).map(|p| &**p), &at, &from, errors);
    }
}
