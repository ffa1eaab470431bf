//! What is wrong with a ValidatingAdmissionPolicy or a MutatingAdmissionPolicy.

use std::collections::HashSet;

use apimachinery::{FieldPath, cel::admission::Wanted, names};
use serde_json::Value;

use super::{
    expressions::{Scope, Use, check_match_conditions, check_variables},
    matching::{FAILURE_POLICIES, check_match_resources, check_mutable},
    webhook::REINVOCATION_POLICIES,
};
use crate::{
    checks::{Checks, path},
    object::{at, has, list, same, text},
};

const MOST_ANNOTATIONS: usize = 20;
/// Bytes.
const LONGEST_ANNOTATION: usize = 5 * 1024;
/// Sorted, as they are told.
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];

/// Nothing that the conditions depend on has changed.
pub fn same_conditions(new: &Value, old: &Value) -> bool {
    ["spec.paramKind", "spec.matchConditions"].iter().all(|field| same(at(new, field), at(old, field)))
}

/// `known_conditions`: the match conditions were accepted before.
pub fn check_validating(checks: &mut Checks, object: &Value, known_conditions: bool) {
    let (spec, path) = (at(object, "spec"), path("spec"));
    let scope = check_common(checks, spec, &path, known_conditions, false);
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            checks.required(&path.child(field), detail);
        }
        return;
    }
    for (index, validation) in validations.iter().enumerate() {
        check_validation(checks, &scope, validation, &path.child("validations").index(index));
    }
    check_annotations(checks, &scope, text(object, "metadata.name"), spec, &path.child("auditAnnotations"));
}

/// The same for the other kind.
pub fn check_mutating(checks: &mut Checks, object: &Value, known_conditions: bool) {
    let (spec, path) = (at(object, "spec"), path("spec"));
    let scope = check_common(checks, spec, &path, known_conditions, true);
    let mutations = list(spec, "mutations");
    if mutations.is_empty() {
        checks.required(&path.child("mutations"), "mutations must contain at least one item");
    }
    for (index, mutation) in mutations.iter().enumerate() {
        check_mutation(checks, &scope, mutation, &path.child("mutations").index(index));
    }
    let policy = text(spec, "reinvocationPolicy");
    checks.required_one_of(&path.child("reinvocationPolicy"), policy, &REINVOCATION_POLICIES);
}

/// What policies of both kinds have; the names that their other expressions may use.
fn check_common(
    checks: &mut Checks,
    spec: &Value,
    path: &FieldPath,
    known_conditions: bool,
    mutating: bool,
) -> Scope {
    let mut scope = Scope::of_policy(spec);
    checks.required_one_of(&path.child("failurePolicy"), text(spec, "failurePolicy"), &FAILURE_POLICIES);
    if has(spec, "paramKind") {
        check_param_kind(checks, at(spec, "paramKind"), &path.child("paramKind"));
    }
    let (matching, matching_path) = (at(spec, "matchConstraints"), path.child("matchConstraints"));
    if matching.is_null() {
        checks.required(&matching_path, "");
    } else {
        check_match_resources(checks, matching, &matching_path);
        // Without a rule there is nothing to know the types from.
        if list(matching, "resourceRules").is_empty() {
            checks.required(&matching_path.child("resourceRules"), "");
        }
        if mutating {
            check_mutable(checks, matching, &matching_path);
        }
    }
    if !known_conditions {
        let conditions = list(spec, "matchConditions");
        check_match_conditions(checks, &scope, conditions, &path.child("matchConditions"));
    }
    check_variables(checks, &mut scope, spec, &path.child("variables"));
    scope
}

fn check_param_kind(checks: &mut Checks, reference: &Value, path: &FieldPath) {
    let (version, kind) = (text(reference, "apiVersion"), text(reference, "kind"));
    check_group_version(checks, version, &path.child("apiVersion"));
    if kind.is_empty() {
        return checks.required(&path.child("kind"), "");
    }
    let faults = names::is_dns1035_label(&kind.to_lowercase());
    if !faults.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", faults.join(","));
        checks.invalid(&path.child("kind"), kind, &detail);
    }
}

fn check_group_version(checks: &mut Checks, whole: &str, path: &FieldPath) {
    let (group, version) = match whole.split('/').collect::<Vec<_>>()[..] {
        _ if whole.is_empty() => return checks.required(path, ""),
        _ if whole == "/" => ("", ""),
        [version] => ("", version),
        [group, version] => (group, version),
        _ => return checks.invalid(path, whole, &format!("unexpected GroupVersion string: {whole}")),
    };
    if !group.is_empty() {
        checks.together(path, group, &names::is_dns1123_subdomain(group));
    }
    if version.is_empty() {
        checks.invalid(path, whole, "version must be specified");
    } else {
        checks.together(path, version, &names::is_dns1035_label(version));
    }
}

fn check_validation(checks: &mut Checks, scope: &Scope, validation: &Value, path: &FieldPath) {
    let expression = (text(validation, "expression"), "expression is not specified");
    scope.check_present(checks, &path.child("expression"), expression, Use::Common, Wanted::Bool);
    let [message, expression] = ["message", "messageExpression"].map(|field| text(validation, field));
    let empty = "must be non-empty if specified";
    if !expression.is_empty() {
        let path = path.child("messageExpression");
        if expression.trim().is_empty() {
            checks.invalid(&path, expression, empty);
        } else {
            scope.check(checks, &path, expression, Use::Message, Wanted::Text);
        }
    }
    if !message.is_empty() && message.trim().is_empty() {
        checks.invalid(&path.child("message"), message, empty);
    } else if message.trim().contains(['\n', '\r']) {
        checks.invalid(&path.child("message"), message, "must not contain line breaks");
    }
    if let Some(reason) = at(validation, "reason").as_str() {
        checks.one_of(&path.child("reason"), reason, &REASONS);
    }
}

fn check_annotations(checks: &mut Checks, scope: &Scope, policy: &str, spec: &Value, path: &FieldPath) {
    let annotations = list(spec, "auditAnnotations");
    if annotations.len() > MOST_ANNOTATIONS {
        let detail = format!("must not have more than {MOST_ANNOTATIONS} auditAnnotations");
        checks.invalid(path, at(spec, "auditAnnotations").clone(), &detail);
    }
    let mut seen = HashSet::new();
    for (index, annotation) in annotations.iter().enumerate() {
        let (path, key) = (path.index(index), text(annotation, "key"));
        if policy.is_empty() {
            checks.invalid(&path.child("key"), key, "requires metadata.name be non-empty");
        } else {
            checks.qualified_name(&path.child("key"), &format!("{policy}/{key}"));
        }
        let (expression, value) = (text(annotation, "valueExpression"), path.child("valueExpression"));
        if expression.trim().len() > LONGEST_ANNOTATION {
            checks.required(&value, &format!("must not exceed {LONGEST_ANNOTATION} bytes in length"));
        } else {
            let expression = (expression, "valueExpression is not specified");
            scope.check_present(checks, &value, expression, Use::Common, Wanted::TextOrNull);
        }
        if !seen.insert(key) {
            checks.duplicate(&path.child("key"), key);
        }
    }
}

/// Type of a patch, the field that it has.
const PATCHES: [(&str, &str); 2] = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];

fn check_mutation(checks: &mut Checks, scope: &Scope, mutation: &Value, path: &FieldPath) {
    let kind = text(mutation, "patchType");
    checks.required_one_of(&path.child("patchType"), kind, &PATCHES.map(|(kind, _)| kind));
    let Some((_, own)) = PATCHES.into_iter().find(|(known, _)| *known == kind) else { return };
    if has(mutation, own) {
        let expression = text(at(mutation, own), "expression").trim();
        let wanted = if own == "jsonPatch" { Wanted::Patch } else { Wanted::Configuration };
        let path = path.child(own).child("expression");
        scope.check_present(checks, &path, (expression, ""), Use::Mutation, wanted);
    } else {
        checks.required(&path.child(own), &format!("must be specified when patchType is {kind}"));
    }
    for (_, other) in PATCHES.into_iter().filter(|(known, field)| *known != kind && has(mutation, field)) {
        let detail = format!("must not be specified when patchType is {kind}");
        checks.invalid(&path.child(other), format!("{{{other}}}"), &detail);
    }
}

/// What the controller that checks types writes.
pub fn check_status(checks: &mut Checks, object: &Value) {
    let path = path("status");
    let warnings = list(object, "status.typeChecking.expressionWarnings");
    for (index, warning) in warnings.iter().enumerate() {
        let path = path.child("typeChecking").child("expressionWarnings").index(index);
        for field in ["warning", "fieldRef"] {
            let value = text(warning, field);
            let missing = if field == "fieldRef" { value.trim().is_empty() } else { value.is_empty() };
            if missing {
                checks.required(&path.child(field), "");
            }
        }
    }
    checks.conditions(&path.child("conditions"), list(object, "status.conditions"));
}
