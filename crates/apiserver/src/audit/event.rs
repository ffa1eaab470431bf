//! `audit.k8s.io/v1 Event`: one line of the log.

use std::collections::BTreeMap;

use access::UserInfo;
use serde::Serialize;
use serde_json::{Value, value::RawValue};

/// An event; fields in upstream's order.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub kind: &'static str,
    pub api_version: &'static str,
    pub level: &'static str,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: &'static str,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: &'static str,
    pub user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Box<RawValue>>,
    /// Micro time.
    pub request_received_timestamp: String,
    /// Micro time.
    pub stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// `authentication.k8s.io/v1 UserInfo`
#[derive(Clone, Default, Serialize)]
pub(super) struct User {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&UserInfo> for User {
    fn from(user: &UserInfo) -> Self {
        Self {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

/// What a request is about.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

impl ObjectReference {
    /// Takes from an object that was sent what the URL did not say.
    pub fn complete(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        for (field, to) in [
            ("namespace", &mut self.namespace),
            ("name", &mut self.name),
            ("uid", &mut self.uid),
            ("resourceVersion", &mut self.resource_version),
        ] {
            if to.is_empty() {
                metadata[field].as_str().unwrap_or_default().clone_into(to);
            }
        }
    }
}

/// The parts of a `meta/v1 Status` that are told.
#[derive(Clone, Default, Serialize)]
pub(super) struct Status {
    /// Always empty, and always there.
    pub metadata: Empty,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
    pub code: u16,
}

/// `{}`
#[derive(Clone, Default, Serialize)]
pub(super) struct Empty {}

impl Status {
    pub fn of(status: &Value) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        Self {
            metadata: Empty {},
            status: text("status"),
            message: text("message"),
            reason: text("reason"),
            details: status["details"].clone(),
            code: status["code"].as_u64().and_then(|code| code.try_into().ok()).unwrap_or_default(),
        }
    }
}

/// Takes `metadata.managedFields` out of an object, or out of the items of a list or the rows of a table.
pub(super) fn without_managed_fields(object: &mut Value) {
    let forget = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    forget(object);
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        forget(item);
    }
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        row.get_mut("object").into_iter().for_each(forget);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn managed_fields_go_wherever_objects_are() {
        let owned = || json!({"metadata": {"name": "x", "managedFields": [{}]}, "items": 3});
        let bare = || json!({"metadata": {"name": "x"}, "items": 3});
        for (mut given, wanted) in [
            (owned(), bare()),
            (json!({"metadata": {}, "items": [owned()]}), json!({"metadata": {}, "items": [bare()]})),
            (
                json!({"rows": [{"cells": [], "object": owned()}]}),
                json!({"rows": [{"cells": [], "object": bare()}]}),
            ),
        ] {
            without_managed_fields(&mut given);
            assert_eq!(given, wanted);
        }
    }

    #[test]
    fn a_reference_takes_only_what_is_missing() {
        let mut reference = ObjectReference { namespace: "a".to_owned(), ..ObjectReference::default() };
        reference.complete(&json!({"metadata": {"namespace": "b", "name": "x", "uid": "u"}}));
        assert_eq!(
            serde_json::to_value(&reference).unwrap(),
            json!({"namespace": "a", "name": "x", "uid": "u"})
        );
    }
}
