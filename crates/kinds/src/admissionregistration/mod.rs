//! `admissionregistration.k8s.io/v1`: webhook configurations, admission policies and their bindings.
//!
//! Source: `k8s.io/kubernetes/pkg/apis/admissionregistration`, `pkg/registry/admissionregistration`.

mod binding;
mod expressions;
mod matching;
mod policy;
mod policy_rules;
mod webhook;

use serde_json::Value;

use crate::{
    checks::{Checks, path},
    declare::Declarer,
    object::text,
};

const API: &str = "admissionregistration.k8s.io/v1";

/// Names of what administrators give the server in files.
const STATIC_SUFFIX: &str = ".static.k8s.io";

pub fn declare(to: &mut Declarer<'_>) {
    to.resource(API, "mutatingadmissionpolicies")
        .tracks_spec()
        .needs_resource_version()
        .strategy(policy::MutatingAdmissionPolicy);
    to.resource(API, "mutatingadmissionpolicybindings")
        .tracks_spec()
        .needs_resource_version()
        .strategy(binding::PolicyBinding { mutating: true });
    to.resource(API, "mutatingwebhookconfigurations")
        .tracks_content()
        .needs_resource_version()
        .strategy(webhook::WebhookConfiguration);
    to.resource(API, "validatingadmissionpolicies")
        .tracks_spec()
        .needs_resource_version()
        .behaves(|b| b.status_keeps_metadata = true)
        .strategy(policy::ValidatingAdmissionPolicy);
    to.resource(API, "validatingadmissionpolicybindings")
        .tracks_spec()
        .needs_resource_version()
        .strategy(binding::PolicyBinding { mutating: false });
    to.resource(API, "validatingwebhookconfigurations")
        .tracks_content()
        .needs_resource_version()
        .strategy(webhook::WebhookConfiguration);
}

fn static_words() -> String {
    format!(
        "names ending with {STATIC_SUFFIX:?} are reserved for static manifest-based configurations and cannot be managed via the API"
    )
}

/// A new object may not have a name that is kept for objects from files.
fn check_static_name(checks: &mut Checks, object: &Value) {
    let name = text(object, "metadata.name");
    if name.ends_with(STATIC_SUFFIX) {
        checks.invalid(&path("metadata").child("name"), name, &static_words());
    }
}

/// An older object of such a name is warned for when it is changed.
fn static_name_warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let kept = old.is_some() && text(object, "metadata.name").ends_with(STATIC_SUFFIX);
    if kept { vec![format!("metadata.name: {}", static_words())] } else { Vec::new() }
}

/// There are two moments to judge an object: when it is new, and when it is changed, knowing what it was.
fn is_new(object: &Value) -> bool {
    text(object, "metadata.resourceVersion").is_empty()
}
