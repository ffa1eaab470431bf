//! Table cells that many kinds share.
//!
//! Source: `k8s.io/kubernetes/pkg/printers/internalversion`.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::object::{at, entries, list, text};

/// `5m`, `3h2m`, `4d`: how long ago a timestamp is; `<unknown>` without one.
pub fn age(timestamp: &Value, now: DateTime<Utc>) -> String {
    match parse(timestamp) {
        Some(then) => human((now - then).num_seconds()),
        None => "<unknown>".to_owned(),
    }
}

/// The age of the object itself.
pub fn created(object: &Value, now: DateTime<Utc>) -> Value {
    age(at(object, "metadata.creationTimestamp"), now).into()
}

/// A timestamp; `None` where it is absent, null or malformed.
pub fn parse(timestamp: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(timestamp.as_str()?).ok().map(|time| time.to_utc())
}

/// Upstream's short form of a duration in seconds.
pub fn human(seconds: i64) -> String {
    let two = |major: i64, unit: char, minor: i64, small: char| {
        if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{small}") }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => two(hours / 24, 'd', hours % 24, 'h'),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => two(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// The object's name.
pub fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

/// Name and creation timestamp: the row of kinds for which upstream has no printer of its own.
pub fn stamped(object: &Value) -> Vec<Value> {
    vec![name(object), text(object, "metadata.creationTimestamp").into()]
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, v)| format!("{key}={}", v.as_str().unwrap_or("")))
        .collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A LabelSelector as text, requirements sorted by key: `app=web,tier in (a,b)`; `<none>` for one that selects all.
pub fn selector(selector: &Value) -> String {
    let text = requirements(selector);
    if text.is_empty() { "<none>".to_owned() } else { text }
}

/// The same, empty for one that selects all.
pub fn requirements(selector: &Value) -> String {
    let mut parts: Vec<(&str, String)> = Vec::new();
    for (key, value) in entries(selector, "matchLabels") {
        parts.push((key, format!("{key}={}", value.as_str().unwrap_or(""))));
    }
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> = list(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        parts.push((
            key,
            match text(expression, "operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_owned(),
                "DoesNotExist" => format!("!{key}"),
                _ => return "<error>".to_owned(),
            },
        ));
    }
    parts.sort_by(|a, b| a.0.cmp(b.0));
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// Names and images of the containers below a pod spec, each joined by commas.
pub fn containers(spec: &Value) -> [Value; 2] {
    ["name", "image"].map(|field| {
        list(spec, "containers")
            .iter()
            .map(|container| text(container, field))
            .collect::<Vec<_>>()
            .join(",")
            .into()
    })
}

/// The items, or `<unset>`; no more than `most`, then `+ 2 more...`.
pub fn some_of(items: &[String], most: usize, none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let shown = items[..items.len().min(most)].join(",");
    if items.len() > most { format!("{shown} + {} more...", items.len() - most) } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ages_grow_coarser_with_time() {
        let cases = [(5, "5s"), (119, "119s"), (125, "2m5s"), (600, "10m"), (10800, "3h"), (11_000, "3h3m")];
        for (seconds, text) in cases {
            assert_eq!(human(seconds), text);
        }
        assert_eq!(human(86_400 * 4), "4d");
        assert_eq!(human(86_400 * 800), "2y70d");
    }

    #[test]
    fn a_selector_is_printed_sorted_by_key() {
        let selector = json!({"matchLabels": {"b": "1"}, "matchExpressions":
            [{"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]});
        assert_eq!(super::selector(&selector), "a in (x,y),b=1,!c");
    }
}
