//! What can go wrong when a runtime is opened. Requests fail with CRI's statuses.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The refusal.
        source: std::io::Error,
    },
    /// This machine, or this user, cannot run containers.
    #[error("{0}")]
    Unable(String),
    /// Another runtime has this folder.
    #[error("{} is in use by another runtime", .0.display())]
    InUse(PathBuf),
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
