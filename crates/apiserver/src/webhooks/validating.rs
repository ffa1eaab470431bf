//! ValidatingAdmissionWebhook: all webhooks at once, and the first that refuses decides.

use access::AdmissionRequest;
use apimachinery::ApiError;
use futures::{StreamExt as _, stream::FuturesUnordered};

use super::{call, notes::Notes};
use crate::{admission_match::Subject, admit::Write, server::Inner};

/// Lets the webhooks refuse a write.
pub(crate) async fn validate(
    inner: &Inner,
    write: &Write<'_>,
    request: &mut AdmissionRequest<'_>,
) -> Result<(), ApiError> {
    let webhooks = inner.webhooks.validating(inner);
    let subject = Subject::new(inner, write);
    if webhooks.is_empty() || subject.is_exempt() {
        return Ok(());
    }
    let object = Some(&*request.object).filter(|object| !object.is_null());
    let mut asked = Vec::new();
    for webhook in webhooks.iter() {
        if let Some(seen) = Box::pin(super::asked(webhook, &subject, object, request.old)).await? {
            asked.push((webhook, seen));
        }
    }
    let (subject, audit) = (&subject, request.audit);
    let mut answers: FuturesUnordered<_> = asked
        .iter()
        .enumerate()
        .map(|(index, (webhook, seen))| async move {
            let notes = Notes { audit, webhook, sort: "validating", round: 0, index };
            let mut warnings = Vec::new();
            let answer = call::ask(webhook, subject, seen, notes, &mut warnings).await;
            (answer.map(|_| ()).or_else(|failure| webhook.judge(failure, notes)), warnings)
        })
        .collect();
    let mut decided = Ok(());
    // All are heard, for their warnings.
    while let Some((answer, warnings)) = answers.next().await {
        request.warnings.extend(warnings);
        decided = decided.and(answer);
    }
    decided
}
