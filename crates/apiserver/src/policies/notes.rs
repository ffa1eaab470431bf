//! What the audit log is told by policies: the annotations that they make, and the validations that only it hears of.

use access::Audit;
use serde::Serialize;

use super::policy::Binding;

/// No more failures are told of one write.
const MOST_FAILURES: usize = 50;
/// Longer annotations are cut, in bytes.
const LONGEST: usize = 10 << 10;
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// What is to be told of one write.
pub(super) struct Notes<'a> {
    audit: Option<&'a dyn Audit>,
    /// Of the policy that is asked now: each key with its different values, in order.
    annotations: Vec<(String, Vec<String>)>,
    failures: Vec<Failure>,
}

/// A validation that did not hold; fields in upstream's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    message: String,
    policy: String,
    binding: String,
    expression_index: usize,
    validation_actions: Vec<String>,
}

impl<'a> Notes<'a> {
    pub fn new(audit: Option<&'a dyn Audit>) -> Self {
        Self { audit, annotations: Vec::new(), failures: Vec::new() }
    }

    /// Takes down what a policy has made for one binding and parameter.
    pub fn annotations(&mut self, made: &[(String, String)]) {
        if self.audit.is_none() {
            return;
        }
        for (key, value) in made {
            let value = &value[..value.floor_char_boundary(LONGEST)];
            match self.annotations.iter_mut().find(|(known, _)| known == key) {
                Some((_, values)) if values.iter().any(|known| known == value) => {}
                Some((_, values)) => values.push(value.to_owned()),
                None => self.annotations.push((key.clone(), vec![value.to_owned()])),
            }
        }
    }

    /// Tells what was taken down of a policy.
    pub fn tell_annotations(&mut self, policy: &str) {
        for (key, values) in self.annotations.drain(..) {
            if let Some(audit) = self.audit {
                audit.annotate(&format!("{policy}/{key}"), values.join(", "));
            }
        }
    }

    /// Takes down a validation that did not hold.
    pub fn failure(&mut self, policy: &str, binding: &Binding, index: usize, message: &str) {
        if self.audit.is_some() && self.failures.len() < MOST_FAILURES {
            self.failures.push(Failure {
                message: message.to_owned(),
                policy: policy.to_owned(),
                binding: binding.name.clone(),
                expression_index: index,
                validation_actions: binding.actions.clone(),
            });
        }
    }

    /// Tells of the validations that did not hold.
    pub fn tell_failures(&self) {
        if let (Some(audit), false) = (self.audit, self.failures.is_empty())
            && let Ok(text) = serde_json::to_string(&self.failures)
        {
            audit.annotate(FAILURES, text);
        }
    }
}
