//! What single kinds do beyond the generic verbs. Each file is one resource's behaviour.

pub mod addresses;
pub mod binding;
pub mod bootstrap;
pub mod components;
pub mod eviction;
pub mod expiry;
pub mod finalize;
pub mod metrics;
pub mod reviews;
pub mod scale;
pub mod services;
pub mod token;
mod unstored;

use access::UserInfo;
use apimachinery::{ApiError, Object};
use chrono::{DateTime, Utc};
use kinds::{Resource, apiextensions::names};
use serde_json::{Value, json};
use store::{Key, Op};

use crate::{catalogue::Served, server::Inner, verbs::create};

/// Whether [`reserve`] may change objects of the resource.
pub(crate) fn reserves(resource: &Resource) -> bool {
    resource.group.is_empty() && &*resource.plural == "services"
}

/// What a write holds until its commit is visible.
pub(crate) type Reserved<'a> = Option<services::Lease<'a>>;

/// Gives a new or changed object what only the server can give: a Service its addresses and ports.
pub(crate) fn reserve<'a>(
    inner: &'a Inner,
    served: &Served,
    object: &mut Object,
    old: Option<&Object>,
    dry_run: bool,
) -> Result<Reserved<'a>, ApiError> {
    if reserves(&served.resource) {
        return inner.allocator.allocate(inner, object, old, dry_run).map(Some);
    }
    Ok(None)
}

/// A CertificateSigningRequest says who asks, whatever its writer and admission have put there.
pub(crate) fn note_requester(resource: &Resource, object: &mut Object, user: &UserInfo) {
    if &*resource.group != kinds::certificates::GROUP || &*resource.plural != "certificatesigningrequests" {
        return;
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let requester = [
        ("username", json!(user.name), user.name.is_empty()),
        ("uid", json!(user.uid), user.uid.is_empty()),
        ("groups", json!(user.groups), user.groups.is_empty()),
        ("extra", json!(user.extra), user.extra.is_empty()),
    ];
    for (field, value, absent) in requester {
        if absent {
            spec.remove(field);
        } else {
            spec.insert(field.to_owned(), value);
        }
    }
}

/// The steps that go with the commit that removes an object: a Service's addresses are free then.
pub(crate) fn release(inner: &Inner, served: &Served, object: &Object) -> Result<Vec<Op>, ApiError> {
    if reserves(&served.resource) {
        return addresses::steps(inner, Some(object), None);
    }
    Ok(Vec::new())
}

/// What a step of a commit writes.
pub(crate) fn key_of(step: &Op) -> &Key {
    match step {
        Op::Put { key, .. } | Op::Delete { key, .. } => key,
    }
}

/// The steps of what a write holds.
pub(crate) fn steps(reserved: &Reserved<'_>) -> Vec<Op> {
    reserved.as_ref().map(|lease| lease.steps.clone()).unwrap_or_default()
}

/// A namespace goes only when its own finalizers are gone, too.
pub(crate) fn waits_for_finalize(resource: &Resource, object: &Object) -> bool {
    is_namespace(resource) && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

/// A definition stays until its objects are gone.
pub(crate) fn hold_deleted(resource: &Resource, object: &mut Object) {
    if !is_definition(resource) {
        return;
    }
    let cleanup = kinds::apiextensions::CLEANUP;
    let finalizers =
        &mut create::metadata_mut(object).entry("finalizers").or_insert_with(|| Value::Array(Vec::new()));
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|f| f == cleanup)
    {
        list.push(cleanup.into());
    }
}

/// Whether its deletion begins in a way of its own: no policy about dependents, and no new generation.
pub(crate) fn is_definition(resource: &Resource) -> bool {
    &*resource.plural == "customresourcedefinitions" && &*resource.group == "apiextensions.k8s.io"
}

/// A namespace or definition says in its status that it is going.
pub(crate) fn mark_terminating(resource: &Resource, object: &mut Object, now: DateTime<Utc>) {
    if is_definition(resource) {
        let words = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        names::set_condition(object, "Terminating", true, "InstanceDeletionPending", words, now);
    }
    if is_namespace(resource) {
        if !object["status"].is_object() {
            object["status"] = Value::Object(serde_json::Map::new());
        }
        object["status"]["phase"] = "Terminating".into();
    }
}

/// Whether an object under deletion says how long it may take. Namespaces and definitions have a way of their own.
pub(crate) fn tells_grace(resource: &Resource) -> bool {
    !is_namespace(resource) && !is_definition(resource)
}

fn is_namespace(resource: &Resource) -> bool {
    resource.group.is_empty() && &*resource.plural == "namespaces"
}
