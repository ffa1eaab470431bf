//! The instructions that do something: RUN, COPY and ADD; and HEALTHCHECK.

use super::{
    Heredoc,
    instruction::{Command, Why, flags, json, unknown_flag, why},
    lines::{is_heredoc, words},
    mount::Mount,
};

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `--mount=`, in order.
    pub mounts: Vec<Mount>,
    /// `--network=none`
    pub offline: bool,
    /// What is run; the text may refer to here-documents.
    pub command: Command,
    /// The here-documents.
    pub heredocs: Vec<Heredoc>,
}

/// `COPY` or `ADD`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// `ADD`: archives are unpacked, addresses fetched.
    pub add: bool,
    /// `--from=`: a stage or an image; the context if there is none.
    pub from: Option<String>,
    /// `--chown=`
    pub chown: Option<String>,
    /// `--chmod=`
    pub chmod: Option<String>,
    /// `--checksum=`
    pub checksum: Option<String>,
    /// `--exclude=`
    pub exclude: Vec<String>,
    /// What is copied.
    pub sources: Vec<CopySource>,
    /// Where to.
    pub target: String,
}

/// What is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopySource {
    /// A path, possibly with wildcards, or an address.
    Path(String),
    /// A file that stands in the Dockerfile.
    Inline(Heredoc),
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// `NONE`
    None,
    /// `CMD`
    Check {
        /// What is run.
        command: Command,
        /// Interval, timeout, start period and start interval in nanoseconds, as far as they are given.
        times: [Option<u64>; 4],
        /// Failures in a row before it is unhealthy.
        retries: Option<u32>,
    },
}

/// Most mounts of a RUN.
const MAX_MOUNTS: usize = 64;

impl Run {
    pub(super) fn parse(rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Run, Why> {
        let (flags, rest) = flags(rest, escape);
        let mut run = Run {
            mounts: Vec::new(),
            offline: false,
            command: Command::parse(rest),
            heredocs: heredocs.to_vec(),
        };
        for (name, value) in flags {
            match (name.as_str(), value.as_deref()) {
                ("mount", Some(value)) => run.mounts.push(Mount::parse(value)?),
                ("network", Some("none")) => run.offline = true,
                ("network", Some("default" | "host")) => run.offline = false,
                ("network", Some(other)) => {
                    return why(format!("--network={other} is not known; there are default, host and none"));
                }
                ("security", Some("sandbox")) => {}
                ("security", Some(_)) => return why("only --security=sandbox is supported"),
                (name, _) => return unknown_flag("RUN", name, &["mount", "network", "security"]),
            }
        }
        if run.mounts.len() > MAX_MOUNTS {
            return why(format!("RUN has more than {MAX_MOUNTS} mounts"));
        }
        match &run.command {
            Command::Shell(text) if text.is_empty() => why("RUN needs a command after its flags"),
            Command::Exec(args) if args.is_empty() => why("RUN needs a command"),
            Command::Exec(_) if !heredocs.is_empty() => {
                why("a here-document goes with the shell form of RUN only")
            }
            _ => Ok(run),
        }
    }
}

const COPY_FLAGS: [&str; 5] = ["from", "chown", "chmod", "link", "exclude"];
const ADD_FLAGS: [&str; 5] = ["chown", "chmod", "link", "exclude", "checksum"];

impl Copy {
    pub(super) fn parse(add: bool, rest: &str, heredocs: &[Heredoc], escape: char) -> Result<Copy, Why> {
        let keyword = if add { "ADD" } else { "COPY" };
        let (flags, rest) = flags(rest, escape);
        let mut copy = Copy { add, ..Copy::default() };
        for (name, value) in flags {
            let slot = match (name.as_str(), &value) {
                ("from", Some(_)) if !add => &mut copy.from,
                ("chown", Some(_)) => &mut copy.chown,
                ("chmod", Some(_)) => &mut copy.chmod,
                ("checksum", Some(_)) if add => &mut copy.checksum,
                ("exclude", Some(pattern)) => {
                    copy.exclude.push(pattern.clone());
                    continue;
                }
                // How a layer is put together is no matter to what it holds.
                ("link", _) => continue,
                (name, _) => return unknown_flag(keyword, name, if add { &ADD_FLAGS } else { &COPY_FLAGS }),
            };
            if slot.is_some() {
                return why(format!("--{name} stands here twice"));
            }
            *slot = value;
        }
        let mut paths = match json(rest) {
            Some(list) => list,
            None if heredocs.is_empty() => rest.split_whitespace().map(str::to_owned).collect(),
            None => words(rest, escape),
        };
        copy.target = match (paths.pop(), paths.is_empty()) {
            (Some(target), false) => target,
            _ => {
                return Err((
                    format!("{keyword} needs a source and a target"),
                    Some(format!("Write it so: {keyword} file folder/")),
                ));
            }
        };
        if copy.target.is_empty() || paths.iter().any(String::is_empty) {
            return why(format!("{keyword} has an empty path"));
        }
        let mut heredocs = heredocs.iter();
        for path in paths {
            let inline = if is_heredoc(&path, escape) { heredocs.next() } else { None };
            copy.sources.push(match inline {
                Some(heredoc)
                    if heredoc.name.contains('/') || matches!(heredoc.name.as_str(), "." | "..") =>
                {
                    return why(format!("\"{}\" cannot be a file's name", heredoc.name));
                }
                Some(heredoc) => CopySource::Inline(heredoc.clone()),
                None => CopySource::Path(path),
            });
        }
        if heredocs.next().is_some() {
            return why(format!("the target of {keyword} cannot be a here-document"));
        }
        Ok(copy)
    }
}

const HEALTH_FLAGS: [&str; 5] = ["interval", "timeout", "start-period", "start-interval", "retries"];

impl Health {
    pub(super) fn parse(rest: &str, escape: char) -> Result<Health, Why> {
        let (flags, rest) = flags(rest, escape);
        let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if kind.eq_ignore_ascii_case("none") {
            return match flags.is_empty() && rest.is_empty() {
                true => Ok(Health::None),
                false => why("HEALTHCHECK NONE takes nothing else"),
            };
        }
        let rest = rest.trim();
        if !kind.eq_ignore_ascii_case("cmd") || rest.is_empty() {
            return Err((
                "HEALTHCHECK takes NONE, or CMD and a command".into(),
                Some("Write it so: HEALTHCHECK --interval=30s CMD curl -f http://localhost/".into()),
            ));
        }
        let (mut times, mut retries) = ([None; 4], None);
        for (name, value) in flags {
            let value = value.unwrap_or_default();
            match HEALTH_FLAGS.iter().position(|f| *f == name) {
                Some(4) => match value.parse() {
                    Ok(n) => retries = Some(n),
                    Err(_) => return why(format!("--retries={value} is not a number")),
                },
                Some(at) => match nanoseconds(&value) {
                    Some(n) if n == 0 || n >= 1_000_000 => times[at] = Some(n),
                    Some(_) => return why(format!("--{name} must be 0 or at least 1ms")),
                    None => return why(format!("--{name}={value} is not a duration such as 30s or 1m30s")),
                },
                None => return unknown_flag("HEALTHCHECK", &name, &HEALTH_FLAGS),
            }
        }
        Ok(Health::Check { command: Command::parse(rest), times, retries })
    }
}

/// A duration as Go writes it: `1m30s`, `0.5s`.
fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut sum) = (text, 0f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        sum += number * unit;
        rest = &rest[end..];
    }
    // The most that an image config can hold.
    (sum <= i64::MAX as f64 / 2.0).then_some(sum as u64)
}
