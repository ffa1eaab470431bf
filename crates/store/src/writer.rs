//! The one thread that writes: it takes all commits that wait, makes them durable with one `fsync`, shows them, and then
//! answers. It also decides when history is old enough to be forgotten and when the log is due for a snapshot.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, UNIX_EPOCH},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    CommitError, Revision,
    embedded::{Options, Shared},
    format::{Change, Frame},
    log::{Log, Snapshot, write_snapshot},
    state::{Draft, Step},
};

/// A batch ends when it has this many bytes of values, so that one answer does not wait for hundreds of megabytes.
const BATCH_BYTES: usize = 8 << 20;
/// How many commits are trimmed while readers are kept out.
const TRIM_SLICE: usize = 1_000;

pub(crate) type Answer = oneshot::Sender<Result<Revision, CommitError>>;

pub(crate) enum Request {
    Commit { steps: Vec<Step>, bytes: usize, answer: Answer },
    Compact { floor: Revision, answer: Answer },
}

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Request::Commit { bytes, .. } => *bytes,
            Request::Compact { .. } => 0,
        }
    }
}

/// Where requests wait for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
    snapshot_done: bool,
}

impl Queue {
    /// Hands a request to the writer; when the store is closed it is dropped, which the one who asked sees.
    pub(crate) fn push(&self, request: Request) {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            waiting.requests.push_back(request);
            self.news.notify_one();
        }
    }

    /// No more requests; those that wait are still served.
    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.news.notify_one();
    }

    fn snapshot_done(&self) {
        self.waiting.lock().snapshot_done = true;
        self.news.notify_one();
    }

    /// The next batch: empty when `until` has come or a snapshot is done, `None` when the queue is closed and empty.
    fn take(&self, until: Option<Instant>) -> Option<Vec<Request>> {
        let mut waiting = self.waiting.lock();
        while waiting.requests.is_empty() {
            if std::mem::take(&mut waiting.snapshot_done) {
                return Some(Vec::new());
            }
            if waiting.closed {
                return None;
            }
            match until {
                None => self.news.wait(&mut waiting),
                Some(until) => {
                    if self.news.wait_until(&mut waiting, until).timed_out() {
                        break;
                    }
                }
            }
        }
        let (mut bytes, mut count) = (0, 0);
        for request in &waiting.requests {
            bytes += request.bytes();
            count += 1;
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Some(waiting.requests.drain(..count).collect())
    }
}

pub(crate) struct Writer {
    pub shared: Arc<Shared>,
    pub queue: Arc<Queue>,
    pub options: Options,
    pub log: Log,
    pub frame: Frame,
    pub snapshot: Option<JoinHandle<std::io::Result<Snapshot>>>,
    /// After a snapshot failed: what must be replaceable before the next is tried.
    pub retry_bytes: u64,
}

impl Writer {
    /// Serves until the queue is closed.
    pub(crate) fn run(mut self) {
        while let Some(batch) = self.queue.take(self.next_check()) {
            self.serve(batch);
            self.finish_snapshot(false);
            if self.log.active.len >= self.options.segment_bytes {
                let last = self.shared.state.read().visible();
                if let Err(error) = self.log.rotate(last) {
                    tracing::warn!(%error, "cannot begin a new segment of the log, the old one goes on");
                }
            }
            self.start_snapshot();
        }
        self.finish_snapshot(true);
    }

    /// Makes a batch durable, then visible, then answers.
    fn serve(&mut self, batch: Vec<Request>) {
        let millis = self.now();
        let due = self.due_floor(millis);
        let mut answers = Vec::with_capacity(batch.len());
        self.frame.clear();
        // Only this thread writes the state, so it is the same until the commits are applied below.
        let state = self.shared.state.read();
        let mut draft = Draft::new(&state);
        let mut floor = state.floor();
        if due > floor {
            floor = due;
            self.frame.floor(due.0);
        }
        for request in batch {
            match request {
                Request::Commit { steps, answer, .. } => {
                    let result = draft.add(&steps, millis);
                    if let Ok(revision) = result {
                        encode(&mut self.frame, revision, millis, &steps);
                    }
                    answers.push((answer, result));
                }
                Request::Compact { floor: asked, answer } => {
                    let newest = draft.next().0 - 1;
                    let result = match asked.0 <= newest {
                        true => Ok(asked),
                        false => Err(CommitError::Invalid("cannot compact at a revision of the future")),
                    };
                    if result.is_ok() && asked > floor {
                        floor = asked;
                        self.frame.floor(asked.0);
                    }
                    answers.push((answer, result));
                }
            }
        }
        let commits = draft.commits;
        drop(state);

        if !self.frame.is_empty()
            && let Err(error) = self.log.append(&mut self.frame)
        {
            tracing::error!(%error, "the store cannot write");
            let error = Arc::new(error);
            // A conflict may be with a commit that has just failed, so nobody gets another answer.
            for (answer, _) in answers {
                let _ = answer.send(Err(CommitError::Io(error.clone())));
            }
            return;
        }
        self.shared.show(commits);
        self.raise_floor(floor);
        for (answer, result) in answers {
            // Nobody waits any more: the commit is there all the same.
            let _ = answer.send(result);
        }
        while self.shared.state.write().trim(TRIM_SLICE) {}
    }

    fn raise_floor(&self, floor: Revision) {
        let mut state = self.shared.state.write();
        if floor > state.floor() {
            state.raise_floor(floor);
            drop(state);
            self.shared.hub.trim(floor);
        }
    }

    fn now(&self) -> u64 {
        let since = (self.options.clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as u64
    }

    /// The floor that [`Options`] ask for.
    fn due_floor(&self, now: u64) -> Revision {
        let state = self.shared.state.read();
        let age = self.options.history_age.as_millis() as u64;
        let mut floor = state.floor();
        let is_old = |millis: u64| now.saturating_sub(millis) > age;
        if state.oldest_millis().is_some_and(|oldest| now.saturating_sub(oldest) > age + slack(age)) {
            let old = state.commits_after(floor).take_while(|c| is_old(c.millis));
            floor = old.last().map_or(floor, |c| c.revision);
        }
        if state.history_bytes() > self.options.history_bytes {
            // A quarter more than needed, so that not every batch trims.
            floor = floor.max(state.floor_for_bytes(self.options.history_bytes / 4 * 3));
        }
        floor
    }

    /// When the oldest history will be old enough to go. An idle store without history never wakes.
    fn next_check(&self) -> Option<Instant> {
        let oldest = self.shared.state.read().oldest_millis()?;
        let age = self.options.history_age.as_millis() as u64;
        let wait = oldest.saturating_add(age + slack(age) + 1).saturating_sub(self.now()).max(10);
        Instant::now().checked_add(Duration::from_millis(wait))
    }

    fn start_snapshot(&mut self) {
        if self.snapshot.is_some() {
            return;
        }
        let floor = self.shared.state.read().floor();
        let last = self.log.snapshot.as_ref().map_or(0, |s| s.bytes);
        let replaceable = self.log.replaceable(floor);
        if replaceable == 0 || replaceable < last.max(self.options.rewrite_bytes).max(self.retry_bytes) {
            return;
        }
        // The entries are collected here, where nobody can raise the floor meanwhile; writing them takes its time.
        let Ok(page) = self.shared.state.read().list("", None, 0, Some(floor)) else { return };
        let old = self.log.closed.iter().filter(|s| s.last <= floor).map(|s| s.path.clone());
        let replaced: Vec<_> = old.chain(self.log.snapshot.as_ref().map(|s| s.path.clone())).collect();
        let (files, dir, queue) = (self.log.files.clone(), self.log.dir.clone(), self.queue.clone());
        let write = move || {
            let result = write_snapshot(&*files, &dir, floor, &page.entries, &replaced);
            queue.snapshot_done();
            result
        };
        match std::thread::Builder::new().name("store-snapshot".to_owned()).spawn(write) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => tracing::warn!(%error, "cannot start a thread for the snapshot"),
        }
    }

    fn finish_snapshot(&mut self, wait: bool) {
        let Some(thread) = self.snapshot.take_if(|thread| wait || thread.is_finished()) else { return };
        match thread.join() {
            Ok(Ok(snapshot)) => {
                self.log.closed.retain(|s| s.last > snapshot.revision);
                self.log.snapshot = Some(snapshot);
                self.retry_bytes = 0;
            }
            Ok(Err(error)) => {
                // Tried again when there is another segment to replace.
                self.retry_bytes = self.log.replaceable(Revision(u64::MAX)) + 1;
                tracing::warn!(%error, "cannot write a snapshot of the store; the log keeps growing");
            }
            Err(_) => tracing::error!("the thread that writes the snapshot has panicked"),
        }
    }
}

/// History is forgotten in steps, not commit by commit.
fn slack(age: u64) -> u64 {
    age / 10
}

fn encode(frame: &mut Frame, revision: Revision, millis: u64, steps: &[Step]) {
    frame.commit(revision.0, millis, steps.len() as u32);
    for step in steps {
        frame.change(&Change { key: &step.key, value: &step.value, at: step.at, deleted: step.deleted });
    }
}
