//! The messages of a v2 document.
//!
//! Source: `OpenAPIv2.proto` of `github.com/google/gnostic-models`: the field numbers below are its own.

use serde_json::Value;

use super::{Kind, Message, write};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Kind::Text),
        ("info", 2, Kind::Message(&INFO)),
        // Paths are named at field 2, unlike everything else.
        ("paths", 8, Kind::NamedAt(2, &PATH_ITEM)),
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

pub(super) static SCHEMA: Message = Message {
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

pub(super) static BODY: Message = Message {
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

pub(super) static QUERY: Message = Message {
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

pub(super) static PATH: Message = Message {
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
    write(&DOCUMENT, document)
}
