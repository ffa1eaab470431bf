//! What an object becomes when a configuration is laid over it, and when fields are taken away.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    element::Element,
    set::FieldSet,
    shape::{Atom, ListOf, MapOf, Place, TypeErrors},
    walk::side_by_side,
};
use crate::schema::{ListType, Schema};

/// Lays `config` over `live`: granular maps and lists are joined, everything else is replaced.
///
/// # Errors
/// Items of `config` that cannot be told apart.
pub fn merge(live: &Value, config: &Value, schema: &Schema) -> Result<Value, TypeErrors> {
    let mut errors = TypeErrors::default();
    let merged = place(Some(live), Some(config), Place::root(schema), &mut errors);
    if errors.0.is_empty() { Ok(merged.unwrap_or(Value::Null)) } else { Err(errors) }
}

fn place(
    live: Option<&Value>,
    config: Option<&Value>,
    at: Place<'_>,
    errors: &mut TypeErrors,
) -> Option<Value> {
    let Some(wanted) = config else { return live.cloned() };
    let leaf = Some(wanted);
    match at.atom(config) {
        Atom::Scalar(_) => leaf.cloned(),
        Atom::Map(of) => {
            let (a, b) = (live.and_then(Value::as_object), wanted.as_object());
            if of.atomic || a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return leaf.cloned();
            }
            maps(a, b, of, errors)
        }
        Atom::List(of) => {
            let (a, b) = (live.and_then(Value::as_array), wanted.as_array());
            if of.kind == ListType::Atomic || a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty) {
                return leaf.cloned();
            }
            lists(a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice), of, errors)
        }
    }
}

fn maps(
    live: Option<&Map<String, Value>>,
    config: Option<&Map<String, Value>>,
    of: MapOf<'_>,
    errors: &mut TypeErrors,
) -> Option<Value> {
    let mut out = Map::new();
    for (name, a, b) in side_by_side(live, config) {
        let at = of.field(name).map_or(Place::Deduced, |(at, _)| at);
        let before = errors.0.len();
        if let Some(value) = place(a, b, at, errors) {
            out.insert(name.to_owned(), value);
        }
        prefix(errors, before, &Element::field(name));
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

/// Puts a step before the paths of the errors that were found below it.
fn prefix(errors: &mut TypeErrors, from: usize, step: &Element<'_>) {
    for (path, _) in &mut errors.0[from..] {
        path.insert_str(0, &step.to_string());
    }
}

/// The items of a granular list: the order of the configuration rules, what only the live list has keeps its place
/// among the shared items.
fn lists(live: &[Value], config: &[Value], of: ListOf<'_>, errors: &mut TypeErrors) -> Option<Value> {
    let live = indexed(live, of, errors);
    let config = indexed(config, of, errors);
    let mut wanted = BTreeMap::new();
    for (element, value) in &config {
        if wanted.insert(element, *value).is_some() {
            errors.push(String::new(), format!("duplicate entries for key {element}"));
        }
    }
    if !errors.0.is_empty() {
        return None;
    }
    // An item that is there twice is not merged with the wanted one: `None`.
    let mut present: BTreeMap<&Element<'_>, Option<&Value>> = BTreeMap::new();
    for (element, value) in &live {
        present.entry(element).and_modify(|v| *v = None).or_insert(Some(value));
    }
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let mut shared = config.iter().map(|(e, _)| e).filter(|e| present.contains_key(e)).peekable();
    let mut done: BTreeSet<&Element<'_>> = BTreeSet::new();
    let (mut at_live, mut at_config) = (0, 0);
    let mut take = |element: &Element<'_>, a: Option<&Value>, b: Option<&Value>, errors: &mut TypeErrors| {
        let before = errors.0.len();
        out.extend(place(a, b, of.item(), errors));
        prefix(errors, before, element);
    };
    while at_live < live.len() || at_config < config.len() {
        let next = config.get(at_config);
        if let Some((element, value)) = live.get(at_live) {
            if !wanted.contains_key(element) {
                take(element, Some(value), None, errors);
                at_live += 1;
                continue;
            }
            let is_next = next.is_some_and(|(next, _)| next == element);
            // A shared item that the configuration names later is taken then.
            if next.is_some() && !is_next && shared.peek().is_some_and(|first| *first != element) {
                at_live += 1;
                continue;
            }
            at_live += usize::from(is_next || done.contains(element));
        }
        if let Some((element, value)) = next {
            take(element, present.get(element).copied().flatten(), Some(value), errors);
            done.insert(element);
            shared.next_if(|first| *first == element);
            at_config += 1;
        }
    }
    (!out.is_empty()).then_some(Value::Array(out))
}

fn indexed<'v>(list: &'v [Value], of: ListOf<'v>, errors: &mut TypeErrors) -> Vec<(Element<'v>, &'v Value)> {
    let mut out = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        match of.element(item) {
            Ok(element) => out.push((element, item)),
            Err(why) => errors.push(String::new(), format!("element {index}: {why}")),
        }
    }
    out
}

/// Takes the paths of `doomed` out of a value. A map or list that loses everything becomes null.
pub(super) fn remove(value: &Value, doomed: &FieldSet<'_>, schema: &Schema) -> Value {
    without(value, doomed, Place::root(schema))
}

fn without(value: &Value, doomed: &FieldSet<'_>, at: Place<'_>) -> Value {
    match (at.atom(Some(value)), value) {
        (Atom::Scalar(_), scalar) => scalar.clone(),
        (Atom::Map(of), Value::Object(map)) if !of.atomic => {
            let mut out = Map::new();
            for (name, child) in map {
                let (gone, below) = doomed.step(&Element::field(name));
                if gone {
                    continue;
                }
                let at = of.field(name).map_or(Place::Deduced, |(at, _)| at);
                let child = below.map_or_else(|| child.clone(), |below| without(child, below, at));
                out.insert(name.clone(), child);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Atom::List(of), Value::Array(list)) if of.kind != ListType::Atomic => {
            let mut out = Vec::with_capacity(list.len());
            for item in list {
                let (gone, below) = of.element(item).map_or((false, None), |e| doomed.step(&e));
                if !gone {
                    out.push(below.map_or_else(|| item.clone(), |below| without(item, below, of.item())));
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => Value::Null,
    }
}

/// Adds the declared fields that have members below them: with all inside them gone, they go too.
pub(super) fn with_parents<'a>(set: &FieldSet<'a>, schema: &Schema) -> FieldSet<'a> {
    parents(set, Some(Place::root(schema)))
}

fn parents<'a>(set: &FieldSet<'a>, at: Option<Place<'_>>) -> FieldSet<'a> {
    let mut out = FieldSet::new();
    // A set says of what sort the value is: fields are in maps, keys in lists.
    for (element, member, below) in set.nodes() {
        let (next, declared) = match (element, at) {
            (Element::Field(name), Some(at)) => match at.atom(None) {
                Atom::Map(of) => of.field(name).map_or((None, false), |(at, declared)| (Some(at), declared)),
                _ => (None, false),
            },
            (Element::Key(_), Some(at)) => match at.atom(Some(&Value::Array(Vec::new()))) {
                Atom::List(of) => (Some(of.item()), false),
                _ => (None, false),
            },
            _ => (None, false),
        };
        let member = member || declared && !below.is_empty();
        out.put(element.clone(), member, parents(below, next));
    }
    out
}
