//! MutatingAdmissionPolicy: one invocation after the other, each sees what those before it have made of the object.

use std::sync::Arc;

use access::AdmissionRequest;
use apimachinery::{ApiError, Object, apply, cel, meta, patch};
use serde_json::Value;

use super::{
    forbidden,
    invocation::{Around, BUDGET, OUT_OF_BUDGET, Shown, bound, conditions_hold, evaluate, matched},
    is_exempt,
    policy::{Binding, Expression, Policy, list},
};
use crate::{
    admission_match::{Subject, Target},
    admit::{Rounds, Write},
    server::Inner,
    webhooks::Seen,
};

/// What a policy changes.
pub(crate) struct Mutating {
    mutations: Vec<Mutation>,
    /// It runs again when a later one changes the object.
    reinvoked: bool,
}

enum Mutation {
    /// Makes a configuration that is laid over the object.
    Apply(Expression),
    /// Makes the operations of a JSON patch.
    Patch(Expression),
}

impl Mutating {
    pub(super) fn of(spec: &Value) -> Self {
        let mutation = |value: &Value| match value["patchType"].as_str() {
            Some("JSONPatch") => Mutation::Patch(Expression::of(&value["jsonPatch"]["expression"])),
            _ => Mutation::Apply(Expression::of(&value["applyConfiguration"]["expression"])),
        };
        Self {
            mutations: list(&spec["mutations"], mutation),
            reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }
}

/// A policy that is for the write, with one of its bindings and one parameter.
struct Invocation<'p> {
    policy: &'p Policy<Mutating>,
    binding: &'p Binding,
    param: Option<Arc<Object>>,
    target: Target,
}

impl Invocation<'_> {
    fn identity(&self) -> String {
        let param = self.param.as_deref();
        let param = param.map(|p| format!("{}/{}", meta::namespace(p), meta::name(p))).unwrap_or_default();
        format!("{}/{}/{param}", self.policy.name, self.binding.name)
    }
}

/// What went wrong with policies, in order.
#[derive(Default)]
struct Failures(Vec<(String, &'static str)>);

impl Failures {
    fn add(
        &mut self,
        policy: &Policy<Mutating>,
        binding: Option<&Binding>,
        reason: &'static str,
        why: &dyn std::fmt::Display,
    ) {
        if policy.ignores_failure {
            return;
        }
        let message = match binding {
            Some(binding) => {
                format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name)
            }
            None => format!("policy {:?} denied request: {why}", policy.name),
        };
        self.0.push((message, reason));
    }
}

/// Lets the policies change the object of a write.
///
/// # Errors
/// 403 when one of them that does not ignore failures fails; its reason is `Invalid` where an expression failed.
pub(crate) async fn mutate(
    inner: &Inner,
    write: &Write<'_>,
    request: &mut AdmissionRequest<'_>,
    rounds: &mut Rounds,
) -> Result<(), ApiError> {
    let policies = inner.policies.mutating(inner);
    let subject = Subject::new(inner, write);
    if policies.is_empty() || write.operation == "DELETE" || is_exempt(&subject) {
        return Ok(());
    }
    let mut failures = Failures::default();
    let invocations = select(inner, &subject, &policies, request, &mut failures);
    if rounds.is_second() {
        rounds.policies.begin_second(request.object);
    }
    if !invocations.is_empty() {
        let around = Around::of(&subject);
        for invocation in &invocations {
            Box::pin(invoke(&subject, &around, invocation, request, rounds, &mut failures)).await?;
        }
    }
    if !rounds.is_second() {
        rounds.policies.end_first(request.object);
    }
    let Some((message, reason)) = failures.0.first().cloned() else { return Ok(()) };
    let causes: Vec<String> = failures.0.into_iter().map(|(message, _)| message).collect();
    let mut error = forbidden(write, request.object, "admission request denied by policy", &causes);
    error.message = message;
    error.reason = reason;
    Err(error)
}

/// The invocations of all policies that are for the write as it came.
fn select<'p>(
    inner: &Inner,
    subject: &Subject<'_>,
    policies: &'p [Policy<Mutating>],
    request: &AdmissionRequest<'_>,
    failures: &mut Failures,
) -> Vec<Invocation<'p>> {
    let object = Some(&*request.object).filter(|object| !object.is_null());
    let mut invocations = Vec::new();
    for policy in policies {
        let (target, kind) = match matched(inner, subject, policy, object, request.old) {
            Ok(Some(matched)) => matched,
            Ok(None) => continue,
            Err(why) => {
                failures.add(policy, None, "Forbidden", &format!("failed to configure policy: {why}"));
                continue;
            }
        };
        for binding in &policy.bindings {
            match bound(inner, subject, kind.as_deref(), binding, object, request.old) {
                Ok(parameters) => invocations.extend(parameters.into_iter().map(|param| Invocation {
                    policy,
                    binding,
                    param,
                    target: target.clone(),
                })),
                Err(why) => {
                    let why = format!("failed to configure binding: {why}");
                    failures.add(policy, Some(binding), "Forbidden", &why);
                }
            }
        }
    }
    invocations
}

async fn invoke(
    subject: &Subject<'_>,
    around: &Around,
    invocation: &Invocation<'_>,
    request: &mut AdmissionRequest<'_>,
    rounds: &mut Rounds,
    failures: &mut Failures,
) -> Result<(), ApiError> {
    let Invocation { policy, binding, .. } = invocation;
    if request.object.is_null() {
        return Ok(());
    }
    let identity = invocation.identity();
    {
        let seen =
            match Seen::new(subject, invocation.target.clone(), Some(request.object), request.old).await {
                Ok(seen) => seen,
                Err(error) => {
                    failures.add(policy, Some(binding), "Invalid", &error.message);
                    return Ok(());
                }
            };
        let shown = Shown::new(subject, around, &seen);
        let scope = shown.scope(invocation.param.as_deref());
        match conditions_hold(
            &policy.conditions,
            policy.ignores_failure,
            &scope.with_variables(&policy.variables),
        ) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(why) => {
                failures.add(policy, Some(binding), "Invalid", &why);
                return Ok(());
            }
        }
    }
    if rounds.is_second() && !rounds.policies.runs_again(&identity) {
        return Ok(());
    }
    let mut changed = false;
    for mutation in &policy.what.mutations {
        let seen = Seen::new(subject, invocation.target.clone(), Some(request.object), request.old).await?;
        let shown = Shown::new(subject, around, &seen);
        match made(subject, &shown, invocation, mutation) {
            Ok(None) => {}
            Ok(Some(object)) => {
                let object = seen.restore(subject, object).await?;
                changed |= object != *request.object;
                *request.object = object;
            }
            Err(why) => failures.add(policy, Some(binding), "Invalid", &why),
        }
    }
    if changed {
        rounds.policies.changed();
        rounds.want_second();
    }
    if policy.what.reinvoked {
        rounds.policies.had_turn(&identity);
    }
    Ok(())
}

/// What a mutation makes of the object, in the version that its policy sees; `None` if it leaves it as it is.
fn made(
    subject: &Subject<'_>,
    shown: &Shown<'_>,
    invocation: &Invocation<'_>,
    mutation: &Mutation,
) -> Result<Option<Object>, String> {
    let Some(object) = shown.seen.object.as_deref() else { return Ok(None) };
    let scope = shown.scope(invocation.param.as_deref());
    let scope = scope.with_variables(&invocation.policy.variables);
    let run = |expression: &Expression| {
        evaluate(expression, &scope, &mut BUDGET.clone())
            .map_err(|why| why.unwrap_or_else(|| OUT_OF_BUDGET.to_owned()))
    };
    match mutation {
        Mutation::Patch(expression) => {
            let operations = cel::operations(&run(expression)?)?;
            patch::operations(object.clone(), operations).map_err(|why| format!("JSON Patch: {why}"))
        }
        Mutation::Apply(expression) => {
            let mut configuration = cel::configuration(&run(expression)?)?;
            for field in ["apiVersion", "kind"] {
                configuration[field] = object[field].clone();
            }
            laid_over(subject, &invocation.target, object, &configuration)
                .map(Some)
                .map_err(|why| format!("error applying patch: {why}"))
        }
    }
}

/// The configuration laid over the object, as server-side apply does, but nobody owns what it sets.
fn laid_over(
    subject: &Subject<'_>,
    target: &Target,
    object: &Object,
    configuration: &Object,
) -> Result<Object, String> {
    let schema = &target.served(subject.write).resource.schema;
    apply::check(configuration, schema)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let atomic = apply::atomic(configuration, schema);
    if !atomic.is_empty() {
        let paths = atomic.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"
        ));
    }
    apply::merge(object, configuration, schema).map_err(|why| format!("failed to merge patch: {why}"))
}
