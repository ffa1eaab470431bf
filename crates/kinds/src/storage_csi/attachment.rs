//! VolumeAttachment: that a volume is to be attached to a node, and whether it is.

use apimachinery::{FieldError, FieldPath, Object};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    cells::{created, name},
    checks::{Checks, path},
    core::check_inline_volume,
    object::{at, entries, flag, set, text},
    resource::Strategy,
};

/// Bytes of what a driver says of an attachment, keys and values.
const METADATA_LIMIT: usize = 256 * 1024;
/// Bytes of an error's message.
const MESSAGE_LIMIT: usize = 1024;

pub struct VolumeAttachment;

fn check(checks: &mut Checks, object: &Value) {
    let path = path("spec");
    // An object that is there cannot change its spec; the generated rules look at nothing else then.
    if text(object, "metadata.resourceVersion").is_empty() {
        checks.driver_name_declared(&path.child("attacher"), text(object, "spec.attacher"));
    }
    check_source(checks, at(object, "spec.source"), &path.child("source"));
    checks.dns_subdomain(&path.child("nodeName"), text(object, "spec.nodeName"));
    check_status(checks, at(object, "status"));
    if let Some(volume) = at(object, "spec.source.persistentVolumeName").as_str() {
        checks.dns_subdomain(&FieldPath::from("spec.source.persistentVolumeName"), volume);
    }
}

fn check_source(checks: &mut Checks, source: &Value, path: &FieldPath) {
    let (volume, inline) = (at(source, "persistentVolumeName"), at(source, "inlineVolumeSpec"));
    let detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (volume.is_null(), inline.is_null()) {
        (true, true) => checks.required(path, detail),
        (false, false) => checks.forbidden(path, detail),
        (false, true) if volume == "" => {
            let detail = "must specify non empty persistentVolumeName";
            checks.required(&path.child("persistentVolumeName"), detail);
        }
        (false, true) => {}
        (true, false) => check_inline_volume(checks, inline, &path.child("inlineVolumeSpec")),
    }
}

fn check_status(checks: &mut Checks, status: &Value) {
    let path = path("status");
    let size: usize = entries(status, "attachmentMetadata")
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if size > METADATA_LIMIT {
        checks.errors.push(FieldError::too_long(&path.child("attachmentMetadata"), METADATA_LIMIT));
    }
    for field in ["attachError", "detachError"] {
        let (error, path) = (at(status, field), path.child(field));
        checks.longest(&path.child("message"), text(error, "message"), MESSAGE_LIMIT);
        if let Some(code) = at(error, "errorCode").as_i64().filter(|code| *code < 0) {
            let detail = "must be between 0 and 2147483647, inclusive";
            checks.invalid(&path.child("errorCode"), code, detail);
        }
    }
}

impl Strategy for VolumeAttachment {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        set(object, "status", json!({"attached": false}));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        Checks::run(|checks| check(checks, object))
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        Checks::run(|checks| {
            if subresource == "status" {
                check(checks, new);
            } else {
                checks.unchanged(new, old, "spec");
            }
        })
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![
            name(object),
            text(object, "spec.attacher").into(),
            text(object, "spec.source.persistentVolumeName").into(),
            text(object, "spec.nodeName").into(),
            flag(object, "status.attached").into(),
            created(object, now),
        ])
    }
}
