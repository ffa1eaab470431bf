//! `RUN --mount=…`: what a step sees beside its root file system.

use super::instruction::{Why, why};
use crate::typo::nearest;

/// One `--mount`. Texts may hold variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where; relative to the working directory.
    pub target: Option<String>,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A folder that stays from build to build.
    Cache {
        /// Its name; the target if there is none.
        id: Option<String>,
        /// Who else may have it at the same time.
        sharing: Sharing,
        /// Whether it may be written.
        writable: bool,
        /// Mode, user and group of a new one.
        owner: (u32, u32, u32),
    },
    /// Files of the context, a stage or an image.
    Bind {
        /// Stage or image; the context if there is none.
        from: Option<String>,
        /// Path therein.
        source: String,
        /// Whether it may be written; what is written is thrown away.
        writable: bool,
    },
    /// A secret, as a file or as an environment variable.
    Secret {
        /// Its name.
        id: Option<String>,
        /// The environment variable.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode, user and group of the file.
        owner: (u32, u32, u32),
    },
    /// An empty folder in memory.
    Tmpfs {
        /// Most bytes.
        size: Option<u64>,
    },
}

/// Who may have a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All.
    #[default]
    Shared,
    /// One after the other.
    Locked,
    /// Each its own.
    Private,
}

const KEYS: [&str; 16] = [
    "type",
    "target",
    "source",
    "from",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "rw",
    "ro",
    "readonly",
    "readwrite",
    "required",
    "env",
    "size",
];

/// The options of a mount, taken out one by one.
struct Options(Vec<(String, Option<String>)>);

impl Options {
    fn take(&mut self, names: &[&str]) -> Option<Option<String>> {
        let at = self.0.iter().position(|(name, _)| names.contains(&name.as_str()))?;
        Some(self.0.remove(at).1)
    }

    fn text(&mut self, names: &[&str]) -> Result<Option<String>, Why> {
        match self.take(names) {
            None => Ok(None),
            Some(Some(value)) if !value.is_empty() => Ok(Some(value)),
            Some(_) => why(format!("--mount: {} needs a value", names[0])),
        }
    }

    fn flag(&mut self, names: &[&str]) -> Result<Option<bool>, Why> {
        match self.take(names) {
            None => Ok(None),
            Some(None) => Ok(Some(true)),
            Some(Some(value)) => match value.to_ascii_lowercase().as_str() {
                "true" | "1" => Ok(Some(true)),
                "false" | "0" => Ok(Some(false)),
                _ => why(format!("--mount: {}={value} is neither true nor false", names[0])),
            },
        }
    }

    fn number(&mut self, name: &str, radix: u32, default: u32) -> Result<u32, Why> {
        match self.text(&[name])? {
            None => Ok(default),
            Some(value) => u32::from_str_radix(&value, radix)
                .or_else(|_| why(format!("--mount: {name}={value} is not a number"))),
        }
    }

    fn owner(&mut self, mode: u32) -> Result<(u32, u32, u32), Why> {
        let owner = (self.number("mode", 8, mode)?, self.number("uid", 10, 0)?, self.number("gid", 10, 0)?);
        if owner.0 > 0o7777 {
            return why(format!("--mount: mode={:o} is not a mode", owner.0));
        }
        Ok(owner)
    }

    fn writable(&mut self, default: bool) -> Result<bool, Why> {
        let write = self.flag(&["rw", "readwrite"])?;
        let read = self.flag(&["ro", "readonly"])?;
        Ok(write.or(read.map(|r| !r)).unwrap_or(default))
    }
}

impl Mount {
    pub(super) fn parse(text: &str) -> Result<Mount, Why> {
        let mut options = Options(Vec::new());
        for field in fields(text) {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (field.as_str(), None),
            };
            let name = match name.trim().to_ascii_lowercase().as_str() {
                "dst" | "destination" => "target".to_owned(),
                "src" => "source".to_owned(),
                name => name.to_owned(),
            };
            options.0.push((name, value));
        }
        let kind = options.text(&["type"])?.unwrap_or_else(|| "bind".into());
        let target = options.text(&["target"])?;
        let kind = match kind.as_str() {
            "cache" => MountKind::Cache {
                id: options.text(&["id"])?,
                sharing: match options.text(&["sharing"])?.as_deref() {
                    None | Some("shared") => Sharing::Shared,
                    Some("locked") => Sharing::Locked,
                    Some("private") => Sharing::Private,
                    Some(other) => {
                        return why(format!(
                            "--mount: sharing={other} is not known; there are shared, locked and private"
                        ));
                    }
                },
                writable: options.writable(true)?,
                owner: options.owner(0o755)?,
            },
            "bind" => MountKind::Bind {
                from: options.text(&["from"])?,
                source: options.text(&["source"])?.unwrap_or_else(|| "/".into()),
                writable: options.writable(false)?,
            },
            "secret" => {
                let secret = MountKind::Secret {
                    id: options.text(&["id"])?,
                    env: options.text(&["env"])?,
                    required: options.flag(&["required"])?.unwrap_or(false),
                    owner: options.owner(0o400)?,
                };
                if target.is_none() && matches!(secret, MountKind::Secret { id: None, .. }) {
                    return why("--mount=type=secret needs an id");
                }
                secret
            }
            "tmpfs" => MountKind::Tmpfs {
                size: match options.text(&["size"])? {
                    None => None,
                    Some(size) => match bytes(&size) {
                        Some(bytes) => Some(bytes),
                        None => return why(format!("--mount: size={size} is not a size such as 64m")),
                    },
                },
            },
            "ssh" => {
                return Err((
                    "--mount=type=ssh is not supported".into(),
                    Some("Give a deploy key as a secret: --mount=type=secret,id=key.".into()),
                ));
            }
            other => {
                let hint = nearest(other, ["cache", "bind", "secret", "tmpfs"]);
                return Err((
                    format!("--mount: type={other} is not known; there are cache, bind, secret and tmpfs"),
                    hint.map(|h| format!("Did you mean type={h}?")),
                ));
            }
        };
        if let Some((name, _)) = options.0.first() {
            let hint = nearest(name, KEYS).filter(|k| k != name).map(|k| format!("Did you mean {k}?"));
            return Err((format!("--mount: \"{name}\" does not belong to this type of mount"), hint));
        }
        if target.is_none() && !matches!(kind, MountKind::Secret { .. }) {
            return why("--mount needs a target");
        }
        Ok(Mount { target, kind })
    }
}

/// Comma-separated values; quotes protect commas.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// `64m` and the like, in bytes.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match lower.as_bytes().last()? {
        b'k' => (&lower[..lower.len() - 1], 10),
        b'm' => (&lower[..lower.len() - 1], 20),
        b'g' => (&lower[..lower.len() - 1], 30),
        _ => (lower, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
