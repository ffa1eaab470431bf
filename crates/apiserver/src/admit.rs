//! Running the admission plugins over a write.

use access::{AdmissionRequest, Attributes};
use apimachinery::{ApiError, Object};

use crate::{
    catalogue::Served,
    server::{Call, Inner},
};

/// A write as admission sees it, but for the object.
pub(crate) struct Write<'a> {
    pub served: &'a Served,
    pub attributes: Attributes,
    pub operation: &'static str,
    pub dry_run: bool,
}

impl<'a> Write<'a> {
    /// The write that `call` makes.
    pub fn new(call: &Call, served: &'a Served, operation: &'static str, dry_run: bool) -> Self {
        Self { served, attributes: call.attributes(), operation, dry_run }
    }

    /// Plugins that may change the object.
    pub async fn mutate(
        &self,
        inner: &Inner,
        call: &mut Call,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), ApiError> {
        let now = call.now;
        let mut request = self.request(object, old, now, &mut call.warnings);
        for plugin in &inner.config.admission {
            plugin.mutate(&mut request, &inner.reader).await?;
        }
        Ok(())
    }

    /// Plugins that may refuse it.
    pub async fn validate(
        &self,
        inner: &Inner,
        call: &mut Call,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), ApiError> {
        let now = call.now;
        let mut request = self.request(object, old, now, &mut call.warnings);
        for plugin in &inner.config.admission {
            plugin.validate(&mut request, &inner.reader).await?;
        }
        Ok(())
    }

    fn request<'r>(
        &'r self,
        object: &'r mut Object,
        old: Option<&'r Object>,
        now: chrono::DateTime<chrono::Utc>,
        warnings: &'r mut Vec<String>,
    ) -> AdmissionRequest<'r> {
        AdmissionRequest {
            attributes: &self.attributes,
            resource: &self.served.resource,
            operation: self.operation,
            object,
            old,
            dry_run: self.dry_run,
            now,
            warnings,
        }
    }
}
