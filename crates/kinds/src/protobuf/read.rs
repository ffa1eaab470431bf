//! Protobuf → JSON form. What Go leaves out of JSON when it is zero is left out here.

use base64::Engine as _;
use chrono::{DateTime, Datelike, SecondsFormat};
use serde_json::{Map, Value, json};

use super::{
    MAGIC, SCHEMA, table, type_name,
    wire::{Wire, last, message},
};
use crate::facts::FieldFacts;

/// Messages within messages, at most.
const DEPTH: usize = 64;

/// The envelope's content: `apiVersion`, `kind` and the object's JSON form. An error is a text for a 400.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    let envelope = match body.strip_prefix(MAGIC) {
        Some([]) => return Err("empty body".to_owned()),
        Some(envelope) => envelope,
        None if body.is_empty() => return Err("empty data".to_owned()),
        None => {
            let why =
                "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]";
            return Err(why.to_owned());
        }
    };
    let fields = message(envelope)?;
    let meta = last(&fields, 1).map(Wire::bytes).transpose()?.map(message).transpose()?.unwrap_or_default();
    let text = |tag| last(&meta, tag).map(Wire::text).transpose().map(Option::unwrap_or_default);
    let (api_version, kind): (String, String) = (text(1)?, text(2)?);
    let raw = last(&fields, 2).map(Wire::bytes).transpose()?.unwrap_or_default();
    let name = type_name(&api_version, &kind)
        .ok_or_else(|| format!("no kind {kind:?} is registered for version {api_version:?} in scheme"))?;
    let mut object = read_type(&name, raw, DEPTH)?;
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.into());
        map.insert("kind".to_owned(), kind.into());
    }
    Ok(object)
}

fn read_type(name: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if depth == 0 {
        return Err("proto: nested too deeply".to_owned());
    }
    let facts = table().type_of(name).ok_or_else(|| format!("proto: unknown type {name}"))?;
    let fields = message(bytes)?;
    let mut out = Map::new();
    for fact in &facts.fields {
        let found = occurrences(&fields, fact.tag)?;
        if let Some(value) = read_field(fact, &found, depth)? {
            out.insert(fact.name.to_owned(), value);
        }
    }
    Ok(Value::Object(out))
}

/// All values at a path of field numbers, `1.2`.
fn occurrences<'a>(fields: &[(u64, Wire<'a>)], path: &str) -> Result<Vec<Wire<'a>>, String> {
    // Asked for every field of a type, most of which are absent.
    let digits = path.bytes().take_while(u8::is_ascii_digit).count();
    let (first, rest) = path.split_at(digits);
    let tag = first.bytes().fold(0, |tag, digit| tag * 10 + u64::from(digit - b'0'));
    if digits == 0 || !fields.iter().any(|(t, _)| *t == tag) {
        return Ok(Vec::new());
    }
    let here = fields.iter().filter(|(t, _)| *t == tag).map(|(_, wire)| *wire);
    let Some(rest) = rest.strip_prefix('.') else { return Ok(here.collect()) };
    let mut out = Vec::new();
    for wire in here {
        out.extend(occurrences(&message(wire.bytes()?)?, rest)?);
    }
    Ok(out)
}

fn read_field(fact: &FieldFacts<'_>, found: &[Wire<'_>], depth: usize) -> Result<Option<Value>, String> {
    if found.is_empty() {
        return Ok(None);
    }
    if let Some(item) = fact.kind.strip_prefix("[]") {
        let mut list = Vec::with_capacity(found.len());
        for wire in found {
            list.push(read_value(item, *wire, depth)?);
        }
        return Ok(Some(Value::Array(list)));
    }
    if let Some(item) = fact.kind.strip_prefix("{}") {
        let mut map = Map::new();
        for wire in found {
            let entry = message(wire.bytes()?)?;
            let key = last(&entry, 1).map(Wire::text).transpose()?.unwrap_or_default();
            let value = match (last(&entry, 2), item.strip_prefix("[]")) {
                (Some(wire), None) => read_value(item, wire, depth)?,
                // A map of lists wraps each list in a message of its own.
                (Some(wire), Some(inner)) => {
                    let items = message(wire.bytes()?)?;
                    let items = items.iter().filter(|(tag, _)| *tag == 1);
                    items.map(|(_, wire)| read_value(inner, *wire, depth)).collect::<Result<_, _>>()?
                }
                (None, _) => zero(item),
            };
            map.insert(key, value);
        }
        return Ok(Some(Value::Object(map)));
    }
    let Some(wire) = found.last() else { return Ok(None) };
    let value = read_value(fact.kind, *wire, depth)?;
    // Go's encoder writes zero values of fields that are no pointers; in JSON they are absent.
    let is_zero = match &value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0) && fact.kind != "intstr",
        Value::String(s) => s.is_empty(),
        _ => false,
    };
    Ok((fact.pointer || !is_zero).then_some(value))
}

fn zero(kind: &str) -> Value {
    match kind {
        "string" | "bytes" => json!(""),
        "quantity" => json!("0"),
        "bool" => json!(false),
        "int32" | "int64" => json!(0),
        _ => json!({}),
    }
}

fn read_value(kind: &str, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match kind {
        "string" => wire.text()?.into(),
        "bool" => (wire.number()? != 0).into(),
        // Negative numbers are ten bytes long, sign-extended.
        "int32" | "int64" => wire.number()?.cast_signed().into(),
        "float64" => json!(f64::from_bits(wire.number()?)),
        "bytes" => base64::engine::general_purpose::STANDARD.encode(wire.bytes()?).into(),
        "time" | "microtime" => read_time(wire.bytes()?, kind == "microtime")?,
        "duration" => (last(&message(wire.bytes()?)?, 1).map(Wire::number).transpose()?.unwrap_or(0)).into(),
        "quantity" => {
            last(&message(wire.bytes()?)?, 1).map(Wire::text).transpose()?.unwrap_or_default().into()
        }
        "intstr" => {
            let fields = message(wire.bytes()?)?;
            match last(&fields, 1).map(Wire::number).transpose()?.unwrap_or(0) {
                0 => last(&fields, 2).map(Wire::number).transpose()?.unwrap_or(0).cast_signed().into(),
                _ => last(&fields, 3).map(Wire::text).transpose()?.unwrap_or_default().into(),
            }
        }
        "object" | "any" => match last(&message(wire.bytes()?)?, 1) {
            Some(raw) => serde_json::from_slice(raw.bytes()?).map_err(|e| e.to_string())?,
            None => Value::Null,
        },
        "schemaorlist" | "schemaorbool" | "schemaorstrings" => read_choice(kind, wire.bytes()?, depth)?,
        name => read_type(name, wire.bytes()?, depth - 1)?,
    })
}

/// Where JSON has a schema or something else, the message has a field for each.
fn read_choice(kind: &str, bytes: &[u8], depth: usize) -> Result<Value, String> {
    let fields = message(bytes)?;
    let schema = if kind == "schemaorbool" { 2 } else { 1 };
    if let Some(wire) = last(&fields, schema) {
        return read_value(SCHEMA, wire, depth);
    }
    if kind == "schemaorbool" {
        return Ok((last(&fields, 1).map(Wire::number).transpose()?.unwrap_or(0) != 0).into());
    }
    let item = if kind == "schemaorlist" { SCHEMA } else { "string" };
    let items = fields.iter().filter(|(tag, _)| *tag == 2);
    items.map(|(_, wire)| read_value(item, *wire, depth)).collect()
}

fn read_time(bytes: &[u8], micro: bool) -> Result<Value, String> {
    let fields = message(bytes)?;
    let number = |tag| last(&fields, tag).map(Wire::number).transpose().map(Option::unwrap_or_default);
    let (seconds, nanos): (u64, u64) = (number(1)?, number(2)?);
    if fields.is_empty() {
        return Ok(Value::Null);
    }
    let nanos = if micro { u32::try_from(nanos).unwrap_or(0) } else { 0 };
    let time = DateTime::from_timestamp(seconds.cast_signed(), nanos);
    // other years cannot be written in RFC 3339
    let time = time.filter(|time| (0..=9999).contains(&time.year())).ok_or("proto: time out of range")?;
    let format = if micro { SecondsFormat::Micros } else { SecondsFormat::Secs };
    Ok(time.to_rfc3339_opts(format, true).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn config_map() -> Vec<u8> {
        let meta = [field(1, b"settings"), field(3, b"")].concat();
        let object = [field(1, &meta), field(2, &[field(1, b"a"), field(2, b"b")].concat())].concat();
        let kind = [field(1, b"v1"), field(2, b"ConfigMap")].concat();
        [MAGIC.to_vec(), field(1, &kind), field(2, &object)].concat()
    }

    #[test]
    fn an_object_is_read_by_the_field_numbers_of_its_kind() {
        let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}});
        assert_eq!(decode(&config_map()), Ok(expected));
    }

    #[test]
    fn a_cut_message_is_an_error() {
        let bytes = config_map();
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err("unexpected EOF".to_owned()));
    }

    #[test]
    fn something_else_is_told_apart() {
        assert!(decode(b"{}").unwrap_err().contains("does not appear to be a protobuf message"));
    }

    #[test]
    fn a_time_that_has_no_text_is_an_error() {
        let varint = |mut number: u64| {
            let mut out = vec![8];
            while number > 127 {
                out.push(number as u8 | 128);
                number >>= 7;
            }
            out.push(number as u8);
            out
        };
        let read = |seconds| read_time(&varint(seconds), false);
        assert_eq!(read(253_402_300_799), Ok("9999-12-31T23:59:59Z".into()));
        for beyond in [253_402_300_800, u64::MAX >> 1] {
            assert_eq!(read(beyond), Err("proto: time out of range".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..60, value: u8) {
            let mut changed = config_map();
            let at = at % changed.len();
            changed[at] = value;
            let _ = decode(&changed);
            bytes.splice(0..0, MAGIC.iter().copied());
            let _ = decode(&bytes);
        }
    }
}
