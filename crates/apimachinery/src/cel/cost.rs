//! The bound on what a run may do.
//!
//! The interpreter counts nothing. So what can be long is written into the expression before it runs: the range of a
//! loop, a sum, and what reads or makes long texts pass through functions named with `@`, which cannot be written in a
//! source, and each charges what it sees. A step is about one node of an expression, or ten bytes of a text.

use std::cell::Cell;

use ::cel::{
    ExecutionError, IdedExpr,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        types::{CelBytes, CelInt, CelList, CelMap, CelString, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE},
        value::{CowVal, Val},
    },
};

use super::{
    functions::{Library, failed},
    patches,
};

/// Bytes of a text that count as one step.
const BYTES_A_STEP: u64 = 10;

thread_local! {
    /// Steps left to the run on this thread. A run never leaves its thread.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs with at most `limit` steps; gives what is left, or nothing if they did not suffice.
pub(super) fn within<T>(limit: u64, run: impl FnOnce() -> T) -> (T, Option<u64>) {
    let outer = LEFT.replace(Some(limit));
    let result = run();
    (result, LEFT.replace(outer))
}

/// Takes steps from the run on this thread.
pub(super) fn charge(steps: u64) -> Result<(), ExecutionError> {
    let left = LEFT.get().and_then(|left| left.checked_sub(steps));
    LEFT.set(left);
    match left {
        Some(_) => Ok(()),
        None => failed("", "operation cancelled: actual cost limit exceeded"),
    }
}

/// Writes the charges into an expression, and makes of objects what the interpreter knows.
pub(super) fn meter(expression: &mut IdedExpr) {
    let mut open = vec![expression];
    while let Some(node) = open.pop() {
        patches::as_map(node);
        match &mut node.expr {
            Expr::Comprehension(all) => {
                let steps = body(&all.loop_cond) + body(&all.loop_step);
                if !matches!(&all.iter_range.expr, Expr::List(list) if list.elements.is_empty()) {
                    wrap(&mut all.iter_range, "@loop", Some(steps));
                }
            }
            Expr::Call(call) => match (call.func_name.as_str(), call.target.as_mut()) {
                ("replace", Some(_)) => "@replace".clone_into(&mut call.func_name),
                ("join", Some(_)) => "@join".clone_into(&mut call.func_name),
                ("format", Some(_)) => call.args.iter_mut().for_each(|arg| wrap(arg, "@whole", None)),
                ("range", Some(_)) => call.args.iter_mut().for_each(|arg| wrap(arg, "@number", None)),
                ("distinct", Some(target)) => wrap(target, "@squared", None),
                (name, Some(target)) if reads(name) && !names_a_library(target) => {
                    wrap(target, "@size", None)
                }
                _ => {}
            },
            _ => {}
        }
        // A sum that only makes a loop's own list longer is not copied, and charged by the loop.
        if let Expr::Call(call) = &node.expr
            && call.func_name == operators::ADD
            && !matches!(call.args.first().map(|a| &a.expr), Some(Expr::Ident(name)) if name.starts_with('@'))
        {
            wrap(node, "@size", None);
            let Expr::Call(outer) = &mut node.expr else { continue };
            let Some(Expr::Call(sum)) = outer.args.first_mut().map(|a| &mut a.expr) else { continue };
            open.extend(sum.args.iter_mut());
            continue;
        }
        open.extend(children(node));
    }
}

/// Whether a function of a text reads all of it.
fn reads(name: &str) -> bool {
    matches!(
        name,
        "contains"
            | "matches"
            | "find"
            | "findAll"
            | "split"
            | "indexOf"
            | "lastIndexOf"
            | "trim"
            | "sort"
            | "lowerAscii"
            | "upperAscii"
            | "substring"
            | "reverse"
            | "flatten"
            | "slice"
            | "size"
    )
}

/// Whether a receiver may be no value but the name of a library: `sets`, `format`.
fn names_a_library(target: &IdedExpr) -> bool {
    matches!(&target.expr, Expr::Ident(name)
        if matches!(name.as_str(), "sets" | "format" | "lists" | "strings" | "optional" | "ip" | "jsonpatch" | "base64"))
}

fn wrap(node: &mut IdedExpr, function: &str, steps: Option<u64>) {
    let id = node.id;
    let mut args = vec![std::mem::take(node)];
    if let Some(steps) = steps {
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        args.push(IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(steps.into())) });
    }
    *node =
        IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) };
}

/// Nodes that run each time; the loops inside charge for themselves.
fn body(expression: &IdedExpr) -> u64 {
    let (mut nodes, mut open) = (0, vec![expression]);
    while let Some(node) = open.pop() {
        nodes += 1;
        super::children(node, |child, repeated| {
            if !repeated {
                open.push(child);
            }
        });
    }
    nodes
}

fn children(node: &mut IdedExpr) -> Vec<&mut IdedExpr> {
    match &mut node.expr {
        Expr::Call(call) => call.target.as_deref_mut().into_iter().chain(call.args.iter_mut()).collect(),
        Expr::Comprehension(all) => vec![
            &mut all.iter_range,
            &mut all.accu_init,
            &mut all.loop_cond,
            &mut all.loop_step,
            &mut all.result,
        ],
        Expr::List(list) => list.elements.iter_mut().collect(),
        Expr::Select(select) => vec![&mut select.operand],
        Expr::Map(map) => entries(&mut map.entries),
        Expr::Struct(made) => entries(&mut made.entries),
        _ => Vec::new(),
    }
}

fn entries(entries: &mut [::cel::common::ast::IdedEntryExpr]) -> Vec<&mut IdedExpr> {
    let mut all = Vec::new();
    for entry in entries {
        match &mut entry.expr {
            EntryExpr::MapEntry(entry) => all.extend([&mut entry.key, &mut entry.value]),
            EntryExpr::StructField(field) => all.push(&mut field.value),
        }
    }
    all
}

/// Steps that a value is worth when it is walked once, without what its items hold.
fn size(value: &dyn Val) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString>() {
        1 + text.inner().len() as u64 / BYTES_A_STEP
    } else if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        1 + bytes.inner().len() as u64 / BYTES_A_STEP
    } else {
        1 + value.as_sizer().and_then(|s| u64::try_from(*s.size().inner()).ok()).unwrap_or(0)
    }
}

/// The same with everything inside.
fn whole(value: &dyn Val) -> u64 {
    if let Some(list) = value.downcast_ref::<CelList>() {
        list.inner().iter().fold(1u64, |sum, item| sum.saturating_add(whole(item.as_ref())))
    } else if let Some(map) = value.downcast_ref::<CelMap>() {
        map.inner().iter().fold(1u64, |sum, (key, value)| {
            sum.saturating_add(size(key.inner())).saturating_add(whole(value.as_ref()))
        })
    } else {
        size(value)
    }
}

type Given<'b, 'v> = Vec<CowVal<'b, 'v>>;

/// What was given first, charged.
fn pass<'b, 'v>(mut given: Given<'b, 'v>, steps: u64) -> Result<CowVal<'b, 'v>, ExecutionError> {
    charge(steps)?;
    Ok(given.swap_remove(0))
}

pub(super) fn add(library: &mut Library) {
    library.global("@size", &[&DYN_TYPE], |given| {
        let steps = size(given[0].as_ref());
        pass(given, steps)
    });
    library.global("@squared", &[&DYN_TYPE], |given| {
        let steps = size(given[0].as_ref()).saturating_pow(2);
        pass(given, steps)
    });
    library.global("@whole", &[&DYN_TYPE], |given| {
        let steps = whole(given[0].as_ref());
        pass(given, steps)
    });
    library.global("@number", &[&DYN_TYPE], |given| {
        let number = given[0].downcast_ref::<CelInt>().map_or(0, |int| *int.inner());
        pass(given, u64::try_from(number).unwrap_or(0))
    });
    library.global("@loop", &[&DYN_TYPE, &INT_TYPE], |given| {
        let steps = given[1].downcast_ref::<CelInt>().and_then(|int| u64::try_from(*int.inner()).ok());
        let rounds = size(given[0].as_ref());
        pass(given, rounds.saturating_mul(steps.unwrap_or(1)))
    });
    library.member("@replace", &STRING_TYPE, &[&STRING_TYPE, &STRING_TYPE], |given| replace(&given, None));
    library.member("@replace", &STRING_TYPE, &[&STRING_TYPE, &STRING_TYPE, &INT_TYPE], |given| {
        let most = given[3].downcast_ref::<CelInt>().map(|int| *int.inner());
        // A negative number is no limit.
        replace(&given, most.and_then(|most| usize::try_from(most).ok()))
    });
    library.member("@join", &LIST_TYPE, &[], |given| join(&given));
    library.member("@join", &LIST_TYPE, &[&STRING_TYPE], |given| join(&given));
}

fn text<'a>(given: &'a Given<'_, '_>, at: usize) -> &'a str {
    given.get(at).and_then(|v| v.downcast_ref::<CelString>()).map_or("", |text| text.inner())
}

fn replace<'b, 'v>(given: &Given<'b, 'v>, most: Option<usize>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (source, old, new) = (text(given, 0), text(given, 1), text(given, 2));
    charge(1 + source.len() as u64 / BYTES_A_STEP)?;
    let most = most.unwrap_or(usize::MAX);
    let found = source.matches(old).take(most).count() as u64;
    charge(found.saturating_mul(new.len() as u64) / BYTES_A_STEP)?;
    Ok(CowVal::owned(CelString::from(source.replacen(old, new, most))))
}

fn join<'b, 'v>(given: &Given<'b, 'v>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let separator = text(given, 1);
    let Some(list) = given.first().and_then(|v| v.as_iterable()) else {
        return failed("join", "no such overload");
    };
    let (mut items, mut made) = (list.iter(), String::new());
    let mut first = true;
    while let Some(item) = items.next() {
        let Some(item) = item.downcast_ref::<CelString>() else { return failed("join", "no such overload") };
        charge(1 + (item.inner().len() + separator.len()) as u64 / BYTES_A_STEP)?;
        if !std::mem::take(&mut first) {
            made.push_str(separator);
        }
        made.push_str(item.inner());
    }
    Ok(CowVal::owned(CelString::from(made)))
}
