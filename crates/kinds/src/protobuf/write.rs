//! JSON form → protobuf, as Go's encoder writes it: fields in order of their numbers, zeros of fields that are no
//! pointers included.

use std::{collections::HashMap, sync::OnceLock};

use base64::Engine as _;
use chrono::DateTime;
use serde_json::{Map, Value};

use super::{
    MAGIC, SCHEMA, table, type_name,
    wire::{put_bytes, put_double, put_number},
};
use crate::facts::FieldFacts;

/// One field number of a message, in ascending order within it.
enum Node {
    /// A field of the type.
    Field(u64, &'static FieldFacts<'static>),
    /// A message whose fields JSON shows as the outer one's.
    Inner(u64, Vec<Node>),
}

/// A kind that is served for every other kind; the table does not know it.
const PARTIAL: &str = "PartialObjectMetadata";

type Plans = HashMap<&'static str, Vec<Node>>;

fn plans() -> &'static Plans {
    static MADE: OnceLock<Plans> = OnceLock::new();
    MADE.get_or_init(|| table().types().map(|(name, facts)| (name, plan(&facts.fields))).collect())
}

fn plan(fields: &'static [FieldFacts<'static>]) -> Vec<Node> {
    let mut nodes = Vec::new();
    for fact in fields {
        let tags: Option<Vec<u64>> = fact.tag.split('.').map(|tag| tag.parse().ok()).collect();
        if let Some(tags) = tags {
            place(&mut nodes, &tags, fact);
        }
    }
    sort(&mut nodes);
    nodes
}

/// Only the metadata.
fn write_partial(object: &Value) -> Vec<u8> {
    let mut raw = Vec::with_capacity(512);
    put_message(&mut raw, 1, "meta.v1.ObjectMeta", &object["metadata"]);
    raw
}

fn place(nodes: &mut Vec<Node>, tags: &[u64], fact: &'static FieldFacts<'static>) {
    match tags {
        [] => {}
        [tag] => nodes.push(Node::Field(*tag, fact)),
        [tag, rest @ ..] => {
            let known = nodes.iter_mut().find_map(|node| match node {
                Node::Inner(inner, fields) if inner == tag => Some(fields),
                _ => None,
            });
            if let Some(fields) = known {
                return place(fields, rest, fact);
            }
            let mut fields = Vec::new();
            place(&mut fields, rest, fact);
            nodes.push(Node::Inner(*tag, fields));
        }
    }
}

fn sort(nodes: &mut [Node]) {
    nodes.sort_by_key(|node| match node {
        Node::Field(tag, _) | Node::Inner(tag, _) => *tag,
    });
    for node in nodes {
        if let Node::Inner(_, fields) = node {
            sort(fields);
        }
    }
}

/// A built-in object in its envelope. `None`: the kind has no protobuf form. Values of other types than the field's
/// are left out: what is stored has been checked.
#[must_use]
pub fn encode(object: &Value, api_version: &str, kind: &str) -> Option<Vec<u8>> {
    Some(envelope(api_version, kind, &write(object, api_version, kind)?))
}

fn write(object: &Value, api_version: &str, kind: &str) -> Option<Vec<u8>> {
    if kind == PARTIAL {
        return Some(write_partial(object));
    }
    let name = type_name(api_version, kind)?;
    let mut raw = Vec::with_capacity(1024);
    write_type(&mut raw, &name, object);
    Some(raw)
}

/// A list in the making: its metadata is given first, then its objects one after the other.
pub struct ListWriter {
    name: String,
    raw: Vec<u8>,
}

impl ListWriter {
    /// A list of this kind of objects. `None`: the kind has no protobuf form.
    #[must_use]
    pub fn new(api_version: &str, kind: &str, metadata: &Value) -> Option<Self> {
        let name = if kind == PARTIAL { PARTIAL.to_owned() } else { type_name(api_version, kind)? };
        let mut raw = Vec::with_capacity(4096);
        put_message(&mut raw, 1, "meta.v1.ListMeta", metadata);
        Some(Self { name, raw })
    }

    /// Adds an object.
    pub fn item(&mut self, object: &Value) {
        if self.name == PARTIAL {
            put_bytes(&mut self.raw, 2, &write_partial(object));
        } else {
            put_message(&mut self.raw, 2, &self.name, object);
        }
    }

    /// The list in its envelope.
    #[must_use]
    pub fn finish(self, api_version: &str, list_kind: &str) -> Vec<u8> {
        envelope(api_version, list_kind, &self.raw)
    }
}

/// One event of a watch as it stands in the stream: its length, four bytes, the greatest first, and a message without an
/// envelope. `object` has one.
#[must_use]
pub fn encode_watch_event(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(object.len() + 8);
    put_bytes(&mut extension, 1, object);
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(&[0; 4]);
    put_bytes(&mut out, 1, kind.as_bytes());
    put_bytes(&mut out, 2, &extension);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX).to_be_bytes();
    out[..4].copy_from_slice(&length);
    out
}

/// The envelope around a message.
#[must_use]
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(raw.len() + meta.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    put_bytes(&mut out, 2, raw);
    // Content encoding and content type: plain.
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
    out
}

fn put_message(out: &mut Vec<u8>, tag: u64, name: &str, value: &Value) {
    let mut inner = Vec::new();
    write_type(&mut inner, name, value);
    put_bytes(out, tag, &inner);
}

fn write_type(out: &mut Vec<u8>, name: &str, value: &Value) {
    static NONE: OnceLock<Map<String, Value>> = OnceLock::new();
    let map = value.as_object().unwrap_or_else(|| NONE.get_or_init(Map::new));
    if let Some(nodes) = plans().get(name) {
        write_nodes(out, nodes, map);
    }
}

fn write_nodes(out: &mut Vec<u8>, nodes: &[Node], map: &Map<String, Value>) {
    for node in nodes {
        match node {
            Node::Field(tag, fact) => {
                let value = map.get(fact.name).unwrap_or(&Value::Null);
                write_field(out, *tag, fact, value);
            }
            Node::Inner(tag, fields) => {
                let mut inner = Vec::new();
                write_nodes(&mut inner, fields, map);
                put_bytes(out, *tag, &inner);
            }
        }
    }
}

fn write_field(out: &mut Vec<u8>, tag: u64, fact: &FieldFacts<'_>, value: &Value) {
    if let Some(item) = fact.kind.strip_prefix("[]") {
        for entry in value.as_array().into_iter().flatten() {
            write_value(out, tag, item, entry);
        }
    } else if let Some(item) = fact.kind.strip_prefix("{}") {
        write_map(out, tag, item, value);
    } else if !value.is_null() || !(fact.pointer || fact.kind == "bytes") {
        write_value(out, tag, fact.kind, value);
    }
}

/// A map is a list of messages of a key and a value, by key.
fn write_map(out: &mut Vec<u8>, tag: u64, item: &str, value: &Value) {
    let mut entries: Vec<(&String, &Value)> = value.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(key, _)| *key);
    for (key, value) in entries {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        if let Some(inner) = item.strip_prefix("[]") {
            // A list inside a map is wrapped in a message of its own.
            let mut list = Vec::new();
            for entry in value.as_array().into_iter().flatten() {
                write_value(&mut list, 1, inner, entry);
            }
            put_bytes(&mut entry, 2, &list);
        } else {
            write_value(&mut entry, 2, item, value);
        }
        put_bytes(out, tag, &entry);
    }
}

fn write_value(out: &mut Vec<u8>, tag: u64, kind: &str, value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let whole = || value.as_i64().unwrap_or_default().cast_unsigned();
    match kind {
        "string" => put_bytes(out, tag, text.as_bytes()),
        "bool" => put_number(out, tag, u64::from(value.as_bool().unwrap_or_default())),
        "int32" | "int64" => put_number(out, tag, whole()),
        "float64" => put_double(out, tag, value.as_f64().unwrap_or_default()),
        "bytes" => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
            put_bytes(out, tag, &bytes);
        }
        "time" | "microtime" => put_bytes(out, tag, &timestamp(text, kind == "microtime")),
        "quantity" => {
            let number = value.as_number().map(ToString::to_string);
            let amount = number.as_deref().unwrap_or(if text.is_empty() { "0" } else { text });
            let mut inner = Vec::new();
            put_bytes(&mut inner, 1, amount.as_bytes());
            put_bytes(out, tag, &inner);
        }
        "intstr" => {
            let mut inner = Vec::new();
            put_number(&mut inner, 1, u64::from(value.is_string()));
            put_number(&mut inner, 2, whole());
            put_bytes(&mut inner, 3, text.as_bytes());
            put_bytes(out, tag, &inner);
        }
        "object" | "any" => {
            let mut inner = Vec::new();
            if !value.is_null()
                && let Ok(raw) = serde_json::to_vec(value)
            {
                put_bytes(&mut inner, 1, &raw);
            }
            put_bytes(out, tag, &inner);
        }
        "schemaorlist" | "schemaorbool" | "schemaorstrings" => {
            let mut inner = Vec::new();
            write_choice(&mut inner, kind, value);
            put_bytes(out, tag, &inner);
        }
        name => put_message(out, tag, name, value),
    }
}

/// Where JSON has a schema or something else, the message has a field for each.
fn write_choice(out: &mut Vec<u8>, kind: &str, value: &Value) {
    match kind {
        "schemaorbool" => {
            put_number(out, 1, u64::from(value.as_bool().unwrap_or(value.is_object())));
            if value.is_object() {
                write_value(out, 2, SCHEMA, value);
            }
        }
        _ if value.is_object() => write_value(out, 1, SCHEMA, value),
        _ => {
            let item = if kind == "schemaorlist" { SCHEMA } else { "string" };
            value
                .as_array()
                .into_iter()
                .flatten()
                .for_each(|item_value| write_value(out, 2, item, item_value));
        }
    }
}

/// Seconds and nanoseconds; nothing at all for no time.
fn timestamp(text: &str, micro: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        put_number(&mut out, 1, time.timestamp().cast_unsigned());
        let nanos = if micro { time.timestamp_subsec_micros() * 1000 } else { 0 };
        put_number(&mut out, 2, nanos.into());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::protobuf::decode;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z0-9:TZ-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            let fields = prop::sample::select(vec!["name", "containers", "image", "ports", "labels", "x"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::vec((fields, inner), 0..4)
                    .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_pod_is_written_as_something_that_can_be_read(metadata in any_json(), spec in any_json()) {
            let pod = json!({"metadata": metadata, "spec": spec});
            let written = encode(&pod, "v1", "Pod").unwrap();
            let read = decode(&written).unwrap();
            // What was read is of the right types and stays as it is.
            prop_assert_eq!(decode(&encode(&read, "v1", "Pod").unwrap()).unwrap(), read);
        }
    }
}
