//! Strict errors in the order of the document: a typed decoder tells of unknown and duplicate fields as it meets them.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{At, Key, Step, print_path};

/// The errors of a JSON document, each once, in the order in which their fields stand there. What is not found in the
/// document comes last.
#[must_use]
pub fn in_order(bytes: &[u8], errors: Vec<String>) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let left = RefCell::new(errors.iter().cloned().collect::<HashSet<String>>());
    let walk = Walk { path: None, left: &left, found: &found };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    // The document was read before; if not, the errors keep their order.
    let _ = walk.deserialize(&mut deserializer);
    let mut found = found.into_inner();
    let left = left.into_inner();
    found.extend(errors.iter().filter(|error| left.contains(*error)).cloned());
    found
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    path: Option<&'a Step<'a>>,
    left: &'a RefCell<HashSet<String>>,
    found: &'a RefCell<Vec<String>>,
}

impl Walk<'_> {
    /// Notes an error of this sort about a field, if there is one.
    fn note(&self, sort: &str, key: &str) {
        let mut path = String::new();
        print_path(Some(&Step { parent: self.path, at: At::Key(key) }), &mut path);
        let text = format!("{sort} field {path:?}");
        if self.left.borrow_mut().remove(&text) {
            self.found.borrow_mut().push(text);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let step = Step { parent: self.path, at: At::Index(index) };
            if items.next_element_seed(Walk { path: Some(&step), ..self })?.is_none() {
                break;
            }
        }
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut known = HashSet::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            self.note("unknown", &key);
            if known.contains(&key) {
                self.note("duplicate", &key);
            }
            let step = Step { parent: self.path, at: At::Key(&key) };
            entries.next_value_seed(Walk { path: Some(&step), ..self })?;
            known.insert(key);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stand_in_the_order_of_their_fields() {
        let document = br#"{"a":1,"spec":{"x":1,"y":1,"y":[{"z":2}]},"a":2}"#;
        let errors = [
            r#"duplicate field "a""#,
            r#"duplicate field "spec.y""#,
            r#"unknown field "spec.x""#,
            r#"unknown field "spec.y[0].z""#,
            r#"unknown field "elsewhere""#,
        ];
        let ordered = in_order(document, errors.map(str::to_owned).to_vec());
        assert_eq!(
            ordered,
            [
                r#"unknown field "spec.x""#,
                r#"duplicate field "spec.y""#,
                r#"unknown field "spec.y[0].z""#,
                r#"duplicate field "a""#,
                r#"unknown field "elsewhere""#,
            ]
        );
    }
}
