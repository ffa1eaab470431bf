//! Reads `openAPIV3Schema`, and tells where it is not structural.
//!
//! Source of rules and wording: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go`.

use std::{borrow::Cow, sync::Arc};

use serde_json::{Value, json};

use super::complete;
use crate::{
    field::{FieldError, FieldPath},
    schema::{CelRule, ListType, Rules, Schema, Type},
};

/// Deeper schemas are refused.
pub(super) const MAX_DEPTH: usize = 100;

/// Where in the schema a node is.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Root,
    Field,
    Item,
    /// Below `allOf`, `anyOf`, `oneOf` or `not`: only value validation.
    Nested,
}

/// Reads the schema of a CustomResourceDefinition whose versions share it.
///
/// # Errors
/// Why it is not structural; paths begin with `spec.validation.openAPIV3Schema`.
pub fn from_json_schema(json: &Value) -> Result<Schema, Vec<FieldError>> {
    from_json_schema_at(json, &FieldPath::from("spec.validation.openAPIV3Schema"))
}

/// The same, for a schema at `path`.
///
/// # Errors
/// Why it is not structural.
pub fn from_json_schema_at(json: &Value, path: &FieldPath) -> Result<Schema, Vec<FieldError>> {
    let mut reader = Reader { errors: Vec::new() };
    let schema = reader.node(json, path, Place::Root, 0);
    complete::check(&schema, path, &mut reader.errors);
    if reader.errors.is_empty() {
        Ok(schema)
    } else {
        reader.errors.sort_by_key(ToString::to_string);
        Err(reader.errors)
    }
}

/// The first thing in a schema that has no structural form. Such a schema is judged by its keywords alone.
///
/// Source: `validateUnsupportedFields` in `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/convert.go`.
pub(super) fn unsupported(json: &Value, depth: usize) -> Option<&'static str> {
    if !json.is_object() || depth > MAX_DEPTH {
        return None;
    }
    let filled = |key: &str| match &json[key] {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty() || key == "additionalItems",
        _ => true,
    };
    for (key, words) in [
        ("id", "OpenAPIV3Schema 'id' is not supported"),
        ("$schema", "OpenAPIV3Schema 'schema' is not supported"),
        ("$ref", "OpenAPIV3Schema '$ref' is not supported"),
        ("patternProperties", "OpenAPIV3Schema 'patternProperties' is not supported"),
        ("dependencies", "OpenAPIV3Schema 'dependencies' is not supported"),
        ("additionalItems", "OpenAPIV3Schema 'additionalItems' is not supported"),
        ("definitions", "OpenAPIV3Schema 'definitions' is not supported"),
    ] {
        if filled(key) {
            return Some(words);
        }
    }
    if json["x-kubernetes-preserve-unknown-fields"] == false {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined");
    }
    if json["items"].as_array().is_some_and(|items| !items.is_empty()) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array");
    }
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|key| json[key].as_array()).flatten();
    let parts = ["not", "items", "additionalProperties"].into_iter().map(|key| &json[key]);
    let properties = json["properties"].as_object().into_iter().flatten().map(|(_, child)| child);
    lists.chain(parts).chain(properties).find_map(|child| unsupported(child, depth + 1))
}

struct Reader {
    errors: Vec<FieldError>,
}

fn flag(json: &Value, key: &str) -> bool {
    json[key].as_bool().unwrap_or(false)
}

fn text(json: &Value, key: &str) -> Option<String> {
    json[key].as_str().map(str::to_owned)
}

fn names(json: &Value, key: &str) -> Vec<Arc<str>> {
    json[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(Arc::from).collect()
}

fn kind(word: &str) -> Option<Type> {
    Some(match word {
        "object" => Type::Object,
        "array" => Type::Array,
        "string" => Type::String,
        "integer" => Type::Integer,
        "number" => Type::Number,
        "boolean" => Type::Boolean,
        _ => return None,
    })
}

impl Reader {
    fn forbid(&mut self, path: &FieldPath, key: &str, words: &str) {
        self.errors.push(FieldError::forbidden(&path.child(key), words));
    }

    fn node(&mut self, json: &Value, path: &FieldPath, place: Place, depth: usize) -> Schema {
        if depth > MAX_DEPTH {
            self.errors.push(FieldError::forbidden(path, "nested too deeply"));
            return Schema::any();
        }
        if place == Place::Nested {
            self.only_values(json, path);
        }
        let word = json["type"].as_str().unwrap_or_default();
        let mut schema = Schema {
            kind: kind(word),
            format: json["format"].as_str().map(Arc::from),
            nullable: flag(json, "nullable"),
            default: json.get("default").filter(|d| !d.is_null() || flag(json, "nullable")).cloned(),
            preserve_unknown: flag(json, "x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag(json, "x-kubernetes-embedded-resource"),
            int_or_string: flag(json, "x-kubernetes-int-or-string"),
            list_map_keys: names(json, "x-kubernetes-list-map-keys"),
            list_type: match json["x-kubernetes-list-type"].as_str() {
                Some("set") => ListType::Set,
                Some("map") => ListType::Map,
                _ => ListType::Atomic,
            },
            atomic_map: json["x-kubernetes-map-type"] == "atomic",
            required: names(json, "required"),
            description: json["description"].as_str().map(Arc::from),
            ..Schema::default()
        };
        // Below `allOf` and the like a node declares nothing, and what it may not say was told.
        let nested = place == Place::Nested;
        if !nested {
            self.own_type(json, &schema, path, place);
        }
        for (name, child) in json["properties"].as_object().into_iter().flatten() {
            let below = path.child("properties").key(name);
            let place = if place == Place::Nested { place } else { Place::Field };
            let read = self.node(child, &below, place, depth + 1);
            schema.properties.insert(Arc::from(name.as_str()), Arc::new(read));
        }
        match &json["additionalProperties"] {
            Value::Bool(true) => schema.additional = Some(Arc::new(Schema::any())),
            _ if nested => {}
            child @ Value::Object(_) => {
                if place == Place::Root {
                    self.forbid(path, "additionalProperties", "must not be used at the root");
                }
                let read = self.node(child, &path.child("additionalProperties"), Place::Field, depth + 1);
                schema.additional = Some(Arc::new(read));
            }
            _ => {}
        }
        if !nested && schema.embedded_resource && !json["additionalProperties"].is_null() {
            let words = "must not be used if x-kubernetes-embedded-resource is set";
            self.forbid(path, "additionalProperties", words);
        }
        if json["items"].is_object() {
            let place = if place == Place::Nested { place } else { Place::Item };
            schema.items = Some(Arc::new(self.node(&json["items"], &path.child("items"), place, depth + 1)));
        } else if schema.kind == Some(Type::Array) && place != Place::Nested {
            self.errors.push(FieldError::required(&path.child("items"), "must be specified"));
        }
        if place == Place::Root || !nested && schema.embedded_resource {
            self.whole(json, path, place);
        }
        let rules = self.rules(json, path, depth);
        schema.rules = (rules != Rules::default()).then(|| Box::new(rules));
        if place == Place::Root || schema.embedded_resource {
            whole_object(&mut schema);
        }
        schema
    }

    /// A type is needed everywhere but where anything goes.
    fn own_type(&mut self, json: &Value, schema: &Schema, path: &FieldPath, place: Place) {
        let at = path.child("type");
        let word = json["type"].as_str().unwrap_or_default();
        if schema.embedded_resource && word != "object" {
            let words = "must be object if x-kubernetes-embedded-resource is true";
            self.errors.push(if word.is_empty() {
                FieldError::required(&at, words)
            } else {
                FieldError::invalid(&at, word, words)
            });
        } else if word.is_empty() && !schema.int_or_string && !schema.preserve_unknown {
            let words = match place {
                Place::Root => "must not be empty at the root",
                Place::Item => "must not be empty for specified array items",
                Place::Field => "must not be empty for specified object fields",
                // Not asked of those.
                Place::Nested => return,
            };
            self.errors.push(FieldError::required(&at, words));
        }
        if schema.embedded_resource && json["properties"].is_null() && !schema.preserve_unknown {
            let words = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.errors.push(FieldError::required(&path.child("properties"), words));
        }
        if place == Place::Root && !word.is_empty() && word != "object" {
            self.errors.push(FieldError::invalid(&at, word, "must be object at the root"));
        }
        if schema.int_or_string && schema.preserve_unknown {
            let words = "must be false if x-kubernetes-int-or-string is true";
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(&at, true, words));
        }
        if schema.int_or_string && schema.embedded_resource {
            let words = "must be false if x-kubernetes-int-or-string is true";
            let at = path.child("x-kubernetes-embedded-resource");
            self.errors.push(FieldError::invalid(&at, true, words));
        }
    }

    /// What a whole object says of its three fields.
    fn whole(&mut self, json: &Value, path: &FieldPath, place: Place) {
        let properties = path.child("properties");
        for name in ["kind", "apiVersion"] {
            let field = &json["properties"][name];
            if !field.is_null() && field["type"] != "string" {
                let found = field["type"].as_str().unwrap_or_default();
                let at = properties.key(name).child("type");
                self.errors.push(FieldError::invalid(&at, found, "must be string"));
            }
        }
        let Some(metadata) = json["properties"].get("metadata") else { return };
        let at = properties.key("metadata");
        if metadata["type"] != "object" {
            let found = metadata["type"].as_str().unwrap_or_default();
            self.errors.push(FieldError::invalid(&at.child("type"), found, "must be object"));
        }
        let says_too_much =
            metadata.as_object().into_iter().flatten().any(|(key, value)| match key.as_str() {
                "type" | "default" => false,
                "properties" => value
                    .as_object()
                    .is_some_and(|p| !p.is_empty() && p.keys().any(|k| k != "name" && k != "generateName")),
                _ => !matches!(value, Value::Null | Value::Bool(false)) && value != "",
            });
        if place == Place::Root && says_too_much {
            let words = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            self.errors.push(FieldError::forbidden(&at, words));
        }
    }

    /// Below `allOf` and the like nothing may be declared, only checked.
    fn only_values(&mut self, json: &Value, path: &FieldPath) {
        for (key, words) in [
            ("type", "must be empty to be structural"),
            ("additionalProperties", "must be undefined to be structural"),
            ("default", "must be undefined to be structural"),
            ("title", "must be empty to be structural"),
            ("description", "must be empty to be structural"),
            ("nullable", "must be false to be structural"),
            ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
            ("x-kubernetes-embedded-resource", "must be false to be structural"),
            ("x-kubernetes-int-or-string", "must be false to be structural"),
            ("x-kubernetes-list-map-keys", "must be empty to be structural"),
            ("x-kubernetes-list-type", "must be undefined to be structural"),
            ("x-kubernetes-map-type", "must be undefined to be structural"),
            ("x-kubernetes-validations", "must be empty to be structural"),
        ] {
            let set = match &json[key] {
                Value::Null => false,
                // Of these it counts that they are there.
                _ if matches!(key, "default" | "x-kubernetes-list-type" | "x-kubernetes-map-type") => true,
                Value::Bool(false) => false,
                Value::String(text) => !text.is_empty(),
                Value::Array(list) => !list.is_empty(),
                _ => true,
            };
            if set {
                self.forbid(path, key, words);
            }
        }
        if json["properties"].get("metadata").is_some() {
            let at = path.child("properties").key("metadata");
            self.errors.push(FieldError::forbidden(&at, "must not be specified in a nested context"));
        }
    }

    fn rules(&mut self, json: &Value, path: &FieldPath, depth: usize) -> Rules {
        let number = |key: &str| json[key].as_f64();
        let count = |key: &str| json[key].as_u64();
        let mut rules = Rules {
            one_of_values: json["enum"].as_array().cloned().unwrap_or_default(),
            pattern: text(json, "pattern").filter(|p| !p.is_empty()),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            minimum: number("minimum"),
            exclusive_minimum: flag(json, "exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag(json, "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            ..Rules::default()
        };
        if let Some(pattern) = &rules.pattern
            && let Err(error) = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build()
        {
            let words = format!("must be a valid regular expression, but isn't: {error}");
            self.errors.push(FieldError::invalid(&path.child("pattern"), pattern.as_str(), words));
        }
        // The two shapes of int-or-string that are allowed to name types.
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        for (key, list) in
            [("allOf", &mut rules.all_of), ("anyOf", &mut rules.any_of), ("oneOf", &mut rules.one_of)]
        {
            if key == "anyOf" && json[key] == either {
                continue;
            }
            for (index, child) in json[key].as_array().into_iter().flatten().enumerate() {
                let below = path.child(key).index(index);
                let mut child = Cow::Borrowed(child);
                if key == "allOf" && index == 0 && child["anyOf"] == either {
                    child.to_mut()["anyOf"] = Value::Null;
                }
                list.push(Arc::new(self.node(&child, &below, Place::Nested, depth + 1)));
            }
        }
        if json["not"].is_object() {
            rules.not = Some(Arc::new(self.node(&json["not"], &path.child("not"), Place::Nested, depth + 1)));
        }
        for rule in json["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let source = text(rule, "rule").unwrap_or_default();
            rules.cel.push(CelRule {
                rule: source,
                message: text(rule, "message"),
                message_expression: text(rule, "messageExpression"),
                reason: text(rule, "reason"),
                field_path: text(rule, "fieldPath"),
                optional_old_self: flag(rule, "optionalOldSelf"),
            });
        }
        rules
    }
}

/// Gives a whole object its three fields. What the schema says of metadata only checks the names in it: the rest of
/// metadata has a shape of its own and is kept.
fn whole_object(schema: &mut Schema) {
    for name in ["apiVersion", "kind"] {
        schema
            .properties
            .entry(Arc::from(name))
            .or_insert_with(|| Arc::new(Schema { kind: Some(Type::String), ..Schema::default() }));
    }
    let metadata = schema.properties.get("metadata").map(|s| (**s).clone()).unwrap_or_default();
    let metadata = Schema { kind: Some(Type::Object), preserve_unknown: true, ..metadata };
    schema.properties.insert(Arc::from("metadata"), Arc::new(metadata));
}
