//! The one error type of this crate.

use std::io;

/// What can go wrong between an intention and the kernel, the API server or the wire.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a netlink request; `what` names the step in plain words.
    #[error("{what}: {source}")]
    Netlink {
        /// The step that failed, e.g. "create veth plv1234 for sandbox 9f…".
        what: String,
        /// The kernel's errno.
        source: io::Error,
    },
    /// A file or socket could not be used.
    #[error("{what}: {source}")]
    Io {
        /// The path or socket and what was done with it.
        what: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Every address of the node's pod range is in use or in its reuse delay.
    #[error("no free pod address left in {0}: delete pods or give the node a larger podCIDR")]
    PoolExhausted(ipnet::Ipv4Net),
    /// A state file does not parse. It is left as it is, so that nothing is lost.
    #[error("state file {path} is damaged ({reason}): move it away to start with no leases")]
    State {
        /// Which file.
        path: String,
        /// The parser's words.
        reason: String,
    },
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// The API server answered with an error.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// Shorthand used all over the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn netlink(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Netlink { what, source }
    }
}
