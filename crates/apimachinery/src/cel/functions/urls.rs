//! URLs: `url`, `isURL` and the parts of a URL.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use ::cel::{
    Value,
    common::types::{STRING_TYPE, Type},
    objects::Opaque,
};

use super::{Library, failed, give, give_text, held, hold, text};

const NAME: &str = "kubernetes.URL";
static URL: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(NAME));

#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Opaque for Url {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

/// An absolute URL or path, as Go's `ParseRequestURI` takes it.
fn parse(text: &str) -> Option<Url> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return None;
    }
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let owned = |scheme: &str, host: &str, path: &str| Url {
        scheme: scheme.to_owned(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    };
    if before.starts_with('/') {
        return Some(owned("", "", before));
    }
    let (scheme, rest) = before.split_once(':')?;
    let mut letters = scheme.bytes();
    let shaped = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
        && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    if !shaped {
        return None;
    }
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some(owned(&scheme.to_lowercase(), host.rsplit('@').next().unwrap_or(host), path))
}

/// The host without its port, and the port.
fn split_port(host: &str) -> (&str, &str) {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    (name.trim_matches(['[', ']']), port)
}

/// Whether text is an absolute URL or path, as the format `uri` wants it.
pub(super) fn is_url(text: &str) -> bool {
    parse(text).is_some()
}

/// The parameters of a query, each with its values in order.
fn query(query: &str) -> Value {
    let mut parameters: HashMap<String, Vec<String>> = HashMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // What is not encoded as it should be is left out, as Go does.
        if let (Some(name), Some(value)) = (unescape(name), unescape(value)) {
            parameters.entry(name).or_default().push(value);
        }
    }
    let values = |all: Vec<String>| Value::List(Arc::new(all.into_iter().map(Value::from).collect()));
    Value::from(parameters.into_iter().map(|(name, all)| (name, values(all))).collect::<HashMap<_, _>>())
}

fn unescape(text: &str) -> Option<String> {
    let (mut bytes, mut out) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

pub(super) fn add(library: &mut Library) {
    library.global("url", &[&STRING_TYPE], |given| match parse(text(&given, 0)?) {
        Some(url) => hold(url),
        None => {
            let given = text(&given, 0)?;
            failed("url", format!("URL parse error during conversion from string: {given:?}"))
        }
    });
    library.global("isURL", &[&STRING_TYPE], |given| give(is_url(text(&given, 0)?)));
    library.member("getScheme", &URL, &[], |given| give_text(held::<Url>(&given, 0)?.scheme));
    library.member("getHost", &URL, &[], |given| give_text(held::<Url>(&given, 0)?.host));
    library.member("getHostname", &URL, &[], |given| give_text(split_port(&held::<Url>(&given, 0)?.host).0));
    library.member("getPort", &URL, &[], |given| give_text(split_port(&held::<Url>(&given, 0)?.host).1));
    library.member("getEscapedPath", &URL, &[], |given| give_text(held::<Url>(&given, 0)?.path));
    library.member("getQuery", &URL, &[], |given| give(query(&held::<Url>(&given, 0)?.query)));
}
