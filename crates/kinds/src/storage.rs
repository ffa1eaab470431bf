//! `storage.k8s.io/v1`: StorageClass.

use std::collections::BTreeSet;

use apimachinery::{FieldError, Object};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::created,
    checks::{Checks, path},
    declare::Declarer,
    object::{at, entries, flag, list, text},
    resource::Strategy,
    warnings::node_label,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("storage.k8s.io/v1", "storageclasses").returns_deleted().strategy(StorageClass);
}

struct StorageClass;

fn check(checks: &mut Checks, object: &Value) {
    let provisioner = text(object, "provisioner");
    if provisioner.is_empty() {
        checks.required(&path("provisioner"), "");
    } else {
        checks.qualified_name(&path("provisioner"), &provisioner.to_lowercase());
    }
    check_parameters(checks, object);
    let reclaim = text(object, "reclaimPolicy");
    if !reclaim.is_empty() {
        checks.one_of(&path("reclaimPolicy"), reclaim, &["Delete", "Retain"]);
    }
    let modes = ["Immediate", "WaitForFirstConsumer"];
    checks.one_of(&path("volumeBindingMode"), text(object, "volumeBindingMode"), &modes);
    check_topologies(checks, list(object, "allowedTopologies"));
}

/// What a driver is told, `parameters`. Whether there are not too many of them.
pub fn check_parameters(checks: &mut Checks, object: &Value) -> bool {
    const MOST_PARAMETERS: usize = 512;
    const PARAMETERS_SIZE: usize = 256 * 1024;
    let parameters = path("parameters");
    if entries(object, "parameters").count() > MOST_PARAMETERS {
        checks.errors.push(FieldError::too_long(&parameters, MOST_PARAMETERS));
        return false;
    }
    let mut size = 0;
    for (key, value) in entries(object, "parameters") {
        if key.is_empty() {
            checks.invalid(&parameters, "", "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > PARAMETERS_SIZE {
        checks.errors.push(FieldError::too_long(&parameters, PARAMETERS_SIZE));
    }
    true
}

fn check_topologies(checks: &mut Checks, terms: &[Value]) {
    // Upstream compares each term with empty ones too.
    let mut seen = BTreeSet::from([BTreeSet::new()]);
    for (index, term) in terms.iter().enumerate() {
        let path = path("allowedTopologies").index(index).child("matchLabelExpressions");
        let (mut keys, mut pairs) = (BTreeSet::new(), BTreeSet::new());
        for (index, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
            let path = path.index(index);
            let values = list(expression, "values");
            let mut known = BTreeSet::new();
            if values.is_empty() {
                checks.required(&path.child("values"), "");
            }
            for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
                if !known.insert(value) {
                    checks.duplicate(&path.child("values").index(index), value);
                }
            }
            let key = text(expression, "key");
            checks.qualified_name(&path.child("key"), key);
            if !keys.insert(key) {
                checks.duplicate(&path.child("key"), key);
            }
            pairs.insert((key, known));
        }
        if !seen.insert(pairs) {
            checks.duplicate(&path, "");
        }
    }
}

impl Strategy for StorageClass {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
                checks.unchanged(new, old, field);
            }
        })
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, term) in list(new, "allowedTopologies").iter().enumerate() {
            let path = path("allowedTopologies").index(index).child("matchLabelExpressions");
            for (index, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
                if let Some(words) = node_label(text(expression, "key")) {
                    warnings.push(format!("{}: {words}", path.index(index).child("key")));
                }
            }
        }
        warnings
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        // Upstream marks only the youngest of several defaults, which takes the whole list to know.
        let is_default =
            at(object, "metadata.annotations")["storageclass.kubernetes.io/is-default-class"] == "true";
        let mark = if is_default { " (default)" } else { "" };
        let or = |path: &str, none: &str| -> Value { at(object, path).as_str().unwrap_or(none).into() };
        Some(vec![
            format!("{}{mark}", text(object, "metadata.name")).into(),
            text(object, "provisioner").into(),
            or("reclaimPolicy", "Delete"),
            or("volumeBindingMode", "Immediate"),
            flag(object, "allowVolumeExpansion").into(),
            created(object, now),
        ])
    }
}
