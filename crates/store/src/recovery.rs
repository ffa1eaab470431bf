//! Opening: from the files back to the state, and nothing that was acknowledged may be missing.
//!
//! What a crash may leave behind is mended: temporary files, files that a snapshot has replaced, a torn frame at the
//! very end. Anything else that does not fit is damage; it is reported with its place and left untouched.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Entry, Extract, Revision,
    embedded::OpenError,
    files::Files,
    format::{self, FRAME, HEADER, Header, HeaderError, Kind, Record, VERSION},
    log::{Active, Log, Segment, Snapshot, create_segment, segment_path, snapshot_path},
    state::{Draft, State, Step},
};

fn at<'a>(path: &'a Path) -> impl Fn(io::Error) -> OpenError + 'a {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

fn corrupt(file: &Path, offset: u64, what: impl Into<String>) -> OpenError {
    OpenError::Corrupt { file: file.to_owned(), offset, what: what.into() }
}

/// Reads a store, or begins an empty one.
pub(crate) fn recover(
    dir: &Path,
    files: Arc<dyn Files>,
    extract: &Extract,
) -> Result<(Log, State), OpenError> {
    let (mut segments, mut snapshots) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let number = |suffix| name.strip_suffix(suffix).and_then(|n| n.parse().ok()).map(Revision);
        if name.ends_with(".log.tmp") || name.ends_with(".snapshot.tmp") {
            files.remove(&path).map_err(at(&path))?;
        } else if let Some(first) = number(".log") {
            segments.push(first);
        } else if let Some(revision) = number(".snapshot") {
            snapshots.push(revision);
        }
    }
    segments.sort();
    snapshots.sort();

    let mut state = State::default();
    let mut snapshot = None;
    if let Some(newest) = snapshots.pop() {
        let path = snapshot_path(dir, newest);
        state = read_snapshot(&path, newest, extract)?;
        let bytes = fs::metadata(&path).map_err(at(&path))?.len();
        snapshot = Some(Snapshot { path, revision: newest, bytes });
    }
    let base = state.visible();
    // A segment ends where the next begins; what the snapshot holds whole is left over from a crash.
    let replaced = segments.windows(2).take_while(|pair| pair[1].0 <= base.0 + 1).count();
    let left_over: Vec<PathBuf> = (snapshots.into_iter().map(|s| snapshot_path(dir, s)))
        .chain(segments.drain(..replaced).map(|s| segment_path(dir, s)))
        .collect();

    let mut closed = Vec::new();
    let mut active = None;
    for (index, first) in segments.iter().enumerate() {
        let path = segment_path(dir, *first);
        if first.0 > state.visible().0 + 1 {
            let expected = state.visible().0 + 1;
            return Err(corrupt(&path, 0, format!("revisions {expected} to {} are missing", first.0 - 1)));
        }
        let is_last = index + 1 == segments.len();
        let read = read_segment(&path, *first, is_last, base, &mut state, extract)?;
        if is_last {
            let mut file = files.open(&path).map_err(at(&path))?;
            // Also makes durable what a killed process had written but not synced: it becomes visible now.
            file.truncate(read.sound).map_err(at(&path))?;
            let (salt, len) = (read.salt, read.sound);
            active = Some(Active { path, file, salt, len, damaged: false, unnamed: true });
        } else {
            closed.push(Segment { path, last: state.visible(), bytes: read.sound });
        }
    }
    for path in left_over {
        files.remove(&path).map_err(at(&path))?;
    }
    let active = match active {
        Some(active) => active,
        None => create_segment(&*files, dir, Revision(state.visible().0 + 1)).map_err(at(dir))?,
    };
    files.sync_dir(dir).map_err(at(dir))?;
    Ok((
        Log { dir: dir.to_owned(), files, closed, snapshot, active: Active { unnamed: false, ..active } },
        state,
    ))
}

/// The sound frames of a file, one after the other.
struct Frames {
    path: PathBuf,
    input: BufReader<File>,
    header: Header,
    offset: u64,
    end: u64,
}

impl Frames {
    fn open(path: &Path, kind: Kind, revision: Revision) -> Result<Frames, OpenError> {
        let file = File::open(path).map_err(at(path))?;
        let end = file.metadata().map_err(at(path))?.len();
        let mut input = BufReader::with_capacity(1 << 17, file);
        let mut head = Vec::with_capacity(HEADER);
        input.by_ref().take(HEADER as u64).read_to_end(&mut head).map_err(at(path))?;
        let header = Header::decode(&head).map_err(|error| match error {
            HeaderError::Newer(found) => {
                OpenError::Newer { file: path.to_owned(), found, supported: VERSION }
            }
            HeaderError::Damaged => corrupt(path, 0, "this is not a header of a store"),
        })?;
        if header.kind != kind || header.revision != revision.0 {
            return Err(corrupt(path, 0, "the header does not fit the file's name"));
        }
        Ok(Frames { path: path.to_owned(), input, header, offset: HEADER as u64, end })
    }

    /// The next payload and its offset; `None` at the end or, with `offset` short of `end`, where a frame is not sound.
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, OpenError> {
        let left = self.end - self.offset;
        if left < FRAME as u64 {
            return Ok(None);
        }
        let mut bytes = vec![0; FRAME];
        self.input.read_exact(&mut bytes).map_err(at(&self.path))?;
        let Some(len) = format::frame_length(&bytes).filter(|len| (FRAME + len) as u64 <= left) else {
            return Ok(None);
        };
        bytes.resize(FRAME + len, 0);
        self.input.read_exact(&mut bytes[FRAME..]).map_err(at(&self.path))?;
        if format::frame(&bytes, self.header.salt).is_none() {
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        bytes.drain(..FRAME);
        Ok(Some((offset, bytes)))
    }

    /// Whether a sound frame lies behind the place where reading stopped.
    fn more_behind(&mut self) -> Result<bool, OpenError> {
        let mut rest = Vec::new();
        self.input.seek(SeekFrom::Start(self.offset + 1)).map_err(at(&self.path))?;
        self.input.read_to_end(&mut rest).map_err(at(&self.path))?;
        Ok(format::holds_frame(&rest, self.header.salt))
    }
}

fn read_snapshot(path: &Path, revision: Revision, extract: &Extract) -> Result<State, OpenError> {
    let mut frames = Frames::open(path, Kind::Snapshot, revision)?;
    let mut state = State::at_snapshot(revision);
    let mut count = 0;
    while let Some((offset, payload)) = frames.next()? {
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            match format::record(&mut rest) {
                Some(Record::Object { created, modified, key, value }) => {
                    count += 1;
                    state.insert(Entry {
                        key: key.into(),
                        value: bytes::Bytes::copy_from_slice(value),
                        created: Revision(created),
                        modified: Revision(modified),
                        attributes: extract(key, value),
                        derived: crate::Derived::default(),
                    });
                }
                Some(Record::End(expected)) if expected == count && frames.offset == frames.end => {
                    return Ok(state);
                }
                _ => return Err(corrupt(path, offset, "a record of the snapshot makes no sense")),
            }
        }
    }
    Err(corrupt(path, frames.offset, "a frame of the snapshot is damaged"))
}

struct ReadSegment {
    salt: u32,
    /// Where the sound part ends.
    sound: u64,
}

fn read_segment(
    path: &Path,
    first: Revision,
    is_last: bool,
    base: Revision,
    state: &mut State,
    extract: &Extract,
) -> Result<ReadSegment, OpenError> {
    let mut frames = Frames::open(path, Kind::Log, first)?;
    while let Some((offset, payload)) = frames.next()? {
        let mut rest = payload.as_slice();
        while !rest.is_empty() {
            let record = format::record(&mut rest);
            let record = record.ok_or_else(|| corrupt(path, offset, "a record makes no sense"))?;
            replay(record, base, state, extract).map_err(|what| corrupt(path, offset, what))?;
        }
    }
    if frames.offset < frames.end {
        if !is_last || frames.more_behind()? {
            return Err(corrupt(path, frames.offset, "a frame is damaged, and more of the log follows it"));
        }
        let cut = frames.end - frames.offset;
        tracing::warn!(file = %path.display(), offset = frames.offset, bytes = cut,
            "the log ends in a torn write that was never acknowledged; it is cut off");
    }
    Ok(ReadSegment { salt: frames.header.salt, sound: frames.offset })
}

fn replay(record: Record<'_>, base: Revision, state: &mut State, extract: &Extract) -> Result<(), String> {
    match record {
        Record::Floor(revision) => {
            state.raise_floor(Revision(revision));
            state.trim(usize::MAX);
        }
        // The snapshot has it.
        Record::Commit { revision, .. } if revision <= base.0 => {}
        Record::Commit { revision, millis, changes } => {
            let steps: Vec<Step> = changes
                .into_iter()
                .map(|c| Step {
                    key: c.key.into(),
                    value: bytes::Bytes::copy_from_slice(c.value),
                    at: c.at,
                    deleted: c.deleted,
                    expect: None,
                    attributes: extract(c.key, c.value),
                })
                .collect();
            let mut draft = Draft::new(state);
            if draft.next().0 != revision {
                return Err(format!("revision {revision} where {} belongs", draft.next()));
            }
            draft.add(&steps, millis).map_err(|error| error.to_string())?;
            for commit in draft.commits {
                state.apply(commit);
            }
        }
        Record::Object { .. } | Record::End(_) => return Err("a snapshot's record in a log".to_owned()),
    }
    Ok(())
}
