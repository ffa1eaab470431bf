//! Reading a few fields of a stored object in one pass, without a tree of the rest.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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

    /// An object with these fields only, as far as it has them.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn read(&self, json: &[u8]) -> Result<Value, serde_json::Error> {
        let mut source = serde_json::Deserializer::from_slice(json);
        let read = Seed(self).deserialize(&mut source)?;
        source.end()?;
        Ok(read)
    }
}

struct Seed<'f>(&'f Fields);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Value, D::Error> {
        if self.0.0.is_empty() { serde::Deserialize::deserialize(value) } else { value.deserialize_any(self) }
    }
}

/// What is no object has no fields.
impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, _: &str) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some(wanted) = map.next_key_seed(Step(self.0))? {
            match wanted {
                Some((name, below)) => {
                    let value = map.next_value_seed(Seed(below))?;
                    read.insert(name.clone().into(), value);
                }
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(Value::Object(read))
    }
}

/// Finds a key among the steps.
struct Step<'f>(&'f Fields);

impl<'de, 'f> DeserializeSeed<'de> for Step<'f> {
    type Value = Option<&'f (Box<str>, Fields)>;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl<'f> Visitor<'_> for Step<'f> {
    type Value = Option<&'f (Box<str>, Fields)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.0.iter().find(|(name, _)| **name == *key))
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
    fn what_is_no_object_has_no_fields() {
        for value in [json!([1, "a"]), json!("text"), json!(null), json!(true), json!(1.5)] {
            assert_eq!(read(&["spec.a"], &json!({"spec": value})), json!({"spec": null}));
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for text in ["", "{", r#"{"spec":{"a":1}"#, "{} x"] {
            assert!(Fields::at(["spec.a"]).read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
