//! Where events go: a queue to one thread, which writes lines.
//!
//! Upstream's mode `blocking`, but that nobody waits for the disk with an answer in hand: an event is queued at once, and
//! a request that is to be audited waits before anything is done for it as long as too much is queued. So none is lost
//! while the disk is slow, and what waits is bounded by [`MOST`] and the requests that were on their way then.
//!
//! What was written is with the kernel, not on the disk: a power cut may lose the last seconds, as upstream.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, oneshot};

use super::file::{LogFile, Rotation};

/// Requests wait while so many bytes are queued.
const MOST: usize = 16 << 20;
/// Lines are joined to writes of about this many bytes.
const JOINED: usize = 64 << 10;

enum Message {
    /// With its line feed.
    Line(Vec<u8>),
    /// All that came before is written when this is answered.
    Mark(oneshot::Sender<()>),
}

#[derive(Default)]
struct Shared {
    /// Bytes that are queued.
    queued: AtomicUsize,
    /// Rung when less than [`MOST`] is.
    free: Notify,
    /// Lines that could not be written.
    lost: AtomicU64,
}

/// The audit log. What is queued when it is dropped is still written.
pub struct Log {
    shared: Arc<Shared>,
    /// `None` while it is dropped.
    queue: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// A file, which is made if it is not there; see [`Rotation`].
    ///
    /// # Errors
    /// The file cannot be opened for appending.
    pub fn to_file(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Self::to(Box::new(LogFile::open(path, rotation, Utc::now as fn() -> DateTime<Utc>)?))
    }

    /// Anything else. It is given whole lines at a time.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn to(target: Box<dyn Write + Send>) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let (queue, lines) = channel();
        let writer = shared.clone();
        let thread = std::thread::Builder::new()
            .name("audit-log".to_owned())
            .spawn(move || write(&writer, &lines, target))?;
        Ok(Self { shared, queue: Some(queue), thread: Some(thread) })
    }

    /// Resolves when there is room for more.
    pub(super) async fn room(&self) {
        loop {
            let free = self.shared.free.notified();
            tokio::pin!(free);
            free.as_mut().enable();
            if self.shared.queued.load(Acquire) < MOST {
                return;
            }
            free.await;
        }
    }

    /// Queues a line, which ends in a line feed.
    pub(super) fn push(&self, line: Vec<u8>) {
        self.shared.queued.fetch_add(line.len(), AcqRel);
        self.send(Message::Line(line));
    }

    fn send(&self, message: Message) {
        if let Some(queue) = &self.queue {
            // The thread ends after the queue only.
            let _ = queue.send(message);
        }
    }

    /// Resolves when everything that was queued before is written.
    pub(super) async fn flush(&self) {
        let (mark, written) = oneshot::channel();
        self.send(Message::Mark(mark));
        let _ = written.await;
    }

    /// Lines that could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(shared: &Shared, lines: &Receiver<Message>, mut target: Box<dyn Write + Send>) {
    let mut joined: Vec<u8> = Vec::with_capacity(JOINED);
    let mut failing = false;
    while let Ok(first) = lines.recv() {
        let (mut count, mut marks) = (0, Vec::new());
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    // Lines are long or many, seldom both.
                    joined.extend_from_slice(&line);
                    count += 1;
                }
                Message::Mark(mark) => marks.push(mark),
            }
            next = if joined.len() < JOINED { lines.try_recv().ok() } else { None };
        }
        match target.write_all(&joined).and_then(|()| target.flush()) {
            Ok(()) => failing = false,
            Err(error) => {
                shared.lost.fetch_add(count, Relaxed);
                // Once, not for every line of a disk that is full.
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "the audit log cannot be written: events are lost");
                }
            }
        }
        let before = shared.queued.fetch_sub(joined.len(), AcqRel);
        if before >= MOST && before - joined.len() < MOST {
            shared.free.notify_waiters();
        }
        joined.clear();
        joined.shrink_to(JOINED);
        for mark in marks {
            let _ = mark.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Writes when it is allowed to, and keeps it.
    struct Gate {
        allowed: Receiver<()>,
        kept: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A test that is over lets everything pass.
            let _ = self.allowed.recv();
            self.kept.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn who_comes_while_too_much_is_queued_waits_and_nothing_is_lost() {
        let (allow, allowed) = channel();
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let log = Log::to(Box::new(Gate { allowed, kept: kept.clone() })).unwrap();
        log.room().await;
        let mut line = vec![b'x'; MOST / 2];
        line.push(b'\n');
        log.push(line.clone());
        log.room().await;
        log.push(line.clone());
        assert!(futures::FutureExt::now_or_never(log.room()).is_none(), "the queue is full");
        allow.send(()).unwrap();
        log.room().await;
        allow.send(()).unwrap();
        log.flush().await;
        assert_eq!(kept.lock().len(), 2 * line.len());
        assert_eq!(log.lost(), 0);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_and_stops_nobody() {
        let log = Log::to(Box::new(Full)).unwrap();
        for _ in 0..3 {
            log.push(b"x\n".to_vec());
        }
        log.flush().await;
        log.room().await;
        assert_eq!(log.lost(), 3);
    }

    #[test]
    fn what_is_queued_at_the_end_is_written() {
        let (allow, allowed) = channel::<()>();
        drop(allow);
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let log = Log::to(Box::new(Gate { allowed, kept: kept.clone() })).unwrap();
        (0..100).for_each(|_| log.push(b"line\n".to_vec()));
        drop(log);
        assert_eq!(kept.lock().len(), 500);
    }
}
