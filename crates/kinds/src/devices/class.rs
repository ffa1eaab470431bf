//! DeviceClass: a name for devices of one sort, and what drivers are told of every use.

use apimachinery::{FieldError, FieldPath, Object, names};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{
    parts::{check_config, check_selectors},
    request::MOST,
};
use crate::{
    cells::{created, name},
    checks::{Checks, path},
    object::{at, list, same, text},
    resource::Strategy,
};

pub struct DeviceClass;

/// What has not changed is not looked at again, but for what upstream's rules look at always.
fn check(checks: &mut Checks, spec: &Value, old: Option<&Value>) {
    let kept = |field: &str| old.is_some_and(|old| same(at(spec, field), at(old, field)));
    let path = path("spec");
    if !kept("selectors") {
        check_selectors(checks, list(spec, "selectors"), &path.child("selectors"));
    }
    let (configs, configs_path) = (list(spec, "config"), path.child("config"));
    if !checks.too_many(&configs_path, configs.len(), MOST) {
        for (index, config) in configs.iter().enumerate() {
            check_config(checks, config, kept("config"), &configs_path.index(index));
        }
    }
    if let Some(name) = at(spec, "extendedResourceName").as_str().filter(|_| !kept("extendedResourceName")) {
        check_extended_name(checks, name, &path.child("extendedResourceName"));
    }
}

/// A resource that containers may ask for by name to get such a device.
fn check_extended_name(checks: &mut Checks, name: &str, path: &FieldPath) {
    if !name.contains('/') {
        let detail = "a name must be a domain-prefixed path, such as 'example.com/my-prop'";
        checks.invalid(path, name, detail);
    } else if name.contains("kubernetes.io/") {
        checks.invalid(path, name, "must not have \"kubernetes.io/\" domain");
    }
    if name.starts_with("requests.") {
        checks.invalid(path, name, "must not have \"requests.\" prefix");
    }
    checks.each(path, name, names::is_qualified_name(&format!("requests.{name}")));
}

impl Strategy for DeviceClass {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| {
            if text(object, "metadata.resourceVersion").is_empty() {
                check(checks, at(object, "spec"), None);
            }
        })
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, at(new, "spec"), Some(at(old, "spec"))))
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), created(object, now)])
    }
}
