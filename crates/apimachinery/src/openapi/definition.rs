//! What a CustomResourceDefinition may write as a schema, beyond its structure: keywords, list types, defaults, rules.
//!
//! Source of rules and wording: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`.

use serde_json::Value;

use super::{prescribed, structural};
use crate::{
    field::{FieldError, FieldPath},
    schema::Schema,
};

/// The types that a schema may name, in the order in which they are listed.
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Reads the `openAPIV3Schema` of a definition. `path` is where it stands; `status`: the status is a subresource, so
/// that the root may only say what is not lost when the status is validated alone.
///
/// # Errors
/// Everything that is wrong with it, in upstream's order.
pub fn define(json: &Value, path: &FieldPath, status: bool) -> Result<Schema, Vec<FieldError>> {
    let mut errors = Vec::new();
    if status {
        root_with_status(json, path, &mut errors);
    }
    if json["nullable"] == true {
        errors.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let formless = structural::unsupported(json, 0);
    let read = structural::from_json_schema_at(json, path);
    let structured = match &read {
        _ if formless.is_some() => false,
        Ok(schema) => {
            let wrong = prescribed::check(schema, path);
            let fine = wrong.is_empty();
            errors.extend(wrong);
            fine
        }
        Err(wrong) => {
            errors.extend(wrong.iter().cloned());
            false
        }
    };
    let mut walk = Walk { errors: Vec::new(), cel: Vec::new(), total: 0, expensive: Vec::new() };
    let schema = read.as_ref().ok().filter(|_| structured);
    walk.node(json, path, &Around { root: true, schema, bound: Some(1), ..Around::default() }, 0);
    walk.settle_total(path);
    errors.append(&mut walk.errors);
    errors.append(&mut walk.cel);
    if let Some(why) = formless.filter(|_| errors.is_empty()) {
        errors.push(FieldError::invalid(path, "", why));
    }
    match read {
        Ok(schema) if errors.is_empty() => Ok(schema),
        _ => Err(errors),
    }
}

/// Keywords of the root that hold for the status, too, and upstream's names of them.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

fn root_with_status(json: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = json["type"].as_str().unwrap_or_default();
    if !kind.is_empty() && kind != "object" {
        let words = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(&path.child("type"), kind, words));
        return;
    }
    let set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
    let odd = json
        .as_object()
        .into_iter()
        .flatten()
        .find(|(key, value)| set(value) && !AT_ROOT.iter().any(|(known, _)| known == key));
    if odd.is_some() {
        let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let words = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        errors.push(FieldError::invalid(path, json.clone(), words));
    }
}

/// What holds for a node because of what it is in.
#[derive(Clone, Default)]
pub(super) struct Around<'s> {
    pub(super) root: bool,
    /// The same node as it was read, if all of the schema could be; not below `allOf` and the like.
    pub(super) schema: Option<&'s Schema>,
    /// How many values of this node one object can have at most, if anything bounds them.
    pub(super) bound: Option<u64>,
    /// Inside `apiVersion`, `kind` or `metadata` of a whole object.
    in_metadata: bool,
    /// Why there may be no default here.
    no_default: Option<String>,
    /// The first place on the way whose parts cannot be told apart in two states of an object.
    pub(super) uncorrelated: Option<FieldPath>,
}

impl<'s> Around<'s> {
    /// What holds for a part of this node.
    fn part(&self, json: &Value, schema: Option<&'s std::sync::Arc<Schema>>) -> Self {
        let each = match text(json, "type") {
            "object" if !json["additionalProperties"].is_null() => json["maxProperties"].as_u64(),
            "array" => json["maxItems"].as_u64(),
            _ => Some(1),
        };
        let bound = self.bound.zip(each).map(|(bound, each)| bound.saturating_mul(each));
        Self { root: false, schema: schema.map(AsRef::as_ref), bound, ..self.clone() }
    }
}

pub(super) struct Walk {
    errors: Vec<FieldError>,
    pub(super) cel: Vec<FieldError>,
    /// What all rules may cost together.
    pub(super) total: u64,
    /// The rules that make up most of it.
    pub(super) expensive: Vec<(FieldPath, u64)>,
}

pub(super) fn text<'v>(json: &'v Value, key: &str) -> &'v str {
    json[key].as_str().unwrap_or_default()
}

fn present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

impl Walk {
    fn forbid(&mut self, path: &FieldPath, key: &str, words: &str) {
        self.errors.push(FieldError::forbidden(&path.child(key), words));
    }

    fn node(&mut self, json: &Value, path: &FieldPath, around: &Around<'_>, depth: usize) {
        // The reader has told of it.
        if !json.is_object() || depth > structural::MAX_DEPTH {
            return;
        }
        let before = self.errors.len();
        self.keywords(json, path, around);
        if json["uniqueItems"] == true {
            let words = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(path, "uniqueItems", words);
        }
        self.fields(json, path, around, depth);
        let nested = Around { root: false, schema: None, ..around.clone() };
        self.node(&json["not"], &path.child("not"), &nested, depth + 1);
        for key in ["allOf", "oneOf", "anyOf"] {
            for (index, child) in json[key].as_array().into_iter().flatten().enumerate() {
                self.node(child, &path.child(key).index(index), &nested, depth + 1);
            }
        }
        for (name, child) in json["definitions"].as_object().into_iter().flatten() {
            self.node(child, &path.child("definitions").key(name), &nested, depth + 1);
        }
        for (name, child) in json["dependencies"].as_object().into_iter().flatten() {
            self.node(child, &path.child("dependencies").key(name), &nested, depth + 1);
        }
        for (index, child) in json["items"].as_array().into_iter().flatten().enumerate() {
            self.node(child, &path.child("items").index(index), &nested, depth + 1);
        }
        if json["items"].is_object() {
            let mut inside = around.part(json, around.schema.and_then(|s| s.items.as_ref()));
            if json["x-kubernetes-list-type"] != "map" && inside.uncorrelated.is_none() {
                inside.uncorrelated = Some(path.clone());
            }
            self.node(&json["items"], &path.child("items"), &inside, depth + 1);
        }
        if json["x-kubernetes-preserve-unknown-fields"] == false {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(&at, false, "must be true or undefined"));
        }
        self.merging(json, path);
        self.rules(json, path);
        if let (Some(schema), true) = (around.schema, self.errors.len() == before) {
            self.expressions(json, schema, path, around);
        }
    }

    fn keywords(&mut self, json: &Value, path: &FieldPath, around: &Around<'_>) {
        let kind = text(json, "type");
        if !kind.is_empty() && !TYPES.contains(&kind) {
            self.errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
        }
        if let (Some(why), true) = (&around.no_default, !json["default"].is_null()) {
            let words = format!("must not be set {why}");
            self.forbid(path, "default", words.trim_end());
        }
        for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
            // Of these it counts that they are there.
            let there = matches!(key, "additionalItems" | "dependencies" | "$ref") && !json[key].is_null();
            if there || present(&json[key]) {
                self.forbid(path, key, &format!("{key} is not supported"));
            }
        }
        if kind == "null" {
            self.forbid(path, "type", "type cannot be set to null, use nullable as an alternative");
        }
        if json["items"].as_array().is_some_and(|items| !items.is_empty()) {
            self.forbid(path, "items", "items must be a schema object and not an array");
        }
        if around.in_metadata && json["x-kubernetes-embedded-resource"] == true {
            self.forbid(path, "x-kubernetes-embedded-resource", "must not be used inside of resource meta");
        }
    }

    fn fields(&mut self, json: &Value, path: &FieldPath, around: &Around<'_>, depth: usize) {
        let additional = &json["additionalProperties"];
        let properties = json["properties"].as_object();
        if !additional.is_null() {
            if properties.is_some_and(|p| !p.is_empty()) && *additional != true {
                let words = "additionalProperties and properties are mutual exclusive";
                self.forbid(path, "additionalProperties", words);
            }
            let mut inside = around.part(json, around.schema.and_then(|s| s.additional.as_ref()));
            if around.in_metadata {
                inside.no_default =
                    Some("inside additionalProperties applying to object metadata".to_owned());
            }
            self.node(additional, &path.child("additionalProperties"), &inside, depth + 1);
        }
        for (name, child) in properties.into_iter().flatten() {
            let schema = around.schema.and_then(|s| s.properties.get(name.as_str()));
            let mut inside = around.part(json, schema);
            let granular = matches!(json["x-kubernetes-map-type"].as_str(), None | Some("granular"));
            if !granular && inside.uncorrelated.is_none() {
                inside.uncorrelated = Some(path.clone());
            }
            let whole = around.root || json["x-kubernetes-embedded-resource"] == true;
            if whole && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                inside.in_metadata = true;
                if around.root {
                    inside.no_default = Some(format!("in top-level {name}"));
                }
            }
            self.node(child, &path.child("properties").key(name), &inside, depth + 1);
        }
    }

    /// How server-side apply is told to merge.
    fn merging(&mut self, json: &Value, path: &FieldPath) {
        let kind = text(json, "type");
        let map_type = json["x-kubernetes-map-type"].as_str();
        if map_type.is_some() {
            self.has_type(kind, "object", "must be object if x-kubernetes-map-type is specified", path);
        }
        if let Some(word) = map_type.filter(|w| !matches!(*w, "atomic" | "granular")) {
            let at = path.child("x-kubernetes-map-type");
            self.errors.push(FieldError::not_supported(&at, word, &["atomic", "granular"]));
        }
        let list_type = json["x-kubernetes-list-type"].as_str();
        let items = &json["items"];
        if list_type.is_some() && kind != "array" {
            self.has_type(kind, "array", "must be array if x-kubernetes-list-type is specified", path);
        } else if list_type == Some("set") {
            let words = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let inner = |key: &str| items[key].as_str();
            let bad = match inner("type") {
                Some("array") => inner("x-kubernetes-list-type")
                    .filter(|t| *t != "atomic")
                    .map(|_| "x-kubernetes-list-type"),
                Some("object") => {
                    (inner("x-kubernetes-map-type") != Some("atomic")).then_some("x-kubernetes-map-type")
                }
                _ => None,
            };
            if let Some(key) = bad {
                let at = path.child("items").child(key);
                self.errors.push(FieldError::invalid(&at, items[key].clone(), words));
            }
        }
        if let Some(word) = list_type.filter(|w| !matches!(*w, "atomic" | "set" | "map")) {
            let at = path.child("x-kubernetes-list-type");
            self.errors.push(FieldError::not_supported(&at, word, &["atomic", "set", "map"]));
        }
        let keys = json["x-kubernetes-list-map-keys"].as_array().filter(|k| !k.is_empty());
        if keys.is_some() && list_type != Some("map") {
            let at = path.child("x-kubernetes-list-type");
            let words = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(match list_type {
                None => FieldError::required(&at, words),
                Some(word) => FieldError::invalid(&at, word, words),
            });
        }
        if list_type == Some("map") {
            self.map_list(json, path);
        }
        if matches!(list_type, Some("set" | "map")) && items["nullable"] == true {
            let words = format!(
                "cannot be nullable when x-kubernetes-list-type is {}",
                list_type.unwrap_or_default()
            );
            self.errors.push(FieldError::forbidden(&path.child("items").child("nullable"), words));
        }
        if list_type == Some("map") {
            self.map_keys(json, path);
        }
    }

    fn has_type(&mut self, found: &str, wanted: &str, words: &str, path: &FieldPath) {
        let at = path.child("type");
        if found.is_empty() {
            self.errors.push(FieldError::required(&at, words));
        } else if found != wanted {
            self.errors.push(FieldError::invalid(&at, found, words));
        }
    }

    fn map_list(&mut self, json: &Value, path: &FieldPath) {
        let keys = json["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
        let items = &json["items"];
        let at_keys = path.child("x-kubernetes-list-map-keys");
        if keys.is_empty() {
            let words = "must not be empty if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&at_keys, words));
        }
        if items.is_null() {
            let words = "must have a schema if x-kubernetes-list-type is map";
            self.errors.push(FieldError::required(&path.child("items"), words));
            return;
        }
        if items["type"] != "object" {
            let words = "must be object if parent array's x-kubernetes-list-type is map";
            let at = path.child("items").child("type");
            self.errors.push(FieldError::invalid(&at, text(items, "type"), words));
            return;
        }
        let mut seen: Vec<&str> = Vec::new();
        for key in keys.iter().filter_map(Value::as_str) {
            match items["properties"].get(key) {
                Some(property) if matches!(text(property, "type"), "array" | "object") => {
                    let at = path.child("items").child("properties").key(key).child("type");
                    let words = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.errors.push(FieldError::invalid(&at, text(items, "type"), words));
                }
                Some(_) => {}
                None => {
                    let words = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&at_keys, keys.to_vec(), words));
                }
            }
            if seen.contains(&key) {
                let words = "must not contain duplicate entries";
                self.errors.push(FieldError::invalid(&at_keys, keys.to_vec(), words));
            }
            seen.push(key);
        }
    }

    fn map_keys(&mut self, json: &Value, path: &FieldPath) {
        let items = &json["items"];
        for key in
            json["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            let Some(property) = items["properties"].get(key) else { continue };
            let required = items["required"].as_array().is_some_and(|r| r.iter().any(|r| r == key));
            let at = path.child("items").child("properties").key(key);
            if !required && property["default"].is_null() {
                let words = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.errors.push(FieldError::required(&at.child("default"), words));
            }
            if property["nullable"] == true {
                let words = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.errors.push(FieldError::forbidden(&at.child("nullable"), words));
            }
        }
    }

    fn rules(&mut self, json: &Value, path: &FieldPath) {
        let lines = |text: &str| text.contains(['\n', '\r']);
        for (index, rule) in json["x-kubernetes-validations"].as_array().into_iter().flatten().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let (source, message) = (text(rule, "rule"), text(rule, "message"));
            let mut invalid = |key: &str, words: &str| {
                self.errors.push(FieldError::invalid(&at.child(key), text(rule, key), words));
            };
            if !message.is_empty() && message.trim().is_empty() && !source.trim().is_empty() {
                invalid("message", "must be non-empty if specified");
            } else if lines(message.trim()) && !source.trim().is_empty() {
                invalid("message", "must not contain line breaks");
            }
            let below = text(rule, "fieldPath");
            if !below.is_empty() {
                if below.trim().is_empty() {
                    invalid("fieldPath", "must be non-empty if specified");
                }
                if lines(below) {
                    invalid("fieldPath", "must not contain line breaks");
                }
                if !leads_somewhere(json, below) {
                    invalid("fieldPath", "must be a valid path");
                }
            }
            let mut require = |key: &str, words: &str| {
                self.errors.push(FieldError::required(&at.child(key), words));
            };
            if source.trim().is_empty() {
                require("rule", "rule is not specified");
            } else if lines(source.trim()) && message.trim().is_empty() && message.is_empty() {
                require("message", "message must be specified if rule contains line breaks");
            }
            let made = text(rule, "messageExpression");
            if !made.is_empty() && made.trim().is_empty() {
                require("messageExpression", "messageExpression must be non-empty if specified");
            }
            if let Some(reason) = rule["reason"].as_str().filter(|r| !REASONS.contains(r)) {
                self.errors.push(FieldError::not_supported(&at.child("reason"), reason, &REASONS));
            }
        }
    }
}

/// Whether a path as `.spec.x` or `.spec['x']` leads to a field of the schema.
pub fn leads_somewhere(json: &Value, path: &str) -> bool {
    field_at(json, path).is_some()
}

/// The schema of the field that such a path leads to.
#[must_use]
pub fn field_at<'v>(json: &'v Value, path: &str) -> Option<&'v Value> {
    let mut here = json;
    let mut rest = path;
    if !rest.starts_with(['.', '[']) {
        return None;
    }
    while !rest.is_empty() {
        let name;
        if let Some(tail) = rest.strip_prefix("['") {
            (name, rest) = tail.split_once("']")?;
        } else {
            let tail = rest.strip_prefix('.')?;
            let end = tail.find(['.', '[']).unwrap_or(tail.len());
            name = &tail[..end];
            rest = &tail[end..];
        }
        if name.is_empty() {
            return None;
        }
        here = match here["properties"].get(name) {
            Some(property) => property,
            None => Some(&here["additionalProperties"]).filter(|a| a.is_object())?,
        };
    }
    Some(here)
}
