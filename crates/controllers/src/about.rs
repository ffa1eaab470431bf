//! Short ways to say what a write is aimed at and what an event is about.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::ObjectMeta};
use serde_json::{Value, json};

use crate::{
    plan::{Note, PatchKind, Target, Write},
    world::Kind,
};

/// `v1`, `apps/v1`
#[must_use]
pub fn api_version(kind: &Kind) -> String {
    if kind.group.is_empty() { kind.version.to_string() } else { format!("{}/{}", kind.group, kind.version) }
}

/// What an event is about.
#[must_use]
pub fn reference(kind: &Kind, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version(kind)),
        kind: Some(kind.kind.to_string()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// [`reference`] of an object of a built-in kind.
#[must_use]
pub fn about<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    reference(&Kind::of::<K>(), object.meta())
}

impl Target {
    /// Exactly this object: its UID is kept.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::seen(&Kind::of::<K>(), object.meta())
    }

    /// Exactly this object of any kind.
    #[must_use]
    pub fn seen(kind: &Kind, meta: &ObjectMeta) -> Self {
        Self {
            kind: kind.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

impl Note {
    /// A `Normal` event.
    #[must_use]
    pub fn normal(about: ObjectReference, reason: &str, message: impl Into<String>) -> Self {
        Self { about, warning: false, reason: reason.to_owned(), message: message.into() }
    }

    /// A `Warning` event.
    #[must_use]
    pub fn warning(about: ObjectReference, reason: &str, message: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(about, reason, message) }
    }
}

impl Write {
    /// A merge patch of the object itself.
    #[must_use]
    pub fn merge(target: Target, body: Value) -> Self {
        Self::Patch { target, patch: PatchKind::Merge, body, subresource: None }
    }

    /// A strategic merge patch of an object's status.
    #[must_use]
    pub fn patch_status(target: Target, body: Value) -> Self {
        Self::Patch { target, patch: PatchKind::Strategic, body, subresource: Some("status") }
    }

    /// A merge patch that only succeeds on the version that was read. It sets the whole list of finalizers.
    #[must_use]
    pub fn finalizers(kind: &Kind, meta: &ObjectMeta, finalizers: &[String]) -> Self {
        let body = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers,
        }});
        Self::merge(Target::seen(kind, meta), body)
    }

    /// Deletes this very object, as the kind does by default.
    #[must_use]
    pub fn delete(target: Target) -> Self {
        Self::Delete {
            target,
            resource_version: None,
            grace: None,
            propagation: None,
            on_success: None,
            on_failure: None,
        }
    }
}

/// Whether an object has a label of this value.
#[must_use]
pub fn labelled(meta: &ObjectMeta, key: &str, value: &str) -> bool {
    label(meta, key) == Some(value)
}

/// A label.
#[must_use]
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// An annotation.
#[must_use]
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}
