//! JSON form → protobuf, as Go's encoder writes it: fields in order of their numbers, zeros of fields that are no
//! pointers included. Values of other types than the field's are written as its zero: what is stored has been checked.

use serde_json::Value;

use super::{
    MAGIC,
    plan::{Form, PARTIAL, index_of},
    transcode::Writer,
    type_name,
    wire::{put_bytes, put_varint},
};

/// The field of an envelope that holds the message, and the field of a list that holds its items: one number, so that an
/// object that was written once can stand in both.
const OBJECT: u64 = 2;

/// The form of a kind. `None`: it has no protobuf form.
fn form(api_version: &str, kind: &str) -> Option<Form> {
    if kind == PARTIAL {
        return index_of(PARTIAL).map(Form::Message);
    }
    index_of(&type_name(api_version, kind)?).map(Form::Message)
}

/// A built-in object in its envelope. `None`: the kind has no protobuf form.
#[must_use]
pub fn encode(object: &Value, api_version: &str, kind: &str) -> Option<Vec<u8>> {
    let form = form(api_version, kind)?;
    let mut writer = opened(api_version, kind, 1024);
    writer.put(OBJECT, &form, object).ok()?;
    Some(closed(writer.out))
}

/// The same of an object's JSON, which is not read into memory before. What stands in a message as JSON is taken as it
/// is: to be written as [`encode`] writes it, it has to be without blanks, and its fields in order of their names.
///
/// # Errors
/// It is no JSON.
pub fn encode_json(
    object: &[u8],
    api_version: &str,
    kind: &str,
) -> Result<Option<Vec<u8>>, serde_json::Error> {
    let Some(form) = form(api_version, kind) else { return Ok(None) };
    let mut writer = opened(api_version, kind, object.len());
    put_json(&mut writer, OBJECT, &form, object)?;
    Ok(Some(closed(writer.out)))
}

/// Writes objects of one kind without what stands around them, so that lists, events and answers can share the bytes.
pub struct ObjectWriter(Form);

impl ObjectWriter {
    /// `None`: the kind has no protobuf form.
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Option<Self> {
        form(api_version, kind).map(Self)
    }

    /// An object, to stand in [`enveloped`] or in a list behind [`list_head`]. Takes JSON as [`encode_json`] does.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn write(&self, object: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
        let mut writer = Writer::behind(Vec::with_capacity(object.len()));
        put_json(&mut writer, OBJECT, &self.0, object)?;
        Ok(writer.out)
    }

    /// The same of an object in memory.
    #[must_use]
    pub fn write_value(&self, object: &Value) -> Vec<u8> {
        let mut writer = Writer::default();
        // A value in memory can always be read.
        let _ = writer.put(OBJECT, &self.0, object);
        writer.out
    }
}

/// An object of [`ObjectWriter`] in its envelope.
#[must_use]
pub fn enveloped(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = opened(api_version, kind, object.len()).out;
    out.extend_from_slice(object);
    closed(out)
}

/// What stands in a list's envelope before its items, which have `size` bytes together. [`list_tail`] stands behind them.
/// `None`: the metadata have no protobuf form.
#[must_use]
pub fn list_head(api_version: &str, list_kind: &str, metadata: &Value, size: usize) -> Option<Vec<u8>> {
    let mut list = Writer::default();
    list.put(1, &Form::Message(index_of("meta.v1.ListMeta")?), metadata).ok()?;
    let mut out = opened(api_version, list_kind, list.out.len() + 16).out;
    put_varint(&mut out, OBJECT << 3 | 2);
    put_varint(&mut out, (list.out.len() + size) as u64);
    out.extend_from_slice(&list.out);
    Some(out)
}

/// See [`list_head`].
#[must_use]
pub fn list_tail() -> Vec<u8> {
    closed(Vec::new())
}

fn put_json(writer: &mut Writer, tag: u64, form: &Form, json: &[u8]) -> Result<(), serde_json::Error> {
    let mut source = match std::str::from_utf8(json) {
        Ok(text) => serde_json::Deserializer::from_str(text),
        Err(_) => return Err(serde::de::Error::custom("invalid UTF-8")),
    };
    writer.put(tag, form, &mut source)?;
    source.end()
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

/// The beginning of an envelope for a message of about this size.
fn opened(api_version: &str, kind: &str, size: usize) -> Writer {
    let mut meta = Vec::with_capacity(64);
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(size + meta.len() + 16);
    out.extend_from_slice(MAGIC);
    put_bytes(&mut out, 1, &meta);
    Writer::behind(out)
}

/// The end of an envelope: content encoding and content type, plain.
fn closed(mut out: Vec<u8>) -> Vec<u8> {
    put_bytes(&mut out, 3, b"");
    put_bytes(&mut out, 4, b"");
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

        #[test]
        fn json_is_written_as_its_value_is_whatever_the_order_of_its_fields(metadata in any_json(), spec in any_json()) {
            let pod = json!({"metadata": metadata, "spec": spec});
            let written = encode(&pod, "v1", "Pod").unwrap();
            for text in [pod.to_string(), backwards(&pod)] {
                prop_assert_eq!(encode_json(text.as_bytes(), "v1", "Pod").unwrap().unwrap(), &*written, "{}", text);
            }
        }
    }

    /// JSON whose objects name their fields in falling order.
    fn backwards(value: &Value) -> String {
        match value {
            Value::Object(map) => {
                let fields: Vec<String> =
                    map.iter().rev().map(|(k, v)| format!("{}: {}", json!(k), backwards(v))).collect();
                format!("{{{}}}", fields.join(" ,"))
            }
            Value::Array(list) => {
                format!("[{}]", list.iter().map(backwards).collect::<Vec<_>>().join(", "))
            }
            scalar => scalar.to_string(),
        }
    }

    #[test]
    fn of_fields_and_keys_that_are_there_twice_the_last_holds() {
        let text = r#"{"metadata": {"labels": {"b": "1", "a": "2", "b": "3"}, "name": "x", "name": "\u0061"},
            "spec": {"nodeName": "n", "containers": [{"name": "c"}], "containers": []}}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(encode_json(text.as_bytes(), "v1", "Pod").unwrap(), encode(&value, "v1", "Pod"));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", r#"{"metadata":{}"#, "{}}", r#"{"spec":{"containers":[{]}}"#] {
            assert!(encode_json(text.as_bytes(), "v1", "Pod").is_err(), "{text:.40}");
        }
        assert!(encode_json(b"{\"metadata\":{\"name\":\"\xff\"}}", "v1", "Pod").is_err());
    }
}
