//! What a COPY or ADD is to do, before any file is looked at.

use url::Url;

use super::fetch;
use crate::{
    Result,
    chmod::Chmod,
    dockerfile::{Copy, CopySource},
    root::absolute,
    stage::{Here, State},
};

/// What one COPY is to do, its variables replaced.
pub(super) struct Order {
    pub(super) sources: Vec<Item>,
    /// Absolute.
    pub(super) target: String,
    pub(super) folder: bool,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<(String, Chmod)>,
    pub(super) exclude: Vec<String>,
}

pub(super) enum Item {
    Path(String),
    Inline { name: String, content: String },
    Address { url: Url, checksum: Option<String> },
}

impl Here<'_> {
    pub(super) fn order(&self, state: &State, copy: &Copy) -> Result<Order> {
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(match source {
                CopySource::Path(path) => {
                    let path = self.expand(state, path)?;
                    match self.address(copy, &path)? {
                        Some(url) => Item::Address { url, checksum: self.checksum(state, copy)? },
                        None => {
                            self.check_source(&path)?;
                            Item::Path(path)
                        }
                    }
                }
                CopySource::Inline(heredoc) => {
                    let text = heredoc.text();
                    let content = if heredoc.expand { self.expand_text(state, &text)? } else { text };
                    Item::Inline { name: heredoc.name.clone(), content }
                }
            });
        }
        let target = self.expand(state, &copy.target)?;
        if target.is_empty() {
            return Err(self.fail("the target is empty when its variables are replaced", None));
        }
        let folder = target.ends_with('/') || matches!(target.as_str(), "." | "..") || target.ends_with("/.");
        if sources.len() > 1 && !folder {
            let hint = format!("Write {target}/ if it is a folder.");
            return Err(self.fail("several sources go into a folder, whose name ends with /", Some(hint)));
        }
        let chmod = copy.chmod.as_deref().map(|text| {
            let text = self.expand(state, text)?;
            match Chmod::parse(&text) {
                Some(chmod) => Ok((text, chmod)),
                None => Err(self.fail(format!("--chmod={text} is neither octal nor like u=rwX,go=rX"), None)),
            }
        });
        Ok(Order {
            sources,
            target: absolute(state.config.workdir(), &target),
            folder,
            chown: copy.chown.as_deref().map(|text| self.expand(state, text)).transpose()?,
            chmod: chmod.transpose()?,
            exclude: copy.exclude.iter().map(|e| self.expand(state, e)).collect::<Result<_>>()?,
        })
    }

    /// The address that a source is, if it is one.
    fn address(&self, copy: &Copy, path: &str) -> Result<Option<Url>> {
        let git = ["git://", "git@", "ssh://"].iter().any(|s| path.starts_with(s)) || path.ends_with(".git");
        if git && copy.add && path.contains([':', '@']) {
            let hint = "Clone it before, and build with the clone as the context.";
            return Err(self.fail(format!("ADD cannot clone {path} here"), Some(hint.into())));
        }
        match path.starts_with("http://") || path.starts_with("https://") {
            false if copy.checksum.is_some() => Err(self.fail("--checksum goes with an address only", None)),
            false => Ok(None),
            true if !copy.add => Err(self.fail(format!("COPY cannot fetch {path}"), Some("ADD can.".into()))),
            true => {
                let url =
                    Url::parse(path).map_err(|e| self.fail(format!("the address {path}: {e}"), None))?;
                Ok(Some(url))
            }
        }
    }

    fn checksum(&self, state: &State, copy: &Copy) -> Result<Option<String>> {
        let Some(text) = &copy.checksum else { return Ok(None) };
        let text = self.expand(state, text)?;
        match fetch::checksum(&text) {
            Some(digest) => Ok(Some(digest)),
            None => Err(self.fail(format!("--checksum={text} is not sha256: and 64 digits"), None)),
        }
    }

    fn check_source(&self, path: &str) -> Result<()> {
        if path.is_empty() {
            return Err(self.fail("a source is empty when its variables are replaced", None));
        }
        let mut depth = 0i64;
        for part in path.split('/').filter(|p| !p.is_empty() && *p != ".") {
            depth += if part == ".." { -1 } else { 1 };
            if depth < 0 {
                let hint = "Build with a folder above as the context, and name this Dockerfile with -f.";
                return Err(self.fail(format!("\"{path}\" lies outside of the context"), Some(hint.into())));
            }
        }
        Ok(())
    }

    /// Replaces the variables of a whole text, in which quotes mean nothing.
    fn expand_text(&self, state: &State, text: &str) -> Result<String> {
        let escape = self.session.plan.escape;
        let mut quoted = String::with_capacity(text.len());
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' | '\'' => quoted.extend([escape, c]),
                c if c == escape => match chars.peek() {
                    Some('$') => quoted.push(c),
                    _ => quoted.extend([c, c]),
                },
                c => quoted.push(c),
            }
        }
        self.expand(state, &quoted)
    }
}
