//! JSON → messages in one pass: a visitor that is led by a type's [`Plan`] and writes into one buffer.
//!
//! JSON's fields come in any order, a message's stand in the order of their numbers, and before a message stands its
//! length. So each field of an object is written behind what is there as it comes; once the object ends, the fields are
//! copied in their order behind all that, and moved to where the object began, behind their length.

use base64::Engine as _;
use chrono::DateTime;
use serde::{
    Deserialize as _,
    de::{
        DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
        value::{self, MapDeserializer},
    },
};
use serde_json::{Number, Value, value::RawValue};

use super::{
    plan::{Field, Form, Node, Plan, plan_at, schema},
    wire::{put_bytes, put_double, put_number, put_varint},
};

/// Messages in the making.
#[derive(Default)]
pub struct Writer {
    /// What was written; inside an object also its fields as they came.
    pub out: Vec<u8>,
    /// Begin and end in `out` of every field of the objects that are open; equal where the field was not there.
    places: Vec<(usize, usize)>,
}

impl Writer {
    /// Writes behind what there is.
    pub fn behind(out: Vec<u8>) -> Self {
        Self { out, places: Vec::new() }
    }

    /// Adds the value as a field of this number. Values of other types than the form's are written as its zero.
    ///
    /// # Errors
    /// The source's: its JSON cannot be read. What was written is of no use then.
    pub fn put<'de, D: Deserializer<'de>>(
        &mut self,
        tag: u64,
        form: &Form,
        value: D,
    ) -> Result<(), D::Error> {
        Put { writer: self, tag, form, optional: false }.deserialize(value)
    }

    /// What an absent field is written as.
    pub fn zero(tag: u64, form: &Form, optional: bool) -> Vec<u8> {
        let mut writer = Self::default();
        // Null can always be read.
        let _ = Put { writer: &mut writer, tag, form, optional }.deserialize(&Value::Null);
        writer.out
    }

    /// Makes what was written from `mark` on, and now is at the end, a field of this number that begins at `base`; what
    /// stood between is gone. Returns the size of what stands before the value.
    pub fn close(&mut self, base: usize, mark: usize, tag: u64) -> usize {
        let size = self.out.len() - mark;
        put_varint(&mut self.out, tag << 3 | 2);
        put_varint(&mut self.out, size as u64);
        // A number has ten bytes at most.
        let mut head = [0; 20];
        let head = &mut head[..self.out.len() - mark - size];
        head.copy_from_slice(&self.out[mark + size..]);
        let begin = base + head.len();
        self.out.copy_within(mark..mark + size, begin);
        self.out[base..begin].copy_from_slice(head);
        self.out.truncate(begin + size);
        head.len()
    }

    /// A message; without an object all its fields are absent.
    fn message<'de, A: MapAccess<'de>>(
        &mut self,
        tag: u64,
        plan: &Plan,
        object: Option<A>,
    ) -> Result<(), A::Error> {
        let base = self.out.len();
        let first = self.places.len();
        self.places.resize(first + plan.fields.len(), (0, 0));
        if let Some(object) = object {
            self.fields(first, &plan.fields, object)?;
        }
        let mark = self.out.len();
        self.gather(&plan.nodes, &plan.fields, first);
        self.places.truncate(first);
        self.close(base, mark, tag);
        Ok(())
    }

    /// Writes the fields of an object as they come, and notes where.
    fn fields<'de, A: MapAccess<'de>>(
        &mut self,
        first: usize,
        fields: &[Field],
        mut object: A,
    ) -> Result<(), A::Error> {
        let mut next = 0;
        while let Some(found) = object.next_key_seed(Name { fields, next })? {
            let Some(index) = found else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            next = index + 1;
            let Field { tag, form, optional, .. } = &fields[index];
            let begin = self.out.len();
            object.next_value_seed(Put { writer: self, tag: *tag, form, optional: *optional })?;
            self.places[first + index] = (begin, self.out.len());
        }
        Ok(())
    }

    /// Copies the fields to the end in their order.
    fn gather(&mut self, nodes: &[Node], fields: &[Field], first: usize) {
        for node in nodes {
            match node {
                Node::Field(index) => match self.places[first + index] {
                    (begin, end) if begin < end => self.out.extend_from_within(begin..end),
                    _ => self.out.extend_from_slice(fields[*index].zero()),
                },
                Node::Inner(tag, inner) => {
                    let begin = self.out.len();
                    self.gather(inner, fields, first);
                    self.close(begin, begin, *tag);
                }
            }
        }
    }

    /// A map is a list of messages of a key and a value, by key.
    fn map<'de, A: MapAccess<'de>>(&mut self, tag: u64, item: &Form, mut map: A) -> Result<(), A::Error> {
        let base = self.out.len();
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let begin = self.out.len();
            let Some(length) = map.next_key_seed(Key(self))? else { break };
            let key_end = self.out.len();
            if matches!(item, Form::List(_)) {
                // A list inside a map is wrapped in a message of its own.
                map.next_value_seed(Put { writer: self, tag: 1, form: item, optional: false })?;
                self.close(key_end, key_end, 2);
            } else {
                map.next_value_seed(Put { writer: self, tag: 2, form: item, optional: false })?;
            }
            let key_end = key_end + self.close(begin, begin, tag);
            entries.push(Entry { begin, end: self.out.len(), key: (key_end - length, key_end) });
        }
        let key = |entry: &Entry| &self.out[entry.key.0..entry.key.1];
        if !entries.is_sorted_by(|a, b| key(a) < key(b)) {
            entries.sort_by(|a, b| key(a).cmp(key(b)));
            // The last one of a key holds.
            let last: Vec<bool> = (0..entries.len())
                .map(|i| entries.get(i + 1).is_none_or(|next| key(next) != key(&entries[i])))
                .collect();
            let mark = self.out.len();
            for (entry, _) in entries.iter().zip(last).filter(|(_, last)| *last) {
                self.out.extend_from_within(entry.begin..entry.end);
            }
            self.out.drain(base..mark);
        }
        Ok(())
    }

    /// A value of JSON that holds no others, or whose type is not the form's.
    fn scalar(&mut self, tag: u64, form: &Form, value: Scalar<'_>) {
        let out = &mut self.out;
        let text = if let Scalar::Text(text) = value { text } else { "" };
        let whole = if let Scalar::Whole(number) = value { number.cast_unsigned() } else { 0 };
        match form {
            Form::Text => put_bytes(out, tag, text.as_bytes()),
            Form::Bool => put_number(out, tag, u64::from(matches!(value, Scalar::Bool(true)))),
            Form::Whole => put_number(out, tag, whole),
            Form::Double => put_double(out, tag, value.number().and_then(|n| n.as_f64()).unwrap_or_default()),
            Form::Bytes => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
                put_bytes(out, tag, &bytes);
            }
            Form::List(_) | Form::Map(_) => {}
            Form::Message(index) => {
                // Nothing is read, so nothing can fail.
                let _ = self.message(tag, plan_at(*index), NOTHING);
            }
            _ => {
                let begin = out.len();
                match form {
                    Form::Time => put_time(out, text, false),
                    Form::MicroTime => put_time(out, text, true),
                    Form::Quantity => {
                        let number = value.number().map(|number| number.to_string());
                        let amount = number.as_deref().unwrap_or(if text.is_empty() { "0" } else { text });
                        put_bytes(out, 1, amount.as_bytes());
                    }
                    Form::IntOrString => {
                        put_number(out, 1, u64::from(matches!(value, Scalar::Text(_))));
                        put_number(out, 2, whole);
                        put_bytes(out, 3, text.as_bytes());
                    }
                    Form::SchemaOrBool => put_number(out, 1, u64::from(matches!(value, Scalar::Bool(true)))),
                    // Lists without items, types without fields.
                    _ => {}
                }
                self.close(begin, begin, tag);
            }
        }
    }
}

/// No object.
const NOTHING: Option<MapDeserializer<'_, std::iter::Empty<((), ())>, value::Error>> = None;

/// Where a map's entry stands.
struct Entry {
    begin: usize,
    end: usize,
    key: (usize, usize),
}

enum Scalar<'a> {
    Bool(bool),
    Whole(i64),
    /// What fits in no `i64`.
    Number(Number),
    Text(&'a str),
    /// Null, a list, an object.
    Other,
}

impl Scalar<'_> {
    fn number(&self) -> Option<Number> {
        match self {
            Self::Whole(number) => Some((*number).into()),
            Self::Number(number) => Some(number.clone()),
            _ => None,
        }
    }
}

/// Seconds and nanoseconds; nothing at all for no time.
fn put_time(out: &mut Vec<u8>, text: &str, micro: bool) {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        put_number(out, 1, time.timestamp().cast_unsigned());
        let nanos = if micro { time.timestamp_subsec_micros() * 1000 } else { 0 };
        put_number(out, 2, nanos.into());
    }
}

/// Writes a value as a field of this number.
struct Put<'w> {
    writer: &'w mut Writer,
    tag: u64,
    form: &'w Form,
    /// Null is not written.
    optional: bool,
}

impl Put<'_> {
    fn scalar<E>(self, value: Scalar<'_>) -> Result<(), E> {
        self.writer.scalar(self.tag, self.form, value);
        Ok(())
    }

    fn raw(self, json: &str) {
        let begin = self.writer.out.len();
        if json != "null" {
            put_bytes(&mut self.writer.out, 1, json.as_bytes());
        } else if self.optional {
            return;
        }
        self.writer.close(begin, begin, self.tag);
    }
}

impl<'de> DeserializeSeed<'de> for Put<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        if matches!(self.form, Form::Raw) {
            self.raw(Box::<RawValue>::deserialize(value)?.get());
            return Ok(());
        }
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Put<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.scalar(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.scalar(Scalar::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.scalar(i64::try_from(value).map_or_else(|_| Scalar::Number(value.into()), Scalar::Whole))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.scalar(Number::from_f64(value).map_or(Scalar::Other, Scalar::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(value))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.optional { Ok(()) } else { self.scalar(Scalar::Other) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let begin = self.writer.out.len();
        let (tag, form) = match self.form {
            Form::List(item) => (self.tag, &**item),
            Form::SchemaOrList => (2, schema()),
            Form::SchemaOrStrings => (2, &Form::Text),
            _ => {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                return self.scalar(Scalar::Other);
            }
        };
        while list.next_element_seed(Put { writer: self.writer, tag, form, optional: false })?.is_some() {}
        if !matches!(self.form, Form::List(_)) {
            self.writer.close(begin, begin, self.tag);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let begin = self.writer.out.len();
        let tag = match self.form {
            Form::Message(index) => return self.writer.message(self.tag, plan_at(*index), Some(map)),
            Form::Map(item) => return self.writer.map(self.tag, item, map),
            Form::SchemaOrList | Form::SchemaOrStrings => 1,
            Form::SchemaOrBool => {
                put_number(&mut self.writer.out, 1, 1);
                2
            }
            _ => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return self.scalar(Scalar::Other);
            }
        };
        // It goes into this message, whatever it is.
        Put { writer: self.writer, tag, form: schema(), optional: false }.visit_map(map)?;
        self.writer.close(begin, begin, self.tag);
        Ok(())
    }
}

/// Finds a field by its name: mostly it is soon behind the last one, as in objects whose fields are sorted.
struct Name<'f> {
    fields: &'f [Field],
    /// Where to look first.
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    /// Its index; `None`: it has no protobuf form.
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Self::Value, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let (before, behind) = self.fields.split_at(self.next);
        let at = |fields: &[Field]| fields.iter().position(|field| field.name == name);
        Ok(at(behind).map(|index| self.next + index).or_else(|| at(before)))
    }
}

/// Writes the key of a map's entry and gives its length.
struct Key<'w>(&'w mut Writer);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<usize, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the key of an entry")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<usize, E> {
        put_bytes(&mut self.0.out, 1, key.as_bytes());
        Ok(key.len())
    }
}
