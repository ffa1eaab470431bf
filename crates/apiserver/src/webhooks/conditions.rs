//! `matchConditions`: CEL expressions that all have to be true of a request.

use apimachinery::ApiError;
use serde_json::Value;

use super::{registry::Webhook, seen::Seen};
use crate::{
    admission_match::Subject,
    policies::{self, Around, Expression, Shown},
};

/// The conditions of a webhook, compiled.
pub(super) fn of(list: &Value) -> Vec<Expression> {
    let list = list.as_array().into_iter().flatten();
    list.map(|condition| Expression::of(&condition["expression"])).collect()
}

/// Whether the webhook is asked, as far as its conditions say.
///
/// # Errors
/// 403 when none is false, one of them fails, and the webhook's failures count.
pub(super) fn hold(webhook: &Webhook, subject: &Subject<'_>, seen: &Seen<'_>) -> Result<bool, ApiError> {
    if webhook.conditions.is_empty() {
        return Ok(true);
    }
    let around = Around::of(subject);
    let shown = Shown::new(subject, &around, seen);
    let scope = shown.scope(None);
    let scope = scope.with_variables(&[]);
    policies::conditions_hold(&webhook.conditions, webhook.ignores_failure, &scope).map_err(|why| {
        let at = &subject.write.attributes;
        ApiError::forbidden(&at.group, &at.resource, &at.name, &why)
    })
}
