//! What is told while an image comes or goes.

use crate::Digest;

/// One step of a transfer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The name leads to this manifest, with layers of these digests and sizes.
    Resolved {
        /// Digest of the manifest.
        manifest: Digest,
        /// Each layer's blob and its bytes.
        layers: Vec<(Digest, u64)>,
    },
    /// A blob was there already.
    Present(Digest),
    /// A blob on its way.
    Bytes {
        /// The blob.
        blob: Digest,
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The way broke and is tried again.
    Retrying {
        /// The blob.
        blob: Digest,
        /// What broke.
        why: String,
    },
    /// A layer is being unpacked.
    Unpacking(Digest),
    /// A blob is complete, and unpacked if it is a layer.
    Done(Digest),
}

/// Receives the events of a transfer.
pub trait Progress: Send + Sync {
    /// Called from several tasks; must return soon.
    fn event(&self, event: Event);
}

/// Nobody wants to know.
impl Progress for () {
    fn event(&self, _: Event) {}
}

impl<F: Fn(Event) + Send + Sync> Progress for F {
    fn event(&self, event: Event) {
        self(event);
    }
}
