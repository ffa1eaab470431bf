//! What can go wrong with images, in words that name the next step.

use std::{io, path::Path};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text is not an image reference.
    #[error("\"{reference}\" is not an image reference: {why}")]
    InvalidReference {
        /// What was given.
        reference: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No image in the store answers to this name, ID or digest.
    #[error("no image \"{0}\" in the store; pull, build or import it first")]
    NotFound(String),
    /// A short ID that several images share.
    #[error("\"{0}\" is the beginning of several image IDs; give more digits")]
    AmbiguousId(String),
    /// Content does not have the digest it was asked by.
    #[error(
        "{what}: expected {expected}, but the content is {actual}; it was damaged or altered on its way, nothing of it was kept"
    )]
    DigestMismatch {
        /// Which content.
        what: String,
        /// The digest that was asked for.
        expected: String,
        /// The digest of what came.
        actual: String,
    },
    /// An image, archive or file that breaks the specification.
    #[error("{what}: {why}")]
    Invalid {
        /// Which thing.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A limit of [`crate::Limits`] was reached.
    #[error("{what}: more than {limit}; if this image is meant to be so large, raise the store's limit")]
    Limit {
        /// Which thing.
        what: String,
        /// The limit with its unit.
        limit: String,
    },
    /// The registry asks for (other) credentials.
    #[error("{registry} denies access to {repository}: {why}; log in, or give the pod an imagePullSecret")]
    Denied {
        /// Host of the registry.
        registry: String,
        /// Repository within it.
        repository: String,
        /// The registry's words.
        why: String,
    },
    /// The registry has no such image or blob.
    #[error("{what} does not exist in {registry}; check the name and the tag")]
    Missing {
        /// Host of the registry.
        registry: String,
        /// Which thing.
        what: String,
    },
    /// The registry cannot be reached or answers nonsense.
    #[error("{registry}: {why}")]
    Registry {
        /// Host of the registry.
        registry: String,
        /// What happened, with the next step.
        why: String,
    },
    /// The operating system refused.
    #[error("{what}: {source}{}", hint(.source))]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The refusal.
        source: io::Error,
    },
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Invalid { what: what.into(), why: why.into() }
    }

    pub(crate) fn registry(registry: &str, why: impl Into<String>) -> Error {
        Error::Registry { registry: registry.to_owned(), why: why.into() }
    }

    /// True when the same request may succeed later: the registry or the way to it failed, not the image.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Registry { .. })
    }
}

/// The next step for the refusals that have a usual cure.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => " (free some space: `plim image prune` removes what nothing uses)",
        io::ErrorKind::PermissionDenied => " (image layers hold other users' files: run as root)",
        io::ErrorKind::QuotaExceeded => " (the disk quota is used up)",
        _ => "",
    }
}

/// Puts what was being done in front of an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, doing: &str, path: &Path) -> Result<T>;
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, doing: &str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::Io { what: format!("{doing} {}", path.display()), source: e.into() })
    }

    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::Io { what: doing(), source: e.into() })
    }
}
