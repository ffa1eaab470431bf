//! One step of a path as field sets name it: a field, a list item by its keys, a set item by its value.

use std::{borrow::Cow, cmp::Ordering, fmt, fmt::Write as _};

use serde_json::{Map, Number, Value};

/// A step from a value to one inside it. Ordered as upstream orders them: fields, keyed items, values, indexes.
#[derive(Clone, Debug)]
pub enum Element<'a> {
    /// A field of an object, an entry of a map: `f:spec`.
    Field(Cow<'a, str>),
    /// The item of a list that has these keys, sorted by name: `k:{"containerPort":80,"protocol":"TCP"}`.
    Key(Vec<(Cow<'a, str>, Cow<'a, Value>)>),
    /// The item of a set: `v:"x"`.
    Value(Cow<'a, Value>),
    /// The item of an atomic list: `i:3`. Only read; nothing here owns single items of atomic lists.
    Index(i64),
}

/// Why a step could not be read.
pub(super) enum Unreadable {
    /// A sort of step that this version does not know; it is skipped.
    Unknown,
    /// Malformed.
    Bad(String),
}

impl<'a> Element<'a> {
    /// The field `name`.
    #[must_use]
    pub fn field(name: &'a str) -> Self {
        Self::Field(Cow::Borrowed(name))
    }

    /// Reads `f:spec`, `k:{…}`, `v:…`, `i:…`.
    pub(super) fn parse(text: &'a str) -> Result<Self, Unreadable> {
        let bad = |why: &dyn fmt::Display| Unreadable::Bad(format!("parsing key as path element: {why}"));
        let Some((sort, rest)) = text.split_at_checked(2) else {
            return Err(bad(&"key must be 2 characters long:"));
        };
        match sort {
            "f:" => Ok(Self::field(rest)),
            "v:" => serde_json::from_str(rest).map(|v| Self::Value(Cow::Owned(v))).map_err(|e| bad(&e)),
            "k:" => {
                // The map is sorted by name already.
                let map: Map<String, Value> = serde_json::from_str(rest).map_err(|e| bad(&e))?;
                Ok(Self::Key(map.into_iter().map(|(k, v)| (Cow::Owned(k), Cow::Owned(v))).collect()))
            }
            "i:" => rest.parse().map(Self::Index).map_err(|e| bad(&e)),
            sort if sort.ends_with(':') => Err(Unreadable::Unknown),
            _ => Err(bad(&format_args!("missing colon: {text}"))),
        }
    }

    /// The form of FieldsV1.
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => {
                let mut out = String::with_capacity(name.len() + 2);
                out.push_str("f:");
                out.push_str(name);
                out
            }
            Self::Key(fields) => {
                let mut out = String::with_capacity(32);
                out.push_str("k:{");
                for (index, (name, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    push_text(&mut out, name);
                    out.push(':');
                    push_json(&mut out, value);
                }
                out.push('}');
                out
            }
            Self::Value(value) => {
                let mut out = String::from("v:");
                push_json(&mut out, value);
                out
            }
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

/// JSON as Go writes it: `<`, `>`, `&` and the two line separators are escaped.
fn push_json(out: &mut String, value: &Value) {
    match value {
        Value::String(text) => push_text(out, text),
        other => push_escaped(out, &other.to_string()),
    }
}

fn push_text(out: &mut String, text: &str) {
    let plain = |b: u8| (b' '..0x7f).contains(&b) && !matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&');
    if text.bytes().all(plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        push_escaped(out, &Value::from(text).to_string());
    }
}

fn push_escaped(out: &mut String, text: &str) {
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// `.spec`, `[name="a",port=80]`, `[="x"]`, `[3]`
impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_char('[')?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_char(']')
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Ord for Element<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |e: &Self| match e {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        };
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                for ((name, value), (other_name, other_value)) in a.iter().zip(b) {
                    let order = name.cmp(other_name).then_with(|| compare(value, other_value));
                    if order.is_ne() {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Self::Value(a), Self::Value(b)) => compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            (a, b) => rank(a).cmp(&rank(b)),
        }
    }
}
impl PartialOrd for Element<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Element<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Element<'_> {}

/// A total order over JSON values: numbers by size, then texts, booleans, lists, maps, null.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            let unequal = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|o| o.is_ne());
            unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b);
            let mut orders = pairs.map(|((k, v), (l, w))| k.cmp(l).then_with(|| compare(v, w)));
            orders.find(|o| o.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => {
            let float = |n: &Number| n.as_f64().unwrap_or(f64::MAX);
            float(a).total_cmp(&float(b))
        }
    }
}

/// Whether two values are one: `1` and `1.0` are.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| k == l && same(v, w))
        }
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(text: &str) -> Element<'_> {
        Element::parse(text).ok().expect("readable")
    }

    #[test]
    fn steps_are_written_as_they_are_read() {
        for text in [
            "f:spec",
            "f:",
            r#"k:{"containerPort":80,"protocol":"TCP"}"#,
            r#"v:"a\u003cb""#,
            "v:7",
            "v:true",
            "i:3",
        ] {
            assert_eq!(parsed(text).encode(), text);
        }
        assert_eq!(parsed(r#"k:{"b":1,"a":"x"}"#).encode(), r#"k:{"a":"x","b":1}"#);
    }

    #[test]
    fn unknown_sorts_are_told_from_malformed_steps() {
        assert!(matches!(Element::parse("x:new"), Err(Unreadable::Unknown)));
        for text in ["", "f", "spec", "k:[]", "k:{", "v:", "v:1 2", "i:x", "é"] {
            assert!(matches!(Element::parse(text), Err(Unreadable::Bad(_))), "{text}");
        }
    }

    #[test]
    fn paths_print_as_upstream_prints_them() {
        assert_eq!(parsed(r#"k:{"name":"a","port":80}"#).to_string(), r#"[name="a",port=80]"#);
        assert_eq!(parsed(r#"v:"x""#).to_string(), r#"[="x"]"#);
    }

    #[test]
    fn whole_numbers_and_floats_are_one() {
        assert!(same(&json!({"a": [1]}), &json!({"a": [1.0]})));
        assert!(!same(&json!({"a": 1}), &json!({"b": 1})));
        assert_eq!(Element::Value(Cow::Owned(json!(1))), Element::Value(Cow::Owned(json!(1.0))));
    }
}
