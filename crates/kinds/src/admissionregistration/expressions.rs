//! CEL expressions of policies and match conditions: that they are there, and that they compile.

use std::collections::HashSet;

use apimachinery::{
    FieldError, FieldPath,
    cel::{
        Declared, Ty,
        admission::{self, Names, Wanted},
    },
};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{list, text},
};

const MOST_CONDITIONS: usize = 64;

/// The names that the expressions of one object may use.
pub(super) struct Scope {
    params: bool,
    /// With their types; those whose expression is wrong may be anything.
    variables: Vec<(String, Ty)>,
}

/// Names that not every expression may use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// The authorizer.
    Common,
    /// What a message is made with.
    Message,
    /// `Object{…}` and `JSONPatch{…}` too.
    Mutation,
}

impl Scope {
    /// Of a webhook.
    pub fn of_webhook() -> Self {
        Self { params: false, variables: Vec::new() }
    }

    /// Of a policy, before its variables are known.
    pub fn of_policy(spec: &Value) -> Self {
        Self { params: spec.get("paramKind").is_some_and(Value::is_object), ..Self::of_webhook() }
    }

    fn plain(&self, of: Use) -> Declared {
        let names =
            Names { params: self.params, authorizer: of != Use::Message, patches: of == Use::Mutation };
        admission::declared(names, Ty::Dyn, Ty::Dyn)
    }

    fn whole(&self, of: Use) -> Declared {
        admission::with_variables(self.plain(of), &self.variables)
    }

    /// Whether an expression compiles, and gives what is wanted.
    pub fn check(&self, checks: &mut Checks, path: &FieldPath, expression: &str, of: Use, wanted: Wanted) {
        compile(checks, path, expression, &self.whole(of), wanted);
    }

    /// The same of an expression that has to be there.
    pub fn check_present(
        &self,
        checks: &mut Checks,
        path: &FieldPath,
        (expression, missing): (&str, &str),
        of: Use,
        wanted: Wanted,
    ) {
        if expression.trim().is_empty() {
            checks.required(path, missing);
        } else {
            self.check(checks, path, expression, of, wanted);
        }
    }
}

fn compile(
    checks: &mut Checks,
    path: &FieldPath,
    expression: &str,
    declared: &Declared,
    wanted: Wanted,
) -> Option<Ty> {
    match admission::compile(expression, declared, wanted) {
        Ok(ty) => Some(ty),
        Err(why) => {
            checks.invalid(path, expression, &why);
            None
        }
    }
}

/// Conditions under which a webhook or a policy is asked at all.
pub(super) fn check_match_conditions(
    checks: &mut Checks,
    scope: &Scope,
    conditions: &[Value],
    path: &FieldPath,
) {
    if conditions.len() > MOST_CONDITIONS {
        checks.errors.push(FieldError::too_many(path, conditions.len(), MOST_CONDITIONS));
    }
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let (expression, at) = (text(condition, "expression").trim(), path.child("expression"));
        if expression.is_empty() {
            checks.required(&at, "");
        } else {
            // They are looked at before the variables are.
            compile(checks, &at, expression, &scope.plain(Use::Common), Wanted::Bool);
        }
        let name = text(condition, "name");
        if name.is_empty() {
            checks.required(&path.child("name"), "");
            continue;
        }
        checks.qualified_name(&path.child("name"), name);
        if !seen.insert(name) {
            checks.duplicate(&path.child("name"), name);
        }
    }
}

/// Variables that the expressions of a policy share: each sees those before it.
pub(super) fn check_variables(checks: &mut Checks, scope: &mut Scope, spec: &Value, path: &FieldPath) {
    for (index, variable) in list(spec, "variables").iter().enumerate() {
        let (path, name) = (path.index(index), text(variable, "name"));
        if name.trim().is_empty() {
            checks.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            checks.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        let (expression, path) = (text(variable, "expression"), path.child("expression"));
        if expression.trim().is_empty() {
            checks.required(&path, "expression is not specified");
            continue;
        }
        let ty = compile(checks, &path, expression, &scope.whole(Use::Common), Wanted::Anything);
        scope.variables.push((name.to_owned(), ty.unwrap_or(Ty::Dyn)));
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && !apimachinery::cel::RESERVED.contains(&name)
}
