//! From bytes to objects: JSON and YAML as Go's decoders read them, with the fields that occur twice.
//!
//! The quick path is `serde_json`. Only a document that it refuses is read again by [`crate::json_syntax`], which words
//! the error as Go words it and knows the few things Go forgives (broken UTF-8, lone surrogates).

mod order;

use std::{cell::RefCell, fmt, fmt::Write as _};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

pub use order::in_order;

use crate::{json_syntax, status::ApiError};

/// A decoded document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The value; of a field given twice the last one counts.
    pub value: Value,
    /// `duplicate field "spec.bar"` in document order, each once, at most 100; of YAML `line 9: key "bar" already set in
    /// map`.
    pub duplicates: Vec<String>,
}

/// The most strict errors upstream reports for one document.
const MAX_STRICT_ERRORS: usize = 100;

/// How deep YAML may nest. The YAML reader needs far more stack a level than the JSON reader.
const MAX_YAML_DEPTH: usize = 64;

/// Decodes JSON. The error is a 400 whose message is Go's own (`invalid character …`); [`unrecognized`] adds what a
/// create or update says around it.
pub fn json(bytes: &[u8]) -> Result<Decoded, ApiError> {
    match read_json(bytes) {
        Ok(decoded) => Ok(decoded),
        Err(_) => match json_syntax::repair(bytes) {
            Err(text) => Err(ApiError::bad_request(text)),
            Ok(repaired) => read_json(&repaired).map_err(|e| ApiError::bad_request(e.to_string())),
        },
    }
}

fn read_json(bytes: &[u8]) -> Result<Decoded, serde_json::Error> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node { path: None, duplicates: &duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Decoded { value, duplicates: duplicates.into_inner() })
}

/// Decodes the first YAML document as `sigs.k8s.io/yaml` does. Depth, aliases and what they expand to are bounded.
pub fn yaml(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(ApiError::bad_request("yaml: invalid leading UTF-8 octet"));
    };
    if text.trim().is_empty() {
        return Ok(Decoded::default());
    }
    let duplicates = RefCell::new(Vec::new());
    let node = Node { path: None, duplicates: &duplicates };
    let value = read_yaml(text, serde_saphyr::DuplicateKeyPolicy::PassThrough, node).map_err(|error| {
        let line = error.location().map_or(0, |at| at.line());
        let text = error.to_string();
        ApiError::bad_request(if line > 0 {
            format!("yaml: line {line}: {text}")
        } else {
            format!("yaml: {text}")
        })
    })?;
    Ok(Decoded { value, duplicates: in_lines(text, duplicates.into_inner()) })
}

/// Duplicates as a YAML reader words them. It knows the line of the first one.
fn in_lines(text: &str, duplicates: Vec<String>) -> Vec<String> {
    if duplicates.is_empty() {
        return duplicates;
    }
    let ignored = RefCell::new(Vec::new());
    let node = Node { path: None, duplicates: &ignored };
    let first = read_yaml(text, serde_saphyr::DuplicateKeyPolicy::Error, node).err();
    let mut line = first.and_then(|error| error.location().map(|at| at.line()));
    let word = |duplicate: String| {
        let path = duplicate.trim_start_matches("duplicate field \"").trim_end_matches('"');
        let key = path.rsplit('.').next().unwrap_or(path);
        match line.take() {
            Some(line) => format!("line {line}: key {key:?} already set in map"),
            None => format!("key {key:?} already set in map"),
        }
    };
    duplicates.into_iter().map(word).collect()
}

fn read_yaml(
    text: &str,
    policy: serde_saphyr::DuplicateKeyPolicy,
    node: Node<'_>,
) -> Result<Value, serde_saphyr::Error> {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_depth = MAX_YAML_DEPTH;
    budget.flow_nesting_limit = MAX_YAML_DEPTH;
    budget.max_nodes = 200_000;
    budget.max_events = 500_000;
    budget.max_aliases = 1_000;
    budget.max_anchors = 1_000;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.duplicate_keys = policy;
    options.alias_limits.max_total_replayed_events = 100_000;
    options.with_snippet = false;
    options.legacy_octal_numbers = true;
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        node.deserialize(deserializer)
    })
}

/// The 400 for a body whose kind could not be read: `base` is what the decoder said.
#[must_use]
pub fn unrecognized(kind: &str, base: &str, body: &[u8]) -> ApiError {
    const SHOWN: usize = 30;
    let head = body.get(..SHOWN).unwrap_or(body);
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let summary = match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let mut hex = String::with_capacity(SHOWN * 2 + 4);
            for byte in head {
                let _ = write!(hex, "{byte:02x}");
            }
            hex + more
        }
    };
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {base} ({summary})"
    ))
}

/// The 400 for a body of a known kind that does not fit it.
#[must_use]
pub fn unhandled(kind: &str, version: &str, wanted: &str, base: &str) -> ApiError {
    ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {wanted}: {base}"))
}

/// An error about a number that is too large, with the number as the document spells it.
#[must_use]
pub fn as_spelled(document: &[u8], error: &str) -> Option<String> {
    let (before, rest) = error.split_once("cannot unmarshal number ")?;
    let (number, after) = rest.split_once(' ')?;
    let wanted: f64 = number.parse().ok()?;
    let text = String::from_utf8_lossy(document);
    let mut spellings =
        text.split(|c: char| !(c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E')));
    let spelled = spellings.find(|word| word.parse::<f64>().is_ok_and(|found| found == wanted))?;
    Some(format!("{before}cannot unmarshal number {spelled} {after}"))
}

/// The words of a 400 for strict decoding: all of `errors` after one prefix.
#[must_use]
pub fn strict(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// One step from an object to a value in it, kept on the stack, so that a path costs nothing until it is printed.
struct Step<'a> {
    parent: Option<&'a Step<'a>>,
    at: At<'a>,
}

enum At<'a> {
    Key(&'a str),
    Index(usize),
}

fn print_path(step: Option<&Step<'_>>, out: &mut String) {
    let Some(step) = step else { return };
    print_path(step.parent, out);
    match step.at {
        At::Key(key) => {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(key);
        }
        At::Index(index) => {
            let _ = write!(out, "[{index}]");
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a> {
    path: Option<&'a Step<'a>>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl Node<'_> {
    fn duplicate(&self, key: &str, at: usize) {
        let mut text = String::from("duplicate field \"");
        let mut path = String::new();
        print_path(Some(&Step { parent: self.path, at: At::Key(key) }), &mut path);
        text.push_str(&path);
        text.push('"');
        let mut found = self.duplicates.borrow_mut();
        if found.len() < MAX_STRICT_ERRORS && !found.contains(&text) {
            let at = at.min(found.len());
            found.insert(at, text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    /// Go keeps what fits an `int64`, and makes a `float64` of the rest.
    #[allow(clippy::cast_precision_loss)]
    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }
    #[allow(clippy::cast_precision_loss)]
    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }
    #[allow(clippy::cast_precision_loss)]
    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom(format!("json: unsupported value: {value}")))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let step = Step { parent: self.path, at: At::Index(list.len()) };
            let node = Node { path: Some(&step), duplicates: self.duplicates };
            match items.next_element_seed(node)? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            let before = self.duplicates.borrow().len();
            let step = Step { parent: self.path, at: At::Key(&key) };
            let value = entries.next_value_seed(Node { path: Some(&step), duplicates: self.duplicates })?;
            match map.entry(key) {
                serde_json::map::Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                serde_json::map::Entry::Occupied(mut entry) => {
                    self.duplicate(entry.key(), before);
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(map))
    }
}

/// A key: in YAML a scalar of any type, which Go prints as text.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar as key")
    }
    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }
    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }
    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<String, E> {
        Err(E::custom("null cannot be a key"))
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("invalid map key"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn message(bytes: &[u8]) -> String {
        json(bytes).expect_err("must be refused").message
    }

    #[test]
    fn duplicates_are_told_with_their_path_and_the_last_one_counts() {
        let decoded =
            json(br#"{"spec":{"a":[{"b":1,"b":2}],"c":1,"c":{"d":1,"d":2}},"spec":{"x":1}}"#).expect("valid");
        assert_eq!(decoded.value, json!({"spec": {"x": 1}}));
        let texts = [
            r#"duplicate field "spec.a[0].b""#,
            r#"duplicate field "spec.c""#,
            r#"duplicate field "spec.c.d""#,
            r#"duplicate field "spec""#,
        ];
        assert_eq!(decoded.duplicates, texts);
    }

    #[test]
    fn malformed_json_is_refused_in_gos_words() {
        for (bytes, text) in [
            (&b""[..], "unexpected end of JSON input"),
            (b"{", "unexpected end of JSON input"),
            (b"x", "invalid character 'x' looking for beginning of value"),
            (b"{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            (b"{\"a\" 1}", "invalid character '1' after object key"),
            (b"[1 2]", "invalid character '2' after array element"),
            (b"{} {}", "invalid character '{' after top-level value"),
            (b"tru!", "invalid character '!' in literal true (expecting 'e')"),
            (b"01", "invalid character '1' after top-level value"),
            (b"\"\x01\"", "invalid character '\\x01' in string literal"),
            (b"\"\\q\"", "invalid character 'q' in string escape code"),
            (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
            (b"1e400", "json: cannot unmarshal number 1e400 into Go value of type float64"),
        ] {
            assert_eq!(message(bytes), text);
        }
    }

    #[test]
    fn broken_utf8_and_lone_surrogates_become_the_replacement_character() {
        assert_eq!(json(b"\"a\xffb\"").expect("valid").value, json!("a\u{fffd}b"));
        assert_eq!(json(br#""\ud800x""#).expect("valid").value, json!("\u{fffd}x"));
        assert_eq!(json(br#""\ud83d\ude00""#).expect("valid").value, json!("\u{1f600}"));
    }

    #[test]
    fn a_document_nested_too_deeply_is_an_error() {
        for text in ["[".repeat(100_000), "{\"a\":".repeat(100_000)] {
            assert!(json(text.as_bytes()).is_err());
        }
        let closed = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert_eq!(message(closed.as_bytes()), "invalid character '[' exceeded max depth");
        assert!(yaml("[".repeat(100_000).as_bytes()).is_err());
        assert!(yaml("- ".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn a_yaml_alias_bomb_ends_in_an_error() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            let _ = writeln!(text, "a{level}: &a{level} [{}]", vec![before; 10].join(","));
        }
        assert!(yaml(text.as_bytes()).is_err());
    }

    #[test]
    fn yaml_reads_like_json_and_tells_duplicates() {
        let decoded = yaml(b"a: 1\nb:\n- c: x\n  c: z\n- true\n1: ~\n").expect("valid");
        assert_eq!(decoded.value, json!({"a": 1, "b": [{"c": "z"}, true], "1": null}));
        assert_eq!(decoded.duplicates, [r#"line 4: key "c" already set in map"#]);
    }

    #[test]
    fn an_unreadable_body_is_shown_in_part() {
        let error = unrecognized("Pod", "why", b"{\"a\"");
        assert_eq!(error.message, "the object provided is unrecognized (must be of type Pod): why ({\"a\")");
        assert!(unrecognized("Pod", "why", b"xy").message.ends_with("(7879)"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = json(&bytes);
            let _ = yaml(&bytes);
        }

        #[test]
        fn no_text_of_structure_characters_makes_a_parser_panic(text in "[\\[\\]{}:,\"'&*!|>\\-?# \n\\\\u0-9a-et.+]{0,120}") {
            let _ = json(text.as_bytes());
            let _ = yaml(text.as_bytes());
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_told_as_it_was_written() {
        let error = "json: cannot unmarshal number 1e+20 into Go struct field ObjectMeta.metadata.generation of type int64";
        let spelled =
            as_spelled(br#"{"a":7,"generation":100000000000000000000}"#, error).expect("it is there");
        assert!(spelled.contains("number 100000000000000000000 into"), "{spelled}");
        assert_eq!(as_spelled(b"{}", error), None);
    }
}
