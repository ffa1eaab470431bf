//! The one way in which upstream writes a value: what is empty is absent or always there, nulls are gone, quantities
//! and times are in their canonical form.

use serde_json::{Number, Value, json};

use crate::{
    quantity,
    schema::{Schema, Type},
    time,
};

/// Brings a built-in object into the form that upstream encodes: null is absence, empty lists and maps and zero values
/// are left out where Go leaves them out, quantities and times are canonical.
///
/// # Errors
/// The decoder's text for a bad quantity or time, to stand behind `… cannot be handled as a Pod: `.
pub fn canonicalize(value: &mut Value, schema: &Schema) -> Result<(), String> {
    match value {
        Value::Object(map) => {
            let structured = !schema.properties.is_empty();
            let mut doomed = Vec::new();
            for (name, child) in map.iter_mut() {
                let Some(property) = schema.properties.get(name.as_str()) else {
                    if let Some(values) = &schema.additional {
                        if child.is_null() {
                            *child = zero(values);
                        }
                        canonicalize(child, values)?;
                    }
                    continue;
                };
                if !child.is_null() {
                    canonicalize(child, property)?;
                }
                if structured && left_out(child, property) {
                    doomed.push(name.clone());
                }
            }
            for name in doomed {
                map.remove(&name);
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return Ok(()) };
            for item in list {
                if item.is_null() {
                    *item = zero(items);
                }
                canonicalize(item, items)?;
            }
        }
        leaf => {
            if let Some(format) = schema.format.as_deref()
                && let Some(text) = printed(leaf, format)?
            {
                *leaf = Value::String(text);
            }
        }
    }
    Ok(())
}

/// The canonical text of a leaf, if it has another one.
pub(super) fn printed(value: &Value, format: &str) -> Result<Option<String>, String> {
    match (format, value) {
        ("quantity", Value::String(text)) => quantity::canonical(text.trim()).map_err(|e| e.to_string()),
        ("quantity", Value::Number(number)) => {
            let text = number.to_string();
            Ok(Some(quantity::canonical(&text).map_err(|e| e.to_string())?.unwrap_or(text)))
        }
        ("quantity", _) => Err(quantity::QuantityError::Format.to_string()),
        ("date-time", Value::String(text)) => time::canonical(text),
        ("micro-time", Value::String(text)) => time::canonical_micro(text),
        _ => Ok(None),
    }
}

/// What Go puts in a list or map for null.
pub(super) fn zero(schema: &Schema) -> Value {
    if schema.format.as_deref() == Some("quantity") {
        return json!("0");
    }
    match schema.kind {
        Some(Type::Object) if schema.additional.is_none() => json!({}),
        Some(Type::String)
            if !matches!(schema.format.as_deref(), Some("byte" | "date-time" | "micro-time")) =>
        {
            json!("")
        }
        Some(Type::Integer | Type::Number) => json!(0),
        Some(Type::Boolean) => json!(false),
        _ => Value::Null,
    }
}

pub(super) fn left_out(value: &Value, schema: &Schema) -> bool {
    if value.is_null() {
        return true;
    }
    if schema.always.is_some() {
        return false;
    }
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && schema.is_map(),
        Value::String(text) => schema.omit_empty && text.is_empty(),
        Value::Number(number) => schema.omit_empty && number.as_f64() == Some(0.0),
        Value::Bool(flag) => schema.omit_empty && !flag,
        Value::Null => true,
    }
}

/// Makes `null` of empty lists that are always encoded: an empty list is none in protobuf, which upstream stores.
pub fn forget_empty_lists(value: &mut Value, schema: &Schema) {
    if !schema.below().encodes_null {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map.iter_mut() {
                let Some(property) = schema.field(name) else { continue };
                if property.always == Some(Value::Null) && child.as_array().is_some_and(Vec::is_empty) {
                    *child = Value::Null;
                } else {
                    forget_empty_lists(child, property);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| forget_empty_lists(item, items));
            }
        }
        _ => {}
    }
}

/// Adds what upstream always encodes: the `always` value of every absent field of every present object.
pub fn always(value: &mut Value, schema: &Schema) {
    let below = schema.below();
    if !below.encodes_empty {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, property) in &below.always {
                if let Some(empty) = &property.always
                    && !map.contains_key(&**name)
                {
                    map.insert(name.to_string(), empty.clone());
                }
            }
            for (name, child) in map.iter_mut() {
                if matches!(child, Value::Object(_) | Value::Array(_))
                    && let Some(property) = schema.field(name)
                {
                    always(child, property);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for item in list {
                    always(item, items);
                }
            }
        }
        _ => {}
    }
}

/// Custom resources: drops nulls of fields that may not be null and have no default (those that have one get it from
/// [`crate::defaults::apply`]), and makes integers of numbers without a fraction, as Go prints them.
pub fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            map.retain(|name, child| {
                let Some(property) = schema.field(name) else {
                    whole_numbers(child);
                    return true;
                };
                if child.is_null()
                    && !property.nullable
                    && !property.preserve_any()
                    && property.default.is_none()
                {
                    return false;
                }
                drop_nulls(child, property);
                true
            });
        }
        Value::Array(list) => match &schema.items {
            Some(items) => list.iter_mut().for_each(|item| drop_nulls(item, items)),
            None => list.iter_mut().for_each(whole_numbers),
        },
        leaf => whole_numbers(leaf),
    }
}

/// `1.0` is stored and read back as `1`: Go prints it so. `None`: the number has a fraction, or is printed so already.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn whole_number(number: &Number) -> Option<Value> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    (float.fract() == 0.0 && float.abs() < 9e15).then(|| json!(float as i64))
}

/// The same for all numbers in a value.
pub fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = whole_number(number) {
                *value = whole;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}
