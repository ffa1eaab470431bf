//! A policy with its bindings, read once.

use std::sync::Arc;

use apimachinery::{Object, cel::Program, meta, selector::LabelSelector};
use serde_json::Value;

use crate::admission_match::Criteria;

/// A policy; `T` is what it does with the writes it is for.
pub(crate) struct Policy<T> {
    pub name: String,
    pub criteria: Criteria,
    pub conditions: Vec<Expression>,
    pub variables: Vec<(String, Arc<Program>)>,
    /// Of the objects that its bindings name as parameters.
    pub params: Option<ParamKind>,
    /// Mistakes and failures are as good as an admission.
    pub ignores_failure: bool,
    /// Why it cannot be used.
    pub error: Option<String>,
    pub bindings: Vec<Binding>,
    pub what: T,
}

/// An expression, compiled.
pub(crate) struct Expression {
    pub source: String,
    /// Or what is wrong with it.
    pub program: Result<Arc<Program>, String>,
}

/// Group, version and kind of parameters.
#[derive(Clone)]
pub(crate) struct ParamKind {
    pub api_version: String,
    pub kind: String,
}

/// Where a policy holds.
pub(crate) struct Binding {
    pub name: String,
    pub criteria: Criteria,
    pub params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`
    pub actions: Vec<String>,
}

/// Which parameters a binding uses.
pub(crate) struct ParamRef {
    /// Empty: by labels.
    pub name: String,
    /// Empty: that of the request.
    pub namespace: String,
    pub selector: Option<Result<LabelSelector, String>>,
    /// That there are none is an error.
    pub must_exist: bool,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(super) fn list<T>(value: &Value, read: impl FnMut(&Value) -> T) -> Vec<T> {
    value.as_array().into_iter().flatten().map(read).collect()
}

impl Expression {
    pub fn of(source: &Value) -> Self {
        let source = text(source);
        Self { program: Program::cached(&source).map_err(|why| format!("compilation failed: {why}")), source }
    }

    /// The same; `None` where there is none.
    pub fn optional(source: &Value) -> Option<Self> {
        source.as_str().filter(|source| !source.is_empty()).map(|_| Self::of(source))
    }
}

impl<T> Policy<T> {
    /// Reads a policy and those of the bindings that are its own.
    pub fn of(policy: &Object, bindings: &[Arc<Object>], what: impl FnOnce(&Value) -> T) -> Self {
        let (name, spec) = (meta::name(policy), &policy["spec"]);
        let mut error = None;
        let mut variables = Vec::new();
        for variable in spec["variables"].as_array().into_iter().flatten() {
            let name = text(&variable["name"]);
            match Expression::of(&variable["expression"]).program {
                Ok(program) => variables.push((name, program)),
                Err(why) => {
                    error = error.or(Some(format!("composited variable {name:?} fails to compile: {why}")))
                }
            }
        }
        let kind = &spec["paramKind"];
        let params = kind
            .is_object()
            .then(|| ParamKind { api_version: text(&kind["apiVersion"]), kind: text(&kind["kind"]) });
        let own = bindings.iter().filter(|binding| binding["spec"]["policyName"] == name);
        Self {
            name: name.to_owned(),
            criteria: Criteria::of_match_resources(&spec["matchConstraints"]),
            conditions: list(&spec["matchConditions"], |condition| Expression::of(&condition["expression"])),
            variables,
            params,
            ignores_failure: spec["failurePolicy"] == "Ignore",
            error,
            bindings: own.map(|binding| Binding::of(binding)).collect(),
            what: what(spec),
        }
    }
}

impl Binding {
    fn of(binding: &Object) -> Self {
        let spec = &binding["spec"];
        let reference = &spec["paramRef"];
        let selector = &reference["selector"];
        let params = reference.is_object().then(|| ParamRef {
            name: text(&reference["name"]),
            namespace: text(&reference["namespace"]),
            selector: selector.is_object().then(|| LabelSelector::from_object(selector)),
            must_exist: reference["parameterNotFoundAction"] == "Deny",
        });
        Self {
            name: meta::name(binding).to_owned(),
            criteria: Criteria::of_match_resources(&spec["matchResources"]),
            params,
            actions: list(&spec["validationActions"], text),
        }
    }
}
