//! `AdmissionReview`: the question that a webhook is asked, and what counts as an answer to it.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/request/admissionreview.go`.

use std::collections::BTreeMap;

use access::UserInfo;
use apimachinery::{Object, structure};
use base64::Engine as _;
use serde_json::{Value, json};

use super::{registry::Form, seen::Seen};
use crate::{
    admission_match::Target,
    admit::{Kind, Write},
};

impl Form {
    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "admission.k8s.io/v1",
            Self::V1Beta1 => "admission.k8s.io/v1beta1",
        }
    }
}

/// What is asked, but for the objects: `AdmissionRequest` as expressions see it.
pub(crate) fn attributes(write: &Write<'_>, target: &Target) -> Value {
    let at = &write.attributes;
    let kind = |k: &Kind| json!({"group": &*k.group, "version": &*k.version, "kind": &*k.kind});
    let mut request = json!({
        "kind": kind(&target.kind),
        "resource": {"group": &*target.group, "version": &*target.version, "resource": &*target.resource},
        "requestKind": kind(&write.kind),
        "requestResource": {"group": at.group, "version": at.version, "resource": at.resource},
        "operation": write.operation,
        "userInfo": user(&at.user),
        "dryRun": write.dry_run,
        "options": write.options.document(write.operation),
    });
    for (field, value) in [
        ("subResource", &at.subresource),
        ("requestSubResource", &at.subresource),
        ("name", &at.name),
        ("namespace", &at.namespace),
    ] {
        if !value.is_empty() {
            request[field] = value.as_str().into();
        }
    }
    request
}

fn user(user: &UserInfo) -> Value {
    let mut info = json!({});
    for (field, value) in [("username", &user.name), ("uid", &user.uid)] {
        if !value.is_empty() {
            info[field] = value.as_str().into();
        }
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// The question.
pub(super) fn question(form: Form, uid: &str, write: &Write<'_>, seen: &Seen<'_>) -> Value {
    let mut request = attributes(write, &seen.target);
    let shown = |object: Option<&Object>| object.cloned().unwrap_or_default();
    request["uid"] = uid.into();
    request["object"] = shown(seen.object.as_deref());
    request["oldObject"] = shown(seen.old.as_deref());
    json!({"kind": "AdmissionReview", "apiVersion": form.api_version(), "request": request})
}

/// What a webhook says.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub allowed: bool,
    /// A JSON patch; empty: none.
    pub patch: Vec<u8>,
    /// `status.code`, `status.message` and so on of a refusal; null if it says nothing.
    pub status: Value,
    pub warnings: Vec<String>,
    /// For the audit log; keys without the webhook's name.
    pub annotations: BTreeMap<String, String>,
}

/// Why an answer is none.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum Unusable {
    /// It is no AdmissionReview.
    #[error("{0}")]
    Undecodable(String),
    /// It is none to this question.
    #[error("{0}")]
    Invalid(String),
}

impl Answer {
    /// Reads and checks an answer.
    pub fn of(form: Form, uid: &str, mutating: bool, review: &Value) -> Result<Self, Unusable> {
        let invalid = |why: String| Err(Unusable::Invalid(why));
        let response = match review.get("response") {
            None | Some(Value::Null) => return invalid("webhook response was absent".to_owned()),
            Some(response) => response,
        };
        let answered = text(response, "uid")?.unwrap_or_default();
        let patch_type = text(response, "patchType")?;
        let patch = patch(text(response, "patch")?.unwrap_or_default())?;
        let answer = Self {
            allowed: match &response["allowed"] {
                Value::Null => false,
                Value::Bool(allowed) => *allowed,
                other => return Err(mistyped("allowed", other)),
            },
            status: match &response["status"] {
                status @ (Value::Null | Value::Object(_)) => status.clone(),
                other => return Err(mistyped("status", other)),
            },
            warnings: strings(response, "warnings")?,
            annotations: texts(response, "auditAnnotations")?,
            patch,
        };
        if form == Form::V1Beta1 {
            // The older form never asked for more.
            return Ok(Self { patch: if mutating { answer.patch } else { Vec::new() }, ..answer });
        }
        if answered != uid {
            return invalid(format!("expected response.uid={uid:?}, got {answered:?}"));
        }
        let (version, kind) = (text(review, "apiVersion")?.unwrap_or_default(), text(review, "kind")?);
        let kind = kind.unwrap_or_default();
        if version != form.api_version() || kind != "AdmissionReview" {
            let wanted = form.api_version();
            return invalid(format!(
                "expected webhook response of {wanted}, Kind=AdmissionReview, got {version}, Kind={kind}"
            ));
        }
        match (mutating, answer.patch.is_empty(), patch_type) {
            (_, true, None) => {}
            (true, false, None) => {
                return invalid("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) => {
                return invalid("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, false, Some("")) => {
                return invalid("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            (true, false, Some("JSONPatch")) => {}
            (true, false, Some(other)) => return invalid(format!("unsupported patch type {other:?}")),
            (false, false, _) => {
                return invalid("validating webhook may not return response.patch".to_owned());
            }
            (false, true, Some(_)) => {
                return invalid("validating webhook may not return response.patchType".to_owned());
            }
        }
        Ok(answer)
    }
}

fn mistyped(field: &str, value: &Value) -> Unusable {
    let found = structure::json_type(value);
    Unusable::Undecodable(format!("json: cannot unmarshal {found} into AdmissionReview field {field}"))
}

fn text<'v>(value: &'v Value, field: &str) -> Result<Option<&'v str>, Unusable> {
    match &value[field] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        other => Err(mistyped(field, other)),
    }
}

fn strings(value: &Value, field: &str) -> Result<Vec<String>, Unusable> {
    match &value[field] {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| mistyped(field, item)))
            .collect(),
        other => Err(mistyped(field, other)),
    }
}

fn texts(value: &Value, field: &str) -> Result<BTreeMap<String, String>, Unusable> {
    let text = |(key, item): (&String, &Value)| match item {
        Value::String(text) => Ok((key.clone(), text.clone())),
        other => Err(mistyped(field, other)),
    };
    match &value[field] {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(map) => map.iter().map(text).collect(),
        other => Err(mistyped(field, other)),
    }
}

fn patch(text: &str) -> Result<Vec<u8>, Unusable> {
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(text).map_err(|why| Unusable::Undecodable(format!("illegal base64 data: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(form: Form, mutating: bool, response: Value) -> Result<Answer, String> {
        let review =
            json!({"kind": "AdmissionReview", "apiVersion": form.api_version(), "response": response});
        Answer::of(form, "u", mutating, &review).map_err(|why| why.to_string())
    }

    #[test]
    fn an_answer_is_one_to_the_question() {
        let good = answer(Form::V1, false, json!({"uid": "u", "allowed": true, "warnings": ["w"]})).unwrap();
        assert_eq!((good.allowed, good.warnings), (true, vec!["w".to_owned()]));
        let why = answer(Form::V1, false, json!({"uid": "v", "allowed": true})).unwrap_err();
        assert_eq!(why, r#"expected response.uid="u", got "v""#);
        assert_eq!(answer(Form::V1, false, Value::Null).unwrap_err(), "webhook response was absent");
        let other = json!({"kind": "Status", "apiVersion": "v1", "response": {"uid": "u", "allowed": true}});
        assert_eq!(
            Answer::of(Form::V1, "u", false, &other).unwrap_err().to_string(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got v1, Kind=Status"
        );
        let why = answer(Form::V1, false, json!({"uid": "u", "allowed": "yes"})).unwrap_err();
        assert!(why.starts_with("json: cannot unmarshal string"), "{why}");
        assert!(answer(Form::V1Beta1, false, json!({"allowed": true})).unwrap().allowed);
    }

    #[test]
    fn a_patch_comes_with_its_type_and_from_mutating_webhooks_only() {
        let cases = [
            (true, json!({"patch": "W10="}), "webhook returned response.patch but not response.patchType"),
            (
                true,
                json!({"patchType": "JSONPatch"}),
                "webhook returned response.patchType but not response.patch",
            ),
            (
                true,
                json!({"patch": "W10=", "patchType": ""}),
                "webhook returned invalid response.patchType of \"\"",
            ),
            (true, json!({"patch": "W10=", "patchType": "Merge"}), "unsupported patch type \"Merge\""),
            (false, json!({"patch": "W10="}), "validating webhook may not return response.patch"),
            (
                false,
                json!({"patchType": "JSONPatch"}),
                "validating webhook may not return response.patchType",
            ),
        ];
        for (mutating, mut response, wanted) in cases {
            response["uid"] = "u".into();
            assert_eq!(answer(Form::V1, mutating, response).unwrap_err(), wanted);
        }
        let patched = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
        assert_eq!(answer(Form::V1, true, patched.clone()).unwrap().patch, b"[]");
        assert_eq!(answer(Form::V1Beta1, true, json!({"patch": "W10="})).unwrap().patch, b"[]");
        assert!(answer(Form::V1, true, json!({"uid": "u", "patch": "%"})).unwrap_err().contains("base64"));
    }
}
