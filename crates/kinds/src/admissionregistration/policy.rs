//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules in CEL that the server itself runs on writes.

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{check_static_name, is_new, policy_rules as rules, static_name_warnings};
use crate::{
    cells::{created, name},
    checks::Checks,
    object::{at, list, set, text},
    resource::Strategy,
};

/// Name, how many entries `rules` has, kind of the parameters, age.
fn row(object: &Value, rules: &str, now: DateTime<Utc>) -> Vec<Value> {
    let kind = at(object, "spec.paramKind");
    let parameters = if kind.is_null() {
        "<unset>".to_owned()
    } else {
        format!("{}/{}", text(kind, "apiVersion"), text(kind, "kind"))
    };
    vec![name(object), list(object, rules).len().into(), parameters.into(), created(object, now)]
}

/// A new object is judged whole; expressions in conditions that were there before are not compiled again.
fn validate(object: &Value, check: fn(&mut Checks, &Value, bool)) -> Vec<FieldError> {
    if !is_new(object) {
        return Vec::new();
    }
    Checks::run(|checks| {
        check(checks, object, false);
        check_static_name(checks, object);
    })
}

pub(super) struct ValidatingAdmissionPolicy;

impl Strategy for ValidatingAdmissionPolicy {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        validate(object, rules::check_validating)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| match subresource {
            "status" => rules::check_status(checks, new),
            _ => rules::check_validating(checks, new, rules::same_conditions(new, old)),
        })
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        static_name_warnings(new, old)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(row(object, "spec.validations", now))
    }
}

pub(super) struct MutatingAdmissionPolicy;

impl Strategy for MutatingAdmissionPolicy {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        validate(object, rules::check_mutating)
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| rules::check_mutating(checks, new, rules::same_conditions(new, old)))
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        static_name_warnings(new, old)
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(row(object, "spec.mutations", now))
    }
}
