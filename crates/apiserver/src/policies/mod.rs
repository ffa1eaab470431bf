//! Admission policies: writes are held against the CEL expressions of ValidatingAdmissionPolicies, and changed by those of
//! MutatingAdmissionPolicies, where a binding says so.
//!
//! Reading order: `policy` (what a policy and its bindings say) → `kept` (all of them, read when one changes) →
//! `parameters` → `invocation` (one policy, one binding, one parameter, and what its expressions see) → `validating`,
//! `mutating` → `checking` (the types in a policy's expressions, told in its status).
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy`, `…/plugin/cel`.

mod authorizer;
pub(crate) mod checking;
mod invocation;
mod kept;
mod mutating;
mod notes;
mod parameters;
mod policy;
mod validating;

use apimachinery::{ApiError, Object};
use serde_json::json;

pub(crate) use self::{
    invocation::{Around, Shown, conditions_hold},
    kept::Policies,
    mutating::mutate,
    policy::Expression,
    validating::validate,
};
use crate::{admission_match::Subject, admit::Write};

/// Whether no policy is ever for this write: those that ask who may do what would ask themselves, and a policy could
/// forbid to take itself back.
fn is_exempt(subject: &Subject<'_>) -> bool {
    let at = &subject.write.attributes;
    let asks = matches!(at.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io");
    subject.is_exempt() || asks && at.resource.ends_with("reviews")
}

/// 403 for the object of a write, with each message as a cause: by its name, by what its name will begin with, or
/// `Unknown`.
fn forbidden(write: &Write<'_>, object: &Object, why: &str, causes: &[String]) -> ApiError {
    let at = &write.attributes;
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let names = [at.name.as_str(), text("name"), text("generateName"), "Unknown"];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    let mut error = ApiError::forbidden(&at.group, &at.resource, name, why);
    let causes: Vec<_> = causes.iter().map(|message| json!({"message": message})).collect();
    error.details.get_or_insert_with(|| json!({}))["causes"] = causes.into();
    error
}
