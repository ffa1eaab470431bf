//! The CEL rules that a definition writes: whether they compile, fit their schema, and cost too much.

use serde_json::Value;

use super::definition::{Around, Walk, text};
use crate::{
    cel::{
        Program,
        estimate::{self, Declared, Ty},
    },
    field::{FieldError, FieldPath},
    schema::Schema,
};

impl Walk {
    /// Compiles the rules of a node, checks their types against its schema, and adds up what they may cost.
    pub(super) fn expressions(
        &mut self,
        json: &Value,
        schema: &Schema,
        path: &FieldPath,
        around: &Around<'_>,
    ) {
        let rules = json["x-kubernetes-validations"].as_array().map_or(&[][..], Vec::as_slice);
        if rules.is_empty() {
            return;
        }
        let whole = around.root || schema.embedded_resource;
        let declared = Declared::of(schema, whole);
        for (index, rule) in rules.iter().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let mut uses_old = false;
            for (key, what, lead) in [
                ("rule", "estimated rule cost", ""),
                ("messageExpression", "estimated messageExpression cost", "messageExpression "),
            ] {
                let source = text(rule, key);
                if source.is_empty() {
                    continue;
                }
                let program = match Program::compile(source) {
                    Ok(program) => program,
                    Err(error) => {
                        let words = format!("{lead}compilation failed: {error}");
                        self.cel.push(FieldError::invalid(&at.child(key), rule.clone(), words));
                        break;
                    }
                };
                uses_old |= key == "rule" && program.uses("oldSelf");
                let Some(declared) = &declared else { continue };
                let known = estimate::look(&program, declared, rule["optionalOldSelf"] == true);
                let fits = match (key, &known.ty) {
                    (_, Ty::Dyn) | ("rule", Ty::Bool) | ("messageExpression", Ty::String) => None,
                    ("rule", _) => Some("cel expression must evaluate to a bool".to_owned()),
                    _ => Some("messageExpression must evaluate to a string".to_owned()),
                };
                let wrong = match known.wrong.as_slice() {
                    [] => fits,
                    wrong => Some(format!("{lead}compilation failed: {}", wrong.join("\n"))),
                };
                if let Some(words) = wrong {
                    self.cel.push(FieldError::invalid(&at.child(key), rule.clone(), words));
                    break;
                }
                let times = match around.bound {
                    _ if key != "rule" => 1,
                    Some(bound) => bound,
                    None => estimate::most_in_request(declared),
                };
                self.count(&at.child(key), what, known.cost.saturating_mul(times));
            }
            let source = text(rule, "rule");
            if uses_old {
                if let Some(place) = &around.uncorrelated {
                    let words = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {place}"
                    );
                    self.cel.push(FieldError::invalid(&at.child("rule"), source, words));
                }
            } else if let Some(optional) = rule["optionalOldSelf"].as_bool() {
                let words = "may not be set if oldSelf is not used in rule";
                self.cel.push(FieldError::invalid(&at.child("optionalOldSelf"), optional, words));
            }
        }
    }

    /// Holds the cost of an expression against what one may cost, and notes it for the total.
    fn count(&mut self, at: &FieldPath, what: &str, cost: u64) {
        if cost > estimate::RULE_LIMIT {
            let words = estimate::too_expensive(what, cost, estimate::RULE_LIMIT);
            self.cel.push(FieldError::forbidden(at, words));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= estimate::TOTAL_LIMIT / 100 {
            self.expensive.push((at.clone(), cost));
        }
    }

    /// Holds the cost of all rules together against what a schema may cost.
    pub(super) fn settle_total(&mut self, path: &FieldPath) {
        if self.total <= estimate::TOTAL_LIMIT {
            return;
        }
        self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (at, _) in self.expensive.iter().take(4) {
            let words =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.cel.push(FieldError::forbidden(at, words));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let words = estimate::too_expensive(what, self.total, estimate::TOTAL_LIMIT);
        self.cel.push(FieldError::forbidden(path, words));
    }
}
