//! A write in the version that a webhook or a policy wants to see it in.

use std::borrow::Cow;

use apimachinery::{ApiError, Object};

use crate::{
    admission_match::{Subject, Target},
    catalogue::Served,
    shape,
    special::events,
};

/// Object and old object in the version of `target`; either may be absent.
pub(crate) struct Seen<'o> {
    pub target: Target,
    pub object: Option<Cow<'o, Object>>,
    pub old: Option<Cow<'o, Object>>,
}

impl<'o> Seen<'o> {
    pub fn new(
        subject: &Subject<'_>,
        target: Target,
        object: Option<&'o Object>,
        old: Option<&'o Object>,
    ) -> Self {
        let write = subject.write;
        let view = |object: &'o Object| {
            if target.converts(write) {
                Cow::Owned(convert(object, target.served(write)))
            } else {
                Cow::Borrowed(object)
            }
        };
        Self { object: object.map(view), old: old.map(view), target }
    }

    /// An object that was changed in this version, brought into its shape and back into the version of the write.
    pub fn restore(&self, subject: &Subject<'_>, mut object: Object) -> Result<Object, ApiError> {
        let write = subject.write;
        let served = self.target.served(write);
        let same = |field: &str| self.object.as_ref().is_some_and(|before| before[field] == object[field]);
        if !same("apiVersion") || !same("kind") {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            return Err(ApiError::internal(format!(
                "converting ({}, {}) to ({}, {}): unknown conversion",
                text("apiVersion"),
                text("kind"),
                served.api_version,
                self.target.kind.kind
            )));
        }
        // A subresource's own kind has no schema here; whoever takes it reads what it knows.
        if *self.target.kind.kind == *served.resource.kind {
            shape::apply(&served.resource, &mut object).map_err(|error| ApiError::internal(error.message))?;
        }
        if self.target.converts(write) {
            object = convert(&object, write.served);
            shape::default(&write.served.resource, &mut object);
        }
        Ok(object)
    }
}

/// The object in another version of its resource.
fn convert(object: &Object, to: &Served) -> Object {
    let mut object = object.clone();
    if to.resource.group.as_ref() == "events.k8s.io" {
        events::to_grouped(&mut object);
    } else if object["apiVersion"] == "events.k8s.io/v1" {
        events::to_core(&mut object);
    }
    object["apiVersion"] = to.api_version.as_str().into();
    object
}
