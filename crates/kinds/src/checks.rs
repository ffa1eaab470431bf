//! Collecting what is wrong: the checks that many kinds share, worded as upstream words them.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validation`, `pkg/apis/meta/v1/validation`.

use std::{collections::BTreeSet, net::IpAddr};

use apimachinery::{FieldError, FieldErrors, FieldPath, names, quantity::Quantity, selector::LabelSelector};
use ipnet::IpNet;
use serde_json::Value;

use crate::object::{at, has, list, same, text};

/// Protocols of ports.
pub const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// The errors found so far, in the order in which they were found.
#[derive(Default)]
pub struct Checks {
    /// What is wrong.
    pub errors: FieldErrors,
    declared: FieldErrors,
}

impl Checks {
    /// Runs the checks on a fresh list.
    pub fn run(check: impl FnOnce(&mut Self)) -> Vec<FieldError> {
        let mut checks = Self::default();
        check(&mut checks);
        checks.errors.extend(checks.declared.into_vec());
        checks.errors.into_vec()
    }

    /// What else is found will not be told.
    pub fn is_full(&self) -> bool {
        self.errors.is_full()
    }

    /// Checks that upstream generates from marks on its types: what they find is told after everything else.
    pub fn declared(&mut self, check: impl FnOnce(&mut Self)) {
        let before = std::mem::take(&mut self.errors);
        check(self);
        let found = std::mem::replace(&mut self.errors, before);
        self.declared.extend(found.into_vec());
    }

    pub fn required(&mut self, path: &FieldPath, detail: &str) {
        self.errors.push(FieldError::required(path, detail));
    }

    pub fn forbidden(&mut self, path: &FieldPath, detail: &str) {
        self.errors.push(FieldError::forbidden(path, detail));
    }

    pub fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, detail: &str) {
        self.errors.push(FieldError::invalid(path, value, detail));
    }

    /// A malformed value that is not shown.
    pub fn omitted(&mut self, path: &FieldPath, detail: &str) {
        self.errors.push(FieldError { value: None, ..FieldError::invalid(path, Value::Null, detail) });
    }

    pub fn duplicate(&mut self, path: &FieldPath, value: impl Into<Value>) {
        self.errors.push(FieldError::duplicate(path, value));
    }

    pub fn not_found(&mut self, path: &FieldPath, value: impl Into<Value>) {
        self.errors.push(FieldError::not_found(path, value));
    }

    /// One error a message.
    pub fn each(&mut self, path: &FieldPath, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(path, value, &message);
        }
    }

    /// One error with all messages.
    pub fn together(&mut self, path: &FieldPath, value: &str, messages: &[String]) {
        if !messages.is_empty() {
            self.invalid(path, value, &messages.join(","));
        }
    }

    /// A value outside a set, which is told in the given order.
    pub fn one_of(&mut self, path: &FieldPath, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.errors.push(FieldError::not_supported(path, value, supported));
        }
    }

    /// The same, but an empty value is a missing one.
    pub fn required_one_of(&mut self, path: &FieldPath, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else {
            self.one_of(path, value, supported);
        }
    }

    pub fn nonnegative(&mut self, path: &FieldPath, value: i64) {
        if value < 0 {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    pub fn positive(&mut self, path: &FieldPath, value: i64) {
        if value <= 0 {
            self.invalid(path, value, "must be greater than 0");
        }
    }

    /// Each of the fields of `object` that is there and a number.
    pub fn nonnegative_fields(&mut self, path: &FieldPath, object: &Value, fields: &[&str]) {
        for field in fields {
            if let Some(value) = object[*field].as_i64() {
                self.nonnegative(&path.child(field), value);
            }
        }
    }

    pub fn dns_label(&mut self, path: &FieldPath, value: &str) {
        self.each(path, value, names::is_dns1123_label(value));
    }

    pub fn dns_subdomain(&mut self, path: &FieldPath, value: &str) {
        self.each(path, value, names::is_dns1123_subdomain(value));
    }

    pub fn qualified_name(&mut self, path: &FieldPath, value: &str) {
        self.each(path, value, names::is_qualified_name(value));
    }

    pub fn labels(&mut self, path: &FieldPath, labels: &Value) {
        for (key, value) in labels.as_object().into_iter().flatten() {
            self.qualified_name(path, key);
            let value = value.as_str().unwrap_or_default();
            self.each(path, value, names::is_label_value(value));
        }
    }

    pub fn annotations(&mut self, path: &FieldPath, annotations: &Value) {
        let mut size = 0;
        for (key, value) in annotations.as_object().into_iter().flatten() {
            size += key.len() + value.as_str().map_or(0, str::len);
            self.each(path, key, names::is_qualified_name(&key.to_lowercase()));
        }
        if size > ANNOTATIONS_LIMIT {
            self.errors.push(FieldError::too_long(path, ANNOTATIONS_LIMIT));
        }
    }

    /// A LabelSelector; an absent one is fine.
    pub fn label_selector(&mut self, path: &FieldPath, selector: &Value) {
        self.labels(&path.child("matchLabels"), at(selector, "matchLabels"));
        for (index, requirement) in list(selector, "matchExpressions").iter().enumerate() {
            let path = path.child("matchExpressions").index(index);
            let values = list(requirement, "values");
            match text(requirement, "operator") {
                "In" | "NotIn" if values.is_empty() => {
                    self.required(
                        &path.child("values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => self.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                ),
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                other => self.invalid(&path.child("operator"), other, "not a valid selector operator"),
            }
            self.qualified_name(&path.child("key"), text(requirement, "key"));
            for (index, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                self.each(&path.child("values").index(index), value, names::is_label_value(value));
            }
        }
    }

    /// A port number, or a port's name.
    pub fn port(&mut self, path: &FieldPath, port: &Value) {
        match port {
            Value::String(name) => self.each(path, name, names::is_port_name(name)),
            _ => self.port_number(path, port.as_i64().unwrap_or_default()),
        }
    }

    pub fn port_number(&mut self, path: &FieldPath, port: i64) {
        for message in names::is_port_number(port) {
            self.invalid(path, port, &message);
        }
    }

    /// The port of a service that the server calls.
    pub fn reachable_port(&mut self, path: &FieldPath, port: i64) {
        let faults = names::is_port_number(port);
        if !faults.is_empty() {
            self.invalid(path, port, &format!("port is not valid: {}", faults.join(", ")));
        }
    }

    /// A field that may not differ.
    pub fn immutable(&mut self, new: &Value, old: &Value, path: &str) {
        if !same(at(new, path), at(old, path)) {
            self.invalid(&FieldPath::from(path), at(new, path).clone(), "field is immutable");
        }
    }

    /// The same where upstream's generated rules say it: they show no value.
    pub fn unchanged(&mut self, new: &Value, old: &Value, path: &str) {
        if !same(at(new, path), at(old, path)) {
            self.invalid(&FieldPath::from(path), Value::Null, "field is immutable");
        }
    }

    /// An IP address, and whether it is one.
    pub fn ip(&mut self, path: &FieldPath, value: &str) -> bool {
        let found = names::is_ip(value);
        let valid = found.is_empty();
        self.each(path, value, found);
        valid
    }

    /// An IP address in the one form that its address is printed in.
    pub fn canonical_ip(&mut self, path: &FieldPath, value: &str) {
        self.each(path, value, names::address_name(value, false));
    }

    /// An address that something outside the host can be reached at; one that is none at all is told too.
    pub fn endpoint_ip(&mut self, path: &FieldPath, value: &str) {
        let Ok(address) = value.parse::<IpAddr>() else {
            return self.invalid(path, value, "must be a valid IP address");
        };
        let (link_local, link_multicast) = match address {
            IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
            IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
        };
        if address.is_unspecified() {
            self.invalid(path, value, &format!("may not be unspecified ({value})"));
        }
        let ranges = [
            (address.is_loopback(), "loopback range (127.0.0.0/8, ::1/128)"),
            (link_local, "link-local range (169.254.0.0/16, fe80::/10)"),
            (link_multicast, "link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ];
        for (_, range) in ranges.iter().filter(|(found, _)| *found) {
            self.invalid(path, value, &format!("may not be in the {range}"));
        }
    }

    /// A path below a domain: `example.com/thing`.
    pub fn domain_path(&mut self, path: &FieldPath, value: &str) {
        const PATTERN: &str = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+";
        if value.is_empty() {
            return self.required(path, "");
        }
        let Some((host, rest)) =
            value.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty())
        else {
            return self.invalid(path, value, r#"must be a domain-prefixed path (such as "acme.io/foo")"#);
        };
        self.dns_subdomain(path, host);
        let allowed = |b: u8| b.is_ascii_alphanumeric() || br"/-._~%!$&'()*+,;=:".contains(&b);
        if !rest.bytes().all(allowed) {
            self.invalid(path, rest, &names::pattern_words("Invalid path", PATTERN, &[]));
        }
    }

    /// `metav1.Condition`s, each type once.
    pub fn conditions(&mut self, path: &FieldPath, conditions: &[Value]) {
        let mut seen = BTreeSet::new();
        for (index, condition) in conditions.iter().enumerate() {
            let path = path.index(index);
            let kind = text(condition, "type");
            if !seen.insert(kind) {
                self.duplicate(&path, kind);
            }
            self.condition(&path, condition);
        }
    }

    fn condition(&mut self, path: &FieldPath, condition: &Value) {
        const LONGEST_REASON: usize = 1024;
        const LONGEST_MESSAGE: usize = 32 * 1024;
        match text(condition, "type") {
            "" => self.required(&path.child("type"), "is required"),
            kind => self.qualified_name(&path.child("type"), kind),
        }
        let statuses = ["False", "True", "Unknown"];
        self.required_one_of(&path.child("status"), text(condition, "status"), &statuses);
        if let Some(generation) = at(condition, "observedGeneration").as_i64().filter(|g| *g < 0) {
            let detail = "must be greater than or equal to zero";
            self.invalid(&path.child("observedGeneration"), generation, detail);
        }
        if !has(condition, "lastTransitionTime") {
            self.required(&path.child("lastTransitionTime"), "");
        }
        let (reason, reason_path) = (text(condition, "reason"), path.child("reason"));
        if reason.is_empty() {
            self.required(&reason_path, "");
        } else {
            self.each(&reason_path, reason, names::is_condition_reason(reason));
            if reason.len() > LONGEST_REASON {
                self.errors.push(FieldError::too_long(&reason_path, LONGEST_REASON));
            }
        }
        if text(condition, "message").len() > LONGEST_MESSAGE {
            self.errors.push(FieldError::too_long(&path.child("message"), LONGEST_MESSAGE));
        }
    }

    /// A CIDR block: an address without anything after its prefix.
    pub fn cidr(&mut self, path: &FieldPath, value: &str) {
        let (address, length) = value.split_once('/').unwrap_or((value, ""));
        let zeros = length.len() > 1 && length.starts_with('0');
        let why = match value.parse::<IpNet>() {
            Ok(IpNet::V6(block)) if block.addr().to_ipv4_mapped().is_some() => {
                "must not have an IPv4-mapped IPv6 address"
            }
            Ok(block) if block.addr() != block.network() => "must not have bits set beyond the prefix length",
            Ok(_) if !zeros => return,
            Err(_) if format!("{}/{length}", names::without_zeros(address)).parse::<IpNet>().is_err() => {
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            }
            _ => "must not have leading 0s in IP or prefix length",
        };
        self.invalid(path, value, why);
    }

    /// A CIDR block in the one form that blocks are printed in.
    pub fn canonical_cidr(&mut self, path: &FieldPath, value: &str) {
        let before = self.errors.len();
        self.cidr(path, value);
        if self.errors.len() == before
            && let Ok(block) = value.parse::<IpNet>()
            && block.to_string() != value
        {
            self.invalid(path, value, &format!("must be in canonical form (\"{block}\")"));
        }
    }

    /// `maxUnavailable` and its like: a number that is not negative, or a percentage.
    pub fn int_or_percent(&mut self, path: &FieldPath, value: &Value) {
        match value {
            Value::String(text) => self.each(path, text, names::is_percent(text)),
            Value::Number(_) => self.nonnegative(path, value.as_i64().unwrap_or_default()),
            _ => {}
        }
    }

    /// No percentage above 100.
    pub fn at_most_all(&mut self, path: &FieldPath, value: &Value) {
        if percent(value).is_some_and(|percent| percent > 100) {
            self.invalid(path, value.clone(), "must not be greater than 100%");
        }
    }
}

/// The number of a percentage such as `25%`.
pub fn percent(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// A quantity; malformed ones were refused when the object was decoded.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The selector matches the labels. An absent selector matches nothing, one that cannot be read everything: its own
/// fault has been told already.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    if selector.is_null() {
        return false;
    }
    LabelSelector::from_object(selector)
        .map_or(true, |selector| selector.matches(|key| labels.get(key).and_then(Value::as_str)))
}

/// A selector without any requirement.
pub fn selects_all(selector: &Value) -> bool {
    let none = |path: &str| match at(selector, path) {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    };
    none("matchLabels") && none("matchExpressions")
}

/// The path of a field below nothing.
pub fn path(path: &str) -> FieldPath {
    FieldPath::from(path)
}

/// A field that is there and a number below zero, or one that fell: counters of collisions only rise.
pub fn not_decremented(checks: &mut Checks, new: &Value, old: &Value, field: &str) {
    let (new, old) = (at(new, field).as_i64(), at(old, field).as_i64());
    if let Some(old) = old
        && new.unwrap_or(0) < old
    {
        checks.invalid(&path(field), new.unwrap_or(0), "cannot be decremented");
    }
}
