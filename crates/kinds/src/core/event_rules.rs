//! What is wrong with an event. `events.k8s.io/v1` asks more than the core group; both name the core group's fields.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/core/validation/events.go`.

use apimachinery::FieldError;
use serde_json::Value;

use crate::{
    checks::{Checks, path},
    object::{at, has, number, text},
};

/// Characters of a reason, an action or a reporting instance.
const WORD_LIMIT: usize = 128;
/// Characters of a message.
const MESSAGE_LIMIT: usize = 1024;

/// What both groups ask of an event in the core form. `controller` is the name of the field with the controller's name.
fn check_any(checks: &mut Checks, event: &Value, controller: &str) {
    let (own, about) = (text(event, "metadata.namespace"), text(event, "involvedObject.namespace"));
    let timed = has(event, "eventTime");
    let fits = match (about, timed) {
        ("", false) => matches!(own, "" | "default"),
        ("", true) => matches!(own, "default" | "kube-system"),
        (about, false) => about == own,
        (_, true) => true,
    };
    if !fits {
        let path = path("involvedObject").child("namespace");
        checks.invalid(&path, about, "does not match event.namespace");
    }
    if !timed {
        return;
    }
    let name = text(event, "reportingComponent");
    if name.is_empty() {
        checks.required(&path(controller), "");
    }
    checks.qualified_name(&path(controller), name);
    for (field, needed, limit) in [
        ("reportingInstance", true, WORD_LIMIT),
        ("action", true, WORD_LIMIT),
        ("reason", true, WORD_LIMIT),
        ("message", false, MESSAGE_LIMIT),
    ] {
        let value = text(event, field);
        if needed && value.is_empty() {
            checks.required(&path(field), "");
        }
        if value.len() > limit {
            checks.invalid(&path(field), "", &format!("can have at most {limit} characters"));
        }
    }
}

fn check_series(checks: &mut Checks, event: &Value) {
    if !has(event, "series") {
        return;
    }
    if number(event, "series.count") < 2 {
        checks.invalid(&path("series.count"), "", "should be at least 2");
    }
    if !has(event, "series.lastObservedTime") {
        checks.required(&path("series.lastObservedTime"), "");
    }
}

/// An event of the core group, new or changed.
pub fn check_core(event: &Value) -> Vec<FieldError> {
    Checks::run(|checks| check_any(checks, event, "reportingComponent"))
}

/// An event of `events.k8s.io/v1`, in the core form. What only a new one is asked is told apart by its missing
/// resourceVersion.
pub fn check_group(event: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        check_any(checks, event, "reportingController");
        if !text(event, "metadata.resourceVersion").is_empty() {
            return;
        }
        check_series(checks, event);
        if !has(event, "eventTime") {
            checks.required(&path("eventTime"), "");
        }
        let kind = text(event, "type");
        if !matches!(kind, "Normal" | "Warning") {
            checks.invalid(&path("type"), "", &format!("has invalid value: {kind}"));
        }
        let source = ["source.component", "source.host"].iter().any(|field| !text(event, field).is_empty());
        for (field, set) in [
            ("firstTimestamp", has(event, "firstTimestamp")),
            ("lastTimestamp", has(event, "lastTimestamp")),
            ("count", number(event, "count") != 0),
            ("source", source),
        ] {
            if set {
                checks.invalid(&path(field), "", "needs to be unset");
            }
        }
    })
}

/// What of an event of `events.k8s.io/v1` may not change, in the core form.
pub fn check_group_change(new: &Value, old: &Value) -> Vec<FieldError> {
    const KEPT: [&str; 14] = [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ];
    Checks::run(|checks| {
        if at(new, "series") != at(old, "series") {
            check_series(checks, new);
        }
        for field in KEPT {
            let (after, before) = (at(new, field), at(old, field));
            let name = if field == "reportingComponent" { "reportingController" } else { field };
            if !crate::object::same(after, before) {
                let timed = matches!(field, "eventTime" | "firstTimestamp" | "lastTimestamp");
                let empty = after.is_null() && before.is_string() && !timed;
                let shown = if empty { "".into() } else { after.clone() };
                checks.invalid(&path(name), shown, "field is immutable");
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_event_lies_where_its_object_does() {
        let event =
            |about: &str| json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": about}});
        assert!(check_core(&event("a")).is_empty());
        assert_eq!(
            texts(check_core(&event("b"))),
            ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
        );
    }

    #[test]
    fn the_newer_group_lets_nothing_of_what_happened_change() {
        let old = json!({
            "metadata": {"namespace": "a", "resourceVersion": "1"}, "involvedObject": {"namespace": "a"},
            "eventTime": "2024-01-01T00:00:00.000001Z", "reportingComponent": "c", "reportingInstance": "i",
            "action": "a", "reason": "r", "type": "Normal",
        });
        let mut new = old.clone();
        assert!(check_group(&new).is_empty() && check_group_change(&new, &old).is_empty());
        new["reportingInstance"] = json!("j");
        assert_eq!(
            texts(check_group_change(&new, &old)),
            ["reportingInstance: Invalid value: \"j\": field is immutable"]
        );
    }
}
