//! What names, labels, ports and keys have to look like. Each function returns upstream's sentences; none means valid.
//!
//! Source of the rules: RFC 1035, RFC 1123 and `k8s.io/apimachinery/pkg/util/validation`. The checks are byte loops
//! rather than regular expressions: they run on every write.

use std::net::IpAddr;

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// `must be no more than N characters`
#[must_use]
pub fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The same of keys and values of labels, as upstream has come to say it.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// `must be between LOW and HIGH, inclusive`
#[must_use]
pub fn not_between(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// `WORDS (e.g. 'a', or 'b', regex used for validation is 'R')`
#[must_use]
pub fn pattern_words(words: &str, pattern: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{words} (regex used for validation is '{pattern}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{words} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

/// Not empty, only `inside`, and `edge` at both ends.
fn shaped(text: &str, edge: impl Fn(u8) -> bool, inside: impl Fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [one] => edge(*one),
        [first, middle @ .., last] => edge(*first) && edge(*last) && middle.iter().all(|b| inside(*b)),
    }
}

fn lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn label_shape(text: &str) -> bool {
    shaped(text, lower, |b| lower(b) || b == b'-')
}

fn subdomain_shape(text: &str) -> bool {
    text.split('.').all(label_shape)
}

fn key_shape(text: &str) -> bool {
    shaped(
        text,
        |b| b.is_ascii_alphanumeric(),
        |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'),
    )
}

/// A label of RFC 1123: at most 63 lower-case letters, digits and `-`.
#[must_use]
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !label_shape(value) {
        errors.push(if subdomain_shape(value) {
            "must not contain dots".to_owned()
        } else {
            let words = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            pattern_words(words, DNS1123_LABEL, &["my-name", "123-abc"])
        });
    }
    errors
}

/// A subdomain of RFC 1123: labels with dots, at most 253 characters.
#[must_use]
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !subdomain_shape(value) {
        errors.push(pattern_words(SUBDOMAIN_WORDS, DNS1123_SUBDOMAIN, &["example.com"]));
    }
    errors
}

/// The same, where labels may have and begin with underscores: search domains.
#[must_use]
pub fn is_dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    const PATTERN: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
    let label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|b| edge(Some(b)) || matches!(b, b'-' | b'_'))
    };
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !value.split('.').all(label) {
        let words = SUBDOMAIN_WORDS.replacen("'-' or '.'", "'_', '-' or '.'", 1);
        errors.push(pattern_words(&words, PATTERN, &["example.com"]));
    }
    errors
}

/// The same in any case: for names of drivers, which are told apart by case all the same.
#[must_use]
pub fn is_dns1123_subdomain_any_case(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !subdomain_shape(&value.to_ascii_lowercase()) {
        let words = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        errors.push(pattern_words(words, DNS1123_SUBDOMAIN, &["Example.com"]));
    }
    errors
}

/// `*.` and a subdomain.
#[must_use]
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !value.strip_prefix("*.").is_some_and(subdomain_shape) {
        let words = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        errors.push(pattern_words(words, &format!(r"\*\.{DNS1123_SUBDOMAIN}"), &["*.example.com"]));
    }
    errors
}

/// A label of RFC 1035: as RFC 1123, but begins with a letter.
#[must_use]
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !(label_shape(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        let words = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        errors.push(pattern_words(words, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    errors
}

/// What may stand as one segment of a URL path: not `.` or `..`, without `/` and `%`.
#[must_use]
pub fn is_path_segment(value: &str) -> Vec<String> {
    if value == "." || value == ".." {
        return vec![format!("may not be '{value}'")];
    }
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A label key, annotation key or finalizer: `[subdomain/]name`.
#[must_use]
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let examples = &["MyName", "my.name", "123-abc"];
    let mut errors = Vec::new();
    let name = match value.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(is_dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            let words = pattern_words(LABEL_KEY_WORDS, LABEL_KEY, examples);
            return vec![format!(
                "a valid label key {words} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", too_many_bytes(63)));
    }
    if !key_shape(name) {
        errors.push(format!("name part {}", pattern_words(LABEL_KEY_WORDS, LABEL_KEY, examples)));
    }
    errors
}

/// The value of a label: empty, or at most 63 characters of a key's name.
#[must_use]
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_many_bytes(63));
    }
    if !value.is_empty() && !key_shape(value) {
        let words = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        errors.push(pattern_words(words, &format!("({LABEL_KEY})?"), &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// `1..=65535`
#[must_use]
pub fn is_port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![not_between(1, 65535)] }
}

/// The name of a port (IANA service name, RFC 6335, lower case).
#[must_use]
pub fn is_port_name(port: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if port.len() > 15 {
        errors.push(too_long(15));
    }
    if port.is_empty() || !port.bytes().all(|b| lower(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !port.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if port.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if port.starts_with('-') || port.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// `25%`
#[must_use]
pub fn is_percent(value: &str) -> Vec<String> {
    match value.strip_suffix('%') {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => Vec::new(),
        _ => {
            let words = "a valid percent string must be a numeric string followed by an ending '%'";
            vec![pattern_words(words, "[0-9]+%", &["1%", "93%"])]
        }
    }
}

fn dots(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// The key of a ConfigMap or Secret.
#[must_use]
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if value.is_empty()
        || !value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        let words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(pattern_words(words, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    errors.extend(dots(value));
    errors
}

/// The name of an environment variable, in the relaxed form: printable ASCII without `=`.
#[must_use]
pub fn is_env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

/// The reason of a condition.
#[must_use]
pub fn is_condition_reason(value: &str) -> Vec<String> {
    let last = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = value.as_bytes();
    if bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| last(*b))
        && bytes.iter().all(|b| last(*b) || matches!(b, b',' | b':'))
    {
        return Vec::new();
    }
    let words = "a condition reason must start with alphabetic character, optionally followed by a string of \
                 alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![pattern_words(words, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)]
}

/// The name of an HTTP header.
#[must_use]
pub fn is_http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let words = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![pattern_words(words, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// How the name of an object is checked; the flag says that it is a `generateName`, whose last `-` is forgiven.
pub type NameCheck = fn(&str, bool) -> Vec<String>;

/// `web-` becomes `wea`, so that a prefix can be checked like a name.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(rest) if prefix && !rest.is_empty() => {
            let mut text: String = rest.to_owned();
            text.pop();
            text.push('a');
            text.into()
        }
        _ => name.into(),
    }
}

/// [`NameCheck`]: an RFC 1123 subdomain.
#[must_use]
pub fn subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    is_dns1123_subdomain(&masked(name, prefix))
}

/// [`NameCheck`]: an RFC 1123 label.
#[must_use]
pub fn label_name(name: &str, prefix: bool) -> Vec<String> {
    is_dns1123_label(&masked(name, prefix))
}

/// [`NameCheck`]: an RFC 1035 label.
#[must_use]
pub fn label1035_name(name: &str, prefix: bool) -> Vec<String> {
    is_dns1035_label(&masked(name, prefix))
}

/// A version by semver.org 2.0.0: `1.2.3`, `1.2.3-rc.1+build.5`.
#[must_use]
pub fn is_semantic_version(version: &str) -> bool {
    let numeric = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
    };
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // Not a number, or one without zeros before it.
    let release = |text: &str| plain(text) && (numeric(text) || !text.bytes().all(|b| b.is_ascii_digit()));
    let (rest, build) = match version.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (version, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    core.split('.').count() == 3
        && core.split('.').all(numeric)
        && pre.is_none_or(|pre| pre.split('.').all(release))
        && build.is_none_or(|build| build.split('.').all(plain))
}

/// What is wrong with an IP address: none, an IPv4 address in IPv6's clothes, or in another form than the usual one.
#[must_use]
pub fn is_ip(value: &str) -> Vec<String> {
    let told = |why: &str| vec![why.to_owned()];
    match value.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            told("must not be an IPv4-mapped IPv6 address")
        }
        Ok(_) => Vec::new(),
        Err(_) if without_zeros(value).parse::<IpAddr>().is_ok() => told("must not have leading 0s"),
        Err(_) => told("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
    }
}

/// A dotted address without zeros before its numbers.
#[must_use]
pub fn without_zeros(address: &str) -> String {
    let parts = address.split('.').map(|part| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0",
        rest => rest,
    });
    parts.collect::<Vec<_>>().join(".")
}

/// [`NameCheck`]: an IP address, in the one form that addresses are printed in.
#[must_use]
pub fn address_name(name: &str, _prefix: bool) -> Vec<String> {
    let mut errors = is_ip(name);
    if errors.is_empty()
        && let Ok(address) = name.parse::<IpAddr>()
        && address.to_string() != name
    {
        errors.push(format!("must be in canonical form (\"{address}\")"));
    }
    errors
}

/// [`NameCheck`]: a path segment. A prefix may be `.` or `..`, for more follows.
#[must_use]
pub fn path_segment_name(name: &str, prefix: bool) -> Vec<String> {
    if prefix && (name == "." || name == "..") { Vec::new() } else { is_path_segment(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_label_is_told_in_upstreams_words() {
        assert_eq!(
            is_dns1123_label("Bad_"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(is_dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(is_dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert!(is_dns1123_label("0a-b").is_empty());
        assert!(!is_dns1035_label("0a-b").is_empty());
        assert!(!is_dns1035_label("").is_empty());
    }

    #[test]
    fn a_qualified_name_has_at_most_one_prefix() {
        assert!(is_qualified_name("example.com/My.Name_1").is_empty());
        assert_eq!(is_qualified_name("/x"), ["prefix part must be non-empty"]);
        assert!(is_qualified_name("a/b/c")[0].ends_with("(e.g. 'example.com/MyName')"));
        assert_eq!(is_qualified_name("a/").len(), 2);
    }

    #[test]
    fn a_prefix_may_end_with_a_dash() {
        assert!(subdomain_name("web-", true).is_empty());
        assert!(!subdomain_name("web-", false).is_empty());
        assert!(label1035_name("a-", true).is_empty());
    }

    #[test]
    fn path_segments_have_no_slash() {
        assert_eq!(is_path_segment(".."), ["may not be '..'"]);
        assert_eq!(is_path_segment("a/b%"), ["may not contain '/'", "may not contain '%'"]);
    }
}
