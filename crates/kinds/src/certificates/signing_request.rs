//! CertificateSigningRequest: made by whoever wants a certificate, approved through `approval`, answered through
//! `status`. Its spec never changes; who asked is written by the server.

use apimachinery::{FieldError, Object, time};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::signing_request_rules as rules;
use crate::{
    cells::{created, human, name},
    object::{at, has, items_mut, list, remove, restore, set, text},
    resource::Strategy,
};

pub(super) struct CertificateSigningRequest;

/// Places of the conditions of a type.
fn places(object: &Value, kind: &str) -> Vec<usize> {
    let conditions = list(object, "status.conditions").iter().enumerate();
    conditions.filter(|(_, condition)| condition["type"] == kind).map(|(place, _)| place).collect()
}

/// Conditions of approval stay as they were when only the status is written. Where their number differs, they are left
/// for the rules to refuse.
fn preserve(new: &mut Value, old: &Value, kind: &str) {
    let (from, to) = (places(old, kind), places(new, kind));
    if from.len() == to.len() {
        for (from, to) in from.into_iter().zip(to) {
            new["status"]["conditions"][to] = old["status"]["conditions"][from].clone();
        }
    }
}

/// Gives conditions the times that they came without.
fn fill_times(new: &mut Value, old: &Value, now: DateTime<Utc>) {
    let now: Value = time::format_time(now).into();
    for condition in items_mut(new, "status.conditions") {
        if !has(condition, "lastUpdateTime") {
            set(condition, "lastUpdateTime", now.clone());
        }
        if !has(condition, "lastTransitionTime") {
            let same = list(old, "status.conditions").iter().find(|before| {
                before["type"] == condition["type"]
                    && before["status"] == condition["status"]
                    && has(before, "lastTransitionTime")
            });
            let time = same.map_or(&now, |before| &before["lastTransitionTime"]);
            set(condition, "lastTransitionTime", time.clone());
        }
    }
}

impl Strategy for CertificateSigningRequest {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        for field in ["username", "uid", "groups", "extra"] {
            remove(object, &format!("spec.{field}"));
        }
        set(object, "status", json!({}));
    }

    fn prepare_update_at(&self, new: &mut Object, old: &Object, subresource: &str, now: DateTime<Utc>) {
        restore(new, old, "spec");
        match subresource {
            "status" => {
                preserve(new, old, "Approved");
                preserve(new, old, "Denied");
                fill_times(new, old, now);
            }
            "approval" => {
                fill_times(new, old, now);
                let conditions = at(new, "status.conditions").clone();
                restore(new, old, "status");
                if conditions.is_null() {
                    remove(new, "status.conditions");
                } else {
                    set(new, "status.conditions", conditions);
                }
            }
            _ => restore(new, old, "status"),
        }
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        // A change is judged against what was there before.
        if text(object, "metadata.resourceVersion").is_empty() {
            rules::check_new(object)
        } else {
            Vec::new()
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        rules::check_change(new, old, subresource)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
        let duration = at(object, "spec.expirationSeconds").as_i64().map_or_else(|| or_none(""), human);
        let is = |kind: &str| !places(object, kind).is_empty();
        let mut state = if is("Denied") {
            "Denied"
        } else if is("Approved") {
            "Approved"
        } else {
            "Pending"
        }
        .to_owned();
        if is("Failed") {
            state += ",Failed";
        }
        if !text(object, "status.certificate").is_empty() {
            state += ",Issued";
        }
        Some(vec![
            name(object),
            created(object, now),
            or_none(text(object, "spec.signerName")).into(),
            text(object, "spec.username").into(),
            duration.into(),
            state.into(),
        ])
    }
}
