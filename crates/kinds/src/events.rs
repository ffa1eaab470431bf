//! `events.k8s.io/v1`: the same events as in the core group, under newer names.

use crate::{core::GroupEvent, declare::Declarer};

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
