//! A write in the version that a webhook or a policy wants to see it in.

use std::borrow::Cow;

use apimachinery::{ApiError, Object};

use crate::{
    admission_match::{Subject, Target},
    catalogue::Served,
    shape,
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
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let from = kinds::find(group, version, &to.resource.plural);
    if let Some(conversion) = from.and_then(|from| kinds::versions::conversion(from)) {
        (conversion.stored)(&mut object);
    }
    if let Some(conversion) = kinds::versions::conversion(&to.resource) {
        (conversion.shown)(&mut object);
    }
    object["apiVersion"] = to.api_version.as_str().into();
    object
}
