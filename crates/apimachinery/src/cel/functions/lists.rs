//! Lists: Kubernetes' own functions, and `first` and `last` of CEL's list library.

use std::cmp::Ordering;

use ::cel::{
    ExecutionError,
    common::{
        types::{CelInt, CelOptional, DYN_TYPE, LIST_TYPE},
        value::{CowVal, Val},
    },
};

use super::{Given, Library, Outcome, absent, failed, give, items};

pub(super) fn add(library: &mut Library) {
    library.member("isSorted", &LIST_TYPE, &[], |given| {
        let items = items(&given, 0)?;
        for pair in items.windows(2) {
            if compare(pair[0], pair[1])? == Ordering::Greater {
                return give(false);
            }
        }
        give(true)
    });
    library.member("sum", &LIST_TYPE, &[], |given| {
        let items = items(&given, 0)?;
        let Some((first, rest)) = items.split_first() else { return Ok(CowVal::owned(CelInt::from(0))) };
        let mut sum = first.clone_as_boxed();
        for item in rest {
            let added = sum.as_adder().map_or_else(absent, |a| a.add(*item))?.into_owned();
            sum = added;
        }
        Ok(CowVal::Owned(sum))
    });
    library.member("min", &LIST_TYPE, &[], |given| extreme(&given, Ordering::Less, "min"));
    library.member("max", &LIST_TYPE, &[], |given| extreme(&given, Ordering::Greater, "max"));
    library.member("indexOf", &LIST_TYPE, &[&DYN_TYPE], |given| {
        let found = items(&given, 0)?.iter().position(|item| item.equals(given[1].as_ref()));
        give(position(found))
    });
    library.member("lastIndexOf", &LIST_TYPE, &[&DYN_TYPE], |given| {
        let found = items(&given, 0)?.iter().rposition(|item| item.equals(given[1].as_ref()));
        give(position(found))
    });
    library.member("includes", &DYN_TYPE, &[&DYN_TYPE], |given| {
        let whole = given[0].equals(given[1].as_ref());
        give(whole || items(&given, 0).is_ok_and(|list| list.iter().any(|i| i.equals(given[1].as_ref()))))
    });
    library.member("first", &LIST_TYPE, &[], |given| {
        Ok(CowVal::owned(CelOptional::from(items(&given, 0)?.first().map(|item| item.clone_as_boxed()))))
    });
    library.member("last", &LIST_TYPE, &[], |given| {
        Ok(CowVal::owned(CelOptional::from(items(&given, 0)?.last().map(|item| item.clone_as_boxed()))))
    });
}

fn position(found: Option<usize>) -> i64 {
    found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

fn compare(a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    a.as_comparer().map_or_else(absent, |comparer| comparer.compare(b))
}

fn extreme<'b, 'v>(given: &Given<'b, 'v>, wanted: Ordering, function: &str) -> Outcome<'b, 'v> {
    let items = items(given, 0)?;
    let Some((first, rest)) = items.split_first() else {
        return failed(function, format!("{function} called on empty list"));
    };
    let mut best = *first;
    for item in rest {
        if compare(*item, best)? == wanted {
            best = *item;
        }
    }
    Ok(CowVal::Owned(best.clone_as_boxed()))
}
