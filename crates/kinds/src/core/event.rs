//! Events of both groups: two views of one stored object. The core view is the stored one.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::event_rules;
use crate::{
    cells::{age, name, parse},
    object::{at, number, text},
    resource::Strategy,
};

/// How long an event is kept after it was written.
pub const LIFETIME_SECONDS: u32 = 3600;

/// `v1` Event.
pub struct CoreEvent;

/// `events.k8s.io/v1` Event.
pub struct GroupEvent;

/// Where the two views keep the same thing: core's path, the group's path.
struct View {
    object: &'static str,
    message: &'static str,
    count: &'static str,
    first: &'static str,
    last: &'static str,
    source: &'static str,
    controller: &'static str,
}

const CORE: View = View {
    object: "involvedObject",
    message: "message",
    count: "count",
    first: "firstTimestamp",
    last: "lastTimestamp",
    source: "source",
    controller: "reportingComponent",
};

const GROUP: View = View {
    object: "regarding",
    message: "note",
    count: "deprecatedCount",
    first: "deprecatedFirstTimestamp",
    last: "deprecatedLastTimestamp",
    source: "deprecatedSource",
    controller: "reportingController",
};

fn row(event: &Object, view: &View, now: DateTime<Utc>) -> Vec<Value> {
    let event_time = age(at(event, "eventTime"), now);
    let first =
        if parse(at(event, view.first)).is_some() { age(at(event, view.first), now) } else { event_time };
    let mut last =
        if parse(at(event, view.last)).is_some() { age(at(event, view.last), now) } else { first.clone() };
    let mut count = number(event, view.count).max(1);
    let series = at(event, "series");
    if !series.is_null() {
        last = age(at(series, "lastObservedTime"), now);
        count = number(series, "count");
    }
    let object = at(event, view.object);
    let kind = text(object, "kind").to_lowercase();
    let target = match text(object, "name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let either = |a: &str, b: &str| text(event, if text(event, a).is_empty() { b } else { a }).to_owned();
    let component = either(&format!("{}.component", view.source), view.controller);
    let host = either(&format!("{}.host", view.source), "reportingInstance");
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        last.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(object, "fieldPath").into(),
        source.into(),
        text(event, view.message).trim().into(),
        first.into(),
        count.into(),
        name(event),
    ]
}

impl Strategy for CoreEvent {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        event_rules::check_core(object)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(row(object, &CORE, now))
    }
}

/// An event of the newer group in the core form.
fn core(object: &Object) -> Object {
    let mut event = object.clone();
    crate::events::stored(&mut event);
    event
}

impl Strategy for GroupEvent {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        event_rules::check_group(&core(object))
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        event_rules::check_group_change(&core(new), &core(old))
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(row(object, &GROUP, now))
    }
}
