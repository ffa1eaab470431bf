//! The error of the API: a `metav1.Status` with upstream's codes, reasons and wording.
//!
//! Source: `k8s.io/apimachinery/pkg/api/errors`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::field::{FieldError, FieldErrors};

/// A request that failed. [`ApiError::to_status`] is the body that the client gets.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The HTTP code.
    pub code: u16,
    /// `NotFound`, `Conflict`, …; may be empty.
    pub reason: &'static str,
    /// The text.
    pub message: String,
    /// `details`: name, group, kind, uid, causes, retryAfterSeconds. `None`: no details at all.
    pub details: Option<Value>,
    /// `metadata.continue`, only with an expired continue token.
    pub continue_token: Option<String>,
    /// The `Status` that somebody else answered with, which is passed on in place of one made from the fields above.
    pub given: Option<Box<Value>>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for ApiError {}

/// `pods`, or `deployments.apps`: how errors name a resource.
#[must_use]
pub fn qualified(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn details(group: &str, kind: &str, name: &str) -> Map<String, Value> {
    let mut map = Map::new();
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            map.insert(key.to_owned(), json!(value));
        }
    }
    map
}

impl ApiError {
    fn of(code: u16, reason: &'static str, message: String, details: Option<Map<String, Value>>) -> Self {
        Self { code, reason, message, details: details.map(Value::Object), continue_token: None, given: None }
    }

    /// 404; `resource` is the plural.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, resource));
        Self::of(404, "NotFound", message, Some(details(group, resource, name)))
    }

    /// 409 on create.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, resource));
        Self::of(409, "AlreadyExists", message, Some(details(group, resource, name)))
    }

    /// 409 on update; `why` is upstream's sentence without the prefix.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        Self::of(409, "Conflict", message, Some(details(group, resource, name)))
    }

    /// 409 because the object was changed meanwhile.
    #[must_use]
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 403; `why` is what follows `is forbidden: `.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{what} is forbidden: {why}")
        } else {
            format!("{what} {name:?} is forbidden: {why}")
        };
        Self::of(403, "Forbidden", message, Some(details(group, resource, name)))
    }

    /// 422 with one cause a field error, up to the limits of [`FieldErrors`] and then a last one that says so; `kind` is
    /// the Kind, not the resource.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let found: FieldErrors = errors.iter().cloned().collect();
        let (told, more) = found.told();
        // What is found twice is told once.
        let mut seen = HashSet::new();
        let told: Vec<&FieldError> = told.iter().filter(|error| seen.insert(error.to_string())).collect();
        let cause = |e: &FieldError| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.field.to_string()});
        let mut causes: Vec<Value> = told.iter().map(|error| cause(error)).collect();
        let mut texts: Vec<String> = told.iter().map(ToString::to_string).collect();
        if more {
            let rest = FieldError::untold();
            causes.push(cause(&rest));
            texts.push(rest.to_string());
        }
        let list = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let what = qualified(group, kind);
        let message = if errors.is_empty() {
            format!("{what} {name:?} is invalid")
        } else {
            format!("{what} {name:?} is invalid: {list}")
        };
        let mut map = details(group, kind, name);
        if !causes.is_empty() {
            map.insert("causes".to_owned(), Value::Array(causes));
        }
        Self::of(422, "Invalid", message, Some(map))
    }

    /// 400
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::of(400, "BadRequest", message.into(), None)
    }

    /// 401
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::of(401, "Unauthorized", "Unauthorized".to_owned(), None)
    }

    /// 500, upstream's `Internal error occurred: …` with the cause.
    #[must_use]
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let mut map = Map::new();
        map.insert("causes".to_owned(), json!([{"message": why}]));
        Self::of(500, "InternalError", format!("Internal error occurred: {why}"), Some(map))
    }

    /// Any other code and reason.
    #[must_use]
    pub fn other(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self::of(code, reason, message.into(), None)
    }

    /// What somebody else refused a request with: an object like a `Status`.
    #[must_use]
    pub fn from_status(code: u16, status: Value) -> Self {
        let message = status["message"].as_str().unwrap_or_default().to_owned();
        let details = status.get("details").and_then(Value::as_object).cloned();
        Self { given: Some(Box::new(status)), ..Self::of(code, "", message, details) }
    }

    /// The same error, with `details.retryAfterSeconds`; the server also sends it as the `Retry-After` header.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        details["retryAfterSeconds"] = json!(seconds);
        self
    }

    /// The body: `kind: Status, apiVersion: v1`.
    #[must_use]
    pub fn to_status(&self) -> Value {
        if let Some(given) = &self.given {
            let mut status = Value::clone(given);
            status["kind"] = json!("Status");
            status["apiVersion"] = json!("v1");
            if !status["metadata"].is_object() {
                status["metadata"] = json!({});
            }
            return status;
        }
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata,
            "status": "Failure", "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }
}
