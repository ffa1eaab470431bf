//! One question to one webhook, and what its answer or its silence means for the write.

use apimachinery::ApiError;
use serde_json::{Value, json};

use super::{
    notes::{MUTATION, Notes},
    registry::Webhook,
    review::{self, Answer, Unusable},
    seen::Seen,
};
use crate::admission_match::Subject;

/// Why a write does not go on.
pub(super) enum Failure {
    /// The webhook refuses it, or the server does because of what the webhook says of itself.
    Refused(ApiError),
    /// It could not be asked: `failed calling webhook "name": …`. Whether that matters is for `failurePolicy` to say.
    Uncalled(String),
}

/// Asks a webhook; the sort of the notes tells what it may answer. Its warnings are in the answer that allows, and in `warnings`
/// for any answer.
pub(super) async fn ask(
    webhook: &Webhook,
    subject: &Subject<'_>,
    seen: &Seen<'_>,
    notes: Notes<'_>,
    warnings: &mut Vec<String>,
) -> Result<Answer, Failure> {
    let uncalled = |why: &dyn std::fmt::Display| {
        Failure::Uncalled(format!("failed calling webhook {:?}: {why}", webhook.name))
    };
    if subject.write.dry_run {
        match webhook.dry_run {
            Some(true) => {}
            Some(false) => {
                let why = format!("admission webhook {:?} does not support dry run", webhook.name);
                return Err(Failure::Refused(ApiError::bad_request(why)));
            }
            None => return Err(uncalled(&"Webhook SideEffects is nil")),
        }
    }
    let form = webhook.form.ok_or_else(|| {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        uncalled(&format!("could not create admission objects: {why}"))
    })?;
    let target =
        webhook.target.as_ref().map_err(|why| uncalled(&format!("could not get REST client: {why}")))?;
    let limit = webhook.timeout.min(subject.write.time_left());
    if limit.is_zero() {
        // Nobody waits for the write any more, so it must not happen.
        let why = "Timeout: request did not complete within requested timeout";
        return Err(Failure::Refused(ApiError::other(504, "Timeout", why)));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let question = review::question(form, &uid, subject.write, seen);
    let seconds = limit.as_secs() + u64::from(limit.subsec_nanos() > 0);
    let review = target
        .post(subject.inner, &format!("timeout={seconds}s"), &question, limit)
        .await
        .map_err(|why| uncalled(&format!("failed to call webhook: {why}")))?;
    let answer = Answer::of(form, &uid, notes.sort == MUTATION, &review).map_err(|why| match why {
        Unusable::Undecodable(why) => uncalled(&format!("failed to call webhook: {why}")),
        Unusable::Invalid(why) => uncalled(&format!("received invalid webhook response: {why}")),
    })?;
    notes.said(&answer.annotations);
    warnings.extend(answer.warnings.iter().filter(|warning| !warning.is_empty()).cloned());
    if !answer.allowed {
        return Err(Failure::Refused(refusal(&webhook.name, answer.status)));
    }
    Ok(answer)
}

impl Webhook {
    /// What a failure means: nothing if the webhook's `failurePolicy` is to ignore that it could not be asked.
    pub(super) fn judge(&self, failure: Failure, notes: Notes<'_>) -> Result<(), ApiError> {
        match failure {
            Failure::Refused(error) => Err(error),
            Failure::Uncalled(why) if self.ignores_failure => {
                tracing::warn!(why, "a webhook was not asked, which is ignored");
                notes.ignored();
                Ok(())
            }
            Failure::Uncalled(why) => Err(ApiError::internal(why)),
        }
    }
}

/// The webhook's own Status, which says who refused and is an error whatever the webhook made of it.
fn refusal(webhook: &str, status: Value) -> ApiError {
    let mut status = if status.is_object() { status } else { json!({}) };
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    let denied = format!("admission webhook {webhook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        (message, _) if !message.is_empty() => format!("{denied}: {message}"),
        (_, reason) if !reason.is_empty() => format!("{denied}: {reason}"),
        _ => format!("{denied} without explanation"),
    };
    if matches!(status["status"].as_str(), None | Some("" | "Success")) {
        status["status"] = "Failure".into();
    }
    let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let code = code.filter(|code| (400..1000).contains(code)).unwrap_or(400);
    status["message"] = message.into();
    status["code"] = code.into();
    ApiError::from_status(code, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_webhooks_status_as_an_error() {
        let status = json!({"code": 418, "reason": "Teapot", "message": "short", "details": {"name": "x"}});
        let error = refusal("w", status);
        assert_eq!(
            error.to_status(),
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 418,
                "reason": "Teapot", "message": "admission webhook \"w\" denied the request: short",
                "details": {"name": "x"},
            })
        );
        let silent = refusal("w", Value::Null);
        assert_eq!(
            (silent.code, silent.message.as_str()),
            (400, "admission webhook \"w\" denied the request without explanation")
        );
        let only_reason = refusal("w", json!({"status": "Success", "code": 200, "reason": "because"}));
        assert_eq!(
            (only_reason.code, only_reason.message.as_str()),
            (400, "admission webhook \"w\" denied the request: because")
        );
        assert_eq!(only_reason.to_status()["status"], "Failure");
    }
}
