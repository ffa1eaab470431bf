//! What decides whether a pod may run on a node, and how well it fits: one file a subject.
//!
//! A filter says no with a [`Refusal`]: upstream's words, and whether removing other pods could help.

pub mod interpod;
pub mod node;
pub mod spread;
pub mod volumes;

/// Why a node does not take a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// As upstream words it, without the count: `node(s) had untolerated taint(s)`.
    pub reason: String,
    /// Preempting pods on the node may mend it.
    pub preemptible: bool,
}

impl Refusal {
    pub(crate) fn final_(reason: &str) -> Self {
        Self { reason: reason.to_owned(), preemptible: false }
    }

    pub(crate) fn preemptible(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), preemptible: true }
    }
}
