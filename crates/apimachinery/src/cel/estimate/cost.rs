//! The most that an expression may cost, in cel-go's units.
//!
//! Sizes are ranges; where nothing is known of one it may be anything. Every step follows cel-go's estimator, so that the
//! same rules are refused with the same factor.

use std::{collections::HashMap, sync::Arc};

use ::cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators as op};

use super::{Declared, Ty, types::Types};

/// A cost, or a size, between two bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// Walking over a text costs so much a character.
pub(super) const TEXT: f64 = 0.1;
/// A regular expression costs so much a character of its own.
pub(super) const PATTERN: f64 = 0.25;
const LIST: Range = Range::of(10);
const MAP: Range = Range::of(30);
const STRUCT: Range = Range::of(40);
pub(super) const ANY: Range = Range { min: 0, max: u64::MAX };

impl Range {
    pub(super) const fn of(number: u64) -> Self {
        Self { min: number, max: number }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(super) fn scaled(self, factor: f64) -> Self {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let scale = |number: u64| (number as f64 * factor).ceil() as u64;
        Self { min: scale(self.min), max: scale(self.max) }
    }

    fn or(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Sizes of the entries of a list or map.
#[derive(Clone, Copy)]
struct Entries {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Entries {
    fn or(self, other: Self) -> Self {
        Self { is_list: self.is_list, key: self.key.or(other.key), value: self.value.or(other.value) }
    }
}

/// A variable of a comprehension.
#[derive(Clone)]
struct Local {
    path: Vec<String>,
    size: Option<Range>,
    entries: Option<Entries>,
}

pub(super) struct Coster<'t> {
    pub(super) types: &'t Types,
    root: &'t Arc<Declared>,
    paths: HashMap<u64, Vec<String>>,
    locals: Vec<(String, Local)>,
    sizes: HashMap<u64, Range>,
    entries: HashMap<u64, Entries>,
}

/// The estimate.
pub fn most(expression: &IdedExpr, types: &Types, root: &Arc<Declared>) -> u64 {
    let mut coster = Coster {
        types,
        root,
        paths: HashMap::new(),
        locals: Vec::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
    };
    coster.cost(expression).max
}

impl Coster<'_> {
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|(known, _)| known == name).map(|(_, local)| local)
    }

    pub(super) fn path(&self, e: &IdedExpr) -> Vec<String> {
        if let Expr::Ident(name) = &e.expr
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&e.id).cloned().unwrap_or_default()
    }

    fn step(&mut self, e: &IdedExpr, from: &IdedExpr, step: &str) {
        let mut path = self.path(from);
        path.push(step.to_owned());
        self.paths.insert(e.id, path);
    }

    fn cost(&mut self, e: &IdedExpr) -> Range {
        match &e.expr {
            Expr::Literal(_) | Expr::Unspecified => Range::of(0),
            Expr::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(e.id, path);
                Range::of(1)
            }
            Expr::Select(select) => {
                let operand = self.cost(&select.operand);
                if select.test {
                    return operand;
                }
                let counts = matches!(self.types.get(&select.operand), Ty::Map(..) | Ty::Object(_));
                self.step(e, &select.operand, &select.field);
                operand.plus(Range::of(u64::from(counts)))
            }
            Expr::Call(call) => self.call(e, call),
            Expr::List(list) => {
                let mut sum = LIST;
                let mut size = Range { min: u64::MAX, max: 0 };
                if list.elements.is_empty() {
                    size.min = 0;
                }
                for item in &list.elements {
                    sum = sum.plus(self.cost(item));
                    size = size.or(self.size_or_any(item));
                }
                self.entries.insert(e.id, Entries { is_list: true, key: Range::of(1), value: size });
                sum
            }
            Expr::Map(map) => {
                let mut sum = MAP;
                let least = if map.entries.is_empty() { 0 } else { u64::MAX };
                let (mut key, mut value) = (Range { min: least, max: 0 }, Range { min: least, max: 0 });
                for entry in &map.entries {
                    if let ::cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                        sum = sum.plus(self.cost(&entry.key)).plus(self.cost(&entry.value));
                        key = key.or(self.size_or_any(&entry.key));
                        value = value.or(self.size_or_any(&entry.value));
                    }
                }
                self.entries.insert(e.id, Entries { is_list: false, key, value });
                sum
            }
            Expr::Struct(made) => made.entries.iter().fold(STRUCT, |sum, entry| match &entry.expr {
                ::cel::common::ast::EntryExpr::StructField(field) => sum.plus(self.cost(&field.value)),
                ::cel::common::ast::EntryExpr::MapEntry(entry) => sum.plus(self.cost(&entry.value)),
            }),
            Expr::Comprehension(all) => self.comprehension(e, all),
        }
    }

    fn push(&mut self, name: &str, path: Vec<String>, size: Option<Range>, entries: Option<Entries>) {
        self.locals.push((name.to_owned(), Local { path, size, entries }));
    }

    /// Binds the variable that goes over a range: its keys, or its values.
    fn push_over(&mut self, name: &str, range: &IdedExpr, keys: Option<bool>) {
        let entries = self.entries_of(range);
        let is_list = match entries {
            Some(entries) => entries.is_list,
            None => matches!(self.types.get(range), Ty::List(_)),
        };
        // One variable alone goes over items of a list and keys of a map.
        let keys = keys.unwrap_or(!is_list);
        let step = match (keys, is_list) {
            (true, true) => "@indices",
            (true, false) => "@keys",
            (false, true) => "@items",
            (false, false) => "@values",
        };
        let size = entries.map(|entries| if keys { entries.key } else { entries.value });
        let mut path = self.path(range);
        path.push(step.to_owned());
        self.push(name, path, size, None);
    }

    fn comprehension(&mut self, e: &IdedExpr, all: &ComprehensionExpr) -> Range {
        let mut sum = self.cost(&all.iter_range).plus(self.cost(&all.accu_init));
        let depth = self.locals.len();
        let initial = (self.path(&all.accu_init), self.size(&all.accu_init), self.entries_of(&all.accu_init));
        self.push(&all.accu_var, initial.0, initial.1, initial.2);
        if is_bind(all) {
            sum = sum.plus(self.cost(&all.result));
            self.locals.truncate(depth);
            let (size, entries) = (self.size(&all.result), self.entries_of(&all.result));
            self.set(e, size, entries);
            return sum;
        }
        match &all.iter_var2 {
            Some(second) => {
                self.push_over(&all.iter_var, &all.iter_range, Some(true));
                self.push_over(second, &all.iter_range, Some(false));
            }
            None => self.push_over(&all.iter_var, &all.iter_range, None),
        }
        let turn = self.cost(&all.loop_cond).plus(self.cost(&all.loop_step));
        self.locals.truncate(depth + 1);
        sum = sum.plus(self.cost(&all.result));
        self.locals.truncate(depth);
        let turns = self.size_or_any(&all.iter_range);
        sum = sum.plus(turns.times(turn));
        match &all.accu_init.expr {
            Expr::Literal(_) => {
                let size = self.size(&all.accu_init);
                self.set(e, size, None);
            }
            Expr::List(_) | Expr::Map(_) => {
                let entries = self.entries_of(&all.loop_step);
                self.set(e, Some(turns), entries);
            }
            _ => {}
        }
        sum
    }

    fn set(&mut self, e: &IdedExpr, size: Option<Range>, entries: Option<Entries>) {
        if let Some(size) = size {
            self.sizes.insert(e.id, size);
        }
        if let Some(entries) = entries {
            self.entries.insert(e.id, entries);
        }
    }

    fn entries_of(&self, e: &IdedExpr) -> Option<Entries> {
        if let Some(found) = self.entries.get(&e.id) {
            return Some(*found);
        }
        match &e.expr {
            Expr::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    /// What the schema says of the place that an expression stands for.
    pub(super) fn declared(&self, path: &[String]) -> Option<Range> {
        let (_, steps) = path.split_first()?;
        if steps.last().is_some_and(|step| step == "@keys") {
            // Keys are texts of which the schema says nothing.
            return Some(Range::of(0));
        }
        let place = steps.iter().try_fold(self.root, |here, step| here.part(step))?;
        Some(Range { min: 0, max: place.most })
    }

    fn size(&mut self, e: &IdedExpr) -> Option<Range> {
        if let Some(found) = self.sizes.get(&e.id) {
            return Some(*found);
        }
        match &e.expr {
            Expr::Literal(LiteralValue::String(text)) => {
                return Some(Range::of(text.inner().chars().count() as u64));
            }
            Expr::Literal(LiteralValue::Bytes(bytes)) => {
                return Some(Range::of(bytes.inner().len() as u64));
            }
            Expr::Literal(_) => return Some(Range::of(1)),
            Expr::List(list) => return Some(Range::of(list.elements.len() as u64)),
            Expr::Map(map) => return Some(Range::of(map.entries.len() as u64)),
            _ => {}
        }
        if let Some(size) = self.declared(&self.path(e)) {
            self.sizes.insert(e.id, size);
            return Some(size);
        }
        if self.types.get(e).is_scalar() {
            return Some(Range::of(1));
        }
        match &e.expr {
            Expr::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    pub(super) fn size_or_any(&mut self, e: &IdedExpr) -> Range {
        self.size(e).unwrap_or(ANY)
    }

    fn call(&mut self, e: &IdedExpr, call: &CallExpr) -> Range {
        if call.func_name == "dyn"
            && let [arg] = call.args.as_slice()
        {
            let cost = self.cost(arg);
            let (size, entries) = (self.size(arg), self.entries_of(arg));
            self.set(e, size, entries);
            return cost.plus(Range::of(1));
        }
        let costs: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        // The first part of `sets.contains` is no value.
        let target = call.target.as_deref().filter(|target| {
            !matches!((&target.expr, self.types.get(target)), (Expr::Ident(name), Ty::Dyn | Ty::Type)
                if self.local(name).is_none() && name != "self" && name != "oldSelf")
        });
        let before = match target {
            Some(target) => self.cost(target),
            None => Range::of(0),
        };
        let given = costs.iter().fold(Range::of(0), |sum, cost| sum.plus(*cost));
        let (cost, mut size) = match self.extension(call, target) {
            Some((cost, size)) => (cost.plus(given), size),
            None => self.standard(e, call, target, &costs, given),
        };
        if call.func_name == op::INDEX
            && let Some(of) = call.args.first()
        {
            match self.types.get(of) {
                Ty::List(_) => self.step(e, of, "@items"),
                Ty::Map(..) => self.step(e, of, "@values"),
                _ => {}
            }
            if matches!(self.types.get(of), Ty::List(_) | Ty::Map(..)) {
                size = self.entries_of(of).map(|entries| entries.value);
            }
        }
        let size = size.or_else(|| self.size(e));
        self.set(e, size, None);
        before.plus(cost)
    }

    /// What cel-go's own functions and operators cost with what they are given, and the size of what they give.
    fn standard(
        &mut self,
        e: &IdedExpr,
        call: &CallExpr,
        target: Option<&IdedExpr>,
        costs: &[Range],
        given: Range,
    ) -> (Range, Option<Range>) {
        let args = call.args.as_slice();
        let one = Range::of(1);
        match (call.func_name.as_str(), target, args) {
            ("format", Some(target), _) => (self.size_or_any(target).scaled(TEXT).plus(given), None),
            ("bytes", None, [arg]) if *self.types.get(arg) != Ty::Bytes => {
                let size = self.size_or_any(arg);
                let made = Range { min: size.min, max: size.max.wrapping_mul(4) };
                (size.scaled(TEXT).plus(given), Some(made))
            }
            ("string", None, [arg]) if *self.types.get(arg) == Ty::Bytes => {
                let size = self.size_or_any(arg);
                (size.scaled(TEXT).plus(given), Some(Range { min: size.min / 4, max: size.max }))
            }
            ("startsWith" | "endsWith", Some(_), [arg]) => {
                (self.size_or_any(arg).scaled(TEXT).plus(given), None)
            }
            (op::IN, None, [_, within]) if !matches!(self.types.get(within), Ty::Map(..)) => {
                (self.size_or_any(within).plus(given), None)
            }
            ("matches", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
                let text = self.size_or_any(text).plus(one).scaled(TEXT);
                let pattern = self.size_or_any(pattern).scaled(PATTERN);
                (text.times(pattern).plus(given), None)
            }
            ("contains", Some(text), [part]) => {
                let (text, part) = (self.size_or_any(text).scaled(TEXT), self.size_or_any(part).scaled(TEXT));
                (text.times(part).plus(given), None)
            }
            (op::LOGICAL_AND | op::LOGICAL_OR, None, [_, _]) => {
                let min = costs.first().map_or(0, |first| first.min);
                (Range { min, max: given.max }, None)
            }
            (op::CONDITIONAL, None, [_, yes, no]) => {
                let size = self.size_or_any(yes).or(self.size_or_any(no));
                if let (Some(yes), Some(no)) = (self.entries_of(yes), self.entries_of(no)) {
                    self.entries.insert(e.id, yes.or(no));
                }
                let cost = |index: usize| costs.get(index).copied().unwrap_or(Range::of(0));
                (cost(0).plus(cost(1).or(cost(2))), Some(size))
            }
            (op::ADD, None, [a, b]) => self.add(e, a, b, given),
            (op::EQUALS | op::NOT_EQUALS, None, [a, b]) => (self.compared(a, b).plus(given), None),
            (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, None, [a, b]) => {
                let text = |ty: &Ty| matches!(ty, Ty::String | Ty::Bytes | Ty::Dyn);
                let (of_a, of_b) = (self.types.get(a), self.types.get(b));
                let cost = match (text(of_a) && text(of_b), *of_a == Ty::Dyn && *of_b == Ty::Dyn) {
                    (false, _) => one,
                    (true, false) => self.compared(a, b),
                    (true, true) => self.compared(a, b).or(one),
                };
                (cost.plus(given), None)
            }
            _ => (one.plus(given), None),
        }
    }

    fn compared(&mut self, a: &IdedExpr, b: &IdedExpr) -> Range {
        let max = self.size_or_any(a).max.min(self.size_or_any(b).max);
        Range { min: u64::from(max > 0), max }.scaled(TEXT)
    }

    fn add(&mut self, e: &IdedExpr, a: &IdedExpr, b: &IdedExpr, given: Range) -> (Range, Option<Range>) {
        let one = Range::of(1);
        let (of_a, of_b) = (self.types.get(a).clone(), self.types.get(b).clone());
        let known = if of_a == Ty::Dyn { of_b } else { of_a };
        let is_list = matches!(known, Ty::List(_));
        if !is_list && !matches!(known, Ty::String | Ty::Bytes | Ty::Dyn) {
            return (one.plus(given), None);
        }
        let size = self.size_or_any(a).plus(self.size_or_any(b));
        if let (Some(a), Some(b)) = (self.entries_of(a), self.entries_of(b)) {
            self.entries.insert(e.id, a.or(b));
        }
        let walked = size.scaled(TEXT);
        let cost = match (is_list, &known) {
            (true, _) => one,
            (false, Ty::Dyn) => walked.or(one),
            (false, _) => walked,
        };
        (cost.plus(given), Some(size))
    }
}

/// `cel.bind`: a comprehension that goes over nothing.
fn is_bind(all: &ComprehensionExpr) -> bool {
    matches!(&all.iter_range.expr, Expr::List(list) if list.elements.is_empty())
        && matches!(&all.loop_cond.expr, Expr::Literal(LiteralValue::Boolean(flag)) if !*flag.inner())
        && all.accu_var != "@result"
}
