//! Writes records on a thread of its own, in order: a disk that is busy must not stop the threads that serve.

use std::{
    path::PathBuf,
    sync::mpsc::{Sender, channel},
    thread::JoinHandle,
};

use super::record;

/// What is done once a record is written.
type Then = Box<dyn FnOnce() + Send>;

struct Entry {
    dir: PathBuf,
    line: Vec<u8>,
    then: Option<Then>,
}

/// The writer. Dropping it waits until all is written.
pub(crate) struct Journal {
    entries: Option<Sender<Entry>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start() -> std::io::Result<Journal> {
        let (entries, queue) = channel::<Entry>();
        let work = move || {
            for Entry { dir, line, then } in queue {
                // what was removed meanwhile needs no record
                if let Err(error) = record::append(&dir, &line)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(dir = %dir.display(), %error, "a record could not be written");
                }
                if let Some(then) = then {
                    then();
                }
            }
        };
        let thread = std::thread::Builder::new().name("runtime-journal".into()).spawn(work)?;
        Ok(Journal { entries: Some(entries), thread: Some(thread) })
    }

    /// Appends a record soon, after those before it.
    pub fn write(&self, dir: PathBuf, record: &impl serde::Serialize, then: Option<Then>) {
        match (record::line(record), &self.entries) {
            (Ok(line), Some(entries)) => {
                // the thread ends only with this value
                let _ = entries.send(Entry { dir, line, then });
            }
            (Err(error), _) => tracing::warn!(%error, "a record could not be written"),
            (_, None) => {}
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.entries.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
