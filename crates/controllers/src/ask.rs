//! Questions to the API server about what no watch tells: subresources, metrics, reviews, pages of a list.
//!
//! A loop stays a pure function: it names its questions in [`crate::Plan::asks`] and is asked for a plan again with the
//! answers in [`crate::Outcome::answers`]. Such a conversation goes on until a plan asks nothing; then the answers are
//! forgotten, so that the next look is a fresh one.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    plan::{Outcome, Plan},
    world::Kind,
};

/// How many answers one conversation may gather; questions beyond that are not put.
pub const MOST_ANSWERS: usize = 512;

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Path and query, percent-encoded: `/apis/apps/v1/namespaces/shop/deployments/web/scale`
    pub path: String,
    /// What is posted (reviews); a GET without.
    pub body: Option<Value>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status code; 0 when the server did not say anything.
    pub code: u16,
    /// `NotFound`, `Forbidden`, `Expired`, …
    pub reason: String,
    /// The server's message.
    pub message: String,
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// What was asked.
    pub ask: Ask,
    /// The object that was answered.
    pub answer: Result<Value, Refusal>,
}

impl Ask {
    /// A GET of this path.
    #[must_use]
    pub fn get(path: String) -> Self {
        Self { path, body: None }
    }

    /// A GET of an object, or of a subresource of it.
    #[must_use]
    pub fn object(kind: &Kind, namespace: &str, name: &str, subresource: &str) -> Self {
        let mut path = collection(kind, namespace);
        let _ = write!(path, "/{}", encode(name));
        if !subresource.is_empty() {
            let _ = write!(path, "/{subresource}");
        }
        Self::get(path)
    }
}

impl Outcome {
    /// The answer to a question of this conversation, if it has been put.
    #[must_use]
    pub fn answer(&self, ask: &Ask) -> Option<Result<&Value, &Refusal>> {
        self.answers.iter().find(|told| told.ask == *ask).map(|told| told.answer.as_ref())
    }
}

impl Plan {
    /// Nothing but questions.
    #[must_use]
    pub fn asking(asks: Vec<Ask>) -> Self {
        Self { asks, ..Self::default() }
    }
}

/// `/apis/apps/v1/namespaces/shop/deployments`; of all namespaces when `namespace` is empty.
#[must_use]
pub fn collection(kind: &Kind, namespace: &str) -> String {
    let root = if kind.group.is_empty() { "api" } else { "apis" };
    let api_version = kind.api_version();
    if namespace.is_empty() {
        format!("/{root}/{api_version}/{}", kind.plural)
    } else {
        format!("/{root}/{api_version}/namespaces/{}/{}", encode(namespace), kind.plural)
    }
}

/// Percent-encodes what is not unreserved (RFC 3986, section 2.3), for a path's segment or a query's value.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn paths_are_the_apis_and_names_cannot_leave_them() {
        let ask = Ask::object(&Kind::of::<Deployment>(), "shop", "a/../b?c", "scale");
        assert_eq!(ask.path, "/apis/apps/v1/namespaces/shop/deployments/a%2F..%2Fb%3Fc/scale");
    }
}
