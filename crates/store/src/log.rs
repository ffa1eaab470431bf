//! The log on disk: segments named by the first revision they may hold, and at most one snapshot that stands for all
//! before it.
//!
//! Every file gets its final name only when its beginning is durable (write, sync, rename, sync of the directory).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Entry, Revision,
    files::{Files, LogFile},
    format::{Frame, HEADER, Header, Kind},
};

/// A segment that is no longer written to.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub path: PathBuf,
    /// The last revision in it.
    pub last: Revision,
    pub bytes: u64,
}

/// The snapshot the segments build on.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub path: PathBuf,
    pub revision: Revision,
    pub bytes: u64,
}

/// The files of an open store, the last of them being written.
pub(crate) struct Log {
    pub dir: PathBuf,
    pub files: Arc<dyn Files>,
    pub closed: Vec<Segment>,
    pub snapshot: Option<Snapshot>,
    pub active: Active,
}

/// The segment that is written to.
pub(crate) struct Active {
    pub path: PathBuf,
    pub file: Box<dyn LogFile>,
    pub salt: u32,
    /// Bytes that are sound and durable.
    pub len: u64,
    /// A write failed: bytes behind `len` have to be cut off before the next one.
    pub damaged: bool,
    /// The file's name is not known to be durable yet.
    pub unnamed: bool,
}

pub(crate) fn segment_path(dir: &Path, first: Revision) -> PathBuf {
    dir.join(format!("{:020}.log", first.0))
}

pub(crate) fn snapshot_path(dir: &Path, revision: Revision) -> PathBuf {
    dir.join(format!("{:020}.snapshot", revision.0))
}

/// Starts a segment whose first revision will be `first`.
pub(crate) fn create_segment(files: &dyn Files, dir: &Path, first: Revision) -> io::Result<Active> {
    let path = segment_path(dir, first);
    let temporary = path.with_extension("log.tmp");
    let salt = salt();
    let mut file = files.create(&temporary)?;
    file.append(&Header { kind: Kind::Log, revision: first.0, salt }.encode())?;
    file.sync()?;
    files.rename(&temporary, &path)?;
    Ok(Active { path, file, salt, len: HEADER as u64, damaged: false, unnamed: true })
}

impl Log {
    /// Makes a frame durable. After an error nothing of it is in the log, unless even cutting it off failed; then that
    /// is tried again before anything else is written.
    pub(crate) fn append(&mut self, frame: &mut Frame) -> io::Result<()> {
        if self.active.damaged {
            self.active.repair()?;
        }
        if self.active.unnamed {
            self.files.sync_dir(&self.dir)?;
            self.active.unnamed = false;
        }
        let bytes = frame.seal(self.active.salt);
        let written = self.active.file.append(bytes).and_then(|()| self.active.file.sync());
        if let Err(error) = written {
            self.active.damaged = true;
            if let Err(error) = self.active.repair() {
                tracing::error!(file = %self.active.path.display(), %error, "cannot cut a failed write off the log");
            }
            return Err(error);
        }
        self.active.len += bytes.len() as u64;
        Ok(())
    }

    /// Goes on in a new segment; `last` is the last revision in the log so far. After an error the old one goes on.
    pub(crate) fn rotate(&mut self, last: Revision) -> io::Result<()> {
        let next = create_segment(&*self.files, &self.dir, Revision(last.0 + 1))?;
        let old = std::mem::replace(&mut self.active, next);
        self.closed.push(Segment { path: old.path, last, bytes: old.len });
        Ok(())
    }

    /// Bytes of the segments that a snapshot at `floor` would replace.
    pub(crate) fn replaceable(&self, floor: Revision) -> u64 {
        self.closed.iter().filter(|s| s.last <= floor).map(|s| s.bytes).sum()
    }
}

impl Active {
    fn repair(&mut self) -> io::Result<()> {
        self.file.truncate(self.len)?;
        self.damaged = false;
        Ok(())
    }
}

/// How many bytes of objects a snapshot's frame takes.
const SNAPSHOT_FRAME: usize = 1 << 20;

/// Writes the state at `revision` and then removes the files in `replaced`. A crash between any two steps leaves a log
/// that opens to the same state.
pub(crate) fn write_snapshot(
    files: &dyn Files,
    dir: &Path,
    revision: Revision,
    entries: &[Arc<Entry>],
    replaced: &[PathBuf],
) -> io::Result<Snapshot> {
    let path = snapshot_path(dir, revision);
    let temporary = path.with_extension("snapshot.tmp");
    let salt = salt();
    let mut file = files.create(&temporary)?;
    let mut bytes = HEADER as u64;
    file.append(&Header { kind: Kind::Snapshot, revision: revision.0, salt }.encode())?;
    let mut frame = Frame::default();
    frame.clear();
    for entry in entries {
        frame.object(entry.created.0, entry.modified.0, &entry.key, &entry.value);
        if frame.len() >= SNAPSHOT_FRAME {
            bytes += frame.len() as u64;
            file.append(frame.seal(salt))?;
            frame.clear();
        }
    }
    frame.end(entries.len() as u64);
    bytes += frame.len() as u64;
    file.append(frame.seal(salt))?;
    file.sync()?;
    files.rename(&temporary, &path)?;
    files.sync_dir(dir)?;
    for old in replaced {
        match files.remove(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    files.sync_dir(dir)?;
    Ok(Snapshot { path, revision, bytes })
}

fn salt() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) as u32
}
