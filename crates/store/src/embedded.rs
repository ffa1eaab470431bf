//! The embedded engine: a log on the local disk, everything else in memory.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use crate::{
    CommitError, Entry, Expect, Extract, Op, Page, ReadError, Revision, Store, Watch,
    files::{Disk, Files},
    hub::Hub,
    recovery::recover,
    state::{Commit, State, Step},
    writer::{Queue, Request, Writer},
};

/// What a commit may weigh in all: a frame's length is a `u32`.
const COMMIT_BYTES: usize = 256 << 20;

/// How an [`Embedded`] store behaves.
#[derive(Clone)]
pub struct Options {
    /// History younger than this is kept, as long as `history_bytes` allows. It is forgotten at most a tenth later.
    pub history_age: Duration,
    /// How many bytes of replaced and deleted objects are kept in memory for lists and watches from the past.
    pub history_bytes: usize,
    /// The largest value, in bytes.
    pub value_bytes: usize,
    /// The log begins a new file when one has this many bytes.
    pub segment_bytes: u64,
    /// The log is rewritten as a snapshot when that frees this many bytes and as many as the last snapshot has.
    pub rewrite_bytes: u64,
    /// The time of commits.
    pub clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    /// What the log is written with.
    pub files: Arc<dyn Files>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history_age: Duration::from_secs(5 * 60),
            history_bytes: 64 << 20,
            value_bytes: 3 << 20,
            segment_bytes: 16 << 20,
            rewrite_bytes: 16 << 20,
            clock: Arc::new(SystemTime::now),
            files: Arc::new(Disk),
        }
    }
}

/// Why a store could not be opened. Nothing in it was changed, but for what a crash had left half done.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {} is in use by another process{}", dir.display(), holder(.pid))]
    InUse { dir: PathBuf, pid: Option<u32> },
    /// A newer version has written it.
    #[error("{} has format {found}, this version reads up to format {supported}: use a newer version", file.display())]
    Newer { file: PathBuf, found: u32, supported: u32 },
    /// The bytes are not what was written.
    #[error("{} is damaged at byte {offset}: {what}; restore a backup, or move the file away to look into it", file.display())]
    Corrupt { file: PathBuf, offset: u64, what: String },
    /// The disk does not let us.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// What the writer and the readers share.
pub(crate) struct Shared {
    pub state: RwLock<State>,
    pub hub: Arc<Hub>,
    pub reached: watch::Sender<Revision>,
}

impl Shared {
    /// Makes durable commits visible: to gets and lists at once, then to watches.
    pub(crate) fn show(&self, commits: Vec<Commit>) {
        let Some(last) = commits.last().map(|c| c.revision) else { return };
        let mut state = self.state.write();
        for commit in &commits {
            state.apply(commit.clone());
        }
        drop(state);
        self.hub.publish(&commits);
        self.reached.send_replace(last);
    }
}

/// A store in a directory of the local disk, for one process at a time.
///
/// # What survives
///
/// * A commit that was answered with its revision survives the death of the process and the loss of power: its bytes
///   were in the log and `fdatasync` had returned before anybody could see it. Many commits share one `fdatasync`.
/// * A commit is there whole or not at all, and if it is there, so are all before it.
/// * A commit that was not answered (the process died first) may be there or not. One that was answered with
///   [`CommitError::Io`] is not there, unless even cutting it off the log failed and the process ended before that
///   succeeded: then it may be found at the next opening. Until then nobody sees it and nothing else is written.
/// * Revisions of visible commits are never used again.
/// * History survives a reopening as far as it was kept.
///
/// What it cannot tell: whether the very last write in the log was torn by a crash or damaged later. Both are cut off,
/// with a warning in the log. Damage anywhere else is refused with its place.
///
/// # Memory and disk
///
/// Everything current is in memory, beside the history that [`Options`] allow. The log on disk is bounded by that
/// history plus twice what is current (or `rewrite_bytes`) plus one segment.
pub struct Embedded {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    extract: Extract,
    value_bytes: usize,
    running: Mutex<Option<Running>>,
}

/// Held while the store is open.
struct Running {
    writer: JoinHandle<()>,
    _lock: File,
}

impl Embedded {
    /// Opens the store in `dir`, or begins one there. `extract` is called with values as they were committed (before
    /// the revision is put in), from any thread, and must be a pure function.
    pub fn open(dir: &Path, options: Options, extract: Extract) -> Result<Arc<Embedded>, OpenError> {
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        let lock = lock(dir)?;
        let (log, state) = recover(dir, options.files.clone(), &extract)?;
        let hub = Arc::new(Hub::default());
        hub.begin(state.visible());
        let reached = watch::Sender::new(state.visible());
        let shared = Arc::new(Shared { state: RwLock::new(state), hub, reached });
        let queue = Arc::new(Queue::default());
        let value_bytes = options.value_bytes;
        let writer = Writer {
            shared: shared.clone(),
            queue: queue.clone(),
            options,
            log,
            frame: Default::default(),
            snapshot: None,
            retry_bytes: 0,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        let running = Mutex::new(Some(Running { writer, _lock: lock }));
        Ok(Arc::new(Embedded { shared, queue, extract, value_bytes, running }))
    }

    /// Finishes what waits and lets go of the directory. Commits fail with [`CommitError::Closed`] from then on, reads
    /// go on. Dropping the store does the same.
    pub fn close(&self) {
        self.queue.close();
        let Some(running) = self.running.lock().take() else { return };
        if running.writer.join().is_err() {
            tracing::error!("the thread that writes the store has panicked");
        }
    }

    fn step(&self, op: Op) -> Result<Step, CommitError> {
        let (key, value, at, expect, deleted) = match op {
            Op::Put { key, value, revision_at, expect } => (key, value, revision_at, expect, false),
            Op::Delete { key, last, revision_at, expect } => (key, last, revision_at, expect, true),
        };
        if value.len() > self.value_bytes {
            return Err(CommitError::TooLarge { size: value.len(), max: self.value_bytes });
        }
        if at.is_some_and(|at| at > value.len()) {
            return Err(CommitError::Invalid("the revision's place lies outside the value"));
        }
        if deleted && expect == Expect::Absent {
            return Err(CommitError::Invalid("a deletion needs something to delete"));
        }
        let attributes = (self.extract)(&key, &value);
        Ok(Step { key, value, at, deleted, expect: Some(expect), attributes })
    }

    async fn ask(
        &self,
        request: impl FnOnce(crate::writer::Answer) -> Request,
    ) -> Result<Revision, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(request(answer));
        answered.await.unwrap_or(Err(CommitError::Closed))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let io = |source| OpenError::Io { path: path.clone(), source };
    // Not truncated: if another process holds it, its pid is what we read.
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = std::fs::read_to_string(&path).ok().and_then(|pid| pid.trim().parse().ok());
            return Err(OpenError::InUse { dir: dir.to_owned(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    // Only to name ourselves to a second opener; a full disk is no reason not to open.
    let pid = std::process::id().to_string();
    let named = file.set_len(0).and_then(|()| io::Write::write_all(&mut &file, pid.as_bytes()));
    if let Err(error) = named {
        tracing::warn!(%error, file = %path.display(), "cannot write the lock file");
    }
    Ok(file)
}

#[async_trait]
impl Store for Embedded {
    async fn commit(&self, ops: Vec<Op>) -> Result<Revision, CommitError> {
        if ops.is_empty() {
            return Err(CommitError::Invalid("a commit needs at least one operation"));
        }
        let steps = ops.into_iter().map(|op| self.step(op)).collect::<Result<Vec<_>, _>>()?;
        let mut keys = HashSet::new();
        if steps.len() > 1 && !steps.iter().all(|s| keys.insert(&*s.key)) {
            return Err(CommitError::Invalid("a commit may change a key only once"));
        }
        let bytes = steps.iter().map(|s| s.value.len() + s.key.len()).sum();
        if bytes > COMMIT_BYTES {
            return Err(CommitError::TooLarge { size: bytes, max: COMMIT_BYTES });
        }
        self.ask(|answer| Request::Commit { steps, bytes, answer }).await
    }

    fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.shared.state.read().get(key).cloned()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, ReadError> {
        self.shared.state.read().list(prefix, after, limit, at)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, ReadError> {
        Ok(Box::new(self.shared.hub.watch(&self.shared.state, prefix, after)?))
    }

    fn revision(&self) -> Revision {
        self.shared.state.read().visible()
    }

    fn last_change(&self, prefix: &str) -> Revision {
        self.shared.state.read().last_change(prefix)
    }

    async fn reached(&self, revision: Revision) {
        let mut reached = self.shared.reached.subscribe();
        // The sender lives as long as `self`.
        let _ = reached.wait_for(|now| *now >= revision).await;
    }

    async fn compact(&self, revision: Revision) -> Result<(), CommitError> {
        self.ask(|answer| Request::Compact { floor: revision, answer }).await.map(|_| ())
    }
}
