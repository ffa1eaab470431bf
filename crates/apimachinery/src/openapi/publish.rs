//! Writes schemas as OpenAPI, version 2 or 3.

mod builtin;

pub use builtin::SCALARS;

use serde_json::{Map, Value, json};

use crate::schema::{CelRule, ListType, Rules, Schema, Type};

/// A schema as JSON. Named types below the root are references (`#/components/schemas/NAME`, or `#/definitions/NAME`);
/// the root itself is written out. Version 2 knows no `nullable`, `default`, `allOf`, `oneOf`, `anyOf` or `not`, and
/// kubectl validates with it: they are left out, and with them whatever kubectl would take for a promise that there is
/// nothing else.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/v2`.
#[must_use]
pub fn to_json(schema: &Schema, version: u8) -> Value {
    if version == 3 && schema.name.is_some() {
        builtin::definition(schema)
    } else {
        node(schema, version == 2)
    }
}

/// What version 2 shows of a schema: a value that may be null or anything else has no type that kubectl could check.
fn narrowed(schema: &Schema) -> Schema {
    let mut out = schema.clone();
    let open = schema.nullable || schema.preserve_unknown;
    if open {
        out.properties.clear();
        out.items = None;
    }
    let gone = match schema.kind {
        Some(Type::Object) => schema.preserve_unknown,
        Some(Type::Array) => out.items.is_none(),
        _ => false,
    };
    if schema.nullable || gone {
        out.kind = None;
    }
    out.required.retain(|name| !out.properties.get(name).is_some_and(|p| p.nullable));
    if out.additional.as_ref().is_some_and(|values| values.nullable) {
        out.required.clear();
    }
    out
}

fn below(schema: &Schema, old: bool) -> Value {
    let Some(name) = &schema.name else { return node(schema, old) };
    if old {
        let mut out = json!({"$ref": format!("#/definitions/{name}")});
        if let Some(description) = &schema.description {
            out["description"] = json!(description);
        }
        return out;
    }
    let reference = json!({"$ref": format!("#/components/schemas/{name}")});
    // Beside a reference nothing counts, so what the field says itself goes around it.
    if schema.default.is_none() && schema.description.is_none() {
        return reference;
    }
    let mut out = json!({"allOf": [reference]});
    if let Some(default) = &schema.default {
        out["default"] = default.clone();
    }
    if let Some(description) = &schema.description {
        out["description"] = json!(description);
    }
    out
}

fn node(schema: &Schema, old: bool) -> Value {
    if old && (schema.nullable || schema.preserve_unknown || schema.kind == Some(Type::Array)) {
        return written(&narrowed(schema), old);
    }
    if old && schema.properties.values().chain(&schema.additional).any(|child| child.nullable) {
        return written(&narrowed(schema), old);
    }
    written(schema, old)
}

fn written(schema: &Schema, old: bool) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    if let Some(text) = &schema.description {
        put("description", json!(text));
    }
    if schema.preserve_unknown {
        put("x-kubernetes-preserve-unknown-fields", json!(true));
    }
    if schema.embedded_resource {
        put("x-kubernetes-embedded-resource", json!(true));
    }
    if schema.int_or_string {
        put("x-kubernetes-int-or-string", json!(true));
    }
    if let Some(kind) = schema.kind.filter(|_| !(old && schema.int_or_string)) {
        put("type", json!(kind_name(kind)));
    }
    if let Some(format) = &schema.format {
        // Quantities are plain strings outside.
        match &**format {
            "quantity" => {}
            "micro-time" => put("format", json!("date-time")),
            other => put("format", json!(other)),
        }
    }
    if !old {
        if schema.nullable {
            put("nullable", json!(true));
        }
        if let Some(default) = &schema.default {
            put("default", default.clone());
        }
    }
    if !schema.properties.is_empty() {
        let fields = schema.properties.iter().map(|(k, v)| (k.to_string(), below(v, old)));
        put("properties", Value::Object(fields.collect()));
    }
    if let Some(values) = &schema.additional {
        put("additionalProperties", below(values, old));
    }
    if let Some(items) = &schema.items {
        put("items", below(items, old));
    }
    let mut required = schema.required.clone();
    if schema.embedded_resource && !(old && schema.preserve_unknown) {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| &**known == name) {
                required.push(name.into());
            }
        }
    }
    if !required.is_empty() {
        put("required", json!(required));
    }
    list_type(schema, false, &mut out);
    if schema.atomic_map {
        out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    strategy(schema, &mut out);
    if let Some(rules) = &schema.rules {
        write_rules(rules, old, &mut out);
    }
    if schema.int_or_string && schema.name.is_none() && !old {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        if !out.contains_key("anyOf") {
            out.insert("anyOf".to_owned(), either);
        } else if let Value::Array(all) = out.entry("allOf").or_insert_with(|| json!([])) {
            all.insert(0, json!({"anyOf": either}));
        }
    }
    Value::Object(out)
}

/// How a list is merged; that it is replaced as a whole is told of built-in ones only.
fn list_type(schema: &Schema, atomic: bool, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    match schema.list_type {
        ListType::Set => put("x-kubernetes-list-type", json!("set")),
        ListType::Map => {
            put("x-kubernetes-list-type", json!("map"));
            put("x-kubernetes-list-map-keys", json!(schema.list_map_keys));
        }
        ListType::Atomic if atomic => put("x-kubernetes-list-type", json!("atomic")),
        ListType::Atomic => {}
    }
}

/// How a strategic merge patch treats it.
fn strategy(schema: &Schema, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    let strategy = match (schema.patch_strategy.merge, schema.patch_strategy.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) if schema.patch_strategy.replace => "replace",
        (false, false) => "",
    };
    if !strategy.is_empty() {
        put("x-kubernetes-patch-strategy", json!(strategy));
    }
    if let Some(key) = &schema.patch_merge_key {
        put("x-kubernetes-patch-merge-key", json!(key));
    }
}

fn kind_name(kind: Type) -> &'static str {
    match kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    }
}

fn write_rules(rules: &Rules, old: bool, out: &mut Map<String, Value>) {
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(key.to_owned(), value);
        }
    };
    put("enum", (!rules.one_of_values.is_empty()).then(|| json!(rules.one_of_values)));
    put("pattern", rules.pattern.as_ref().map(|p| json!(p)));
    for (key, count) in [
        ("minLength", rules.min_length),
        ("maxLength", rules.max_length),
        ("minItems", rules.min_items),
        ("maxItems", rules.max_items),
        ("minProperties", rules.min_properties),
        ("maxProperties", rules.max_properties),
    ] {
        put(key, count.map(|n| json!(n)));
    }
    for (key, number) in
        [("minimum", rules.minimum), ("maximum", rules.maximum), ("multipleOf", rules.multiple_of)]
    {
        put(key, number.map(whole));
    }
    put("exclusiveMinimum", rules.exclusive_minimum.then_some(Value::Bool(true)));
    put("exclusiveMaximum", rules.exclusive_maximum.then_some(Value::Bool(true)));
    put("uniqueItems", rules.unique_items.then_some(Value::Bool(true)));
    let list = |all: &[std::sync::Arc<Schema>]| {
        (!all.is_empty()).then(|| all.iter().map(|s| node(s, old)).collect::<Vec<_>>().into())
    };
    if !old {
        put("allOf", list(&rules.all_of));
        put("anyOf", list(&rules.any_of));
        put("oneOf", list(&rules.one_of));
        put("not", rules.not.as_ref().map(|s| node(s, old)));
    }
    put(
        "x-kubernetes-validations",
        (!rules.cel.is_empty()).then(|| rules.cel.iter().map(write_rule).collect::<Vec<_>>().into()),
    );
}

/// `5` rather than `5.0`.
#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 9e15 { json!(number as i64) } else { json!(number) }
}

fn write_rule(rule: &CelRule) -> Value {
    let mut out = json!({"rule": rule.rule});
    for (key, text) in [
        ("message", &rule.message),
        ("messageExpression", &rule.message_expression),
        ("reason", &rule.reason),
        ("fieldPath", &rule.field_path),
    ] {
        if let Some(text) = text {
            out[key] = json!(text);
        }
    }
    if rule.optional_old_self {
        out["optionalOldSelf"] = json!(true);
    }
    out
}
