//! One policy with one binding and one parameter: what its expressions see, and whether it is for the request.

use std::sync::Arc;

use apimachinery::{
    Object,
    cel::{self, Composed, EvalError, Scope, Value},
};
use serde_json::{Value as Json, json};

use super::{
    authorizer::{self, Asked},
    parameters,
    policy::{Binding, Expression, Policy},
};
use crate::{
    admission_match::{Subject, Target},
    catalogue::Served,
    server::Inner,
    webhooks::{Seen, attributes},
};

/// Steps that a policy's conditions may take together.
const CONDITIONS: u64 = 2_500_000;
/// Steps that its other expressions may take together, for one parameter.
pub(super) const BUDGET: u64 = 10_000_000;
/// What running out of them is called.
pub(super) const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A policy that is for a write: the resource it sees the write as, and where its parameters lie.
pub(super) type Matched = (Target, Option<Arc<Served>>);

/// Whether a policy is for a write.
pub(super) fn matched<T>(
    inner: &Inner,
    subject: &Subject<'_>,
    policy: &Policy<T>,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Result<Option<Matched>, String> {
    let found = policy.criteria.matches(subject, object, old).map_err(|error| error.message)?;
    let Some(target) = found else { return Ok(None) };
    if let Some(error) = &policy.error {
        return Err(error.clone());
    }
    Ok(Some((target, parameters::kind_of(inner, policy)?)))
}

/// The parameters for a write that a binding is for; none if it is not.
pub(super) fn bound(
    inner: &Inner,
    subject: &Subject<'_>,
    kind: Option<&Served>,
    binding: &Binding,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Result<parameters::Parameters, String> {
    match binding.criteria.matches(subject, object, old) {
        Ok(None) => Ok(Vec::new()),
        Ok(Some(_)) => parameters::of(inner, kind, binding, &subject.write.attributes.namespace),
        Err(error) => Err(error.message),
    }
}

/// What is the same for all policies that a write is held against.
pub(crate) struct Around {
    /// `namespaceObject`; null for what lies in no namespace, and for namespaces.
    namespace: Json,
    asked: Arc<Asked>,
    about: cel::Question,
}

impl Around {
    pub fn of(subject: &Subject<'_>) -> Self {
        let itself = &*subject.write.kind.kind == "Namespace" && subject.write.kind.group.is_empty();
        let namespace = subject.namespace().filter(|_| !itself);
        Self {
            namespace: namespace.map_or(Json::Null, |namespace| shown(namespace)),
            asked: Arc::new(Asked {
                authorizers: subject.inner.config.authorizers.clone(),
                user: subject.write.attributes.user.clone(),
            }),
            about: authorizer::about(subject.write),
        }
    }
}

/// What expressions see of a namespace.
fn shown(namespace: &Object) -> Json {
    let mut shown = json!({});
    for field in ["spec", "status"] {
        if let Some(value) = namespace.get(field) {
            shown[field] = value.clone();
        }
    }
    let mut metadata = namespace["metadata"].clone();
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    shown["metadata"] = metadata;
    shown
}

/// The parts of a request that an invocation is made over.
pub(crate) struct Shown<'s> {
    pub around: &'s Around,
    pub seen: &'s Seen<'s>,
    request: Json,
}

impl<'s> Shown<'s> {
    pub fn new(subject: &Subject<'_>, around: &'s Around, seen: &'s Seen<'s>) -> Self {
        Self { around, seen, request: attributes(subject.write, &seen.target) }
    }

    /// The names of the expressions of a policy that takes `params`.
    pub fn scope<'v>(&'v self, params: Option<&'v Object>) -> Scope<'v> {
        let mut scope = Scope::new();
        scope.json("object", self.seen.object.as_deref());
        scope.json("oldObject", self.seen.old.as_deref());
        scope.json("request", Some(&self.request));
        scope.json("params", params);
        scope.json("namespaceObject", Some(&self.around.namespace));
        scope.set("authorizer", cel::authorizer(self.around.asked.clone()));
        let about = cel::request_resource(self.around.asked.clone(), self.around.about.clone());
        scope.set("authorizer.requestResource", about);
        scope
    }
}

/// Evaluates an expression.
///
/// # Errors
/// `Err(None)`: the budget does not suffice, so nothing else is evaluated.
pub(super) fn evaluate(
    expression: &Expression,
    scope: &Composed<'_>,
    budget: &mut u64,
) -> Result<Value, Option<String>> {
    let program = match &expression.program {
        Ok(program) => program,
        Err(why) => return Err(Some(format!("compilation error: {why}"))),
    };
    match program.run(scope, budget) {
        Ok(value) => Ok(value),
        // One expression that takes too much is its own mistake; all together are everybody's.
        Err(EvalError::Budget) => Err(None),
        Err(error) => Err(Some(format!("expression '{}' resulted in error: {error}", expression.source))),
    }
}

/// Whether the conditions of a policy or a webhook hold: one that is false is enough that they do not, whatever the
/// others say.
///
/// # Errors
/// What went wrong where none is false, unless failures are ignored.
pub(crate) fn conditions_hold(
    conditions: &[Expression],
    ignores_failure: bool,
    scope: &Composed<'_>,
) -> Result<bool, String> {
    let (mut budget, mut failures) = (CONDITIONS, Vec::new());
    for condition in conditions {
        match evaluate(condition, scope, &mut budget) {
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(Some(why)) => failures.push(why),
            Err(None) => {
                failures = vec![OUT_OF_BUDGET.to_owned()];
                break;
            }
        }
    }
    match failures.as_slice() {
        [] => Ok(true),
        _ if ignores_failure => Ok(false),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}
