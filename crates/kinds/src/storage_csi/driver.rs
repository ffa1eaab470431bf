//! CSIDriver: what a driver can do and wants to be told.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, flag, has, list, same, text},
    resource::Strategy,
};

pub struct CsiDriver;

fn check(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    // Upstream names the first field in its own way.
    let needed = [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
    ];
    for (field, said) in needed {
        if !has(spec, field) {
            checks.required(&path.child(said), "");
        }
    }
    if let Some(policy) = at(spec, "fsGroupPolicy").as_str() {
        let supported = ["File", "None", "ReadWriteOnceWithFSType"];
        checks.one_of(&path.child("fsGroupPolicy"), policy, &supported);
    }
    check_tokens(checks, list(spec, "tokenRequests"), &path.child("tokenRequests"));
    for mode in list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
        checks.one_of(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    if !has(spec, "seLinuxMount") {
        checks.required(&path.child("seLinuxMount"), "");
    }
    if let Some(period) =
        at(spec, "nodeAllocatableUpdatePeriodSeconds").as_i64().filter(|period| *period < 10)
    {
        let path = path.child("nodeAllocatableUpdatePeriodSeconds");
        checks.invalid(&path, period, "must be greater than or equal to 10 seconds");
    }
    if has(spec, "serviceAccountTokenInSecrets") && list(spec, "tokenRequests").is_empty() {
        let detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
        let value = at(spec, "serviceAccountTokenInSecrets").clone();
        checks.invalid(&path.child("serviceAccountTokenInSecrets"), value, detail);
    }
    if !has(spec, "preventPodSchedulingIfMissing") {
        checks.required(&path.child("preventPodSchedulingIfMissing"), "");
    }
}

/// Each audience once, for a time that a token can have.
fn check_tokens(checks: &mut Checks, requests: &[Value], path: &FieldPath) {
    const LEAST: i64 = 600;
    const MOST: i64 = 1 << 32;
    let mut audiences = BTreeSet::new();
    for (index, request) in requests.iter().enumerate() {
        let path = path.index(index);
        let audience = text(request, "audience");
        if !audiences.insert(audience) {
            checks.duplicate(&path.child("audience"), audience);
            continue;
        }
        let Some(seconds) = at(request, "expirationSeconds").as_i64() else { continue };
        let path = path.child("expirationSeconds");
        if seconds < LEAST {
            checks.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds > MOST {
            checks.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
        }
    }
}

impl Strategy for CsiDriver {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, at(object, "spec"), &path("spec")))
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            let changed = |field: &str| !same(at(at(new, "spec"), field), at(at(old, "spec"), field));
            let fields =
                [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")];
            for (field, said) in fields.into_iter().filter(|(field, _)| changed(field)) {
                let value = at(at(new, "spec"), field).clone();
                checks.invalid(&path("spec").child(said), value, "field is immutable");
            }
        })
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let tokens = at(new, "spec.tokenRequests");
        let kept = old.is_some_and(|old| same(at(old, "spec.tokenRequests"), tokens));
        if kept || list(new, "spec.tokenRequests").is_empty() || has(new, "spec.serviceAccountTokenInSecrets")
        {
            return Vec::new();
        }
        let words = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to \
                     prevent possible logging of tokens in volume attributes";
        vec![words.to_owned()]
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let spec = at(object, "spec");
        let joined = |texts: Vec<&str>| texts.join(",");
        let modes = joined(list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str).collect());
        let audiences = joined(list(spec, "tokenRequests").iter().map(|r| text(r, "audience")).collect());
        let tokens = if has(spec, "tokenRequests") { audiences.as_str() } else { "<unset>" };
        Some(vec![
            name(object),
            at(spec, "attachRequired").as_bool().unwrap_or(true).into(),
            flag(spec, "podInfoOnMount").into(),
            flag(spec, "storageCapacity").into(),
            tokens.into(),
            flag(spec, "requiresRepublish").into(),
            if modes.is_empty() { json!("<none>") } else { modes.into() },
            created(object, now),
        ])
    }
}
