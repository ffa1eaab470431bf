//! An OpenAPI v2 document as the protobuf message that clients of Kubernetes read it from.
//!
//! Source: `OpenAPIv2.proto` of `github.com/google/gnostic-models`: the field numbers below are its own.

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
}

/// The fields of a message by JSON name and number, and the number of what begins with `x-`.
struct Message {
    fields: &'static [(&'static str, u64, Kind)],
    extension: u64,
    /// The message around this one, outermost first: fields of a choice.
    within: &'static [u64],
}

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Kind::Text),
        ("info", 2, Kind::Message(&INFO)),
        ("definitions", 9, Kind::Named(&SCHEMA)),
    ],
    extension: 16,
    within: &[],
};

static INFO: Message = Message {
    fields: &[("title", 1, Kind::Text), ("version", 2, Kind::Text), ("description", 3, Kind::Text)],
    extension: 7,
    within: &[],
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Kind::Message(&OPERATION)),
        ("put", 3, Kind::Message(&OPERATION)),
        ("post", 4, Kind::Message(&OPERATION)),
        ("delete", 5, Kind::Message(&OPERATION)),
        ("options", 6, Kind::Message(&OPERATION)),
        ("head", 7, Kind::Message(&OPERATION)),
        ("patch", 8, Kind::Message(&OPERATION)),
        ("parameters", 9, Kind::Parameter),
    ],
    extension: 10,
    within: &[],
};

static OPERATION: Message = Message {
    fields: &[
        ("operationId", 5, Kind::Text),
        ("produces", 6, Kind::Texts),
        ("consumes", 7, Kind::Texts),
        ("parameters", 8, Kind::Parameter),
        ("responses", 9, Kind::Named(&RESPONSE)),
        ("schemes", 10, Kind::Texts),
    ],
    extension: 13,
    within: &[],
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Kind::Text), ("schema", 2, Kind::Answer)],
    extension: 5,
    within: &[1],
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Kind::Text),
        ("format", 2, Kind::Text),
        ("title", 3, Kind::Text),
        ("description", 4, Kind::Text),
        ("default", 5, Kind::Any),
        ("multipleOf", 6, Kind::Number),
        ("maximum", 7, Kind::Number),
        ("exclusiveMaximum", 8, Kind::Flag),
        ("minimum", 9, Kind::Number),
        ("exclusiveMinimum", 10, Kind::Flag),
        ("maxLength", 11, Kind::Whole),
        ("minLength", 12, Kind::Whole),
        ("pattern", 13, Kind::Text),
        ("maxItems", 14, Kind::Whole),
        ("minItems", 15, Kind::Whole),
        ("uniqueItems", 16, Kind::Flag),
        ("maxProperties", 17, Kind::Whole),
        ("minProperties", 18, Kind::Whole),
        ("required", 19, Kind::Texts),
        ("enum", 20, Kind::Anys),
        ("additionalProperties", 21, Kind::SchemaOrFlag),
        ("type", 22, Kind::Type),
        ("items", 23, Kind::Items),
        ("allOf", 24, Kind::Messages(&SCHEMA)),
        ("properties", 25, Kind::Named(&SCHEMA)),
    ],
    extension: 31,
    within: &[],
};

static BODY: Message = Message {
    fields: &[
        ("description", 1, Kind::Text),
        ("name", 2, Kind::Text),
        ("in", 3, Kind::Text),
        ("required", 4, Kind::Flag),
        ("schema", 5, Kind::Message(&SCHEMA)),
    ],
    extension: 6,
    within: &[1, 1],
};

static QUERY: Message = Message {
    fields: &[
        ("required", 1, Kind::Flag),
        ("in", 2, Kind::Text),
        ("description", 3, Kind::Text),
        ("name", 4, Kind::Text),
        ("type", 6, Kind::Text),
        ("uniqueItems", 20, Kind::Flag),
    ],
    extension: 23,
    within: &[1, 2, 3],
};

static PATH: Message = Message {
    fields: &[
        ("required", 1, Kind::Flag),
        ("in", 2, Kind::Text),
        ("description", 3, Kind::Text),
        ("name", 4, Kind::Text),
        ("type", 5, Kind::Text),
        ("uniqueItems", 19, Kind::Flag),
    ],
    extension: 22,
    within: &[1, 2, 4],
};

/// The message of a v2 document.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = write(&DOCUMENT, document);
    // Paths are named at field 2, unlike everything else.
    let mut paths = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        put_bytes(&mut paths, 2, &entry(path, &write(&PATH_ITEM, item)));
    }
    put_bytes(&mut out, 8, &paths);
    out
}

fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + value.len() + 12);
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, value);
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
        Kind::Text => put_bytes(out, tag, value.as_str().unwrap_or_default().as_bytes()),
        Kind::Texts => {
            items().filter_map(Value::as_str).for_each(|text| put_bytes(out, tag, text.as_bytes()))
        }
        Kind::Flag => put_number(out, tag, u64::from(value.as_bool().unwrap_or_default())),
        Kind::Whole => put_number(out, tag, value.as_i64().unwrap_or_default().cast_unsigned()),
        Kind::Number => put_double(out, tag, value.as_f64().unwrap_or_default()),
        Kind::Any => put_bytes(out, tag, &any(value)),
        Kind::Anys => items().for_each(|item| put_bytes(out, tag, &any(item))),
        Kind::Message(message) => put_bytes(out, tag, &write(message, value)),
        Kind::Messages(message) => items().for_each(|item| put_bytes(out, tag, &write(message, item))),
        Kind::Named(message) => {
            let mut named = Vec::new();
            for (name, value) in value.as_object().into_iter().flatten() {
                put_bytes(&mut named, 1, &entry(name, &write(message, value)));
            }
            put_bytes(out, tag, &named);
        }
        Kind::SchemaOrFlag => {
            let mut choice = Vec::new();
            match value.as_bool() {
                Some(flag) => put_number(&mut choice, 2, u64::from(flag)),
                None => put_bytes(&mut choice, 1, &write(&SCHEMA, value)),
            }
            put_bytes(out, tag, &choice);
        }
        Kind::Answer => {
            let mut choice = Vec::new();
            put_bytes(&mut choice, 1, &write(&SCHEMA, value));
            put_bytes(out, tag, &choice);
        }
        Kind::Type => {
            let mut list = Vec::new();
            put_bytes(&mut list, 1, value.as_str().unwrap_or_default().as_bytes());
            put_bytes(out, tag, &list);
        }
        Kind::Items => {
            let mut list = Vec::new();
            put_bytes(&mut list, 1, &write(&SCHEMA, value));
            put_bytes(out, tag, &list);
        }
        Kind::Parameter => {
            for parameter in items() {
                let message = match parameter["in"].as_str() {
                    Some("body") => &BODY,
                    Some("path") => &PATH,
                    _ => &QUERY,
                };
                put_bytes(out, tag, &write(message, parameter));
            }
        }
    }
}
