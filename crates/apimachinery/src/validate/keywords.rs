//! The JSON-schema keywords.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use base64::Engine as _;
use regex::Regex;
use serde_json::Value;

use super::{Counterparts, at};
use crate::{
    field::{FieldError, FieldErrors, FieldPath},
    schema::{Rules, Schema, Type},
    structure::{At, Path, print},
    time,
};

/// Compiled patterns; a pattern that does not compile is `None`. Emptied when it has grown to this many.
const MAX_PATTERNS: usize = 4096;
static PATTERNS: LazyLock<Mutex<HashMap<String, Option<Regex>>>> = LazyLock::new(Mutex::default);

fn pattern(text: &str) -> Option<Regex> {
    let mut patterns = PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = patterns.get(text) {
        return found.clone();
    }
    if patterns.len() >= MAX_PATTERNS {
        patterns.clear();
    }
    let compiled = regex::RegexBuilder::new(text).size_limit(1 << 20).build().ok();
    patterns.insert(text.to_owned(), compiled.clone());
    compiled
}

/// Whole numbers beyond this are no integers, as they are none in JavaScript.
const SAFE: f64 = 9_007_199_254_740_991.0;

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() && n.as_f64().is_some_and(|f| f.fract() != 0.0 || f.abs() > SAFE) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The schema's name of its type.
pub(crate) fn wanted(kind: Type) -> &'static str {
    match kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    }
}

fn mismatch(path: Option<&Path<'_>>, wanted: &str, found: &str) -> FieldError {
    let words = format!("{} in body must be of type {wanted}: {found:?}", print(path, ""));
    FieldError::type_invalid(&at(path), found, words)
}

pub(super) fn walk(
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: Option<&Path<'_>>,
    errors: &mut FieldErrors,
) {
    if errors.is_full() || old == Some(value) || value.is_null() && (schema.nullable || schema.preserve_any())
    {
        return;
    }
    let fits = fits(value, schema, path, errors);
    if !fits && too_large(value, schema) {
        let words = format!("Checked value must be of type integer (default format) in {}", print(path, ""));
        errors.push(FieldError::invalid(&FieldPath::root(), "", words));
        return;
    }
    // A value of another type is still asked whether it is one of those that are listed, and so on; null is not.
    if let Some(rules) = schema.rules.as_ref().filter(|_| fits || !value.is_null()) {
        check(value, rules, path, errors);
    }
    if !fits {
        return;
    }
    match value {
        Value::Object(map) => {
            for name in schema.required.iter().filter(|n| !map.contains_key(&***n)) {
                let here = Path { parent: path, at: At::Field(name) };
                errors.push(FieldError::required(&at(Some(&here)), ""));
            }
            for (name, child) in map {
                if let Some(property) = schema.field(name) {
                    let here = Path { parent: path, at: At::Field(name) };
                    walk(child, old.and_then(|o| o.get(name)), property, Some(&here), errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            let before = Counterparts::new(old, schema);
            for (index, item) in list.iter().enumerate() {
                let here = Path { parent: path, at: At::Index(index) };
                walk(item, before.of(item), items, Some(&here), errors);
            }
        }
        _ => {}
    }
}

/// A number that does not fit the integer that its limits are compared as.
fn too_large(value: &Value, schema: &Schema) -> bool {
    let limited =
        schema.rules.as_ref().is_some_and(|rules| rules.maximum.is_some() || rules.minimum.is_some());
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() > SAFE);
    limited && schema.kind == Some(Type::Integer) && number.is_some()
}

/// Type and format.
fn fits(value: &Value, schema: &Schema, path: Option<&Path<'_>>, errors: &mut FieldErrors) -> bool {
    let found = type_of(value);
    if schema.int_or_string {
        let fits = matches!(found, "integer" | "string");
        if !fits {
            errors.push(mismatch(path, "integer,string", found));
        }
        return fits;
    }
    let Some(kind) = schema.kind else { return true };
    let wanted = wanted(kind);
    if wanted != found && !(wanted == "number" && found == "integer") {
        errors.push(mismatch(path, wanted, found));
        return false;
    }
    if let (Some(format), Value::String(text)) = (schema.format.as_deref(), value)
        && !has_format(text, format)
    {
        let words = format!("{} in body must be of type {format}: {text:?}", print(path, ""));
        errors.push(FieldError::type_invalid(&at(path), text.as_str(), words));
    }
    true
}

/// The formats that are checked; any text has an unknown one.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date-time" | "datetime" => time::parse_rfc3339(text).is_ok(),
        "date" => chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok(),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    }
}

/// The keywords of one node, without those of its children.
fn check(value: &Value, rules: &Rules, path: Option<&Path<'_>>, errors: &mut FieldErrors) {
    let mut say = |words: String| {
        errors.push(FieldError::invalid(
            &at(path),
            value.clone(),
            format!("{} in body {words}", print(path, "")),
        ));
    };
    match value {
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if let Some(min) = rules.min_length.filter(|min| length < *min) {
                say(format!("should be at least {min} chars long"));
            }
            if let Some(wanted) = &rules.pattern {
                match pattern(wanted) {
                    Some(pattern) if pattern.is_match(text) => {}
                    _ => say(format!("should match '{wanted}'")),
                }
            }
            if let Some(max) = rules.max_length.filter(|max| length > *max) {
                errors.push(FieldError::too_long(&at(path), usize::try_from(max).unwrap_or(usize::MAX)));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(factor) = rules.multiple_of.filter(|f| *f > 0.0 && (number / f).fract() != 0.0) {
                say(format!("should be a multiple of {factor}"));
            }
            if let Some(max) = rules.maximum {
                match rules.exclusive_maximum {
                    true if number >= max => say(format!("should be less than {max}")),
                    false if number > max => say(format!("should be less than or equal to {max}")),
                    _ => {}
                }
            }
            if let Some(min) = rules.minimum {
                match rules.exclusive_minimum {
                    true if number <= min => say(format!("should be greater than {min}")),
                    false if number < min => say(format!("should be greater than or equal to {min}")),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            let length = list.len() as u64;
            if let Some(min) = rules.min_items.filter(|min| length < *min) {
                say(format!("should have at least {min} items"));
            }
            let mut seen = HashSet::new();
            if rules.unique_items && !list.iter().all(|item| seen.insert(item.to_string())) {
                say("shouldn't contain duplicates".to_owned());
            }
            if let Some(max) = rules.max_items.filter(|max| length > *max) {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                errors.push(FieldError::too_many(&at(path), list.len(), max));
            }
        }
        Value::Object(map) => {
            let length = map.len() as u64;
            if let Some(min) = rules.min_properties.filter(|min| length < *min) {
                say(format!("should have at least {min} properties"));
            }
            if let Some(max) = rules.max_properties.filter(|max| length > *max) {
                let max = usize::try_from(max).unwrap_or(usize::MAX);
                errors.push(FieldError::too_many(&at(path), map.len(), max));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
    if !rules.one_of_values.is_empty() && !rules.one_of_values.contains(value) {
        let texts: Vec<String> = rules
            .one_of_values
            .iter()
            .map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.push(FieldError::not_supported(&at(path), value.clone(), &texts));
    }
    combine(value, rules, path, errors);
}

/// `allOf`, `anyOf`, `oneOf`, `not`. What they say is said of the whole object, with the place in the words. Where no
/// alternative fits, the first one's faults are told as well.
///
/// Source: `k8s.io/kube-openapi/pkg/validation/validate/schema_props.go`.
fn combine(value: &Value, rules: &Rules, path: Option<&Path<'_>>, errors: &mut FieldErrors) {
    let faults = |schema: &Arc<Schema>| {
        let mut found = FieldErrors::default();
        walk(value, None, schema, path, &mut found);
        found.into_vec()
    };
    let say =
        |words: String| FieldError::invalid(&FieldPath::root(), "", format!("{:?} {words}", print(path, "")));
    let mut first = None;
    let mut fits = |schema| {
        let found = faults(schema);
        let fits = found.is_empty();
        first.get_or_insert(found);
        fits
    };
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(&mut fits) {
        errors.push(say("must validate at least one schema (anyOf)".to_owned()));
        errors.extend(first.into_iter().flatten());
    }
    if !rules.one_of.is_empty() {
        let mut tried: Vec<_> = rules.one_of.iter().map(faults).collect();
        match tried.iter().filter(|found| found.is_empty()).count() {
            1 => {}
            0 => {
                let words = "must validate one and only one schema (oneOf). Found none valid";
                errors.push(say(words.to_owned()));
                errors.extend(tried.swap_remove(0));
            }
            many => {
                let words = "must validate one and only one schema (oneOf)";
                errors.push(say(format!("{words}. Found {many} valid alternatives")));
            }
        }
    }
    if rules.not.as_ref().is_some_and(|schema| faults(schema).is_empty()) {
        errors.push(say("must not validate the schema (not)".to_owned()));
    }
    let nested: Vec<_> = rules.all_of.iter().flat_map(faults).collect();
    if !nested.is_empty() {
        errors.push(say("must validate all the schemas (allOf)".to_owned()));
        errors.extend(nested);
    }
}
