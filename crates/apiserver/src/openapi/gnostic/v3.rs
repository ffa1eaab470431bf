//! The messages of a v3 document.
//!
//! Source: `OpenAPIv3.proto` of `github.com/google/gnostic-models`: the field numbers below are its own.

use serde_json::Value;

use super::{Kind, Message, write};

static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, Kind::Text),
        ("info", 2, Kind::Message(&INFO)),
        ("paths", 4, Kind::Named(&PATH_ITEM)),
        ("components", 5, Kind::Message(&COMPONENTS)),
    ],
    extension: 9,
    within: &[],
};

static INFO: Message = Message {
    fields: &[("title", 1, Kind::Text), ("description", 2, Kind::Text), ("version", 6, Kind::Text)],
    extension: 7,
    within: &[],
};

static COMPONENTS: Message = Message {
    fields: &[("schemas", 1, Kind::NamedSchemas3), ("securitySchemes", 7, Kind::Named(&SECURITY_SCHEME))],
    extension: 10,
    within: &[],
};

static SECURITY_SCHEME: Message = Message {
    fields: &[
        ("type", 1, Kind::Text),
        ("description", 2, Kind::Text),
        ("name", 3, Kind::Text),
        ("in", 4, Kind::Text),
    ],
    extension: 9,
    within: &[1],
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("description", 3, Kind::Text),
        ("get", 4, Kind::Message(&OPERATION)),
        ("put", 5, Kind::Message(&OPERATION)),
        ("post", 6, Kind::Message(&OPERATION)),
        ("delete", 7, Kind::Message(&OPERATION)),
        ("options", 8, Kind::Message(&OPERATION)),
        ("head", 9, Kind::Message(&OPERATION)),
        ("patch", 10, Kind::Message(&OPERATION)),
        ("parameters", 13, Kind::Messages(&PARAMETER)),
    ],
    extension: 14,
    within: &[],
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Kind::Texts),
        ("description", 3, Kind::Text),
        ("operationId", 5, Kind::Text),
        ("parameters", 6, Kind::Messages(&PARAMETER)),
        ("requestBody", 7, Kind::Message(&REQUEST_BODY)),
        ("responses", 8, Kind::NamedAt(2, &RESPONSE)),
    ],
    extension: 13,
    within: &[],
};

static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, Kind::Text),
        ("in", 2, Kind::Text),
        ("description", 3, Kind::Text),
        ("required", 4, Kind::Flag),
        ("schema", 10, Kind::Schema3),
    ],
    extension: 14,
    within: &[1],
};

static REQUEST_BODY: Message = Message {
    fields: &[
        ("description", 1, Kind::Text),
        ("content", 2, Kind::Named(&MEDIA_TYPE)),
        ("required", 3, Kind::Flag),
    ],
    extension: 4,
    within: &[1],
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Kind::Text), ("content", 3, Kind::Named(&MEDIA_TYPE))],
    extension: 5,
    within: &[1],
};

static MEDIA_TYPE: Message = Message { fields: &[("schema", 1, Kind::Schema3)], extension: 5, within: &[] };

static SCHEMA: Message = Message { fields: &SCHEMA_FIELDS, extension: 36, within: &[1] };

/// A schema where none can be referred to.
static BARE_SCHEMA: Message = Message { fields: &SCHEMA_FIELDS, extension: 36, within: &[] };

static SCHEMA_FIELDS: [(&str, u64, Kind); 28] = [
    ("nullable", 1, Kind::Flag),
    ("title", 9, Kind::Text),
    ("multipleOf", 10, Kind::Number),
    ("maximum", 11, Kind::Number),
    ("exclusiveMaximum", 12, Kind::Flag),
    ("minimum", 13, Kind::Number),
    ("exclusiveMinimum", 14, Kind::Flag),
    ("maxLength", 15, Kind::Whole),
    ("minLength", 16, Kind::Whole),
    ("pattern", 17, Kind::Text),
    ("maxItems", 18, Kind::Whole),
    ("minItems", 19, Kind::Whole),
    ("uniqueItems", 20, Kind::Flag),
    ("maxProperties", 21, Kind::Whole),
    ("minProperties", 22, Kind::Whole),
    ("required", 23, Kind::Texts),
    ("enum", 24, Kind::Anys),
    ("type", 25, Kind::Text),
    ("allOf", 26, Kind::Schemas3),
    ("oneOf", 27, Kind::Schemas3),
    ("anyOf", 28, Kind::Schemas3),
    ("not", 29, Kind::Message(&BARE_SCHEMA)),
    ("items", 30, Kind::Items3),
    ("properties", 31, Kind::NamedSchemas3),
    ("additionalProperties", 32, Kind::SchemaOrFlag3),
    ("default", 33, Kind::Default),
    ("description", 34, Kind::Text),
    ("format", 35, Kind::Text),
];

static REFERENCE: Message = Message {
    fields: &[("$ref", 1, Kind::Text), ("summary", 2, Kind::Text), ("description", 3, Kind::Text)],
    // None are known there.
    extension: 4,
    within: &[2],
};

/// A schema, or a reference to one.
pub(super) fn schema(value: &Value) -> Vec<u8> {
    write(if value.get("$ref").is_some() { &REFERENCE } else { &SCHEMA }, value)
}

/// The message of a v3 document.
pub fn encode(document: &Value) -> Vec<u8> {
    write(&DOCUMENT, document)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// The digest is that of what `github.com/google/gnostic-models` v0.7.0 makes of the same document, its texts of YAML
    /// written as JSON (`conformance/cmd/gnostic`).
    #[test]
    fn a_document_is_the_message_that_upstream_makes_of_it() {
        let document: Value = serde_json::from_str(include_str!("sample.json")).unwrap();
        let digest: String = Sha256::digest(encode(&document)).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, "24e2da4d935b4e3d65a23c090e796b8c5a8021ea575b6a9ee9091d606c86f59a");
    }
}
