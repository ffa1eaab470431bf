//! Instructions: what each keyword takes.

use super::{
    Fault,
    command::{Copy, Health, Run},
    lines::{Heredoc, Logical, words},
};
use crate::typo::nearest;

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// First line, from 1.
    pub line: usize,
    /// Last line.
    pub last: usize,
    /// Its text as one line, without here-documents.
    pub text: String,
    /// What it says. Variables are not replaced yet.
    pub kind: Kind,
}

/// What an instruction says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `FROM`
    From(From),
    /// `RUN`
    Run(Run),
    /// `COPY` and `ADD`
    Copy(Copy),
    /// `ARG`: names and defaults.
    Arg(Vec<(String, Option<String>)>),
    /// `ENV`: names and values.
    Env(Vec<(String, String)>),
    /// `LABEL`: names and values.
    Label(Vec<(String, String)>),
    /// `WORKDIR`
    Workdir(String),
    /// `USER`
    User(String),
    /// `EXPOSE`
    Expose(Vec<String>),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `SHELL`
    Shell(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Health),
    /// `STOPSIGNAL`
    Stopsignal(String),
    /// `ONBUILD`: the trigger's text.
    Onbuild(String),
    /// `MAINTAINER`
    Maintainer(String),
}

/// `FROM`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// `--platform=`
    pub platform: Option<String>,
    /// An image, an earlier stage, or `scratch`.
    pub image: String,
    /// `AS name`, in lower case.
    pub name: Option<String>,
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Instruction {
    pub(crate) fn parse(logical: &Logical, escape: char) -> Result<Instruction, Fault> {
        let fail = |message: String| Fault::new(logical.line, message);
        let (keyword, rest) = match logical.text.split_once(char::is_whitespace) {
            Some((keyword, rest)) => (keyword, rest.trim()),
            None => (logical.text.as_str(), ""),
        };
        let upper = keyword.to_ascii_uppercase();
        if !KEYWORDS.contains(&upper.as_str()) {
            let shown: String = keyword.chars().take(40).collect();
            let fault = fail(format!("unknown instruction \"{shown}\""));
            return Err(match nearest(keyword, KEYWORDS) {
                Some(meant) => fault.hint(format!("Did you mean {meant}?")),
                None => fault.hint(format!(
                    "A line begins with one of {}; a line that goes on ends with {escape}.",
                    KEYWORDS.join(", ")
                )),
            });
        }
        if rest.is_empty() {
            return Err(fail(format!("{upper} needs at least one argument")));
        }
        let kind = Kind::parse(&upper, rest, &logical.heredocs, escape).map_err(|(message, hint)| Fault {
            line: logical.line,
            message,
            hint,
        })?;
        Ok(Instruction { line: logical.line, last: logical.last, text: logical.text.clone(), kind })
    }

    /// The keyword, in upper case.
    pub fn keyword(&self) -> &'static str {
        match &self.kind {
            Kind::From(_) => "FROM",
            Kind::Run(_) => "RUN",
            Kind::Copy(copy) if copy.add => "ADD",
            Kind::Copy(_) => "COPY",
            Kind::Arg(_) => "ARG",
            Kind::Env(_) => "ENV",
            Kind::Label(_) => "LABEL",
            Kind::Workdir(_) => "WORKDIR",
            Kind::User(_) => "USER",
            Kind::Expose(_) => "EXPOSE",
            Kind::Volume(_) => "VOLUME",
            Kind::Cmd(_) => "CMD",
            Kind::Entrypoint(_) => "ENTRYPOINT",
            Kind::Shell(_) => "SHELL",
            Kind::Healthcheck(_) => "HEALTHCHECK",
            Kind::Stopsignal(_) => "STOPSIGNAL",
            Kind::Onbuild(_) => "ONBUILD",
            Kind::Maintainer(_) => "MAINTAINER",
        }
    }
}

/// A message and a hint.
pub(super) type Why = (String, Option<String>);

pub(super) fn why<T>(message: impl Into<String>) -> Result<T, Why> {
    Err((message.into(), None))
}

impl Kind {
    fn parse(keyword: &str, rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Kind, Why> {
        Ok(match keyword {
            "FROM" => Kind::From(From::parse(rest, escape)?),
            "RUN" => Kind::Run(Run::parse(rest, heredocs, escape)?),
            "COPY" | "ADD" => Kind::Copy(Copy::parse(keyword == "ADD", rest, heredocs, escape)?),
            "ARG" => Kind::Arg(args(rest, escape)?),
            "ENV" | "LABEL" => {
                let pairs = pairs(keyword, rest, escape)?;
                if keyword == "ENV" { Kind::Env(pairs) } else { Kind::Label(pairs) }
            }
            "WORKDIR" => Kind::Workdir(rest.to_owned()),
            "USER" => Kind::User(rest.to_owned()),
            "STOPSIGNAL" => Kind::Stopsignal(rest.to_owned()),
            "MAINTAINER" => Kind::Maintainer(rest.to_owned()),
            "EXPOSE" => Kind::Expose(rest.split_whitespace().map(str::to_owned).collect()),
            "VOLUME" => Kind::Volume(match json(rest) {
                Some(list) => list,
                None => rest.split_whitespace().map(str::to_owned).collect(),
            }),
            "CMD" => Kind::Cmd(Command::parse(rest)),
            "ENTRYPOINT" => Kind::Entrypoint(Command::parse(rest)),
            "SHELL" => match json(rest) {
                Some(shell) if !shell.is_empty() => Kind::Shell(shell),
                _ => {
                    return Err((
                        "SHELL takes a JSON list".into(),
                        Some("Write it so: SHELL [\"/bin/bash\", \"-c\"]".into()),
                    ));
                }
            },
            "HEALTHCHECK" => Kind::Healthcheck(Health::parse(rest, escape)?),
            _ => Kind::Onbuild(onbuild(rest, heredocs, escape)?),
        })
    }
}

impl Command {
    pub(super) fn parse(text: &str) -> Command {
        match json(text) {
            Some(list) => Command::Exec(list),
            None => Command::Shell(text.to_owned()),
        }
    }
}

impl From {
    fn parse(rest: &str, escape: char) -> Result<From, Why> {
        let (flags, rest) = flags(rest, escape);
        let mut platform = None;
        for (name, value) in flags {
            match (name.as_str(), value) {
                ("platform", Some(value)) => platform = Some(value),
                (name, _) => return unknown_flag("FROM", name, &["platform"]),
            }
        }
        let parts: Vec<&str> = rest.split_whitespace().collect();
        let (image, name) = match parts.as_slice() {
            [image] => (*image, None),
            [image, r#as, name] if r#as.eq_ignore_ascii_case("as") => (*image, Some(*name)),
            _ => {
                return Err((
                    "FROM takes an image, or an image AS a name".into(),
                    Some("Write it so: FROM image:tag AS name".into()),
                ));
            }
        };
        let name = name.map(str::to_lowercase);
        if let Some(name) = &name {
            let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if !name.as_bytes()[0].is_ascii_alphabetic() || !name.bytes().all(fine) {
                return why(format!(
                    "the stage name \"{name}\" must begin with a letter and have only letters, digits, - _ and ."
                ));
            }
            if name == "scratch" || name == "context" {
                return why(format!("the stage name \"{name}\" is reserved"));
            }
        }
        Ok(From { platform, image: image.to_owned(), name })
    }
}

fn args(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, Why> {
    let one = |word: String| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        if !is_name(&name) {
            return why(format!("\"{name}\" cannot be the name of an ARG: it takes letters, digits and _"));
        }
        Ok((name, value))
    };
    words(rest, escape).into_iter().map(one).collect()
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, Why> {
    let words = words(rest, escape);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        // The old form: a name, and all the rest is its value.
        let (name, value) = match rest.split_once(char::is_whitespace) {
            Some((name, value)) if !value.trim().is_empty() => (name, value.trim()),
            _ => {
                return Err((
                    format!("{keyword} needs a name and a value"),
                    Some(format!("Write it so: {keyword} {first}=value")),
                ));
            }
        };
        return Ok(vec![(name.to_owned(), value.to_owned())]);
    }
    let one = |word: String| match word.split_once('=') {
        Some(("", _)) => why(format!("{keyword} has a value without a name: \"{word}\"")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err((
            format!("\"{word}\" has no =; {keyword} takes name=value"),
            Some("A value with blanks stands in quotes.".into()),
        )),
    };
    words.into_iter().map(one).collect()
}

fn onbuild(rest: &str, heredocs: &[Heredoc], escape: char) -> Result<String, Why> {
    let logical = Logical { line: 1, last: 1, text: rest.to_owned(), heredocs: heredocs.to_vec() };
    let trigger = Instruction::parse(&logical, escape).map_err(|f| (f.message, f.hint))?;
    if matches!(trigger.kind, Kind::Onbuild(_) | Kind::From(_) | Kind::Maintainer(_)) {
        return why(format!("ONBUILD {} is not allowed", trigger.keyword()));
    }
    let documents = heredocs.iter().map(|h| format!("\n{}{}", h.content, h.name));
    Ok(std::iter::once(rest.to_owned()).chain(documents).collect())
}

/// A JSON list of strings, if the text is one.
pub(super) fn json(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The flags `--name` and `--name=value` at the beginning, and what follows them.
pub(super) fn flags(rest: &str, escape: char) -> (Vec<(String, Option<String>)>, &str) {
    let (mut flags, mut rest) = (Vec::new(), rest);
    while rest.starts_with("--") {
        let end = word_end(rest, escape);
        let word = unquote(&rest[2..end], escape);
        rest = rest[end..].trim_start();
        if word.is_empty() {
            break;
        }
        flags.push(match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        });
    }
    (flags, rest)
}

/// Where the first word of the text ends, in bytes.
fn word_end(text: &str, escape: char) -> usize {
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            _ if c == escape => {
                chars.next();
            }
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

/// A flag's text without quotes around a whole value: `--mount="type=cache"`. Quotes within stay, CSV has them too.
fn unquote(word: &str, escape: char) -> String {
    let inner = |text: &str| {
        let quoted = |q: char| text.strip_prefix(q).and_then(|t| t.strip_suffix(q)).map(str::to_owned);
        quoted('"').or_else(|| quoted('\''))
    };
    let word = match word.split_once('=') {
        Some((name, value)) => inner(value).map(|v| format!("{name}={v}")),
        None => None,
    }
    .or_else(|| inner(word))
    .unwrap_or_else(|| word.to_owned());
    let mut out = String::new();
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        // Only a blank needs to be escaped in a flag; a variable's escape is for later.
        match c {
            c if c == escape && chars.as_str().starts_with([' ', '\t']) => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn unknown_flag<T>(keyword: &str, name: &str, known: &[&str]) -> Result<T, Why> {
    let name: String = name.chars().take(40).collect();
    let hint = match nearest(&name, known.iter().copied()) {
        Some(meant) if meant != name => format!("Did you mean --{meant}=…?"),
        Some(_) => format!("Write --{name}=value."),
        None => format!(
            "{keyword} knows {}.",
            known.iter().map(|k| format!("--{k}")).collect::<Vec<_>>().join(", ")
        ),
    };
    Err((format!("{keyword} has no flag --{name}"), Some(hint)))
}
