//! `events.k8s.io/v1`: the same events as in the core group, under newer names. The core form is stored.

use apimachinery::Object;
use serde_json::Value;

use crate::{core::GroupEvent, declare::Declarer};

/// Core name, group name.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("source", "deprecatedSource"),
    ("reportingComponent", "reportingController"),
];

fn rename(object: &mut Object, pairs: impl Iterator<Item = (&'static str, &'static str)>, version: &str) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    if map.contains_key("apiVersion") {
        map.insert("apiVersion".to_owned(), Value::from(version));
    }
}

/// The stored form, as `events.k8s.io/v1` shows it.
pub fn shown(object: &mut Object) {
    rename(object, NAMES.into_iter(), "events.k8s.io/v1");
}

/// The form of `events.k8s.io/v1`, as it is stored.
pub fn stored(object: &mut Object) {
    rename(object, NAMES.into_iter().map(|(core, group)| (group, core)), "v1");
}

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("events.k8s.io/v1", "events")
        .created_by_update()
        .behaves(|b| b.ttl_seconds = Some(3600))
        .select_at("regarding.kind", "regarding.kind", "")
        .select("regarding.namespace", "")
        .select("regarding.name", "")
        .select("regarding.uid", "")
        .select("regarding.apiVersion", "")
        .select("regarding.resourceVersion", "")
        .select("regarding.fieldPath", "")
        .select("reason", "")
        .select("reportingController", "")
        .select("type", "")
        .strategy(GroupEvent);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_views_keep_both_sides() {
        let core = json!({
            "apiVersion": "v1", "message": "m", "involvedObject": {"name": "x"}, "count": 2, "type": "Normal",
            "reportingComponent": "kubelet", "metadata": {"name": "e"},
        });
        let mut event = core.clone();
        shown(&mut event);
        assert_eq!(event["note"], "m");
        assert_eq!(event["reportingController"], "kubelet");
        assert!(event.get("message").is_none());
        stored(&mut event);
        assert_eq!(event, core);
    }
}
