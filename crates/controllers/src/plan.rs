//! What a loop wants done.

use std::path::PathBuf;

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::world::Kind;

/// What [`crate::Controller::reconcile`] says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Steps, one after another; the writes of one step are independent of each other. Creates of a step start slowly (1,
    /// 2, 4, 8, … at once) and stop after the first batch in which one failed. A step that failed ends the plan; the driver
    /// then asks again, later each time, and tells of the failures through [`Outcome`].
    pub steps: Vec<Vec<Write>>,
    /// Events to publish, whatever becomes of the steps.
    pub notes: Vec<Note>,
    /// Look at this key again at this time even if nothing changes.
    pub again: Option<Timestamp>,
    /// What the loop wants to find in [`Outcome::memory`] when this key is next looked at, whatever becomes of the steps.
    /// It replaces what was there, is lost at a restart, and is small.
    pub memory: Value,
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
    /// Makes an object (JSON, with apiVersion and kind). `on_failure` is published with the error's text in place of `{}`.
    Create { kind: Kind, object: Box<Value>, on_success: Option<Note>, on_failure: Option<Note> },
    /// Replaces an object, or its subresource; its resourceVersion must be the one that was read.
    Update { kind: Kind, object: Box<Value>, subresource: Option<&'static str> },
    /// Patches an object, or its subresource; refused when its UID is another one.
    Patch { target: Target, patch: PatchKind, body: Value, subresource: Option<&'static str> },
    /// Deletes an object with its UID (and resourceVersion, if given) as precondition; gone already is success.
    Delete {
        target: Target,
        resource_version: Option<String>,
        grace: Option<i64>,
        propagation: Option<&'static str>,
        on_success: Option<Note>,
        on_failure: Option<Note>,
    },
    /// Deletes all objects of a kind in a namespace.
    DeleteCollection { kind: Kind, namespace: String },
    /// Goes on only if a live read shows the object with this UID and, if `alive`, without a deletionTimestamp.
    Require { target: Target, alive: bool },
    /// Goes on only if a live read shows no object of this UID.
    RequireAbsent { target: Target },
    /// Goes on only if a live list shows no object of a kind in a namespace.
    RequireEmpty { kind: Kind, namespace: String },
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
    /// [`Plan::memory`] of the key's previous plan; null at the first look.
    pub memory: Value,
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
}

/// The JSON of an object whose type always has one.
fn json_of<K: Serialize>(object: &K) -> Value {
    // k8s-openapi's types are maps of strings to JSON: serializing them cannot fail
    serde_json::to_value(object).unwrap_or_default()
}
