//! `matchConditions`: CEL expressions that all have to be true of a request.

use std::sync::Arc;

use apimachinery::{
    ApiError,
    cel::{self, EvalError, Program, Value as CelValue},
};
use serde_json::Value;

use super::{registry::Webhook, review, seen::Seen};
use crate::admission_match::Subject;

/// Steps that all conditions of a webhook may take together for one request.
const BUDGET: u64 = 2_500_000;

/// The conditions of one webhook, compiled.
pub(super) struct Conditions(Vec<Condition>);

struct Condition {
    expression: String,
    program: Result<Arc<Program>, String>,
}

impl Conditions {
    pub fn of(list: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let condition = |value: &Value| {
            let expression = text(&value["expression"]);
            Condition { program: Program::cached(&expression), expression }
        };
        Self(list.as_array().into_iter().flatten().map(condition).collect())
    }

    /// Whether the webhook is asked: one condition that is false is enough that it is not, whatever the others say.
    ///
    /// # Errors
    /// 403 when none is false, one of them fails, and the webhook's failures count.
    pub fn hold(&self, webhook: &Webhook, subject: &Subject<'_>, seen: &Seen<'_>) -> Result<bool, ApiError> {
        if self.0.is_empty() {
            return Ok(true);
        }
        match self.all(subject, seen) {
            Ok(holds) => Ok(holds),
            Err(_) if webhook.ignores_failure => Ok(false),
            Err(why) => {
                let at = &subject.write.attributes;
                Err(ApiError::forbidden(&at.group, &at.resource, &at.name, &why))
            }
        }
    }

    fn all(&self, subject: &Subject<'_>, seen: &Seen<'_>) -> Result<bool, String> {
        let value = |json: Option<&Value>| json.map_or(CelValue::Null, |json| cel::value(json, None, false));
        let request = review::attributes(subject.write, &seen.target);
        let variables = [
            ("object", value(seen.object.as_deref())),
            ("oldObject", value(seen.old.as_deref())),
            ("request", value(Some(&request))),
        ];
        let mut budget = BUDGET;
        let mut failures = Vec::new();
        for condition in &self.0 {
            let program = match &condition.program {
                Ok(program) => program,
                Err(why) => {
                    failures.push(format!("compilation error: {why}"));
                    continue;
                }
            };
            match program.eval(&variables, &mut budget) {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => return Ok(false),
                Ok(_) => failures.push(format!(
                    "expression '{}' resulted in a value that is no truth value",
                    condition.expression
                )),
                Err(EvalError::Budget) => {
                    return Err(
                        "validation failed due to running out of cost budget, no further validation rules will be run"
                            .to_owned(),
                    );
                }
                Err(EvalError::Failed(why)) => {
                    failures.push(format!("expression '{}' resulted in error: {why}", condition.expression));
                }
            }
        }
        match failures.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
