//! Comprehensions with two variables: `all(i, v, …)`, `exists`, `existsOne`, `transformList`, `transformMap`,
//! `transformMapEntry`; over lists `i` is the index, over maps the key.
//!
//! The interpreter knows loops of one variable. So a loop runs over the pairs of the list or map, and its two variables
//! are bound to the halves of a pair.

use std::collections::HashMap;

use ::cel::{
    ExecutionError, IdedExpr, ParseError,
    common::{
        ast::{CallExpr, ComprehensionExpr, Expr, ListExpr, LiteralValue, operators},
        types::{CelInt, CelList, CelMap, CelMapKey, DYN_TYPE, LIST_TYPE, MAP_TYPE},
        value::{CowVal, Val},
    },
    parser::{Macro, MacroExprHelper},
};

use super::functions::{Library, failed};

/// The pair that a loop is at. It cannot be written in a source, as every name with `@`.
const PAIR: &str = "@pair";
const RESULT: &str = "@result";

type Expanded = Result<Option<IdedExpr>, ParseError>;

pub(super) fn add(library: &mut Library) {
    library.global("@pairs", &[&LIST_TYPE], pairs);
    library.global("@pairs", &[&MAP_TYPE], pairs);
    library.global("@key", &[&LIST_TYPE], |given| half(&given, 0));
    library.global("@value", &[&LIST_TYPE], |given| half(&given, 1));
    library.global("@keyed", &[&DYN_TYPE, &DYN_TYPE], |given| {
        Ok(CowVal::owned(CelList::from(given.into_iter().map(CowVal::into_owned).collect::<Vec<_>>())))
    });
    library.global("@mapOfPairs", &[&LIST_TYPE], map_of_pairs);
    library.global("@mapOfMaps", &[&LIST_TYPE], map_of_maps);
    let all = [
        Macro::receiver("all", 3, |h, t, a| quantifier(h, t, a, "all")),
        Macro::receiver("exists", 3, |h, t, a| quantifier(h, t, a, "exists")),
        Macro::receiver("existsOne", 3, |h, t, a| quantifier(h, t, a, "existsOne")),
        Macro::receiver("exists_one", 3, |h, t, a| quantifier(h, t, a, "existsOne")),
        Macro::receiver("transformList", 3, |h, t, a| transform(h, t, a, "transformList")),
        Macro::receiver("transformList", 4, |h, t, a| transform(h, t, a, "transformList")),
        Macro::receiver("transformMap", 3, |h, t, a| transform(h, t, a, "transformMap")),
        Macro::receiver("transformMap", 4, |h, t, a| transform(h, t, a, "transformMap")),
        Macro::receiver("transformMapEntry", 3, |h, t, a| transform(h, t, a, "transformMapEntry")),
        Macro::receiver("transformMapEntry", 4, |h, t, a| transform(h, t, a, "transformMapEntry")),
    ];
    for one in all {
        // Only a macro of the same name and number of arguments could stand in the way.
        let _ = library.0.add_macro(one);
    }
}

fn call(h: &mut MacroExprHelper<'_>, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    h.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
}

fn ident(h: &mut MacroExprHelper<'_>, name: &str) -> IdedExpr {
    h.next_expr(Expr::Ident(name.to_owned()))
}

fn flag(h: &mut MacroExprHelper<'_>, value: bool) -> IdedExpr {
    h.next_expr(Expr::Literal(LiteralValue::Boolean(value.into())))
}

fn number(h: &mut MacroExprHelper<'_>, value: i64) -> IdedExpr {
    h.next_expr(Expr::Literal(LiteralValue::Int(value.into())))
}

/// `body` with `name` standing for `value`: a loop over nothing, whose accumulator has the name.
fn bind(h: &mut MacroExprHelper<'_>, name: &str, value: IdedExpr, body: IdedExpr) -> IdedExpr {
    let all = ComprehensionExpr {
        iter_range: h.next_expr(Expr::List(ListExpr::default())),
        iter_var: "@unused".to_owned(),
        iter_var2: None,
        accu_var: name.to_owned(),
        accu_init: value,
        loop_cond: flag(h, false),
        loop_step: ident(h, name),
        result: body,
    };
    h.next_expr(Expr::Comprehension(Box::new(all)))
}

/// The two variables of a loop.
struct Pair(String, String);

impl Pair {
    fn take(h: &MacroExprHelper<'_>, args: &mut Vec<IdedExpr>) -> Result<Self, ParseError> {
        let second = args.remove(1);
        let (first, id) = (args.remove(0), second.id);
        let name = |expression: IdedExpr| match expression.expr {
            Expr::Ident(name) if name == RESULT || name == "__result__" => {
                Err(h.new_error(expression.id, "iteration variable overwrites accumulator variable"))
            }
            Expr::Ident(name) => Ok(name),
            _ => Err(h.new_error(expression.id, "argument must be a simple name")),
        };
        let (first, second) = (name(first)?, name(second)?);
        if first == second {
            return Err(h.new_error(id, format!("duplicate variable name: {first}")));
        }
        Ok(Self(first, second))
    }

    fn bind(&self, h: &mut MacroExprHelper<'_>, body: IdedExpr) -> IdedExpr {
        let half = |h: &mut MacroExprHelper<'_>, which| {
            let pair = ident(h, PAIR);
            call(h, which, vec![pair])
        };
        let value = half(h, "@value");
        let inner = bind(h, &self.1, value, body);
        let key = half(h, "@key");
        bind(h, &self.0, key, inner)
    }
}

/// A loop over the pairs of the target.
struct Loop {
    target: IdedExpr,
    init: IdedExpr,
    condition: IdedExpr,
    step: IdedExpr,
    result: IdedExpr,
}

impl Loop {
    fn close(self, h: &mut MacroExprHelper<'_>) -> IdedExpr {
        let all = ComprehensionExpr {
            iter_range: call(h, "@pairs", vec![self.target]),
            iter_var: PAIR.to_owned(),
            iter_var2: None,
            accu_var: RESULT.to_owned(),
            accu_init: self.init,
            loop_cond: self.condition,
            loop_step: self.step,
            result: self.result,
        };
        h.next_expr(Expr::Comprehension(Box::new(all)))
    }
}

fn quantifier(
    h: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
    which: &str,
) -> Expanded {
    let Some(target) = target.take() else { return Ok(None) };
    let pair = Pair::take(h, args)?;
    let predicate = pair.bind(h, args.remove(0));
    let so_far = ident(h, RESULT);
    let (init, condition, step, result) = match which {
        "all" => {
            let step = call(h, operators::LOGICAL_AND, vec![so_far, predicate]);
            let so_far = ident(h, RESULT);
            let condition = call(h, operators::NOT_STRICTLY_FALSE, vec![so_far]);
            (flag(h, true), condition, step, ident(h, RESULT))
        }
        "exists" => {
            let step = call(h, operators::LOGICAL_OR, vec![so_far, predicate]);
            let so_far = ident(h, RESULT);
            let not = call(h, operators::LOGICAL_NOT, vec![so_far]);
            let condition = call(h, operators::NOT_STRICTLY_FALSE, vec![not]);
            (flag(h, false), condition, step, ident(h, RESULT))
        }
        _ => {
            let one = number(h, 1);
            let more = call(h, operators::ADD, vec![so_far, one]);
            let same = ident(h, RESULT);
            let step = call(h, operators::CONDITIONAL, vec![predicate, more, same]);
            let (count, one) = (ident(h, RESULT), number(h, 1));
            let result = call(h, operators::EQUALS, vec![count, one]);
            (number(h, 0), flag(h, true), step, result)
        }
    };
    Ok(Some(Loop { target, init, condition, step, result }.close(h)))
}

fn transform(
    h: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
    which: &str,
) -> Expanded {
    let Some(target) = target.take() else { return Ok(None) };
    let pair = Pair::take(h, args)?;
    let Some(made) = args.pop() else { return Ok(None) };
    let filter = args.pop().map(|filter| pair.bind(h, filter));
    let made = if which == "transformMap" {
        let key = ident(h, &pair.0);
        call(h, "@keyed", vec![key, made])
    } else {
        made
    };
    let made = pair.bind(h, made);
    let item = h.next_expr(Expr::List(ListExpr::new(vec![made])));
    let so_far = ident(h, RESULT);
    let mut step = call(h, operators::ADD, vec![so_far, item]);
    if let Some(filter) = filter {
        let same = ident(h, RESULT);
        step = call(h, operators::CONDITIONAL, vec![filter, step, same]);
    }
    let (init, condition) = (h.next_expr(Expr::List(ListExpr::default())), flag(h, true));
    let result = ident(h, RESULT);
    let list = Loop { target, init, condition, step, result }.close(h);
    Ok(Some(match which {
        "transformMap" => call(h, "@mapOfPairs", vec![list]),
        "transformMapEntry" => call(h, "@mapOfMaps", vec![list]),
        _ => list,
    }))
}

fn pairs<'b, 'v>(given: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut pairs: Vec<Box<dyn Val + 'v>> = Vec::new();
    let mut push = |key: Box<dyn Val + 'v>, value: Box<dyn Val + 'v>| {
        pairs.push(Box::new(CelList::from(vec![key, value])));
    };
    let Some(over) = given.first() else { return Err(ExecutionError::missing_argument_or_target()) };
    if let Some(map) = over.downcast_ref::<CelMap>() {
        for (key, value) in map.inner() {
            push(key.inner().clone_as_boxed(), value.clone());
        }
    } else if let Some(list) = over.as_iterable() {
        let (mut items, mut at) = (list.iter(), 0i64);
        while let Some(item) = items.next() {
            push(Box::new(CelInt::from(at)), item.clone_as_boxed());
            at += 1;
        }
    }
    Ok(CowVal::owned(CelList::from(pairs)))
}

fn half<'b, 'v>(given: &[CowVal<'b, 'v>], at: usize) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let pair = given.first().and_then(|v| v.downcast_ref::<CelList>());
    match pair.and_then(|pair| pair.inner().get(at)) {
        Some(half) => Ok(CowVal::Owned(half.clone())),
        None => failed("", "no such overload"),
    }
}

fn map_of_pairs<'b, 'v>(given: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut map = HashMap::new();
    for pair in given.first().and_then(|v| v.downcast_ref::<CelList>()).map_or(&[][..], CelList::inner) {
        let Some([key, value]) = pair.downcast_ref::<CelList>().map(CelList::inner) else { continue };
        map.insert(CelMapKey::try_from(key.clone())?, value.clone());
    }
    Ok(CowVal::owned(CelMap::from(map)))
}

fn map_of_maps<'b, 'v>(given: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut map = HashMap::new();
    for entry in given.first().and_then(|v| v.downcast_ref::<CelList>()).map_or(&[][..], CelList::inner) {
        let Some(entry) = entry.downcast_ref::<CelMap>() else {
            return failed("transformMapEntry", "no such overload");
        };
        for (key, value) in entry.inner() {
            if map.insert(key.clone(), value.clone()).is_some() {
                return failed(
                    "transformMapEntry",
                    format!("insert failed: key {} already exists", shown(key)),
                );
            }
        }
    }
    Ok(CowVal::owned(CelMap::from(map)))
}

fn shown(key: &CelMapKey<'_>) -> String {
    match key {
        CelMapKey::Bool(flag) => flag.inner().to_string(),
        CelMapKey::Int(int) => int.inner().to_string(),
        CelMapKey::UInt(uint) => uint.inner().to_string(),
        CelMapKey::String(text) => text.inner().to_owned(),
    }
}
