//! Dynamic admission: writes are shown to the webhooks that Mutating- and ValidatingWebhookConfigurations name, which may
//! change or refuse them.
//!
//! Reading order: `registry` (which webhooks there are) → `mutating`, `validating` (who is asked, and in which order) →
//! `seen` (the write in the version that a webhook wants) → `conditions` → `call` (one question) → `review` (its form) → `notes` (for the
//! audit log).
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook`.

mod call;
mod conditions;
mod mutating;
mod notes;
mod registry;
mod review;
mod seen;
mod validating;

use apimachinery::{ApiError, Object};

use self::registry::Webhook;
pub(crate) use self::{
    mutating::mutate, registry::Webhooks, review::attributes, seen::Seen, validating::validate,
};
use crate::admission_match::Subject;

/// Whether a webhook is to be asked, and what it is to be shown. Either object may be absent.
async fn asked<'o>(
    webhook: &Webhook,
    subject: &Subject<'_>,
    object: Option<&'o Object>,
    old: Option<&'o Object>,
) -> Result<Option<Seen<'o>>, ApiError> {
    let Some(target) = webhook.criteria.matches(subject, object, old)? else { return Ok(None) };
    let seen = Seen::new(subject, target, object, old).await?;
    Ok(conditions::hold(webhook, subject, &seen)?.then_some(seen))
}
