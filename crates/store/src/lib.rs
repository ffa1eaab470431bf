//! A revisioned log of objects with watch.
//!
//! Writes are atomic compare-and-set commits to one durable log; every commit has the next revision. Reads, lists and
//! watches are served from memory and share the same encoded bytes. The trait is [`Store`]; the embedded engine is the
//! first of its implementations, etcd the second.
//!
//! It knows nothing of kinds: keys are paths, values are bytes.
//!
//! Reading order: the seam below · `state` (memory) · `hub` (watches) · `format`, `log`, `recovery` (disk) · `writer`
//! (the one thread that commits) · `embedded` (all of it together, and the promise of what survives).

mod derived;
mod embedded;
pub mod files;
mod format;
mod hub;
mod log;
mod recovery;
mod state;
mod writer;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use derived::{Derived, Room};
pub use embedded::{Embedded, OpenError, Options};

/// Number of a commit, from 1, never reused. It is the `resourceVersion` of what the commit wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an object lies: `/registry/pods/default/web`, `/registry/apps/deployments/default/web`.
pub type Key = Arc<str>;

/// What selectors ask about, taken from the value once when it is stored, by the function given at opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Label keys and values, sorted by key.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Values of selectable fields, in the order the kind declares them.
    pub fields: Box<[(Arc<str>, Arc<str>)]>,
}

/// Takes the attributes out of a value.
pub type Extract = Arc<dyn Fn(&str, &[u8]) -> Attributes + Send + Sync>;

/// A stored object.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it lies.
    pub key: Key,
    /// The encoded object, its own revision already inside (see [`Op::Put`]).
    pub value: Bytes,
    /// The revision that made the key.
    pub created: Revision,
    /// The revision that wrote this value.
    pub modified: Revision,
    /// What selectors ask about.
    pub attributes: Attributes,
    /// The value in another encoding, once somebody has made it.
    pub derived: Derived,
}

/// What a key has to look like for a commit to happen. A key appears only once in a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// Last written by exactly this revision.
    At(Revision),
}

/// One step of a commit.
#[derive(Clone, Debug)]
pub enum Op {
    /// Writes a value. The decimal digits of the commit's revision are put into it at byte `revision_at` (between the
    /// quotes of `"resourceVersion":""`), so that the bytes that are stored are the bytes that are served.
    Put { key: Key, value: Bytes, revision_at: Option<usize>, expect: Expect },
    /// Removes a key. `last` is the object's last state as watchers see it (with the deletion's own revision put in at
    /// `revision_at`).
    Delete { key: Key, last: Bytes, revision_at: Option<usize>, expect: Expect },
}

/// Why a commit did not happen. Nothing of it is visible then.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// An expectation did not hold; `now` is what lies there.
    #[error("{key}: the expectation does not hold")]
    Conflict { key: Key, now: Option<Arc<Entry>> },
    /// The value is larger than the store takes.
    #[error("value of {size} bytes is too large, at most {max}")]
    TooLarge { size: usize, max: usize },
    /// The log could not be written (full disk, I/O error). What is stored stays readable; commits fail until it is mended.
    #[error("the store cannot write: {0}")]
    Io(Arc<std::io::Error>),
    /// The commit makes no sense, whatever is stored: a fault of the caller.
    #[error("{0}")]
    Invalid(&'static str),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// Why a read at a revision is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The history before `oldest` is gone.
    #[error("revision {asked} has been compacted, oldest is {oldest}")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision has not happened yet.
    #[error("revision {asked} is in the future, current is {current}")]
    Future { asked: Revision, current: Revision },
}

/// Part of a listing, in key order.
#[derive(Debug, Default)]
pub struct Page {
    /// The objects.
    pub entries: Vec<Arc<Entry>>,
    /// The state that was read.
    pub revision: Revision,
    /// Objects under the prefix behind the last of this page.
    pub remaining: usize,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// The state after the change; for a deletion the last state.
    pub entry: Arc<Entry>,
    /// The state before, absent for a creation.
    pub previous: Option<Arc<Entry>>,
    /// The key is gone.
    pub deleted: bool,
}

/// What a watch yields.
#[derive(Clone, Debug)]
pub enum WatchItem {
    /// The events of one commit under the watched prefix, in order.
    Events(Arc<[Event]>),
    /// Everything up to this revision has been delivered. Engines that hear of it from elsewhere (etcd) send it; the
    /// embedded one does not need to, see [`Watch::progress`].
    Progress(Revision),
}

/// A running watch: every event once, in order, without a gap. Dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// The next item; an error when the watcher was so slow that events it has not seen were compacted (it has to list
    /// again). Cancel-safe: dropping the future loses nothing.
    async fn next(&mut self) -> Result<WatchItem, ReadError>;
    /// The next events, if they are there already. What `next` would fail with is left to it.
    fn ready(&mut self) -> Option<Arc<[Event]>>;
    /// Waits for the next events, for who reads the present anew anyway. Cancel-safe, as [`Watch::next`].
    async fn changed(&mut self) -> Result<(), ReadError> {
        while let WatchItem::Progress(_) = self.next().await? {}
        Ok(())
    }
    /// The revision up to which `next` has delivered everything: the current one, or the last item's while others wait.
    /// This is what a bookmark may say.
    fn progress(&self) -> Revision;
}

/// A revisioned log of objects.
#[async_trait]
pub trait Store: Send + Sync {
    /// Does all of `ops`, or nothing. Returns once the commit is durable: it survives the loss of power.
    async fn commit(&self, ops: Vec<Op>) -> Result<Revision, CommitError>;

    /// The current state of a key.
    fn get(&self, key: &str) -> Option<Arc<Entry>>;

    /// Objects whose key starts with `prefix` and is greater than `after`, at most `limit` (0: all), in the state of
    /// revision `at` (`None`: now).
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, ReadError>;

    /// Events under `prefix` with a revision greater than `after`.
    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError>;

    /// The newest visible revision.
    fn revision(&self) -> Revision;

    /// The newest revision that touched a key under `prefix`; caches derived from it compare this number while the store
    /// is open. Exact for prefixes that end in a slash and have keys; otherwise it may be that of the directory around
    /// it, or a later one, but never an earlier one.
    fn last_change(&self, prefix: &str) -> Revision;

    /// Resolves once the store shows `revision` or a later one.
    async fn reached(&self, revision: Revision);

    /// Forgets the history before `revision` (which stays readable itself): lists and watches from there get [`ReadError::Compacted`].
    async fn compact(&self, revision: Revision) -> Result<(), CommitError>;
}
