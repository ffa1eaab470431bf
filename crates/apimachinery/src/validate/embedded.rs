//! Whole objects inside objects (`x-kubernetes-embedded-resource`): their kind, version and metadata.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go`.

use serde_json::{Map, Value, json};

use super::at;
use crate::{
    field::{FieldError, FieldErrors, FieldPath},
    meta, names,
    schema::Schema,
    structure::{At, Path},
};

pub(super) fn walk(value: &Value, schema: &Schema, path: Option<&Path<'_>>, errors: &mut FieldErrors) {
    match value {
        Value::Object(map) => {
            if schema.embedded_resource {
                whole(map, &at(path), errors);
            }
            for (name, child) in map {
                if let Some(property) = schema.field(name) {
                    walk(child, property, Some(&Path { parent: path, at: At::Field(name) }), errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (index, item) in list.iter().enumerate() {
                walk(item, items, Some(&Path { parent: path, at: At::Index(index) }), errors);
            }
        }
        _ => {}
    }
}

fn whole(map: &Map<String, Value>, path: &FieldPath, errors: &mut FieldErrors) {
    for field in ["apiVersion", "kind"] {
        let at = path.child(field);
        match map.get(field) {
            None => errors.push(FieldError::required(&at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(&at, "", "must not be empty"));
            }
            Some(Value::String(text)) if field == "kind" => {
                let wrong = names::is_dns1035_label(&text.to_lowercase());
                if !wrong.is_empty() {
                    let words =
                        format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                    errors.push(FieldError::invalid(&at, text.as_str(), words));
                }
            }
            Some(Value::String(text)) => {
                if text.matches('/').count() > 1 {
                    let words = format!("unexpected GroupVersion string: {text}");
                    errors.push(FieldError::invalid(&at, text.as_str(), words));
                }
            }
            Some(other) => errors.push(FieldError::invalid(&at, other.clone(), "must be a string")),
        }
    }
    let Some(metadata) = map.get("metadata").filter(|m| m.is_object()) else { return };
    let mut object = json!({ "metadata": metadata });
    if meta::name(&object).is_empty() {
        // It need not have a name here.
        object["metadata"]["name"] = "fakename".into();
    }
    let namespaced = !meta::namespace(&object).is_empty();
    let found = meta::validate_create(&object, namespaced, names::path_segment_name);
    errors.extend(found.into_iter().map(|error| {
        let field = FieldPath::from(format!("{path}.{}", error.field).as_str());
        FieldError { field, ..error }
    }));
}
