//! The Dockerfile language: from text to instructions, without looking at anything else.

mod command;
mod expand;
mod instruction;
mod lines;
mod mount;

use std::sync::Arc;

pub use command::{Copy, CopySource, Health, Run};
pub(crate) use expand::expand;
pub use instruction::{Command, From, Instruction, Kind};
pub use lines::{Directives, Heredoc};
pub use mount::{Mount, MountKind, Sharing};

use crate::{Error, Result, error::Place};

/// Largest Dockerfile, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Most instructions in one.
const MAX_INSTRUCTIONS: usize = 5000;
/// Lines of an instruction that an error shows, and characters of each.
const SHOWN_LINES: usize = 6;
const SHOWN_CHARS: usize = 160;

/// Something wrong in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Fault {
    pub(crate) fn new(line: usize, message: impl Into<String>) -> Fault {
        Fault { line, message: message.into(), hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Fault {
        Fault { hint: Some(hint.into()), ..self }
    }
}

/// The text of a Dockerfile with the name it is shown by.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// The place of these lines.
    pub(crate) fn place(&self, line: usize, last: usize) -> Place {
        let lines = self.text.lines().skip(line.saturating_sub(1)).take(last.saturating_sub(line) + 1);
        let shown = |l: &str| -> String {
            let visible = l.chars().map(|c| if c.is_control() { ' ' } else { c });
            match l.chars().count() {
                n if n > SHOWN_CHARS => visible.take(SHOWN_CHARS).chain(['…']).collect(),
                _ => visible.collect(),
            }
        };
        Place { file: self.name.clone(), line, text: lines.take(SHOWN_LINES).map(shown).collect() }
    }
}

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// Its text.
    pub source: Source,
    /// What stands at its top.
    pub directives: Directives,
    /// All instructions in order.
    pub instructions: Vec<Instruction>,
}

/// Parses a Dockerfile; `name` is how errors call it.
///
/// # Errors
/// [`Error::Dockerfile`] with the place of the first fault.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile> {
    let source = Source { name: name.into(), text: text.into() };
    let fail = |fault: Fault| {
        let last = fault.line;
        fault_at(&source, fault, last)
    };
    if text.len() > MAX_BYTES {
        return Err(fail(Fault::new(1, format!("the file is larger than {MAX_BYTES} bytes"))));
    }
    if let Some(at) = text.find('\0') {
        let line = text[..at].matches('\n').count() + 1;
        return Err(fail(Fault::new(line, "there is a zero byte; this is not a text file")));
    }
    let (directives, logical) = lines::split(text).map_err(fail)?;
    if let Some(syntax) = &directives.syntax
        && !known_syntax(syntax)
    {
        let line = text.lines().position(|l| l.contains("syntax")).map_or(1, |at| at + 1);
        return Err(fail(
            Fault::new(line, format!("the syntax \"{syntax}\" is not supported"))
                .hint("This builder reads the syntax of docker/dockerfile:1 itself; remove the line."),
        ));
    }
    if logical.is_empty() {
        return Err(fail(Fault::new(1, "the file has no instructions").hint("Begin with FROM.")));
    }
    if logical.len() > MAX_INSTRUCTIONS {
        return Err(fail(Fault::new(1, format!("the file has more than {MAX_INSTRUCTIONS} instructions"))));
    }
    let instructions = logical
        .iter()
        .map(|l| Instruction::parse(l, directives.escape).map_err(|f| fault_at(&source, f, l.last)))
        .collect::<Result<_>>()?;
    Ok(Dockerfile { source, directives, instructions })
}

/// Parses one instruction that an image carries (ONBUILD); it is shown at the place of the FROM.
pub(crate) fn parse_trigger(text: &str, escape: char, place: &Place) -> Result<Instruction> {
    let fail = |fault: Fault| Error::Dockerfile {
        place: Box::new(place.clone()),
        message: format!("the base image's ONBUILD {text}: {}", fault.message),
        hint: fault.hint,
    };
    if text.len() > MAX_BYTES {
        return Err(fail(Fault::new(1, "it is too long")));
    }
    let (_, logical) = lines::split(text).map_err(fail)?;
    let [one] = logical.as_slice() else {
        return Err(fail(Fault::new(1, "it is not one instruction")));
    };
    let instruction = Instruction::parse(one, escape).map_err(fail)?;
    match instruction.kind {
        Kind::From(_) | Kind::Onbuild(_) | Kind::Maintainer(_) => {
            Err(fail(Fault::new(1, format!("{} cannot be a trigger", instruction.keyword()))))
        }
        _ => Ok(Instruction { line: place.line, last: place.line, ..instruction }),
    }
}

fn fault_at(source: &Source, fault: Fault, last: usize) -> Error {
    Error::Dockerfile {
        place: Box::new(source.place(fault.line, last)),
        message: fault.message,
        hint: fault.hint,
    }
}

fn known_syntax(syntax: &str) -> bool {
    let name = syntax.split([':', '@']).next().unwrap_or_default();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name == "docker/dockerfile" || name == "docker/dockerfile-upstream"
}

#[cfg(test)]
mod tests;
