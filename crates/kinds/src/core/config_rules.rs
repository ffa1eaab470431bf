//! What is wrong with a ConfigMap or a Secret.

use apimachinery::{FieldError, names};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{
    checks::{Checks, path},
    object::{at, entries, flag, same, text},
};

/// All values together, in bytes.
const LIMIT: usize = 1024 * 1024;

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default()
}

pub fn check_config_map(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let mut size = 0;
        for (key, value) in entries(object, "data") {
            let path = path("data").key(key);
            checks.each(&path, key, names::is_config_map_key(key));
            if at(object, "binaryData").get(key).is_some() {
                checks.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in entries(object, "binaryData") {
            checks.each(&path("binaryData").key(key), key, names::is_config_map_key(key));
            size += decoded(value).len();
        }
        if size > LIMIT {
            checks.errors.push(FieldError::too_long(&path(""), LIMIT));
        }
    })
}

/// Once `immutable` is set it stays, and so do `fields`.
pub fn check_immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    Checks::run(|checks| {
        if !flag(old, "immutable") {
            return;
        }
        if !flag(new, "immutable") {
            checks.forbidden(&path("immutable"), DETAIL);
        }
        for field in fields {
            if !same(at(new, field), at(old, field)) {
                checks.forbidden(&path(field), DETAIL);
            }
        }
    })
}

pub fn check_secret(object: &Value) -> Vec<FieldError> {
    Checks::run(|checks| {
        let data = path("data");
        let mut size = 0;
        for (key, value) in entries(object, "data") {
            checks.each(&data.key(key), key, names::is_config_map_key(key));
            size += decoded(value).len();
        }
        if size > LIMIT {
            checks.errors.push(FieldError::too_long(&data, LIMIT));
        }
        let get = |key: &str| at(object, "data").get(key);
        match text(object, "type") {
            "kubernetes.io/service-account-token" => {
                const ACCOUNT: &str = "kubernetes.io/service-account.name";
                if at(object, "metadata.annotations")[ACCOUNT].as_str().unwrap_or_default().is_empty() {
                    checks.required(&path("metadata").child("annotations").key(ACCOUNT), "");
                }
            }
            "kubernetes.io/dockercfg" => check_docker_config(checks, get(".dockercfg"), ".dockercfg"),
            "kubernetes.io/dockerconfigjson" => {
                check_docker_config(checks, get(".dockerconfigjson"), ".dockerconfigjson");
            }
            "kubernetes.io/basic-auth" if get("username").is_none() && get("password").is_none() => {
                checks.required(&data.key("username"), "");
                checks.required(&data.key("password"), "");
            }
            "kubernetes.io/ssh-auth" if get("ssh-privatekey").is_none_or(|key| decoded(key).is_empty()) => {
                checks.required(&data.key("ssh-privatekey"), "");
            }
            "kubernetes.io/tls" => {
                for key in ["tls.crt", "tls.key"] {
                    if get(key).is_none() {
                        checks.required(&data.key(key), "");
                    }
                }
            }
            _ => {}
        }
    })
}

/// Credentials of registries are JSON. What is inside is never told.
fn check_docker_config(checks: &mut Checks, value: Option<&Value>, key: &str) {
    let path = path("data").key(key);
    match value {
        None => checks.required(&path, ""),
        Some(value) => {
            let content = decoded(value);
            let detail = match serde_json::from_slice::<Value>(&content) {
                Ok(Value::Object(_) | Value::Null) => return,
                Ok(_) => "json: cannot unmarshal into Go value of type map[string]interface {}".to_owned(),
                Err(_) if content.is_empty() => "unexpected end of JSON input".to_owned(),
                Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
                Err(_) => "invalid character looking for beginning of value".to_owned(),
            };
            checks.invalid(&path, "<secret contents redacted>", &detail);
        }
    }
}
