//! The CEL rules of a schema (`x-kubernetes-validations`), in preorder.

use serde_json::Value;

use super::{Counterparts, at, keywords};
use crate::{
    cel::{self, Program},
    field::{FieldError, FieldErrors, FieldPath},
    schema::{CelRule, Schema, Type},
    structure::{At, Path},
};

/// Messages made by expressions are ignored when they are longer than this.
const MAX_MESSAGE: usize = 5 << 10;

/// Whether there is a rule anywhere below.
pub(super) fn any(schema: &Schema) -> bool {
    schema.rules.as_ref().is_some_and(|r| !r.cel.is_empty())
        || schema.properties.values().any(|s| any(s))
        || schema.additional.as_ref().is_some_and(|s| any(s))
        || schema.items.as_ref().is_some_and(|s| any(s))
}

pub(super) fn walk(value: &Value, old: Option<&Value>, schema: &Schema, errors: &mut FieldErrors) {
    let mut budget = cel::OBJECT_BUDGET;
    node(value, old, schema, None, &mut budget, errors);
}

fn node(
    value: &Value,
    old: Option<&Value>,
    schema: &Schema,
    path: Option<&Path<'_>>,
    budget: &mut u64,
    errors: &mut FieldErrors,
) {
    if errors.is_full() || value.is_null() && schema.nullable {
        return;
    }
    if let Some(rules) = schema.rules.as_ref().filter(|r| !r.cel.is_empty()) {
        let this = cel::value(value, Some(schema), path.is_none());
        let before = old.map(|old| cel::value(old, Some(schema), path.is_none()));
        for rule in &rules.cel {
            // A rule that was too expensive was the last.
            if *budget == 0 {
                return;
            }
            let looks_back = rule.rule.contains("oldSelf");
            if looks_back && before.is_none() && !rule.optional_old_self || !looks_back && old == Some(value)
            {
                continue;
            }
            if let Some(error) = evaluate(rule, &this, before.as_ref(), value, schema, path, budget) {
                errors.push(error);
            }
        }
    }
    match value {
        Value::Object(map) => {
            for (name, child) in map {
                if let Some(property) = schema.field(name) {
                    let here = Path { parent: path, at: At::Field(name) };
                    node(child, old.and_then(|o| o.get(name)), property, Some(&here), budget, errors);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            let before = Counterparts::new(old, schema);
            for (index, item) in list.iter().enumerate() {
                let here = Path { parent: path, at: At::Index(index) };
                node(item, before.of(item), items, Some(&here), budget, errors);
            }
        }
        _ => {}
    }
}

fn evaluate(
    rule: &CelRule,
    this: &cel::Value,
    before: Option<&cel::Value>,
    value: &Value,
    schema: &Schema,
    path: Option<&Path<'_>>,
    budget: &mut u64,
) -> Option<FieldError> {
    let here = at(path);
    let kind = schema.kind.map_or("", keywords::wanted);
    let shown = match rule.message.as_deref() {
        Some(message) if !message.is_empty() => format!("{{Rule: {:?}, Message: {message:?}}}", rule.rule),
        _ => format!("{{Rule: {:?}}}", rule.rule),
    };
    let mut vars = vec![("self", this.clone())];
    if rule.optional_old_self {
        vars.push(("oldSelf", cel::optional(before.cloned())));
    } else if let Some(before) = before {
        vars.push(("oldSelf", before.clone()));
    }
    let program = match Program::cached(&rule.rule) {
        Ok(program) => program,
        Err(error) => return Some(FieldError::invalid(&here, kind, format!("rule compile error: {error}"))),
    };
    match program.eval(&vars, budget) {
        Ok(cel::Value::Bool(true)) => return None,
        Ok(cel::Value::Bool(false)) => {}
        Ok(_) => {
            return Some(FieldError::invalid(
                &here,
                kind,
                format!("rule compile error: must evaluate to a bool: {shown}"),
            ));
        }
        Err(cel::EvalError::Budget) => {
            let words = "validation failed due to running out of cost budget, no further validation rules will be run";
            *budget = 0;
            return Some(FieldError::invalid(&here, kind, words));
        }
        Err(cel::EvalError::Call) => {
            let rule = rule.message.as_deref().filter(|m| !m.is_empty()).unwrap_or(&rule.rule).trim();
            let words = format!(
                "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
            );
            *budget = 0;
            return Some(FieldError::invalid(&here, kind, words));
        }
        Err(error) => {
            return Some(FieldError::invalid(&here, kind, format!("{error} evaluating rule: {shown}")));
        }
    }
    let made = rule.message_expression.as_deref().and_then(|expression| {
        match Program::cached(expression).ok()?.eval(&vars, budget) {
            Ok(cel::Value::String(text))
                if !text.trim().is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') =>
            {
                Some(text.trim().to_owned())
            }
            _ => None,
        }
    });
    let message = made
        .or_else(|| rule.message.clone().filter(|m| !m.is_empty()))
        .unwrap_or_else(|| format!("failed rule: {}", rule.rule.trim()));
    let here = match rule.field_path.as_deref() {
        Some(below) if here.as_str().is_empty() => FieldPath::from(below.trim_start_matches('.')),
        Some(below) => FieldPath::from(format!("{here}{below}").as_str()),
        None => here,
    };
    let structured = matches!(schema.kind, Some(Type::Object | Type::Array));
    let mut error = match rule.reason.as_deref() {
        Some("FieldValueForbidden") => FieldError::forbidden(&here, message),
        Some("FieldValueRequired") => FieldError::required(&here, message),
        Some("FieldValueDuplicate") => FieldError::duplicate(&here, value.clone()),
        _ => FieldError::invalid(&here, value.clone(), message),
    };
    if structured {
        error.value = None;
    }
    Some(error)
}
