//! Running the admission plugins over a write.

use access::{AdmissionRequest, Attributes, Companion};
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
        let mut none = Vec::new();
        let mut request = self.request(object, old, now, &mut call.warnings, &mut none);
        for plugin in &inner.config.admission {
            plugin.mutate(&mut request, &inner.reader).await?;
        }
        Ok(())
    }

    /// Plugins that may refuse it. What has to be committed together with it comes back.
    pub async fn validate(
        &self,
        inner: &Inner,
        call: &mut Call,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Vec<Companion>, ApiError> {
        let now = call.now;
        let mut companions = Vec::new();
        let mut request = self.request(object, old, now, &mut call.warnings, &mut companions);
        for plugin in &inner.config.admission {
            plugin.validate(&mut request, &inner.reader).await?;
        }
        Ok(companions)
    }

    fn request<'r>(
        &'r self,
        object: &'r mut Object,
        old: Option<&'r Object>,
        now: chrono::DateTime<chrono::Utc>,
        warnings: &'r mut Vec<String>,
        companions: &'r mut Vec<Companion>,
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
            companions,
        }
    }
}
