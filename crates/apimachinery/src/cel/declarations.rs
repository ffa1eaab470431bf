//! The functions that expressions may call, with the types they take and give.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use super::types::Ty;

/// One way to call a function.
#[derive(Debug, PartialEq)]
pub(super) struct Overload {
    /// Whether it has a receiver, the first of `given`.
    pub member: bool,
    /// Open types are `Ty::Param(0)` to `Ty::Param(2)`.
    pub given: Vec<Ty>,
    pub result: Ty,
}

static DECLARED: LazyLock<HashMap<&'static str, Vec<Overload>>> = LazyLock::new(|| {
    let mut declared: HashMap<_, Vec<Overload>> = HashMap::new();
    for line in include_str!("declarations.txt").lines() {
        if let Some((name, overload)) = read(line) {
            declared.entry(name).or_default().push(overload);
        }
    }
    declared
});

/// The overloads of a function.
pub(super) fn find(name: &str) -> Option<&'static [Overload]> {
    DECLARED.get(name).map(Vec::as_slice)
}

/// `name(given) result` or `receiver :: name(given) result`.
fn read(line: &'static str) -> Option<(&'static str, Overload)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (receiver, call) = match line.split_once(" :: ") {
        Some((receiver, call)) => (Some(ty(receiver)?), call),
        None => (None, line),
    };
    let open = call.find('(')?;
    let close = open + closing(&call[open..])?;
    let mut given: Vec<Ty> = receiver.clone().into_iter().collect();
    for part in split(&call[open + 1..close]) {
        given.push(ty(part)?);
    }
    let result = ty(call[close + 1..].trim())?;
    Some((&call[..open], Overload { member: receiver.is_some(), given, result }))
}

/// Where the bracket closes that a text begins with.
fn closing(text: &str) -> Option<usize> {
    let mut deep = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => deep += 1,
            ')' => deep -= 1,
            _ => {}
        }
        if deep == 0 {
            return Some(at);
        }
    }
    None
}

/// The parts between commas that stand in no bracket.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut parts, mut deep, mut start) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => deep += 1,
            ')' => deep -= 1,
            ',' if deep == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text.trim().is_empty() {
        parts.push(text[start..].trim());
    }
    parts
}

fn ty(text: &'static str) -> Option<Ty> {
    Some(match text {
        "A" => Ty::Param(0),
        "B" => Ty::Param(1),
        "C" => Ty::Param(2),
        "dyn" => Ty::Dyn,
        "bool" | "int" | "uint" | "double" | "string" | "bytes" | "timestamp" | "duration" => Ty::Plain(text),
        _ => match text.split_once('(') {
            Some((name, rest)) => {
                let name = if name == "optional" { "optional_type" } else { name };
                Ty::Of(name, split(rest.strip_suffix(')')?).into_iter().map(ty).collect::<Option<_>>()?)
            }
            None => Ty::Named(Arc::from(text)),
        },
    })
}

/// The type that a name stands for in an expression: `int`, `google.protobuf.Duration`.
pub(super) fn type_named(name: &str) -> Option<Ty> {
    let named = match name {
        "bool" => Ty::Plain("bool"),
        "int" => Ty::Plain("int"),
        "uint" => Ty::Plain("uint"),
        "double" => Ty::Plain("double"),
        "string" => Ty::Plain("string"),
        "bytes" => Ty::Plain("bytes"),
        "google.protobuf.Timestamp" => Ty::Plain("timestamp"),
        "google.protobuf.Duration" => Ty::Plain("duration"),
        "null_type" => Ty::Null,
        "list" => Ty::list(Ty::Dyn),
        "map" => Ty::Of("map", vec![Ty::Dyn, Ty::Dyn]),
        "optional_type" => Ty::Of("optional_type", vec![Ty::Dyn]),
        "type" => Ty::Of("type", Vec::new()),
        "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.URL" | "kubernetes.Semver" => {
            Ty::Named(Arc::from(name))
        }
        _ => return None,
    };
    Some(Ty::Of("type", vec![named]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let lines = include_str!("declarations.txt").lines();
        let wanted = lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
        assert_eq!(DECLARED.values().map(Vec::len).sum::<usize>(), wanted);
        let overload = &find("@in").expect("it is declared")[1];
        assert_eq!(overload.given[1].to_string(), "map(_var0, _var1)");
    }
}
