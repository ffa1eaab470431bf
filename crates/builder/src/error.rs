//! What can go wrong with a build: always with its place in the Dockerfile, and the next step where there is one.

use std::{fmt, io, path::Path, sync::Arc};

/// Where in a Dockerfile (or an ignore file) something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// First line, from 1.
    pub line: usize,
    /// The text of these lines, as far as an error shows it.
    pub text: Vec<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Place {
    /// The lines with their numbers, each on a line of its own.
    fn shown(&self) -> String {
        let lines = self.text.iter().enumerate();
        lines.map(|(i, text)| format!("\n{:>6} | {text}", self.line + i)).collect()
    }
}

/// A RUN step that did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where the RUN stands.
    pub place: Place,
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    /// What was run, in short.
    pub command: String,
    /// The last lines it wrote, without control characters.
    pub output: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: \"{}\" ended with exit code {}", self.place, self.command, self.code)?;
        match self.code {
            126 => write!(f, " (the file is there but cannot be executed)")?,
            127 => write!(f, " (command not found in the image)")?,
            137 => write!(f, " (killed; often because memory ran out)")?,
            _ => {}
        }
        write!(f, "{}", self.place.shown())?;
        if self.output.is_empty() {
            return write!(f, "\nIt wrote nothing.");
        }
        write!(f, "\nThe last it wrote:")?;
        self.output.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The Dockerfile, or what it asks for, is at fault.
    #[error("{place}: {message}{}{}", .place.shown(), .hint.as_ref().map(|h| format!("\n{h}")).unwrap_or_default())]
    Dockerfile {
        /// Where.
        place: Box<Place>,
        /// What is wrong.
        message: String,
        /// What would help.
        hint: Option<String>,
    },
    /// A RUN step failed.
    #[error("{0}")]
    Failed(Box<Failure>),
    /// A step could not be carried out for a reason that lies outside of the Dockerfile.
    #[error("{place}: {source}{}", .place.shown())]
    Step {
        /// The step.
        place: Box<Place>,
        /// The reason.
        source: Box<Error>,
    },
    /// What the caller asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The image store refused.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The refusal.
        source: io::Error,
    },
    /// The build was cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Puts the step's place in front, unless the error has one.
    pub(crate) fn within(self, place: &Place) -> Error {
        match self {
            Error::Dockerfile { .. } | Error::Failed(_) | Error::Step { .. } | Error::Cancelled => self,
            other => Error::Step { place: Box::new(place.clone()), source: Box::new(other) },
        }
    }

    /// The place in the Dockerfile, if it has one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Error::Dockerfile { place, .. } | Error::Step { place, .. } => Some(place),
            Error::Failed(failure) => Some(&failure.place),
            _ => None,
        }
    }
}

/// Puts what was being done in front of an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T>;
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, doing: &str, path: &Path) -> Result<T> {
        self.doing(|| format!("{doing} {}", path.display()))
    }

    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::Io { what: doing(), source: e.into() })
    }
}
