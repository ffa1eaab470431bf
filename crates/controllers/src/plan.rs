//! What a loop wants done.

use std::path::PathBuf;

use k8s_openapi::{
    api::core::v1::{ObjectReference, PersistentVolumeClaim},
    jiff::Timestamp,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    ask::{Ask, Told},
    world::Kind,
};

/// What [`crate::Controller::reconcile`] says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Questions; a plan that has any does nothing else. The key is looked at again, at once, when they are answered.
    pub asks: Vec<Ask>,
    /// Steps, one after another; the writes of one step are independent of each other. Creates of a step start slowly (1,
    /// 2, 4, 8, … at once) and stop after the first batch in which one failed. A step that failed ends the plan; the driver
    /// then asks again, later each time, and tells of the failures through [`Outcome`].
    pub steps: Vec<Vec<Write>>,
    /// Events to publish, whatever becomes of the steps.
    pub notes: Vec<Note>,
    /// Events to publish when all steps have succeeded.
    pub success_notes: Vec<Note>,
    /// Look at this key again at this time even if nothing changes.
    pub again: Option<Timestamp>,
    /// What the process shall remember for this key and give back in [`Outcome::memory`] (upstream keeps such things in the
    /// controller: back-offs, recommendations). It is lost at a restart. `None` leaves what is there, null drops it; a
    /// loop drops it when what the key stands for is gone.
    pub memory: Option<Value>,
}

/// An Event about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// About what.
    pub about: ObjectReference,
    /// `Warning` instead of `Normal`.
    pub warning: bool,
    /// `ScalingReplicaSet`
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; empty when any will do.
    pub uid: String,
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
    /// RFC 6902.
    Json,
    /// Server-side apply by the loop's name, forced.
    Apply,
}

/// One request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Makes an object (JSON, with apiVersion and kind). `on_success` is published with the new object's name in place of
    /// [`BLANK`], `on_failure` with the error's text, but not when the object exists already. Refused because the namespace is being deleted
    /// (cause `NamespaceTerminating`): a success, and nothing is published.
    Create { kind: Kind, object: Box<Value>, on_success: Option<Note>, on_failure: Option<Note> },
    /// Replaces an object, or its subresource; its resourceVersion must be the one that was read.
    Update { kind: Kind, object: Box<Value>, subresource: Option<&'static str> },
    /// Patches an object, or its subresource. If the target has a UID and the object is gone or another one has its name,
    /// nothing is changed and that is a success: the world will tell.
    Patch { target: Target, patch: PatchKind, body: Value, subresource: Option<&'static str> },
    /// Deletes an object with its UID (and resourceVersion, if given) as precondition; gone already is success. Notes as
    /// for a creation.
    Delete {
        target: Target,
        resource_version: Option<String>,
        grace: Option<i64>,
        propagation: Option<&'static str>,
        on_success: Option<Note>,
        on_failure: Option<Note>,
    },
    /// Deletes all objects of a kind in a namespace, their dependents in the background.
    DeleteCollection { kind: Kind, namespace: String },
    /// Goes on only if a live read shows the object with this UID and, if `alive`, without a deletionTimestamp.
    Require { target: Target, alive: bool },
    /// Goes on only if a live read shows no object of this UID.
    RequireAbsent { target: Target },
    /// Goes on only if a live list shows no object of this kind in the namespace.
    RequireNone { kind: Kind, namespace: String },
    /// Goes on only if a live list shows no pod that uses this claim ([`crate::protection::uses`]).
    RequireUnused { claim: Box<PersistentVolumeClaim> },
    /// Makes a directory on a node, or finds it there.
    MakeDirectory { node: String, path: PathBuf },
    /// Removes a directory on a node with all that is in it; gone already is success.
    RemoveDirectory { node: String, path: PathBuf },
    /// Posts to a subresource (`eviction`, `finalize`, `token`, …) with PUT or POST as the subresource has it.
    Post { target: Target, subresource: &'static str, object: Box<Value> },
}

/// A write that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// What was to be done.
    pub write: Write,
    /// HTTP status code; 0 when there was no answer.
    pub code: u16,
    /// `AlreadyExists`, `Conflict`, `Forbidden`, …
    pub reason: String,
    /// The server's message.
    pub message: String,
    /// Reasons of the causes: `NamespaceTerminating`, …
    pub causes: Vec<String>,
}

/// What became of a key's previous plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Which writes failed; empty after a plan that succeeded, and at the first look.
    pub failures: Vec<Failure>,
    /// How often in a row this key has failed.
    pub tries: u32,
    /// What an earlier plan asked to be remembered ([`Plan::memory`]); null when nothing.
    pub memory: Value,
    /// The answers to what the plans before have asked, since the last one that asked nothing.
    pub answers: Vec<Told>,
}

/// `{}` in the message of a note that goes with a write: the written object's name, or the error's text.
pub const BLANK: &str = "{}";

impl Note {
    /// About an object of a built-in kind.
    pub fn normal<K>(about: &K, reason: &str, message: impl Into<String>) -> Self
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Self {
            about: about.object_ref(&()),
            warning: false,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }

    /// A warning about an object of a built-in kind.
    pub fn warning<K>(about: &K, reason: &str, message: impl Into<String>) -> Self
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Self { warning: true, ..Self::normal(about, reason, message) }
    }
}

impl Target {
    /// An object of a built-in kind, with its UID.
    pub fn of<K: kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            kind: Kind::of::<K>(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
        }
    }
}

impl Outcome {
    /// The first failed creation of an object of this kind.
    #[must_use]
    pub fn failed_create(&self, kind: &Kind) -> Option<&Failure> {
        self.failures.iter().find(|f| matches!(&f.write, Write::Create { kind: k, .. } if k == kind))
    }

    /// The first failed deletion of an object of this kind.
    #[must_use]
    pub fn failed_delete(&self, kind: &Kind) -> Option<&Failure> {
        self.failures
            .iter()
            .find(|f| matches!(&f.write, Write::Delete { target, .. } if target.kind == *kind))
    }
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a step of one write.
    pub fn then(&mut self, write: Write) -> &mut Self {
        self.steps.push(vec![write]);
        self
    }

    /// Adds a step of writes that are independent of each other; none is no step.
    pub fn all(&mut self, writes: Vec<Write>) -> &mut Self {
        if !writes.is_empty() {
            self.steps.push(writes);
        }
        self
    }

    /// Asks to look again at `at`, or earlier if that was asked for.
    pub fn wake(&mut self, at: Timestamp) -> &mut Self {
        self.again = Some(self.again.map_or(at, |a| a.min(at)));
        self
    }
}

impl Write {
    /// Makes an object of a built-in kind.
    pub fn create<K: Serialize + kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Create {
            kind: Kind::of::<K>(),
            object: Box::new(json_of(object)),
            on_success: None,
            on_failure: None,
        }
    }

    /// Replaces the status of an object of a built-in kind.
    pub fn status<K: Serialize + kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Update { kind: Kind::of::<K>(), object: Box::new(json_of(object)), subresource: Some("status") }
    }

    /// Replaces an object of a built-in kind.
    pub fn update<K: Serialize + kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Update { kind: Kind::of::<K>(), object: Box::new(json_of(object)), subresource: None }
    }

    /// Patches this very object of a built-in kind.
    pub fn patch<K: kube::Resource<DynamicType = ()>>(object: &K, patch: PatchKind, body: Value) -> Self {
        Self::Patch { target: Target::of(object), patch, body, subresource: None }
    }

    /// Deletes this very object of a built-in kind, with the default grace and propagation.
    pub fn delete<K: kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Delete {
            target: Target::of(object),
            resource_version: None,
            grace: None,
            propagation: None,
            on_success: None,
            on_failure: None,
        }
    }

    /// The same creation or deletion, with events for its success and its failure.
    #[must_use]
    pub fn noted(mut self, success: Option<Note>, failure: Option<Note>) -> Self {
        if let Self::Create { on_success, on_failure, .. } | Self::Delete { on_success, on_failure, .. } =
            &mut self
        {
            *on_success = success;
            *on_failure = failure;
        }
        self
    }

    /// Goes on only if a live read shows no object of a built-in kind in this place, or another one than the one of `uid`.
    #[must_use]
    pub fn require_absent<K: kube::Resource<DynamicType = ()>>(
        namespace: &str,
        name: &str,
        uid: &str,
    ) -> Self {
        Self::RequireAbsent {
            target: Target {
                kind: Kind::of::<K>(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: uid.to_owned(),
            },
        }
    }

    /// Goes on only if this very object is there, by a live read, and not being deleted.
    pub fn require_alive<K: kube::Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::Require { target: Target::of(object), alive: true }
    }
}

/// The JSON of an object whose type always has one.
fn json_of<K: Serialize>(object: &K) -> Value {
    // k8s-openapi's types are maps of strings to JSON: serializing them cannot fail
    serde_json::to_value(object).unwrap_or_default()
}
