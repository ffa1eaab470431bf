//! From objects to field sets: all that an object has, and what changed between two.

use serde_json::{Map, Value};

use super::{
    element::{self, Element},
    set::FieldSet,
    shape::{Atom, ListOf, MapOf, Place},
};
use crate::schema::{ListType, Schema};

/// Every path that `object` has: what an applied configuration claims.
#[must_use]
pub fn fields_of<'v>(object: &'v Value, schema: &'v Schema) -> FieldSet<'v> {
    below(object, Place::root(schema)).1
}

/// Whether the value is a leaf, and the paths below it.
fn below<'v>(value: &'v Value, at: Place<'v>) -> (bool, FieldSet<'v>) {
    let mut set = FieldSet::new();
    match (at.atom(Some(value)), value) {
        (Atom::Scalar(_), _) => return (true, set),
        (Atom::Map(of), _) if of.atomic => return (true, set),
        (Atom::List(of), _) if of.kind == ListType::Atomic => return (true, set),
        (Atom::Map(of), Value::Object(map)) => {
            for (name, child) in map {
                let Some((at, declared)) = of.field(name) else { continue };
                let (leaf, inside) = below(child, at);
                let empty = child.is_null() || child.as_object().is_some_and(Map::is_empty);
                set.put(Element::field(name), leaf || empty || !declared, inside);
            }
        }
        (Atom::List(of), Value::Array(list)) => {
            for run in runs(of, list) {
                let inside = if run.is_single() { below(run.first, of.item()).1 } else { FieldSet::new() };
                set.put(run.element, true, inside);
            }
        }
        _ => {}
    }
    (false, set)
}

/// All items of a granular list that share one element: one, unless the list holds duplicates.
struct Run<'v> {
    element: Element<'v>,
    first: &'v Value,
    more: Vec<&'v Value>,
}

impl Run<'_> {
    fn is_single(&self) -> bool {
        self.more.is_empty()
    }
}

/// The items of a granular list by element, sorted. What cannot be told apart is left out.
fn runs<'v>(of: ListOf<'v>, list: &'v [Value]) -> Vec<Run<'v>> {
    let mut all: Vec<Run<'v>> = Vec::with_capacity(list.len());
    for item in list {
        if let Ok(element) = of.element(item) {
            all.push(Run { element, first: item, more: Vec::new() });
        }
    }
    all.sort_by(|a, b| a.element.cmp(&b.element));
    all.dedup_by(|later, earlier| {
        let same = later.element == earlier.element;
        if same {
            earlier.more.push(later.first);
        }
        same
    });
    all
}

/// What differs between two states of an object. No path is in two of the sets, duplicates in lists aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison<'v> {
    /// In the old state only.
    pub removed: FieldSet<'v>,
    /// In both, and different.
    pub modified: FieldSet<'v>,
    /// In the new state only.
    pub added: FieldSet<'v>,
    /// A list in one of the states has items that nothing tells apart: who owns what is not known then.
    pub untold: bool,
}

impl<'v> Comparison<'v> {
    /// Nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    fn put(&mut self, element: Element<'v>, mark: Option<Mark>, below: Comparison<'v>) {
        self.untold |= below.untold;
        if mark.is_none() && below.is_same() {
            return;
        }
        self.removed.put(element.clone(), mark == Some(Mark::Removed), below.removed);
        self.modified.put(element.clone(), mark == Some(Mark::Modified), below.modified);
        self.added.put(element, mark == Some(Mark::Added), below.added);
    }

    /// The same, each set taken through `keep`.
    #[must_use]
    pub(super) fn map(self, keep: impl Fn(FieldSet<'v>) -> FieldSet<'v>) -> Self {
        Self {
            removed: keep(self.removed),
            modified: keep(self.modified),
            added: keep(self.added),
            untold: self.untold,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Removed,
    Modified,
    Added,
}

/// How near the root a map is: nobody owns `metadata.managedFields`, so it is not looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    Root,
    Metadata,
    Deeper,
}

/// Compares two states of an object, without `metadata.managedFields`.
#[must_use]
pub fn compare<'v>(old: &'v Value, new: &'v Value, schema: &'v Schema) -> Comparison<'v> {
    let mut out = Comparison::default();
    change(Some(old), Some(new), Place::root(schema), Depth::Root, &mut out);
    out
}

/// Puts what differs below a place into `out`, and says how the place itself does.
fn change<'v>(
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    at: Place<'v>,
    depth: Depth,
    out: &mut Comparison<'v>,
) -> Option<Mark> {
    match (old, new) {
        (None, None) => None,
        (Some(_), None) => {
            inside(old, new, at.atom(old), depth, out);
            Some(Mark::Removed)
        }
        (None, Some(_)) => {
            inside(old, new, at.atom(new), depth, out);
            Some(Mark::Added)
        }
        (Some(_), Some(_)) => {
            let (before, after) = (at.atom(old), at.atom(new));
            // Where the sort of value changed, both are looked at: what was below goes, what is below now comes.
            let same_sort = std::mem::discriminant(&before) == std::mem::discriminant(&after);
            let first = if same_sort { None } else { inside(old, new, before, depth, out) };
            inside(old, new, after, depth, out).or(first)
        }
    }
}

/// The change of a place seen as an `atom`. `Some` if it is a leaf of both states and differs.
fn inside<'v>(
    old: Option<&'v Value>,
    new: Option<&'v Value>,
    atom: Atom<'v>,
    depth: Depth,
    out: &mut Comparison<'v>,
) -> Option<Mark> {
    let leaf = || match (old, new) {
        (Some(old), Some(new)) if !element::same(old, new) => Some(Mark::Modified),
        _ => None,
    };
    match atom {
        Atom::Scalar(_) => leaf(),
        Atom::Map(of) => {
            let (a, b) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if of.atomic || a.is_none_or(Map::is_empty) && b.is_none_or(Map::is_empty) {
                return leaf();
            }
            maps(a, b, of, depth, out);
            None
        }
        Atom::List(of) => {
            let (a, b) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if of.kind == ListType::Atomic || a.is_none_or(Vec::is_empty) && b.is_none_or(Vec::is_empty) {
                return leaf();
            }
            lists(a.map_or(&[], Vec::as_slice), b.map_or(&[], Vec::as_slice), of, out);
            None
        }
    }
}

fn maps<'v>(
    old: Option<&'v Map<String, Value>>,
    new: Option<&'v Map<String, Value>>,
    of: MapOf<'v>,
    depth: Depth,
    out: &mut Comparison<'v>,
) {
    for (name, a, b) in side_by_side(old, new) {
        let next = match depth {
            Depth::Root if name == "metadata" => Depth::Metadata,
            Depth::Metadata if name == "managedFields" => continue,
            _ => Depth::Deeper,
        };
        let Some((at, _)) = of.field(name) else { continue };
        let mut below = Comparison::default();
        let mark = change(a, b, at, next, &mut below);
        out.put(Element::field(name), mark, below);
    }
}

/// Every name in either map, in order, with its values.
pub(super) fn side_by_side<'v>(
    a: Option<&'v Map<String, Value>>,
    b: Option<&'v Map<String, Value>>,
) -> impl Iterator<Item = (&'v str, Option<&'v Value>, Option<&'v Value>)> {
    let mut a = a.into_iter().flatten().peekable();
    let mut b = b.into_iter().flatten().peekable();
    std::iter::from_fn(move || {
        // Maps are sorted by name.
        let name = match (a.peek(), b.peek()) {
            (Some((a, _)), Some((b, _))) => (*a).min(*b),
            (Some((name, _)), None) | (None, Some((name, _))) => *name,
            (None, None) => return None,
        };
        let old = a.next_if(|(k, _)| *k == name).map(|(_, v)| v);
        let new = b.next_if(|(k, _)| *k == name).map(|(_, v)| v);
        Some((name.as_str(), old, new))
    })
}

fn lists<'v>(old: &'v [Value], new: &'v [Value], of: ListOf<'v>, out: &mut Comparison<'v>) {
    let (before, after) = (runs(of, old), runs(of, new));
    let told = |runs: &[Run<'v>]| runs.iter().map(|run| 1 + run.more.len()).sum::<usize>();
    out.untold |= told(&before) != old.len() || told(&after) != new.len();
    let mut before = before.into_iter().peekable();
    let mut after = after.into_iter().peekable();
    loop {
        let earlier = match (before.peek(), after.peek()) {
            (Some(a), Some(b)) => a.element.cmp(&b.element),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return,
        };
        let a = if earlier.is_le() { before.next() } else { None };
        let b = if earlier.is_ge() { after.next() } else { None };
        items(a, b, of, out);
    }
}

/// The items of one element before and after. Duplicates are one leaf together.
fn items<'v>(a: Option<Run<'v>>, b: Option<Run<'v>>, of: ListOf<'v>, out: &mut Comparison<'v>) {
    let Some(element) = a.as_ref().or(b.as_ref()).map(|run| run.element.clone()) else { return };
    let single = |run: &Option<Run<'v>>| run.as_ref().is_none_or(Run::is_single);
    let one = |old: Option<&'v Value>, new: Option<&'v Value>, out: &mut Comparison<'v>| {
        let mut below = Comparison::default();
        let mark = change(old, new, of.item(), Depth::Deeper, &mut below);
        out.put(element.clone(), mark, below);
    };
    match (single(&a), single(&b), a, b) {
        (true, true, a, b) => one(a.map(|r| r.first), b.map(|r| r.first), out),
        (false, false, Some(a), Some(b)) => {
            let equal = a.more.len() == b.more.len()
                && element::same(a.first, b.first)
                && a.more.iter().zip(&b.more).all(|(a, b)| element::same(a, b));
            if !equal {
                out.modified.put(element, true, FieldSet::new());
            }
        }
        (false, _, _, b) => {
            if let Some(b) = b {
                one(None, Some(b.first), out);
            }
            out.removed.put(element, true, FieldSet::new());
        }
        (_, _, a, _) => {
            if let Some(a) = a {
                one(Some(a.first), None, out);
            }
            out.added.put(element, true, FieldSet::new());
        }
    }
}
