//! CEL expressions of policies and match conditions: that they are there, and that they compile.

use std::collections::HashSet;

use apimachinery::{FieldError, FieldPath, cel::Program};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{list, text},
};

const MOST_CONDITIONS: usize = 64;

/// CEL's words that are no names.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// What is wrong with an expression, as far as its syntax shows. Types and the variables that an expression may use
/// depend on where it stands and are not looked at.
#[must_use]
pub fn expression_errors(path: &FieldPath, expression: &str) -> Vec<FieldError> {
    match Program::compile(expression) {
        Ok(_) => Vec::new(),
        Err(why) => vec![FieldError::invalid(path, expression, format!("compilation failed: {why}"))],
    }
}

/// An expression that has to be there.
pub(super) fn check_expression(checks: &mut Checks, path: &FieldPath, expression: &str, missing: &str) {
    if expression.trim().is_empty() {
        checks.required(path, missing);
    } else {
        checks.errors.extend(expression_errors(path, expression));
    }
}

/// Conditions under which a webhook or a policy is asked at all.
pub(super) fn check_match_conditions(checks: &mut Checks, conditions: &[Value], path: &FieldPath) {
    if conditions.len() > MOST_CONDITIONS {
        checks.errors.push(FieldError::too_many(path, conditions.len(), MOST_CONDITIONS));
    }
    let mut seen = HashSet::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        check_expression(checks, &path.child("expression"), text(condition, "expression").trim(), "");
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

/// Variables that the expressions of a policy share.
pub(super) fn check_variables(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    for (index, variable) in list(spec, "variables").iter().enumerate() {
        let (path, name) = (path.index(index), text(variable, "name"));
        if name.trim().is_empty() {
            checks.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            checks.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        let missing = "expression is not specified";
        check_expression(checks, &path.child("expression"), text(variable, "expression"), missing);
    }
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
        && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_are_told_as_failed_compilations() {
        let path = FieldPath::from("spec.x");
        assert_eq!(expression_errors(&path, "object.a == 1"), []);
        let errors = expression_errors(&path, "... - bad syntax [");
        assert!(errors[0].detail.starts_with("compilation failed: "), "{errors:?}");
    }
}
