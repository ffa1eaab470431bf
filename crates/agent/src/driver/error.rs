//! What can go wrong so badly that an agent stops.

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent's own directories cannot be made.
    #[error("cannot prepare {path}: {source}")]
    Directory {
        /// Which one.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// One of its tasks ended, which none does by itself.
    #[error("a task of the agent ended: {0}")]
    Task(String),
}
