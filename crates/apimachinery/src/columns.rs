//! Cells of `kubectl get` from printer columns: a JSONPath into the object, and the column's type.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{duration, time};

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.path == "value")]`; without a comparison: the path exists.
    Filter(Vec<Step>, Option<(bool, Value)>),
}

/// A parsed JSONPath of the kind that printer columns use: fields, quoted fields, indexes, `[*]`, filters with `==` and
/// `!=`.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn eat(&mut self, sign: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(sign)?;
        Some(())
    }

    /// A field's name; a backslash takes away the meaning of what follows.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut letters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => name.push(letters.next()?.1),
                '.' | '[' | ']' | ' ' | '=' | '!' | ')' => {
                    end = at;
                    break;
                }
                letter => name.push(letter),
            }
        }
        self.rest = &self.rest[end..];
        (!name.is_empty()).then_some(name)
    }

    fn quoted(&mut self) -> Option<String> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        let mut text = String::new();
        let mut letters = self.rest[1..].char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => text.push(letters.next()?.1),
                letter if letter == quote => {
                    self.rest = &self.rest[at + 2..];
                    return Some(text);
                }
                letter => text.push(letter),
            }
        }
        None
    }

    fn steps(&mut self, deep: usize) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        loop {
            if self.eat(".").is_some() {
                if self.rest.starts_with('[') {
                    continue;
                }
                steps.push(Step::Field(self.name()?));
            } else if self.eat("[").is_some() {
                steps.push(self.bracket(deep)?);
                self.eat("]")?;
            } else {
                return Some(steps);
            }
        }
    }

    fn bracket(&mut self, deep: usize) -> Option<Step> {
        if self.eat("*").is_some() {
            return Some(Step::All);
        }
        if self.rest.starts_with(['\'', '"']) {
            return self.quoted().map(Step::Field);
        }
        if self.eat("?(").is_some() {
            if deep > 4 {
                return None;
            }
            self.eat("@")?;
            let path = self.steps(deep + 1)?;
            self.rest = self.rest.trim_start();
            let equal = if self.eat("==").is_some() {
                Some(true)
            } else if self.eat("!=").is_some() {
                Some(false)
            } else {
                None
            };
            let mut wanted = None;
            if let Some(equal) = equal {
                self.rest = self.rest.trim_start();
                let value = if self.rest.starts_with(['\'', '"']) {
                    Value::String(self.quoted()?)
                } else {
                    let end = self.rest.find(')')?;
                    let (text, rest) = self.rest.split_at(end);
                    self.rest = rest;
                    serde_json::from_str(text.trim()).ok()?
                };
                wanted = Some((equal, value));
            }
            self.rest = self.rest.trim_start();
            self.eat(")")?;
            return Some(Step::Filter(path, wanted));
        }
        let end = self.rest.find(']')?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        text.trim().parse().ok().map(Step::Index)
    }
}

fn find<'a>(value: &'a Value, steps: &[Step], found: &mut Vec<&'a Value>) {
    let Some((step, rest)) = steps.split_first() else {
        found.push(value);
        return;
    };
    match step {
        Step::Field(name) => {
            if let Some(child) = value.get(name) {
                find(child, rest, found);
            }
        }
        Step::Index(index) => {
            let Some(list) = value.as_array() else { return };
            let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
            let index = if *index < 0 { index + length } else { *index };
            if let Some(child) = usize::try_from(index).ok().and_then(|i| list.get(i)) {
                find(child, rest, found);
            }
        }
        Step::All => match value {
            Value::Array(list) => list.iter().for_each(|child| find(child, rest, found)),
            Value::Object(map) => map.values().for_each(|child| find(child, rest, found)),
            _ => {}
        },
        Step::Filter(path, wanted) => {
            for item in value.as_array().into_iter().flatten() {
                let mut seen = Vec::new();
                find(item, path, &mut seen);
                let fits = match (seen.first(), wanted) {
                    (Some(seen), Some((equal, wanted))) => (*seen == wanted) == *equal,
                    (seen, None) => seen.is_some(),
                    (None, Some(_)) => false,
                };
                if fits {
                    find(item, rest, found);
                }
            }
        }
    }
}

impl JsonPath {
    /// Reads `.spec.x`, with or without braces around it; `None` when it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let mut reader = Reader { rest: text.strip_prefix('$').unwrap_or(text) };
        let steps = reader.steps(0)?;
        reader.rest.is_empty().then_some(Self(steps))
    }

    /// All values it leads to.
    #[must_use]
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        let mut found = Vec::new();
        find(object, &self.0, &mut found);
        found
    }
}

/// The cell of a column: null when the path leads nowhere or the value is not of the column's type. A `date` stays a
/// timestamp: [`age`] turns it into text, as does [`cell_at`].
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn cell(object: &Value, json_path: &str, column_type: &str) -> Value {
    let path = JsonPath::parse(json_path);
    let found = path.as_ref().map(|p| p.find(object)).unwrap_or_default();
    let Some(value) = found.first().filter(|v| !v.is_null()) else { return Value::Null };
    match (column_type, *value) {
        ("string", Value::String(text)) | ("date", Value::String(text)) => json!(text),
        ("string", other) => json!(other.to_string()),
        ("integer", Value::Number(number)) => {
            number.as_i64().or_else(|| number.as_f64().map(|f| f as i64)).into()
        }
        ("number", Value::Number(number)) => Value::Number(number.clone()),
        ("boolean", Value::Bool(flag)) => json!(flag),
        _ => Value::Null,
    }
}

/// As [`cell`], with dates as ages.
#[must_use]
pub fn cell_at(object: &Value, json_path: &str, column_type: &str, now: DateTime<Utc>) -> Value {
    match cell(object, json_path, column_type) {
        Value::String(stamp) if column_type == "date" => json!(age(&stamp, now)),
        other => other,
    }
}

/// How long ago a timestamp was: `5m`; `<unknown>` for an empty one, `<invalid>` for one that is none.
#[must_use]
pub fn age(timestamp: &str, now: DateTime<Utc>) -> String {
    if timestamp.is_empty() {
        return "<unknown>".to_owned();
    }
    match time::parse_rfc3339(timestamp) {
        Ok(then) => duration::human((now - then).num_seconds()),
        Err(_) => "<invalid>".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cells_come_from_paths() {
        let object = json!({
            "spec": {"n": 2.7, "s": "x", "b": true, "a.b": 1, "l": [1, 2]},
            "status": {"conditions": [{"type": "A", "status": "False"}, {"type": "Ready", "status": "True"}]}
        });
        for (path, kind, wanted) in [
            (".spec.n", "integer", json!(2)),
            (".spec.s", "string", json!("x")),
            ("{.spec.s}", "string", json!("x")),
            (".spec.b", "boolean", json!(true)),
            (".spec.b", "string", json!("true")),
            (r".spec.a\.b", "integer", json!(1)),
            (".spec['a.b']", "integer", json!(1)),
            (".spec.l[-1]", "integer", json!(2)),
            (".spec.l", "string", json!("[1,2]")),
            (".status.conditions[?(@.type==\"Ready\")].status", "string", json!("True")),
            (".status.conditions[?(@.type=='Gone')].status", "string", Value::Null),
            (".spec.missing", "string", Value::Null),
            (".spec.s", "integer", Value::Null),
            (".spec.", "string", Value::Null),
        ] {
            assert_eq!(cell(&object, path, kind), wanted, "{path}");
        }
    }

    #[test]
    fn dates_are_shown_as_ages() {
        let now = time::parse_rfc3339("2026-01-01T01:00:00Z").expect("valid");
        assert_eq!(age("2026-01-01T00:55:00Z", now), "5m");
        assert_eq!(age("", now), "<unknown>");
        assert_eq!(age("x", now), "<invalid>");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[.\\[\\]?@()='\"\\\\a-c0-9*{} é!-]{0,40}") {
            let _ = cell(&json!({"a": [{"b": 1}]}), &text, "string");
        }
    }
}
