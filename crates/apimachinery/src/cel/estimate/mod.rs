//! What a CEL rule can be known to do before it runs: whether it fits its schema, and what it may cost at most.
//!
//! A definition whose rules could cost too much is refused when it is written, so that objects are not. Reading order:
//! [`declared`] (what a schema says of sizes) → [`types`] (types of expressions, and what does not fit) → [`cost`] (the
//! estimate), [`library`] (of Kubernetes' own functions) · [`calls`] (what functions give).
//!
//! Source: `cel-go/checker/cost.go`, `k8s.io/apiserver/pkg/cel/library/cost.go`,
//! `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`.

mod calls;
mod cost;
mod declared;
mod library;
mod types;

pub use declared::Declared;
pub use types::Ty;

use super::Program;

/// What one rule may cost.
pub const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may cost together.
pub const TOTAL_LIMIT: u64 = 100_000_000;
/// The largest request, from which the largest list or map is reckoned where the schema names no bound.
const REQUEST: u64 = 3 * 1024 * 1024;

/// What is known of an expression.
#[derive(Debug)]
pub struct Known {
    /// The most that one run may cost.
    pub cost: u64,
    /// What it gives.
    pub ty: Ty,
    /// Why it cannot be right, as cel-go prints it; empty if nothing is known against it.
    pub wrong: Vec<String>,
}

/// Looks at an expression over `self`, and `oldSelf` (`optional`: which may be absent).
#[must_use]
pub fn look(program: &Program, this: &std::sync::Arc<Declared>, optional: bool) -> Known {
    let types = types::Types::of(program, this, optional);
    let cost = cost::most(program.expression(), &types, this);
    Known { cost, ty: types.root(program.expression()), wrong: types.wrong }
}

/// How often a value of this kind can occur in one request, where nothing bounds it.
#[must_use]
pub fn most_in_request(this: &Declared) -> u64 {
    REQUEST / (this.min_size + 1)
}

/// `estimated rule cost exceeds budget by factor of 2.0x (try simplifying the rule, …)`
#[must_use]
pub fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests;
