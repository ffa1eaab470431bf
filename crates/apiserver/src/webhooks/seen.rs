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
    /// # Errors
    /// The resource's conversion webhook failed.
    pub async fn new(
        subject: &Subject<'_>,
        target: Target,
        object: Option<&'o Object>,
        old: Option<&'o Object>,
    ) -> Result<Self, ApiError> {
        let [object, old] = [view(subject, &target, object).await?, view(subject, &target, old).await?];
        Ok(Self { target, object, old })
    }

    /// An object that was changed in this version, brought into its shape and back into the version of the write.
    ///
    /// # Errors
    /// It is another kind of object now, or the resource's conversion webhook failed.
    pub async fn restore(&self, subject: &Subject<'_>, mut object: Object) -> Result<Object, ApiError> {
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
            object = convert(subject, &object, write.served).await?;
            shape::default(&write.served.resource, &mut object);
        }
        Ok(object)
    }
}

/// The object of a write in the version of `target`.
async fn view<'o>(
    subject: &Subject<'_>,
    target: &Target,
    object: Option<&'o Object>,
) -> Result<Option<Cow<'o, Object>>, ApiError> {
    Ok(match object {
        Some(object) if target.converts(subject.write) => {
            Some(Cow::Owned(convert(subject, object, target.served(subject.write)).await?))
        }
        object => object.map(Cow::Borrowed),
    })
}

/// The object in another version of its resource.
async fn convert(subject: &Subject<'_>, object: &Object, to: &Served) -> Result<Object, ApiError> {
    let from = object["apiVersion"].as_str().unwrap_or_default();
    if let Some(made) = subject.converted(to, object).await? {
        return Ok(made);
    }
    let (group, version) = from.split_once('/').unwrap_or(("", from));
    let mut object = object.clone();
    let from = kinds::find(group, version, &to.resource.plural);
    if let Some(conversion) = from.and_then(|from| kinds::versions::conversion(from)) {
        (conversion.stored)(&mut object);
    }
    if let Some(conversion) = kinds::versions::conversion(&to.resource) {
        (conversion.shown)(&mut object);
    }
    object["apiVersion"] = to.api_version.as_str().into();
    Ok(object)
}
