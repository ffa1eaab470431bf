//! Sets of paths, as trees: what a manager owns, what a change touches.

use std::{cmp::Ordering, fmt};

use super::element::Element;

/// A set of paths. A path can be in it with or without what lies below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet<'a> {
    /// Sorted by element; every node is a member or has members below.
    nodes: Vec<Node<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node<'a> {
    element: Element<'a>,
    member: bool,
    below: FieldSet<'a>,
}

impl<'a> FieldSet<'a> {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// No path is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many paths are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|n| usize::from(n.member) + n.below.len()).sum()
    }

    /// The first step, whether that path itself is in the set, and what is below.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Element<'a>, bool, &FieldSet<'a>)> {
        self.nodes.iter().map(|n| (&n.element, n.member, &n.below))
    }

    /// The paths of `path` and the field names in it, from the root.
    #[must_use]
    pub fn of_fields(paths: &[&[&'a str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let mut here = &mut set;
            for (index, name) in path.iter().enumerate() {
                let node = here.entry(Element::field(name));
                node.member |= index + 1 == path.len();
                here = &mut node.below;
            }
        }
        set
    }

    fn find(&self, element: &Element<'_>) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| compare(&n.element, element))
    }

    fn get(&self, element: &Element<'_>) -> Option<&Node<'a>> {
        self.find(element).ok().map(|index| &self.nodes[index])
    }

    /// The node of an element, made where it is not there. The caller has to make it hold something.
    fn entry(&mut self, element: Element<'a>) -> &mut Node<'a> {
        let index = match self.find(&element) {
            Ok(index) => index,
            Err(index) => {
                self.nodes.insert(index, Node { element, member: false, below: Self::new() });
                index
            }
        };
        &mut self.nodes[index]
    }

    /// Adds a step: the path itself if `member`, and what is below it. Quick when steps come in order.
    pub(super) fn put(&mut self, element: Element<'a>, member: bool, below: FieldSet<'a>) {
        if !member && below.is_empty() {
            return;
        }
        if self.nodes.last().is_none_or(|last| last.element < element) {
            self.nodes.push(Node { element, member, below });
            return;
        }
        let node = self.entry(element);
        node.member |= member;
        let old = std::mem::take(&mut node.below);
        node.below = old.union(below);
    }

    /// Whether the path `steps` is in the set.
    #[must_use]
    pub fn has(&self, steps: &[Element<'_>]) -> bool {
        match steps {
            [] => false,
            [last] => self.get(last).is_some_and(|n| n.member),
            [first, rest @ ..] => self.get(first).is_some_and(|n| n.below.has(rest)),
        }
    }

    /// Whether a one-step path is in the set, and what is below it.
    pub(super) fn step(&self, element: &Element<'_>) -> (bool, Option<&FieldSet<'a>>) {
        match self.get(element) {
            Some(node) => (node.member, Some(&node.below).filter(|b| !b.is_empty())),
            None => (false, None),
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let mut theirs = other.nodes.into_iter().peekable();
        for mut node in self.nodes {
            while let Some(earlier) = theirs.next_if(|n| n.element < node.element) {
                nodes.push(earlier);
            }
            if let Some(same) = theirs.next_if(|n| n.element == node.element) {
                node.member |= same.member;
                node.below = node.below.union(same.below);
            }
            nodes.push(node);
        }
        nodes.extend(theirs);
        Self { nodes }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection<'b>(&self, other: &FieldSet<'b>) -> FieldSet<'a> {
        let mut out = FieldSet::new();
        for (ours, theirs) in pairs(&self.nodes, &other.nodes) {
            if let Some(theirs) = theirs {
                let below = ours.below.intersection(&theirs.below);
                out.put(ours.element.clone(), ours.member && theirs.member, below);
            }
        }
        out
    }

    /// Whether something is in both.
    #[must_use]
    pub fn intersects(&self, other: &FieldSet<'_>) -> bool {
        pairs(&self.nodes, &other.nodes).any(|(ours, theirs)| {
            theirs.is_some_and(|t| ours.member && t.member || ours.below.intersects(&t.below))
        })
    }

    /// What is in this and not in `other`.
    #[must_use]
    pub fn difference(self, other: &FieldSet<'_>) -> FieldSet<'a> {
        self.without(other, false)
    }

    /// What is in this and neither in `other` nor below a path of it.
    #[must_use]
    pub fn recursive_difference(self, other: &FieldSet<'_>) -> FieldSet<'a> {
        self.without(other, true)
    }

    fn without(mut self, other: &FieldSet<'_>, recursive: bool) -> FieldSet<'a> {
        let mut theirs = other.nodes.iter().peekable();
        self.nodes.retain_mut(|ours| {
            while theirs.next_if(|t| t.element < ours.element).is_some() {}
            let Some(theirs) = theirs.peek().filter(|t| t.element == ours.element) else { return true };
            if recursive && theirs.member {
                return false;
            }
            ours.member &= !theirs.member;
            ours.below = std::mem::take(&mut ours.below).without(&theirs.below, recursive);
            ours.member || !ours.below.is_empty()
        });
        self
    }

    /// Takes away what is not below one of these paths of field names; `*` stands for any step.
    #[must_use]
    pub fn only(&self, paths: &[&[&str]]) -> FieldSet<'a> {
        let mut out = FieldSet::new();
        for node in &self.nodes {
            let fits =
                |name: &str| name == "*" || matches!(&node.element, Element::Field(field) if *field == *name);
            let rest: Vec<&[&str]> = paths
                .iter()
                .filter_map(|path| path.split_first().filter(|(first, _)| fits(first)).map(|(_, rest)| rest))
                .collect();
            if rest.iter().any(|r| r.is_empty()) {
                out.nodes.push(node.clone());
            } else if !rest.is_empty() {
                out.put(node.element.clone(), node.member, node.below.only(&rest));
            }
        }
        out
    }

    /// Calls `see` with every path, in order.
    pub fn walk(&self, see: &mut impl FnMut(&[&Element<'a>])) {
        fn below<'s, 'a>(
            set: &'s FieldSet<'a>,
            path: &mut Vec<&'s Element<'a>>,
            see: &mut impl FnMut(&[&Element<'a>]),
        ) {
            for node in &set.nodes {
                path.push(&node.element);
                if node.member {
                    see(path);
                }
                below(&node.below, path, see);
                path.pop();
            }
        }
        below(self, &mut Vec::new(), see);
    }

    /// The same, at each level its own members before what lies below: the order of upstream's conflicts.
    pub fn walk_by_level(&self, see: &mut impl FnMut(&[&Element<'a>])) {
        fn below<'s, 'a>(
            set: &'s FieldSet<'a>,
            path: &mut Vec<&'s Element<'a>>,
            see: &mut impl FnMut(&[&Element<'a>]),
        ) {
            for node in set.nodes.iter().filter(|node| node.member) {
                path.push(&node.element);
                see(path);
                path.pop();
            }
            for node in &set.nodes {
                path.push(&node.element);
                below(&node.below, path, see);
                path.pop();
            }
        }
        below(self, &mut Vec::new(), see);
    }
}

fn compare(a: &Element<'_>, b: &Element<'_>) -> Ordering {
    a.cmp(b)
}

/// Every node of `ours` with the one of `theirs` that has the same element.
fn pairs<'s, 'a, 'b>(
    ours: &'s [Node<'a>],
    theirs: &'s [Node<'b>],
) -> impl Iterator<Item = (&'s Node<'a>, Option<&'s Node<'b>>)> {
    let mut at = 0;
    ours.iter().map(move |node| {
        while theirs.get(at).is_some_and(|t| compare(&t.element, &node.element).is_lt()) {
            at += 1;
        }
        (node, theirs.get(at).filter(|t| compare(&t.element, &node.element).is_eq()))
    })
}

/// One path a line.
impl fmt::Display for FieldSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut result = Ok(());
        self.walk(&mut |path| {
            result = result.and_then(|()| {
                path.iter().try_for_each(|element| element.fmt(f))?;
                f.write_str("\n")
            });
        });
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_what_is_below_it_are_different_members() {
        let set = FieldSet::of_fields(&[&["a"], &["a", "b"], &["c", "d"]]);
        assert_eq!(set.to_string(), ".a\n.a.b\n.c.d\n");
        let less = set.clone().difference(&FieldSet::of_fields(&[&["a"], &["c"]]));
        assert_eq!(less.to_string(), ".a.b\n.c.d\n");
        let less = set.clone().recursive_difference(&FieldSet::of_fields(&[&["a"]]));
        assert_eq!(less.to_string(), ".c.d\n");
        assert!(set.clone().difference(&set).is_empty());
    }

    #[test]
    fn only_keeps_what_is_below_a_pattern() {
        let set = FieldSet::of_fields(&[&["spec", "x", "y"], &["spec", "z"], &["status"]]);
        assert_eq!(set.only(&[&["spec", "*", "y"]]).to_string(), ".spec.x.y\n.spec.z\n");
        assert_eq!(set.only(&[&["spec"]]).to_string(), ".spec.x.y\n.spec.z\n");
    }
}
