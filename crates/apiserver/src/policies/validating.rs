//! ValidatingAdmissionPolicy: what a write is held against after it was changed for the last time.

use std::sync::OnceLock;

use access::AdmissionRequest;
use apimachinery::{
    ApiError,
    cel::{Composed, Value as CelValue},
};
use serde_json::Value;

use super::{
    forbidden,
    invocation::{Around, BUDGET, OUT_OF_BUDGET, Shown, bound, conditions_hold, evaluate, matched},
    is_exempt,
    notes::Notes,
    policy::{Binding, Expression, Policy, list},
};
use crate::{admission_match::Subject, admit::Write, server::Inner, webhooks::Seen};

/// Longer messages of expressions are not shown, in bytes.
const MAX_MESSAGE: usize = 5 << 10;

/// What a policy wants to be true.
pub(crate) struct Validating {
    validations: Vec<Validation>,
    annotations: Vec<Annotation>,
}

/// What the audit log is to be told.
struct Annotation {
    key: String,
    value: Expression,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    /// Of the answer, when it is false.
    reason: Reason,
}

/// Reason and code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reason(&'static str, u16);

const INVALID: Reason = Reason("Invalid", 422);

impl Validating {
    pub(super) fn of(spec: &Value) -> Self {
        let validation = |value: &Value| Validation {
            expression: Expression::of(&value["expression"]),
            message: value["message"].as_str().unwrap_or_default().trim().to_owned(),
            message_expression: Expression::optional(&value["messageExpression"]),
            reason: match value["reason"].as_str() {
                Some("Unauthorized") => Reason("Unauthorized", 401),
                Some("Forbidden") => Reason("Forbidden", 403),
                Some("RequestEntityTooLarge") => Reason("RequestEntityTooLarge", 413),
                _ => INVALID,
            },
        };
        Self {
            validations: list(&spec["validations"], validation),
            annotations: list(&spec["auditAnnotations"], |value| Annotation {
                key: value["key"].as_str().unwrap_or_default().to_owned(),
                value: Expression::of(&value["valueExpression"]),
            }),
        }
    }
}

/// Why a policy refuses.
#[derive(Debug, PartialEq)]
struct Denial {
    message: String,
    reason: Reason,
}

impl Denial {
    fn invalid(message: impl Into<String>) -> Self {
        Self { message: message.into(), reason: INVALID }
    }
}

/// Lets the policies refuse a write. What they only warn of is added to the warnings.
///
/// # Errors
/// The first refusal, with the code that goes with its reason; 404 where the namespace of the write is gone.
pub(crate) async fn validate(
    inner: &Inner,
    write: &Write<'_>,
    request: &mut AdmissionRequest<'_>,
) -> Result<(), ApiError> {
    let policies = inner.policies.validating(inner);
    let subject = Subject::new(inner, write);
    if policies.is_empty() || is_exempt(&subject) {
        return Ok(());
    }
    let around = OnceLock::new();
    let object = Some(&*request.object).filter(|object| !object.is_null());
    let (mut refused, mut warnings) = (None, Vec::new());
    let mut notes = Notes::new(request.audit);
    for policy in policies.iter() {
        let mut refuse = |binding: Option<&Binding>, denial: Denial| {
            let with =
                binding.map_or_else(String::new, |binding| format!(" with binding '{}'", binding.name));
            let message = format!(
                "ValidatingAdmissionPolicy '{}'{with} denied request: {}",
                policy.name, denial.message
            );
            refused.get_or_insert((message, denial.reason));
        };
        let (target, kind) = match matched(inner, &subject, policy, object, request.old) {
            Ok(Some(matched)) => matched,
            Ok(None) => continue,
            Err(_) if policy.ignores_failure => continue,
            Err(why) => {
                refuse(None, Denial::invalid(format!("failed to configure policy: {why}")));
                continue;
            }
        };
        let seen = match Seen::new(&subject, target, object, request.old).await {
            Ok(seen) => seen,
            Err(_) if policy.ignores_failure => continue,
            Err(error) => {
                let why = format!("failed to convert object version: {}", error.message);
                refuse(None, Denial::invalid(why));
                continue;
            }
        };
        let shown = OnceLock::new();
        for binding in &policy.bindings {
            let parameters = match bound(inner, &subject, kind.as_deref(), binding, object, request.old) {
                Ok(parameters) => parameters,
                Err(_) if policy.ignores_failure => continue,
                Err(why) => {
                    refuse(Some(binding), Denial::invalid(format!("failed to configure binding: {why}")));
                    continue;
                }
            };
            for param in parameters {
                let around: &Around = around.get_or_init(|| Around::of(&subject));
                let shown: &Shown<'_> = shown.get_or_init(|| Shown::new(&subject, around, &seen));
                let scope = shown.scope(param.as_deref());
                let verdict = judge(policy, &scope.with_variables(&policy.variables));
                notes.annotations(&verdict.annotations);
                for (index, denial) in verdict.denials {
                    if binding.actions.iter().any(|action| action == "Audit") {
                        notes.failure(&policy.name, binding, index, &denial.message);
                    }
                    if binding.actions.iter().any(|action| action == "Warn") {
                        warnings.push(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            policy.name, binding.name, denial.message
                        ));
                    }
                    if binding.actions.iter().any(|action| action == "Deny") {
                        refuse(Some(binding), denial);
                    }
                }
                // A failed annotation refuses whatever the binding's actions are.
                verdict.failures.into_iter().for_each(|failure| refuse(Some(binding), failure));
            }
        }
        notes.tell_annotations(&policy.name);
    }
    notes.tell_failures();
    request.warnings.extend(warnings);
    let Some((message, Reason(reason, code))) = refused else { return Ok(()) };
    let mut error = forbidden(write, request.object, &message, std::slice::from_ref(&message));
    (error.reason, error.code) = (reason, code);
    Err(error)
}

/// What a policy says of a write.
#[derive(Default)]
struct Verdict {
    /// With the place of the validation.
    denials: Vec<(usize, Denial)>,
    /// For the audit log: a key and what it is to say.
    annotations: Vec<(String, String)>,
    /// Of audit annotations.
    failures: Vec<Denial>,
}

fn judge(policy: &Policy<Validating>, scope: &Composed<'_>) -> Verdict {
    let failed = |why: String| {
        let denials = if policy.ignores_failure { Vec::new() } else { vec![(0, Denial::invalid(why))] };
        Verdict { denials, ..Verdict::default() }
    };
    match conditions_hold(&policy.conditions, policy.ignores_failure, scope) {
        Ok(true) => {}
        Ok(false) => return Verdict::default(),
        Err(why) => return failed(why),
    }
    let mut budget = BUDGET;
    let mut outcomes = Vec::new();
    for validation in &policy.what.validations {
        match evaluate(&validation.expression, scope, &mut budget) {
            Err(None) => return failed(OUT_OF_BUDGET.to_owned()),
            Err(Some(why)) => outcomes.push(Err(why)),
            Ok(value) => outcomes.push(Ok(value == CelValue::Bool(true))),
        }
    }
    let mut verdict = Verdict::default();
    for ((index, validation), outcome) in policy.what.validations.iter().enumerate().zip(outcomes) {
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                let message = message(validation, scope, &mut budget);
                verdict.denials.push((index, Denial { message, reason: validation.reason }));
            }
            Err(_) if policy.ignores_failure => {}
            Err(why) => verdict.denials.push((index, Denial::invalid(why))),
        }
    }
    annotate(policy, scope, &mut verdict);
    verdict
}

/// What is said of a validation that does not hold: what its expression makes, its message, or the expression itself.
fn message(validation: &Validation, scope: &Composed<'_>, budget: &mut u64) -> String {
    let made = validation.message_expression.as_ref().and_then(|expression| {
        match evaluate(expression, scope, budget) {
            Ok(CelValue::String(text)) => Some(text.trim().to_owned()),
            // That it fails is no reason to say nothing of what it was to explain.
            _ => None,
        }
    });
    let fits = |text: &String| !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n');
    made.filter(fits)
        .or_else(|| Some(validation.message.clone()).filter(|message| !message.is_empty()))
        .unwrap_or_else(|| format!("failed expression: {}", validation.expression.source.trim()))
}

/// Evaluates the annotations for the audit log. What is wrong with them counts even where no log is kept.
fn annotate(policy: &Policy<Validating>, scope: &Composed<'_>, verdict: &mut Verdict) {
    let mut budget = BUDGET;
    for Annotation { key, value } in &policy.what.annotations {
        match evaluate(value, scope, &mut budget) {
            Ok(CelValue::String(text)) if !text.trim().is_empty() => {
                verdict.annotations.push((key.clone(), text.trim().to_owned()));
            }
            Ok(CelValue::String(_) | CelValue::Null) => {}
            Ok(other) => verdict.failures.push(Denial::invalid(format!(
                "valueExpression '{}' resulted in unsupported return type: {:?}. Return type must be either string or null.",
                value.source,
                other.type_of()
            ))),
            Err(_) if policy.ignores_failure => {}
            Err(why) => {
                let out = why.is_none();
                verdict.failures.push(Denial::invalid(why.unwrap_or_else(|| OUT_OF_BUDGET.to_owned())));
                if out {
                    break;
                }
            }
        }
    }
}
