//! MutatingAdmissionWebhook: one webhook after the other, each sees what those before it have made of the object.

use access::AdmissionRequest;
use apimachinery::{ApiError, Object, patch};
use serde_json::Value;

use super::{
    call,
    notes::{MUTATION, Notes},
    seen::Seen,
};
use crate::{
    admission_match::Subject,
    admit::{Rounds, Write},
    server::Inner,
};

/// Lets the webhooks change the object of a write.
pub(crate) async fn mutate(
    inner: &Inner,
    write: &Write<'_>,
    request: &mut AdmissionRequest<'_>,
    rounds: &mut Rounds,
) -> Result<(), ApiError> {
    let webhooks = inner.webhooks.mutating(inner);
    let subject = Subject::new(inner, write);
    if webhooks.is_empty() || subject.is_exempt() {
        return Ok(());
    }
    if rounds.is_second() {
        rounds.webhooks.begin_second(request.object);
    }
    let (audit, round) = (request.audit, usize::from(rounds.is_second()));
    for (index, webhook) in webhooks.iter().enumerate() {
        let object = Some(&*request.object).filter(|object| !object.is_null());
        let changed = match Box::pin(super::asked(webhook, &subject, object, request.old)).await? {
            // One that was not for the object the first time is not asked because of what others changed.
            Some(_) if rounds.is_second() && !rounds.webhooks.runs_again(&webhook.identity) => continue,
            Some(seen) => {
                let notes = Notes { audit, webhook, sort: MUTATION, round, index };
                let changed = Box::pin(changed(notes, &subject, &seen, request.warnings)).await;
                notes.mutated(matches!(changed, Ok(Some(_))));
                changed?
            }
            None => continue,
        };
        if let Some(changed) = changed {
            *request.object = changed;
            rounds.webhooks.changed();
            rounds.want_second();
        }
        if webhook.reinvoked {
            rounds.webhooks.had_turn(&webhook.identity);
        }
    }
    if !rounds.is_second() {
        rounds.webhooks.end_first(request.object);
    }
    Ok(())
}

/// What a webhook makes of the object, in the version of the write; `None` if it leaves it as it is.
async fn changed(
    notes: Notes<'_>,
    subject: &Subject<'_>,
    seen: &Seen<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Object>, ApiError> {
    let webhook = notes.webhook;
    let answer = match call::ask(webhook, subject, seen, notes, warnings).await {
        Ok(answer) => answer,
        Err(failure) => return webhook.judge(failure, notes).map(|()| None),
    };
    if answer.patch.is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice::<Option<Vec<serde_json::Map<String, Value>>>>(&answer.patch) {
        Ok(operations) if operations.as_ref().is_none_or(Vec::is_empty) => return Ok(None),
        Ok(_) => {}
        Err(why) => {
            let why = format!(
                "failed calling webhook {:?}: received undecodable patch in webhook response: {why}",
                webhook.name
            );
            return webhook.judge(call::Failure::Uncalled(why), notes).map(|()| None);
        }
    }
    let Some(object) = seen.object.as_deref() else {
        return Err(ApiError::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            webhook.name
        )));
    };
    let patched = patch::json(object.clone(), &answer.patch).map_err(|e| ApiError::internal(e.message))?;
    notes.patched(&answer.patch);
    if patched == *object {
        return Ok(None);
    }
    seen.restore(subject, patched).await.map(Some)
}
