//! Regular expressions: `find` and `findAll`.

use ::cel::{
    ExecutionError,
    common::{
        types::{CelList, CelString, INT_TYPE, STRING_TYPE},
        value::{CowVal, Val},
    },
};
use regex::Regex;

use super::{Given, Library, Outcome, failed, give_text, int, text};

/// Bytes that a compiled pattern may take.
const MAX_SIZE: usize = 1 << 20;

fn compiled(pattern: &str) -> Result<Regex, ExecutionError> {
    match regex::RegexBuilder::new(pattern).size_limit(MAX_SIZE).build() {
        Ok(regex) => Ok(regex),
        Err(error) => failed("find", format!("Illegal regex: {error}")),
    }
}

pub(super) fn add(library: &mut Library) {
    library.member("find", &STRING_TYPE, &[&STRING_TYPE], |given| {
        let regex = compiled(text(&given, 1)?)?;
        give_text(regex.find(text(&given, 0)?).map_or("", |m| m.as_str()))
    });
    library.member("findAll", &STRING_TYPE, &[&STRING_TYPE], |given| find_all(&given, None));
    library.member("findAll", &STRING_TYPE, &[&STRING_TYPE, &INT_TYPE], |given| {
        // A negative number is no limit.
        let limit = usize::try_from(int(&given, 2)?).ok();
        find_all(&given, limit)
    });
}

fn find_all<'b, 'v>(given: &Given<'b, 'v>, limit: Option<usize>) -> Outcome<'b, 'v> {
    let regex = compiled(text(given, 1)?)?;
    let found = regex.find_iter(text(given, 0)?).take(limit.unwrap_or(usize::MAX));
    let found: Vec<Box<dyn Val + 'v>> =
        found.map(|m| Box::new(CelString::from(m.as_str().to_owned())) as Box<dyn Val + 'v>).collect();
    Ok(CowVal::owned(CelList::from(found)))
}
