//! OpenAPI documents as the protobuf messages that clients of Kubernetes read them from: [`v2`], [`v3`] say which fields
//! there are, and this file writes them.
//!
//! What may be any value is a text of YAML there. Upstream writes blocks; JSON is YAML too, and is written here.

pub mod v2;
pub mod v3;

use kinds::protobuf::wire::{put_bytes, put_double, put_number};
use serde_json::Value;

/// What a field holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Texts,
    Flag,
    Whole,
    Number,
    /// Any value, as YAML.
    Any,
    Anys,
    /// A message.
    Message(&'static Message),
    /// A list of messages.
    Messages(&'static Message),
    /// A map, as a message of named messages at field 1.
    Named(&'static Message),
    /// A schema, or whether there may be any.
    SchemaOrFlag,
    /// A schema where a file could stand too.
    Answer,
    /// `type`: a list of texts inside a message.
    Type,
    /// `items`: a list of schemas inside a message.
    Items,
    /// Body, or another parameter by its place.
    Parameter,
    /// A map, as a message of named messages at this field.
    NamedAt(u64, &'static Message),
    /// A schema of v3, or a reference to one.
    Schema3,
    /// A list of them.
    Schemas3,
    /// A map of them.
    NamedSchemas3,
    /// `items`: one inside a message.
    Items3,
    /// A schema of v3, or whether there may be any.
    SchemaOrFlag3,
    /// A text, a number or a flag; anything else is left empty.
    Default,
}

/// The fields of a message by JSON name and number, and the number of what begins with `x-`.
struct Message {
    fields: &'static [(&'static str, u64, Kind)],
    extension: u64,
    /// The message around this one, outermost first: fields of a choice.
    within: &'static [u64],
}

fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 12);
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, value);
    out
}

/// A map as a message of named values at field `at`.
fn named(value: &Value, at: u64, mut write: impl FnMut(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        put_bytes(&mut out, at, &entry(name, &write(value)));
    }
    out
}

/// JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 2, format!("{value}\n").as_bytes());
    out
}

fn write(message: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, tag, kind) in message.fields {
        if let Some(value) = value.get(*name) {
            put(&mut out, *tag, *kind, value);
        }
    }
    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        put_bytes(&mut out, message.extension, &entry(name, &any(value)));
    }
    for tag in message.within.iter().rev() {
        let mut outer = Vec::with_capacity(out.len() + 6);
        put_bytes(&mut outer, *tag, &out);
        out = outer;
    }
    out
}

fn put(out: &mut Vec<u8>, tag: u64, kind: Kind, value: &Value) {
    let items = || value.as_array().into_iter().flatten();
    match kind {
        // What is empty, false or 0 is what is absent.
        Kind::Text => {
            if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
                put_bytes(out, tag, text.as_bytes());
            }
        }
        Kind::Texts => {
            items().filter_map(Value::as_str).for_each(|text| put_bytes(out, tag, text.as_bytes()))
        }
        Kind::Flag => {
            if value == &Value::Bool(true) {
                put_number(out, tag, 1);
            }
        }
        Kind::Whole => {
            if let Some(number) = value.as_i64().filter(|number| *number != 0) {
                put_number(out, tag, number.cast_unsigned());
            }
        }
        Kind::Number => {
            if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
                put_double(out, tag, number);
            }
        }
        Kind::Any => put_bytes(out, tag, &any(value)),
        Kind::Anys => items().for_each(|item| put_bytes(out, tag, &any(item))),
        Kind::Message(message) => put_bytes(out, tag, &write(message, value)),
        Kind::Messages(message) => items().for_each(|item| put_bytes(out, tag, &write(message, item))),
        Kind::Named(message) => put_bytes(out, tag, &named(value, 1, |value| write(message, value))),
        Kind::NamedAt(at, message) => {
            put_bytes(out, tag, &named(value, at, |value| write(message, value)));
        }
        Kind::Schema3 => put_bytes(out, tag, &v3::schema(value)),
        Kind::Schemas3 => items().for_each(|item| put_bytes(out, tag, &v3::schema(item))),
        Kind::NamedSchemas3 => put_bytes(out, tag, &named(value, 1, v3::schema)),
        Kind::Items3 => {
            let mut list = Vec::new();
            put_bytes(&mut list, 1, &v3::schema(value));
            put_bytes(out, tag, &list);
        }
        Kind::SchemaOrFlag3 => {
            let mut choice = Vec::new();
            match value.as_bool() {
                Some(flag) => put_number(&mut choice, 2, u64::from(flag)),
                None => put_bytes(&mut choice, 1, &v3::schema(value)),
            }
            put_bytes(out, tag, &choice);
        }
        Kind::Default => {
            let mut choice = Vec::new();
            match value {
                Value::Number(number) => put_double(&mut choice, 1, number.as_f64().unwrap_or_default()),
                Value::Bool(flag) => put_number(&mut choice, 2, u64::from(*flag)),
                Value::String(text) => put_bytes(&mut choice, 3, text.as_bytes()),
                _ => {}
            }
            put_bytes(out, tag, &choice);
        }
        Kind::SchemaOrFlag => {
            let mut choice = Vec::new();
            match value.as_bool() {
                Some(flag) => put_number(&mut choice, 2, u64::from(flag)),
                None => put_bytes(&mut choice, 1, &write(&v2::SCHEMA, value)),
            }
            put_bytes(out, tag, &choice);
        }
        Kind::Answer => {
            let mut choice = Vec::new();
            put_bytes(&mut choice, 1, &write(&v2::SCHEMA, value));
            put_bytes(out, tag, &choice);
        }
        Kind::Type => {
            let mut list = Vec::new();
            put_bytes(&mut list, 1, value.as_str().unwrap_or_default().as_bytes());
            put_bytes(out, tag, &list);
        }
        Kind::Items => {
            let mut list = Vec::new();
            put_bytes(&mut list, 1, &write(&v2::SCHEMA, value));
            put_bytes(out, tag, &list);
        }
        Kind::Parameter => {
            for parameter in items() {
                let message = match parameter["in"].as_str() {
                    Some("body") => &v2::BODY,
                    Some("path") => &v2::PATH,
                    _ => &v2::QUERY,
                };
                put_bytes(out, tag, &write(message, parameter));
            }
        }
    }
}
