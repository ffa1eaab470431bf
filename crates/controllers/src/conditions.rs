//! Conditions of the common type, `meta/v1` Condition.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Whether a condition of this type is True.
#[must_use]
pub fn holds(conditions: Option<&Vec<Condition>>, kind: &str) -> bool {
    find(conditions, kind).is_some_and(|c| c.status == "True")
}

/// A condition.
#[must_use]
pub fn find<'a>(conditions: Option<&'a Vec<Condition>>, kind: &str) -> Option<&'a Condition> {
    conditions.into_iter().flatten().find(|c| c.type_ == kind)
}

/// Sets a condition in the place of the one of its type; its time moves only when its status changes.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time.clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// A condition that changes now.
#[must_use]
pub fn new(kind: &str, holds: bool, reason: &str, message: impl Into<String>, now: Timestamp) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        observed_generation: None,
    }
}
