//! ConfigMap, Secret and ServiceAccount: what pods are given.

use apimachinery::{FieldError, Object};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::config_rules as rules;
use crate::{
    cells::{created, name},
    checks::Checks,
    object::{at, entries, fill, items_mut, map_mut, remove, text},
    resource::Strategy,
};

pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_config_map(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, subresource: &str) -> Vec<FieldError> {
        if subresource.is_empty() {
            rules::check_immutable(new, old, &["data", "binaryData"])
        } else {
            Vec::new()
        }
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let keys = entries(object, "data").count() + entries(object, "binaryData").count();
        Some(vec![name(object), keys.into(), created(object, now)])
    }
}

pub struct Secret;

impl Strategy for Secret {
    /// `stringData` is a way to write `data`; it is never shown.
    fn default(&self, object: &mut Object) {
        let strings = at(object, "stringData").clone();
        remove(object, "stringData");
        let Value::Object(strings) = strings else { return };
        if let Some(data) = map_mut(object, "data") {
            for (key, value) in strings {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
    }

    fn prepare_update(&self, new: &mut Object, old: &Object, _subresource: &str) {
        fill(new, "type", text(old, "type"));
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        rules::check_secret(object)
    }

    fn validate_update(&self, new: &Object, old: &Object, _subresource: &str) -> Vec<FieldError> {
        let mut errors = Checks::run(|checks| checks.immutable(new, old, "type"));
        errors.extend(rules::check_immutable(new, old, &["data"]));
        errors
    }

    /// As far as Go's TLS library can be told from whether there is any PEM at all.
    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let pem = |key: &str| {
            let encoded = at(new, "data").get(key).and_then(Value::as_str).unwrap_or_default();
            STANDARD.decode(encoded).is_ok_and(|text| String::from_utf8_lossy(&text).contains("-----BEGIN "))
        };
        if text(new, "type") != "kubernetes.io/tls" {
            return Vec::new();
        }
        let part = if !pem("tls.crt") {
            "certificate"
        } else if !pem("tls.key") {
            "key"
        } else {
            return Vec::new();
        };
        vec![format!("tls: failed to find any PEM data in {part} input")]
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        let keys = entries(object, "data").count();
        Some(vec![name(object), text(object, "type").into(), keys.into(), created(object, now)])
    }
}

pub struct ServiceAccount;

/// Only the name of a mountable secret is kept.
fn clean_secret_references(object: &mut Object) {
    for secret in items_mut(object, "secrets") {
        if let Some(fields) = secret.as_object_mut() {
            fields.retain(|field, _| field == "name");
        }
    }
}

impl Strategy for ServiceAccount {
    fn prepare_create(&self, object: &mut Object, _now: DateTime<Utc>) {
        clean_secret_references(object);
    }

    fn prepare_update(&self, new: &mut Object, _old: &Object, _subresource: &str) {
        clean_secret_references(new);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
        let has = |object: &Object| at(object, "metadata.annotations").get(MOUNTABLE).is_some();
        if has(new) && !old.is_some_and(has) {
            return vec![format!(
                "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate \
                 access to mounted secrets"
            )];
        }
        Vec::new()
    }

    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        Some(vec![name(object), created(object, now)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn string_data_is_merged_over_data_and_never_kept() {
        let mut secret = json!({"data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"b": "two"}});
        Secret.default(&mut secret);
        assert_eq!(secret, json!({"data": {"a": "MQ==", "b": "dHdv"}}));
    }
}
