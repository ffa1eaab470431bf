//! Semantic versions: `semver`, `isSemver` and what a version can do.

use std::{cmp::Ordering, sync::LazyLock};

use ::cel::{
    ExecutionError,
    common::{
        types::{BOOL_TYPE, CelBool, STRING_TYPE, Type},
        value::CowVal,
    },
    objects::Opaque,
};

use super::{Library, absent, failed, give, held, hold, text};

const NAME: &str = "kubernetes.Semver";
static SEMVER: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(NAME));

/// A version of semver.org 2.0.0. What was written after `+` takes no part in comparisons.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    /// What was written after `-`, split at dots.
    pre: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Comes before texts.
    Number(u64),
    Text(String),
}

impl Opaque for Version {
    fn runtime_type_name(&self) -> &str {
        NAME
    }
}

fn number(text: &str, what: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        let what = format!("{}{}", what[..1].to_uppercase(), &what[1..]);
        return Err(format!("{what} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("{text}: value out of range"))
}

fn identifier(text: &str, what: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    Err(format!("Invalid character(s) found in {what} {text:?}"))
}

impl Version {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers = [number(major, "major")?, number(minor, "minor")?, number(patch, "patch")?];
        let mut parts = Vec::new();
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            identifier(part, "prerelease")?;
            parts.push(if part.bytes().all(|b| b.is_ascii_digit()) {
                if part.len() > 1 && part.starts_with('0') {
                    return Err(format!(
                        "Numeric PreRelease version must not contain leading zeroes {part:?}"
                    ));
                }
                Part::Number(part.parse().map_err(|_| format!("{part}: value out of range"))?)
            } else {
                Part::Text(part.to_owned())
            });
        }
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            identifier(part, "build meta data")?;
        }
        Ok(Self { numbers, pre: parts })
    }

    /// Takes also what lacks numbers, begins with `v`, or has leading zeros.
    fn normalized(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(without_zeros).collect();
        if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
            return Err("short version cannot contain PreRelease/Build meta data".to_owned());
        }
        parts.resize(3, "0".to_owned());
        Self::parse(&parts.join("."))
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            // A release comes after what came before it.
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        })
    }
}

fn without_zeros(part: &str) -> String {
    if part.len() < 2 {
        return part.to_owned();
    }
    let bare = part.trim_start_matches('0');
    if bare.starts_with(|c: char| c.is_ascii_digit()) { bare.to_owned() } else { format!("0{bare}") }
}

fn parsed(given: &[CowVal<'_, '_>]) -> Result<Result<Version, String>, ExecutionError> {
    let tolerant = match given.get(1) {
        Some(flag) => flag.downcast_ref::<CelBool>().map_or_else(absent, |b| Ok(*b.inner()))?,
        None => false,
    };
    let text = text(given, 0)?;
    Ok(if tolerant { Version::normalized(text) } else { Version::parse(text) })
}

pub(super) fn add(library: &mut Library) {
    for types in [&[&STRING_TYPE][..], &[&STRING_TYPE, &BOOL_TYPE]] {
        library.global("semver", types, |given| match parsed(&given)? {
            Ok(version) => hold(version),
            Err(error) => failed("semver", error),
        });
        library.global("isSemver", types, |given| give(parsed(&given)?.is_ok()));
    }
    library.member("major", &SEMVER, &[], |given| give_number(held::<Version>(&given, 0)?.numbers[0]));
    library.member("minor", &SEMVER, &[], |given| give_number(held::<Version>(&given, 0)?.numbers[1]));
    library.member("patch", &SEMVER, &[], |given| give_number(held::<Version>(&given, 0)?.numbers[2]));
    library.member("isLessThan", &SEMVER, &[&SEMVER], |given| {
        give(held::<Version>(&given, 0)?.compare(&held(&given, 1)?) == Ordering::Less)
    });
    library.member("isGreaterThan", &SEMVER, &[&SEMVER], |given| {
        give(held::<Version>(&given, 0)?.compare(&held(&given, 1)?) == Ordering::Greater)
    });
    library.member("compareTo", &SEMVER, &[&SEMVER], |given| {
        give(held::<Version>(&given, 0)?.compare(&held(&given, 1)?) as i64)
    });
}

fn give_number<'b, 'v>(number: u64) -> super::Outcome<'b, 'v> {
    give(i64::try_from(number).unwrap_or(i64::MAX))
}
