//! Reads `openAPIV3Schema`, and tells where it is not structural.
//!
//! Source of rules and wording: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go`.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    cel::Program,
    field::{FieldError, FieldPath},
    schema::{CelRule, ListType, Rules, Schema, Type},
};

/// Deeper schemas are refused.
const MAX_DEPTH: usize = 100;

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
    if reader.errors.is_empty() {
        Ok(schema)
    } else {
        reader.errors.sort_by_key(ToString::to_string);
        Err(reader.errors)
    }
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
        self.own_type(json, &schema, path, place);
        self.unsupported(json, path);
        for (name, child) in json["properties"].as_object().into_iter().flatten() {
            let below = path.child("properties").key(name);
            let place = if place == Place::Nested { place } else { Place::Field };
            let read = self.node(child, &below, place, depth + 1);
            schema.properties.insert(Arc::from(name.as_str()), Arc::new(read));
        }
        match &json["additionalProperties"] {
            Value::Bool(true) => schema.additional = Some(Arc::new(Schema::any())),
            child @ Value::Object(_) => {
                if place == Place::Root {
                    self.forbid(path, "additionalProperties", "must not be used at the root");
                }
                let read = self.node(child, &path.child("additionalProperties"), Place::Field, depth + 1);
                schema.additional = Some(Arc::new(read));
            }
            _ => {}
        }
        if schema.additional.is_some() && !schema.properties.is_empty() {
            let words = "additionalProperties and properties are mutual exclusive";
            self.forbid(path, "additionalProperties", words);
        }
        if json["items"].is_object() {
            let place = if place == Place::Nested { place } else { Place::Item };
            schema.items = Some(Arc::new(self.node(&json["items"], &path.child("items"), place, depth + 1)));
        } else if json["items"].is_array() {
            self.forbid(path, "items", "items must be a schema object and not an array");
        } else if schema.kind == Some(Type::Array) && place != Place::Nested {
            self.errors.push(FieldError::required(&path.child("items"), "must be specified"));
        }
        self.lists(json, &schema, path);
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
        if !word.is_empty() && schema.kind.is_none() {
            let known = ["array", "boolean", "integer", "number", "object", "string"];
            self.errors.push(FieldError::not_supported(&at, word, &known));
            return;
        }
        if schema.embedded_resource && schema.kind != Some(Type::Object) {
            let words = "must be object if x-kubernetes-embedded-resource is true";
            self.errors.push(if word.is_empty() {
                FieldError::required(&at, words)
            } else {
                FieldError::invalid(&at, word, words)
            });
            return;
        }
        if schema.embedded_resource && json["properties"].is_null() && !schema.preserve_unknown {
            let words = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            self.errors.push(FieldError::required(&path.child("properties"), words));
        }
        if place == Place::Root && !word.is_empty() && word != "object" {
            self.errors.push(FieldError::invalid(&at, word, "must be object at the root"));
        }
        if schema.kind.is_none() && !schema.int_or_string && !schema.preserve_unknown {
            let words = match place {
                Place::Root => "must not be empty at the root",
                Place::Item => "must not be empty for specified array items",
                Place::Field => "must not be empty for specified object fields",
                Place::Nested => return,
            };
            self.errors.push(FieldError::required(&at, words));
        }
        if schema.int_or_string && !word.is_empty() && place != Place::Nested {
            self.errors.push(FieldError::invalid(
                &at,
                word,
                "must be empty if x-kubernetes-int-or-string is true",
            ));
        }
    }

    fn unsupported(&mut self, json: &Value, path: &FieldPath) {
        for key in ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id"] {
            if !json[key].is_null() {
                self.forbid(path, key, &format!("{key} is not supported"));
            }
        }
        if flag(json, "uniqueItems") {
            self.forbid(
                path,
                "uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            );
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
        ] {
            let set = !matches!(&json[key], Value::Null | Value::Bool(false)) && json[key] != "";
            if set {
                self.forbid(path, key, words);
            }
        }
    }

    fn lists(&mut self, json: &Value, schema: &Schema, path: &FieldPath) {
        if schema.list_type == ListType::Map && schema.list_map_keys.is_empty() {
            let words = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&path.child("x-kubernetes-list-map-keys"), words));
        }
        if let Some(word) = json["x-kubernetes-list-type"].as_str()
            && schema.kind != Some(Type::Array)
        {
            let words = format!("must be array if x-kubernetes-list-type is {word}");
            let at = path.child("type");
            self.errors.push(FieldError::invalid(&at, json["type"].as_str().unwrap_or_default(), words));
        }
        let Some(items) = &schema.items else { return };
        for key in &schema.list_map_keys {
            let known = items.properties.get(key);
            if known.is_none() {
                let at = path.child("x-kubernetes-list-map-keys");
                let words = "entries must all be names of item properties";
                self.errors.push(FieldError::invalid(&at, key.to_string(), words));
            } else if !items.required.contains(key) && known.is_some_and(|k| k.default.is_none()) {
                let at = path.child("items").child("properties").key(key).child("default");
                let words = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.push(FieldError::required(&at, words));
            }
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
        // The two shapes of int-or-string that upstream allows below anyOf carry types.
        let int_or_string = flag(json, "x-kubernetes-int-or-string");
        for (key, list) in
            [("allOf", &mut rules.all_of), ("anyOf", &mut rules.any_of), ("oneOf", &mut rules.one_of)]
        {
            for (index, child) in json[key].as_array().into_iter().flatten().enumerate() {
                let typed = child.as_object().is_some_and(|m| m.len() == 1 && m.contains_key("type"));
                if int_or_string && key != "oneOf" && (typed || child["anyOf"].is_array()) {
                    continue;
                }
                let below = path.child(key).index(index);
                list.push(Arc::new(self.node(child, &below, Place::Nested, depth + 1)));
            }
        }
        if json["not"].is_object() {
            rules.not = Some(Arc::new(self.node(&json["not"], &path.child("not"), Place::Nested, depth + 1)));
        }
        for (index, rule) in json["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let source = text(rule, "rule").unwrap_or_default();
            if source.trim().is_empty() {
                self.errors.push(FieldError::required(&at.child("rule"), "rule is not specified"));
            } else if let Err(error) = Program::compile(&source) {
                let words = format!("compilation failed: {error}");
                self.errors.push(FieldError::invalid(&at.child("rule"), source.as_str(), words));
            }
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
