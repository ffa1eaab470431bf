//! Object metadata: reading it, checking it, making names.
//!
//! Source of rules and wording: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Value, json};

use crate::{
    field::{FieldError, FieldPath},
    names::{self, NameCheck},
};

/// The letters and digits of generated names; no vowels and nothing easily confused.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// What stays of a base so that name and suffix fit a DNS label.
const MAX_BASE: usize = 63 - SUFFIX_LENGTH;
const MAX_ANNOTATIONS: usize = 256 * 1024;
const MAX_MANAGER: usize = 128;

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`; empty when absent. So are all texts below.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.generateName`
#[must_use]
pub fn generate_name_of(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.namespace`
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`
#[must_use]
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.creationTimestamp`
#[must_use]
pub fn creation_timestamp(object: &Value) -> &str {
    text(object, "creationTimestamp")
}

/// `metadata.deletionTimestamp`, if the object is being deleted.
#[must_use]
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("deletionTimestamp")?.as_str()
}

/// `metadata.generation`; 0 when absent.
#[must_use]
pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// `metadata.labels` as pairs.
pub fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(&object["metadata"]["labels"])
}

/// `metadata.annotations` as pairs.
pub fn annotations(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    pairs(&object["metadata"]["annotations"])
}

fn pairs(map: &Value) -> impl Iterator<Item = (&str, &str)> {
    map.as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))
}

/// The value of one label.
#[must_use]
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The value of one annotation.
#[must_use]
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}

/// `metadata.finalizers`
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// `metadata.ownerReferences`
#[must_use]
pub fn owner_references(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"].as_array().map_or(&[], Vec::as_slice)
}

/// A name of `base`, cut to fit a DNS label, and five letters. `random` gives a number below its argument.
pub fn generate_name(base: &str, mut random: impl FnMut(u32) -> u32) -> String {
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    for _ in 0..SUFFIX_LENGTH {
        let pick = random(27) as usize % SUFFIX_ALPHABET.len();
        name.push(char::from(SUFFIX_ALPHABET[pick]));
    }
    name
}

static METADATA: LazyLock<FieldPath> = LazyLock::new(|| FieldPath::from("metadata"));

/// What is wrong with the metadata of a new object.
#[must_use]
pub fn validate_create(object: &Value, namespaced: bool, check: NameCheck) -> Vec<FieldError> {
    let mut errors = validate_names(object, check);
    let path = &*METADATA;
    let namespace = namespace(object);
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&path.child("namespace"), "")),
        (true, false) => {
            let found = names::is_dns1123_label(namespace);
            let at = path.child("namespace");
            errors.extend(found.into_iter().map(|m| FieldError::invalid(&at, namespace, m)));
        }
        (false, false) => {
            errors.push(FieldError::forbidden(&path.child("namespace"), "not allowed on this type"));
        }
        (false, true) => {}
    }
    check_generation(object, &mut errors);
    check_labels(&object["metadata"]["labels"], &path.child("labels"), &mut errors);
    check_annotations(object, &mut errors);
    check_owners(object, &mut errors);
    check_finalizers(object, &mut errors);
    check_managers(object, &mut errors);
    errors
}

/// What is wrong with the name of an object and the base of a generated one.
#[must_use]
pub fn validate_names(object: &Value, check: NameCheck) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let base = generate_name_of(object);
    if !base.is_empty() {
        let at = METADATA.child("generateName");
        errors.extend(check(base, true).into_iter().map(|m| FieldError::invalid(&at, base, m)));
    }
    let name = name(object);
    if name.is_empty() {
        errors.push(FieldError::required(&METADATA.child("name"), "name or generateName is required"));
    } else {
        let at = METADATA.child("name");
        errors.extend(check(name, false).into_iter().map(|m| FieldError::invalid(&at, name, m)));
    }
    errors
}

/// What is wrong with the metadata of a changed object, beside what is wrong with that of a new one.
#[must_use]
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = &*METADATA;
    if deletion_timestamp(old).is_some() {
        let before: BTreeSet<&str> = finalizers(old).collect();
        let added: BTreeSet<&str> = finalizers(new).filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            let words = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden(&path.child("finalizers"), words));
        }
    }
    if resource_version(new).is_empty() {
        let at = path.child("resourceVersion");
        errors.push(FieldError::invalid(&at, "", "must be specified for an update"));
    }
    check_generation(new, &mut errors);
    if generation(new) < generation(old) {
        let at = path.child("generation");
        errors.push(FieldError::invalid(&at, generation(new), "must not be decremented"));
    }
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        let (now, before) = (&new["metadata"][field], &old["metadata"][field]);
        let empty = |v: &Value| v.is_null() || v.as_str() == Some("");
        if now != before && !(empty(now) && empty(before)) {
            let shown = match (now, field) {
                (Value::Null, "name" | "namespace" | "uid") => json!(""),
                _ => now.clone(),
            };
            errors.push(FieldError::invalid(&path.child(field), shown, "field is immutable"));
        }
    }
    check_labels(&new["metadata"]["labels"], &path.child("labels"), &mut errors);
    check_annotations(new, &mut errors);
    check_owners(new, &mut errors);
    check_managers(new, &mut errors);
    errors
}

fn check_generation(object: &Value, errors: &mut Vec<FieldError>) {
    let generation = generation(object);
    if generation < 0 {
        let at = METADATA.child("generation");
        errors.push(FieldError::invalid(&at, generation, "must be greater than or equal to 0"));
    }
}

/// What is wrong with a map of labels at `path`.
pub fn check_labels(labels: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (key, value) in pairs(labels) {
        errors.extend(names::is_qualified_name(key).into_iter().map(|m| FieldError::invalid(path, key, m)));
        errors.extend(names::is_label_value(value).into_iter().map(|m| FieldError::invalid(path, value, m)));
    }
}

/// The annotations of an object.
pub fn check_annotations(object: &Value, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("annotations");
    let mut size = 0;
    for (key, value) in annotations(object) {
        size += key.len() + value.len();
        let lower = key.to_lowercase();
        errors
            .extend(names::is_qualified_name(&lower).into_iter().map(|m| FieldError::invalid(&path, key, m)));
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(&path, MAX_ANNOTATIONS));
    }
}

fn check_owners(object: &Value, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<String> = None;
    for (index, owner) in owner_references(object).iter().enumerate() {
        let at = path.index(index);
        let field = |name: &str| owner.get(name).and_then(Value::as_str).unwrap_or_default();
        let version = field("apiVersion");
        if !version.is_empty() && (version.matches('/').count() > 1 || version.ends_with('/')) {
            let words = "must be <group>/<version> or <version>";
            errors.push(FieldError::invalid(&at.child("apiVersion"), version, words));
        }
        for name in ["apiVersion", "kind", "name", "uid"] {
            if field(name).is_empty() {
                errors.push(FieldError::required(&at.child(name), "must not be empty"));
            }
        }
        if version == "v1" && field("kind") == "Event" {
            let words = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&at, owner.clone(), words));
        }
        if owner["controller"] == json!(true) {
            let this = format!("{}/{}", field("kind"), field("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let words = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    errors.push(FieldError::invalid(&path, owner_references(object).to_vec(), words));
                }
            }
        }
    }
}

fn check_finalizers(object: &Value, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("finalizers");
    let all: Vec<&str> = finalizers(object).collect();
    for name in &all {
        errors
            .extend(names::is_qualified_name(name).into_iter().map(|m| FieldError::invalid(&path, *name, m)));
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        let words = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(&path, json!(all), words));
    }
}

fn check_managers(object: &Value, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("managedFields");
    for (index, entry) in object["metadata"]["managedFields"].as_array().into_iter().flatten().enumerate() {
        let at = path.index(index);
        let field = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        match field("operation") {
            "" => errors.push(FieldError::required(&at.child("operation"), "must not be empty")),
            "Apply" | "Update" => {}
            other => {
                errors.push(FieldError::not_supported(&at.child("operation"), other, &["Apply", "Update"]));
            }
        }
        let kind = field("fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            errors.push(FieldError::invalid(&at.child("fieldsType"), kind, "must be `FieldsV1`"));
        }
        check_manager(field("manager"), &at.child("manager"), errors);
    }
}

/// What is wrong with the name of a field manager: at most 128 bytes, printable.
pub fn check_manager(manager: &str, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if manager.len() > MAX_MANAGER {
        errors.push(FieldError::too_long(path, MAX_MANAGER));
    }
    if let Some((index, letter)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let words = format!("invalid character U+{:04X} (at position {index})", u32::from(letter));
        errors.push(FieldError::invalid(path, manager, words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_object_needs_a_name_and_a_namespace() {
        let errors = validate_create(&json!({"metadata": {}}), true, names::subdomain_name);
        assert_eq!(
            texts(&errors),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        let object = json!({"metadata": {"name": "a", "namespace": "b"}});
        assert_eq!(
            texts(&validate_create(&object, false, names::subdomain_name)),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn identity_may_not_change() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "generation": 2}});
        let new = json!({"metadata": {"name": "b", "uid": "1", "generation": 1}});
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable"
            ]
        );
    }

    #[test]
    fn a_dying_object_takes_no_new_finalizers() {
        let old = json!({"metadata": {"name": "a", "resourceVersion": "5", "deletionTimestamp": "t"}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["x/y"]);
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/y\"}"
            ]
        );
    }

    #[test]
    fn a_generated_name_fits_a_label() {
        let name = generate_name(&"x".repeat(80), |n| n - 1);
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("99999"));
        assert_eq!(generate_name("web-", |_| 0), "web-bbbbb");
    }
}
