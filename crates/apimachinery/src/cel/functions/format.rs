//! Named formats of strings: `format.named`, `format.dns1123Label()` and its siblings, `validate`.

use std::sync::{Arc, LazyLock};

use ::cel::{
    Value,
    common::types::{STRING_TYPE, Type},
    objects::{Opaque, OptionalValue},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Library, Outcome, give, held, hold, text, urls};
use crate::names;

const NAME: &str = "kubernetes.NamedFormat";
static FORMAT: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(NAME));

/// What is wrong with a text; nothing when it is as it should be.
type Check = fn(&str) -> Vec<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Format(&'static str);

impl Opaque for Format {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

fn unless(holds: bool, message: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![message.to_owned()] }
}

/// Eight, three times four, and twelve hexadecimal digits; the dashes may be missing.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (at, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((part, behind)) = rest.split_at_checked(digits) else { return false };
        if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        rest = behind;
    }
    rest.is_empty()
}

/// Every format, by name.
const FORMATS: [(&str, Check); 13] = [
    ("dns1123Label", |text| names::label_name(text, false)),
    ("dns1123Subdomain", |text| names::subdomain_name(text, false)),
    ("dns1035Label", |text| names::label1035_name(text, false)),
    ("qualifiedName", names::is_qualified_name),
    ("dns1123LabelPrefix", |text| names::label_name(text, true)),
    ("dns1123SubdomainPrefix", |text| names::subdomain_name(text, true)),
    ("dns1035LabelPrefix", |text| names::label1035_name(text, true)),
    ("labelValue", names::is_label_value),
    ("uri", |text| unless(urls::is_url(text), "invalid URI for request")),
    ("uuid", |text| unless(is_uuid(text), "does not match the UUID format")),
    ("byte", |text| unless(STANDARD.decode(text).is_ok(), "invalid base64")),
    ("date", |text| unless(chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok(), "invalid date")),
    ("datetime", |text| unless(chrono::DateTime::parse_from_rfc3339(text).is_ok(), "invalid datetime")),
];

fn find(name: &str) -> Option<&'static (&'static str, Check)> {
    FORMATS.iter().find(|(known, _)| *known == name)
}

fn optional<'b, 'v>(value: Option<Value>) -> Outcome<'b, 'v> {
    give(Value::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of))))
}

pub(super) fn add(library: &mut Library) {
    library.global("format.named", &[&STRING_TYPE], |given| {
        let found = find(text(&given, 0)?).map(|(name, _)| Value::Opaque(Arc::new(Format(name))));
        optional(found)
    });
    library.member("validate", &FORMAT, &[&STRING_TYPE], |given| {
        let Format(name) = held(&given, 0)?;
        let text = text(&given, 1)?;
        let wrong = find(name).map_or_else(Vec::new, |(_, check)| check(text));
        let wrong: Vec<Value> = wrong.into_iter().map(Value::from).collect();
        optional((!wrong.is_empty()).then(|| Value::List(Arc::new(wrong))))
    });
    // An overload is a plain function: it cannot hold the name it stands for.
    library.global("format.dns1123Label", &[], |_| hold(Format("dns1123Label")));
    library.global("format.dns1123Subdomain", &[], |_| hold(Format("dns1123Subdomain")));
    library.global("format.dns1035Label", &[], |_| hold(Format("dns1035Label")));
    library.global("format.qualifiedName", &[], |_| hold(Format("qualifiedName")));
    library.global("format.dns1123LabelPrefix", &[], |_| hold(Format("dns1123LabelPrefix")));
    library.global("format.dns1123SubdomainPrefix", &[], |_| hold(Format("dns1123SubdomainPrefix")));
    library.global("format.dns1035LabelPrefix", &[], |_| hold(Format("dns1035LabelPrefix")));
    library.global("format.labelValue", &[], |_| hold(Format("labelValue")));
    library.global("format.uri", &[], |_| hold(Format("uri")));
    library.global("format.uuid", &[], |_| hold(Format("uuid")));
    library.global("format.byte", &[], |_| hold(Format("byte")));
    library.global("format.date", &[], |_| hold(Format("date")));
    library.global("format.datetime", &[], |_| hold(Format("datetime")));
}
