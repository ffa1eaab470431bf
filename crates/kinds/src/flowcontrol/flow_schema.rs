//! FlowSchema: which requests belong to which priority level.

use apimachinery::{FieldError, Object, names};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{bootstrap::mandatory_spec, check_conditions, rules::check_rule};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, has, list, number, same, set, text},
    resource::Strategy,
};

/// The last of precedences, and the one that is kept for the schema `exempt`.
const LAST_PRECEDENCE: i64 = 10_000;
const FIRST_PRECEDENCE: i64 = 1;

pub(super) struct FlowSchema;

fn check(checks: &mut Checks, object: &Value) {
    let (spec, path) = (at(object, "spec"), path("spec"));
    let schema = text(object, "metadata.name");
    let (precedence, field) = (number(spec, "matchingPrecedence"), path.child("matchingPrecedence"));
    if precedence <= 0 {
        checks.invalid(&field, precedence, "must be a positive value");
    }
    if precedence > LAST_PRECEDENCE {
        checks.invalid(&field, precedence, &format!("must not be greater than {LAST_PRECEDENCE}"));
    }
    if precedence == FIRST_PRECEDENCE && schema != "exempt" {
        checks.invalid(&field, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    let method = text(spec, "distinguisherMethod.type");
    if has(spec, "distinguisherMethod") && !["ByNamespace", "ByUser"].contains(&method) {
        let field = path.child("distinguisherMethod").child("type");
        let supported = ["ByNamespace", "ByUser"];
        checks.errors.push(FieldError::not_supported(
            &field,
            at(spec, "distinguisherMethod").clone(),
            &supported,
        ));
    }
    let (level, field) = (
        text(spec, "priorityLevelConfiguration.name"),
        path.child("priorityLevelConfiguration").child("name"),
    );
    if level.is_empty() {
        checks.required(&field, "must reference a priority level");
    } else {
        checks.each(&field, level, names::subdomain_name(level, false));
    }
    for (index, rule) in list(spec, "rules").iter().enumerate() {
        check_rule(checks, rule, &path.child("rules").index(index));
    }
    if mandatory_spec("FlowSchema", schema).is_some_and(|fixed| !same(spec, &fixed)) {
        checks.invalid(&path, spec.clone(), &format!("spec of '{schema}' must equal the fixed value"));
    }
}

impl Strategy for FlowSchema {
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
        let method = at(object, "spec.distinguisherMethod.type").as_str().unwrap_or("<none>");
        let dangling = list(object, "status.conditions").iter().find(|c| c["type"] == "Dangling");
        Some(vec![
            name(object),
            text(object, "spec.priorityLevelConfiguration.name").into(),
            number(object, "spec.matchingPrecedence").into(),
            method.into(),
            created(object, now),
            dangling.map_or("?", |condition| text(condition, "status")).into(),
        ])
    }
}
