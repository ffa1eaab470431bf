//! Short ways to look at metadata, and to aim at objects of which only the metadata is known.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::ObjectMeta};
use serde_json::{Value, json};

use crate::{
    plan::{PatchKind, Target, Write},
    world::Kind,
};

/// What an event is about, for an object of any kind.
#[must_use]
pub fn reference(kind: &Kind, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(kind.api_version().into_owned()),
        kind: Some(kind.kind.to_string()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

impl Target {
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

impl Write {
    /// A strategic merge patch of this very object's status.
    #[must_use]
    pub fn patch_status<K: Resource<DynamicType = ()>>(object: &K, body: Value) -> Self {
        Self::Patch {
            target: Target::of(object),
            patch: PatchKind::Strategic,
            body,
            subresource: Some("status"),
        }
    }

    /// A merge patch of metadata that only succeeds on the version that was read.
    #[must_use]
    pub fn patch_read(kind: &Kind, meta: &ObjectMeta, mut metadata: Value) -> Self {
        metadata["uid"] = json!(meta.uid);
        metadata["resourceVersion"] = json!(meta.resource_version);
        Self::Patch {
            target: Target::seen(kind, meta),
            patch: PatchKind::Merge,
            body: json!({"metadata": metadata}),
            subresource: None,
        }
    }

    /// Takes a finalizer away.
    #[must_use]
    pub fn without_finalizer(kind: &Kind, meta: &ObjectMeta, finalizer: &str) -> Self {
        let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
        Self::patch_read(kind, meta, json!({"finalizers": rest}))
    }
}

/// Whether it has this finalizer.
#[must_use]
pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
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
