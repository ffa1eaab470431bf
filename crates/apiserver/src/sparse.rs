//! Reading a few fields of a stored object in one pass, without a tree of the rest.

use serde_json::{Map, Value};

/// Which fields, by the steps to them. Nothing below a step: all that is there.
#[derive(Debug, Default)]
pub struct Fields(Vec<(Box<str>, Fields)>);

impl Fields {
    /// Those at dotted paths: `spec.nodeName`, `.status.podIP`.
    #[must_use]
    pub fn at<'p>(paths: impl IntoIterator<Item = &'p str>) -> Self {
        let mut all = Self::default();
        for path in paths {
            let mut here = &mut all;
            let mut steps = path.trim_start_matches('.').split('.').peekable();
            while let Some(step) = steps.next() {
                let known = here.0.iter().position(|(name, _)| **name == *step);
                let new = known.is_none();
                let index = known.unwrap_or_else(|| {
                    here.0.push((step.into(), Self::default()));
                    here.0.len() - 1
                });
                here = &mut here.0[index].1;
                // A path that is wanted as a whole stays so.
                if here.0.is_empty() && !new {
                    break;
                }
                if steps.peek().is_none() {
                    here.0.clear();
                }
            }
        }
        all
    }

    /// An object with these fields only, as far as it has them. What is not asked for is passed over and not looked into:
    /// `json` is what this server has written.
    ///
    /// # Errors
    /// It is no JSON, as far as it was looked at.
    pub fn read(&self, json: &[u8]) -> Result<Value, serde_json::Error> {
        let mut scan = Scan { json, at: 0 };
        let read = self.value(&mut scan)?;
        if scan.peek().is_some() { Err(malformed()) } else { Ok(read) }
    }

    /// What is no object has no fields.
    fn value(&self, scan: &mut Scan<'_>) -> Result<Value, serde_json::Error> {
        if self.0.is_empty() {
            return serde_json::from_slice(scan.pass()?);
        }
        if scan.peek() != Some(b'{') {
            return scan.pass().map(|_| Value::Null);
        }
        scan.at += 1;
        let mut read = Map::new();
        while scan.peek() != Some(b'}') {
            let key = scan.key()?;
            match self.0.iter().find(|(name, _)| name.as_bytes() == key) {
                Some((name, below)) => drop(read.insert(name.clone().into(), below.value(scan)?)),
                None => _ = scan.pass()?,
            }
            match scan.peek() {
                Some(b',') => scan.at += 1,
                Some(b'}') => {}
                _ => return Err(malformed()),
            }
        }
        scan.at += 1;
        Ok(Value::Object(read))
    }
}

fn malformed() -> serde_json::Error {
    serde::de::Error::custom("malformed JSON")
}

/// A place in a document.
struct Scan<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Scan<'j> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.json.get(self.at..)?;
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.json.get(self.at).copied()
    }

    /// The next key, as it is written, and the colon behind it.
    fn key(&mut self) -> Result<&'j [u8], serde_json::Error> {
        if self.peek() != Some(b'"') {
            return Err(malformed());
        }
        let text = self.pass()?;
        if self.peek() != Some(b':') {
            return Err(malformed());
        }
        self.at += 1;
        Ok(&text[1..text.len() - 1])
    }

    /// Passes over the next value and tells where it was: its brackets and its strings are looked at, nothing else.
    fn pass(&mut self) -> Result<&'j [u8], serde_json::Error> {
        self.peek();
        let begin = self.at;
        let mut open = 0_usize;
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b'"' => self.string()?,
                b'{' | b'[' => open += 1,
                b'}' | b']' if open > 0 => open -= 1,
                // The end of what the value is in.
                b'}' | b']' | b',' if open == 0 => break,
                byte if open == 0 && byte.is_ascii_whitespace() => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            self.at += 1;
            if open == 0 {
                break;
            }
        }
        let value = &self.json[begin..self.at];
        if value.is_empty() || open > 0 { Err(malformed()) } else { Ok(value) }
    }

    /// From the quote that begins a string to the one that ends it.
    fn string(&mut self) -> Result<(), serde_json::Error> {
        loop {
            self.at += 1;
            let rest = self.json.get(self.at..).unwrap_or_default();
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or_else(malformed)?;
            self.at += plain;
            if rest[plain] == b'"' {
                return Ok(());
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(paths: &[&str], value: &Value) -> Value {
        Fields::at(paths.iter().copied()).read(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn only_the_fields_asked_for_are_read() {
        let object = json!({"metadata": {"labels": {"a": "b"}, "name": "x"}, "spec": {"nodeName": "n", "list": [1, {"a": 2}]}});
        assert_eq!(
            read(&["metadata.labels", ".spec.nodeName", "status.phase"], &object),
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n"}})
        );
        assert_eq!(read(&["spec.list", "spec"], &object)["spec"], object["spec"]);
        assert_eq!(read(&["spec", "spec.list"], &object)["spec"], object["spec"]);
    }

    #[test]
    fn strings_and_spaces_are_passed_over_whole() {
        let text = r#" { "x" : "}\",{\\" , "list" : [ { "a" : "]" } , 1 ] , "spec" : { "b" : -1.5e3 , "a" : "\u00e9\"" } } "#;
        let read = Fields::at(["spec.a"]).read(text.as_bytes()).unwrap();
        assert_eq!(read, json!({"spec": {"a": "\u{e9}\""}}));
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for value in [json!([1, "a"]), json!("text"), json!(null), json!(true), json!(1.5)] {
            assert_eq!(read(&["spec.a"], &json!({"spec": value})), json!({"spec": null}));
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in [
            "",
            "{",
            r#"{"spec":{"a":1}"#,
            "{} x",
            r#"{"a"#,
            r#"{"a":"\"#,
            r#"{"a":}"#,
            r#"{"spec":{"a":x}}"#,
        ] {
            assert!(Fields::at(["spec.a"]).read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
