//! Running admission over a write: the plugins of the configuration, then policies and webhooks, which call out of this
//! room and so need all of the server.
//!
//! Mutation: plugins → MutatingAdmissionPolicy → MutatingAdmissionWebhook, and all of them once more if one that had its
//! turn has to see what a later one changed. Validation: plugins → ValidatingAdmissionPolicy →
//! ValidatingAdmissionWebhook → ResourceQuota, which charges only what nobody refused.

mod options;
mod reinvocation;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use access::{AdmissionRequest, Attributes, Audit, Companion};
use apimachinery::{ApiError, Object};
use kinds::Resource;

pub(crate) use self::{options::Options, reinvocation::Rounds};
use crate::{
    audit::Trail,
    catalogue::Served,
    policies,
    server::{Call, Inner, WRITE_DEADLINE},
    webhooks,
};

/// The plugin that is asked last: it takes from a budget what the write needs.
const LAST: &str = "ResourceQuota";

/// Group, version and kind of an object that admission sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub kind: Arc<str>,
}

impl Kind {
    /// Of the object of a resource or of a subresource of it.
    pub fn of(resource: &Resource, subresource: &str) -> Self {
        let (group, version, kind) = match resource.subresource(subresource) {
            Some(sub) => (&sub.group, &sub.version, &sub.kind),
            None => (&resource.group, &resource.version, &resource.kind),
        };
        Self { group: group.clone(), version: version.clone(), kind: kind.clone() }
    }
}

/// A write as admission sees it, but for the object.
pub(crate) struct Write<'a> {
    /// The resource, or the one whose subresource is written.
    pub served: &'a Served,
    pub attributes: Attributes,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`
    pub operation: &'static str,
    pub dry_run: bool,
    /// Of the object.
    pub kind: Kind,
    pub options: Options<'a>,
    /// When the client is told that it took too long.
    until: Instant,
}

/// The trail as plugins see it.
fn audit(trail: &Option<Arc<Trail>>) -> Option<&dyn Audit> {
    trail.as_deref().filter(|trail| trail.is_open()).map(|trail| trail as &dyn Audit)
}

impl<'a> Write<'a> {
    /// The write that `call` makes.
    pub fn new(call: &Call, served: &'a Served, operation: &'static str, options: Options<'a>) -> Self {
        Self {
            attributes: call.attributes(),
            operation,
            dry_run: options.dry_run(),
            kind: Kind::of(&served.resource, &call.info.subresource),
            served,
            options,
            until: Instant::now() + WRITE_DEADLINE,
        }
    }

    /// How long somebody outside may take to answer.
    pub fn time_left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Whoever may change the object.
    pub async fn mutate(
        &self,
        inner: &Inner,
        call: &mut Call,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), ApiError> {
        let (now, trail) = (call.now, call.trail.clone());
        let mut none = Vec::new();
        let mut request = self.request(object, old, now, &mut call.warnings, audit(&trail), &mut none);
        let mut rounds = Rounds::default();
        loop {
            for plugin in self.plugins(inner) {
                plugin.mutate(&mut request, &inner.reader).await?;
            }
            policies::mutate(inner, self, &mut request, &mut rounds).await?;
            webhooks::mutate(inner, self, &mut request, &mut rounds).await?;
            if !rounds.again() {
                return Ok(());
            }
        }
    }

    /// Whoever may refuse it. [`Write::charge`] has to follow.
    pub async fn validate(
        &self,
        inner: &Inner,
        call: &mut Call,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), ApiError> {
        let (now, trail) = (call.now, call.trail.clone());
        let mut none = Vec::new();
        let mut request = self.request(object, old, now, &mut call.warnings, audit(&trail), &mut none);
        for plugin in self.plugins(inner).filter(|p| p.name() != LAST) {
            plugin.validate(&mut request, &inner.reader).await?;
        }
        policies::validate(inner, self, &mut request).await?;
        webhooks::validate(inner, self, &mut request).await
    }

    /// Asks for what has to be committed together with the write. May be asked again when that was changed by somebody
    /// else meanwhile.
    pub async fn charge(
        &self,
        inner: &Inner,
        call: &mut Call,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<Vec<Companion>, ApiError> {
        let (now, trail) = (call.now, call.trail.clone());
        let mut companions = Vec::new();
        let mut request = self.request(object, old, now, &mut call.warnings, audit(&trail), &mut companions);
        for plugin in self.plugins(inner).filter(|p| p.name() == LAST) {
            plugin.validate(&mut request, &inner.reader).await?;
        }
        Ok(companions)
    }

    /// The plugins of the configuration. None of them handles CONNECT.
    fn plugins<'i>(
        &self,
        inner: &'i Inner,
    ) -> impl Iterator<Item = &'i Arc<dyn access::Admission>> + use<'i> {
        let all = inner.config.admission.iter();
        all.take(if self.operation == "CONNECT" { 0 } else { usize::MAX })
    }

    fn request<'r>(
        &'r self,
        object: &'r mut Object,
        old: Option<&'r Object>,
        now: chrono::DateTime<chrono::Utc>,
        warnings: &'r mut Vec<String>,
        audit: Option<&'r dyn Audit>,
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
            audit,
            companions,
        }
    }
}
