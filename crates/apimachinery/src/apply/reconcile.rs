//! Sets that were written when the schema was another: a place that has become atomic is owned as a whole.

use serde_json::Value;

use super::{
    element::Element,
    set::FieldSet,
    shape::{Atom, Place},
};
use crate::schema::{ListType, Schema};

/// The set as the schema sees it now; `None` if nothing changes.
pub(super) fn reconcile<'a>(set: &FieldSet<'a>, schema: &Schema) -> Option<FieldSet<'a>> {
    level(set, Place::root(schema))
}

/// What is below a place that is not atomic.
fn level<'a>(set: &FieldSet<'a>, at: Place<'_>) -> Option<FieldSet<'a>> {
    let mut changed = false;
    let new: Vec<_> = set
        .nodes()
        .map(|(element, member, below)| {
            let Some(next) = step(at, element, below) else { return (element, member, None) };
            if !below.is_empty() && is_atomic(next, below) {
                changed = true;
                return (element, true, Some(FieldSet::new()));
            }
            let below = level(below, next);
            changed |= below.is_some();
            (element, member, below)
        })
        .collect();
    if !changed {
        return None;
    }
    let mut out = FieldSet::new();
    for ((element, member, new), (_, _, old)) in new.into_iter().zip(set.nodes()) {
        out.put(element.clone(), member, new.unwrap_or_else(|| old.clone()));
    }
    Some(out)
}

/// A value of the sort that the set below it speaks of.
fn sample(below: &FieldSet<'_>) -> Value {
    match below.nodes().next() {
        Some((Element::Key(_) | Element::Value(_) | Element::Index(_), ..)) => Value::Array(Vec::new()),
        _ => Value::Object(serde_json::Map::new()),
    }
}

fn is_atomic(at: Place<'_>, below: &FieldSet<'_>) -> bool {
    match at.atom(Some(&sample(below))) {
        Atom::Map(of) => of.atomic && !of.is_deduced(),
        Atom::List(of) => of.kind == ListType::Atomic && matches!(at, Place::Of { .. }),
        Atom::Scalar(_) => false,
    }
}

fn step<'s>(at: Place<'s>, element: &Element<'_>, below: &FieldSet<'_>) -> Option<Place<'s>> {
    if below.is_empty() {
        return None;
    }
    match element {
        Element::Field(name) => match at.atom(None) {
            Atom::Map(of) => of.field(name).map(|(at, _)| at),
            _ => None,
        },
        _ => match at.atom(Some(&Value::Array(Vec::new()))) {
            Atom::List(of) => Some(of.item()),
            _ => None,
        },
    }
}
