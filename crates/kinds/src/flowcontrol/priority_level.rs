//! PriorityLevelConfiguration: how many requests of a level are served at once, and what becomes of the others.

use apimachinery::{FieldError, FieldPath, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{bootstrap::mandatory_spec, check_conditions};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, has, number, restore, same, set, text},
    resource::Strategy,
};

const MOST_QUEUES: i64 = 10_000_000;

/// Bits of the hash that deals a flow its hand of queues.
const HASH_BITS: i64 = 60;

/// Of a conversion that this version has not.
const FORBIDDEN_ANNOTATION: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

pub(super) struct PriorityLevelConfiguration;

fn check(checks: &mut Checks, object: &Value) {
    if object["metadata"]["annotations"].get(FORBIDDEN_ANNOTATION).is_some() {
        let detail = format!("annotation '{FORBIDDEN_ANNOTATION}' is forbidden");
        checks.forbidden(&path("metadata").child("annotations"), &detail);
    }
    let (spec, path, level) = (at(object, "spec"), path("spec"), text(object, "metadata.name"));
    let kind = text(spec, "type");
    if (level == "exempt") != (kind == "Exempt") {
        checks.invalid(&path.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    check_type(checks, spec, &path);
    check_mandatory(checks, spec, &path, level);
}

fn check_type(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let (limited, exempt) = (at(spec, "limited"), at(spec, "exempt"));
    let kind = text(spec, "type");
    checks.required_one_of(&path.child("type"), kind, &["Exempt", "Limited"]);
    if !limited.is_null() && kind != "Limited" {
        checks.forbidden(&path.child("limited"), "");
    }
    if limited.is_null() && kind == "Limited" {
        checks.required(&path.child("limited"), "");
    }
    if !exempt.is_null() && kind != "Exempt" {
        checks.forbidden(&path.child("exempt"), "");
    }
    match kind {
        "Exempt" if !exempt.is_null() => check_shares(checks, exempt, &path.child("exempt")),
        "Limited" if !limited.is_null() => {
            let path = path.child("limited");
            check_shares(checks, limited, &path);
            check_response(checks, at(limited, "limitResponse"), &path.child("limitResponse"));
            if let Some(percent) = at(limited, "borrowingLimitPercent").as_i64().filter(|p| *p < 0) {
                let detail = "if specified, must be a non-negative integer";
                checks.invalid(&path.child("borrowingLimitPercent"), percent, detail);
            }
        }
        _ => {}
    }
}

fn check_shares(checks: &mut Checks, level: &Value, path: &FieldPath) {
    if let Some(shares) = at(level, "nominalConcurrencyShares").as_i64().filter(|shares| *shares < 0) {
        checks.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
    if let Some(percent) = at(level, "lendablePercent").as_i64().filter(|p| !(0..=100).contains(p)) {
        checks.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn check_response(checks: &mut Checks, response: &Value, path: &FieldPath) {
    let (kind, queuing) = (text(response, "type"), at(response, "queuing"));
    checks.required_one_of(&path.child("type"), kind, &["Queue", "Reject"]);
    let path = path.child("queuing");
    match (kind, queuing) {
        ("Queue", Value::Null) => checks.required(&path, ""),
        ("Queue", queuing) => check_queuing(checks, queuing, &path),
        (_, Value::Null) => {}
        _ => checks.forbidden(&path, ""),
    }
}

fn check_queuing(checks: &mut Checks, queuing: &Value, path: &FieldPath) {
    let [length, queues, hand] =
        ["queueLengthLimit", "queues", "handSize"].map(|field| number(queuing, field));
    if length <= 0 {
        checks.invalid(&path.child("queueLengthLimit"), length, "must be positive");
    }
    if queues <= 0 {
        checks.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MOST_QUEUES {
        checks.invalid(&path.child("queues"), queues, &format!("must not be greater than {MOST_QUEUES}"));
    }
    let path = path.child("handSize");
    if hand <= 0 {
        checks.invalid(&path, hand, "must be positive");
    } else if hand > queues {
        checks.invalid(&path, hand, &format!("should not be greater than queues ({queues})"));
    } else if entropy(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        checks.invalid(&path, hand, &detail);
    }
}

/// Bits that are needed to deal a hand of queues. Both numbers fit 32 bits, so the result is exact enough.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn entropy(queues: i64, hand: i64) -> i64 {
    ((queues as f64).log2() * hand as f64).ceil() as i64
}

/// Of the level `exempt` an administrator may change its shares; `catch-all` is as it is.
fn check_mandatory(checks: &mut Checks, spec: &Value, path: &FieldPath, level: &str) {
    let Some(fixed) = mandatory_spec("PriorityLevelConfiguration", level) else { return };
    let mut found = spec.clone();
    let mut detail = format!("spec of '{level}' must equal the fixed value");
    if level == "exempt" {
        restore(&mut found, &fixed, "exempt");
        detail = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value".to_owned();
    }
    if !same(&found, &fixed) {
        checks.invalid(path, spec.clone(), &detail);
    }
}

impl Strategy for PriorityLevelConfiguration {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            check(checks, object);
            check_conditions(checks, object);
        })
    }

    fn validate_update(&self, new: &Object, _old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                check_conditions(checks, new);
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let or_none = |path: &str| if has(object, path) { at(object, path).clone() } else { "<none>".into() };
        Some(vec![
            name(object),
            text(object, "spec.type").into(),
            or_none("spec.limited.nominalConcurrencyShares"),
            or_none("spec.limited.limitResponse.queuing.queues"),
            or_none("spec.limited.limitResponse.queuing.handSize"),
            or_none("spec.limited.limitResponse.queuing.queueLengthLimit"),
            created(object, now),
        ])
    }
}
