//! What is in memory: every key's current state, and the history since the floor, from which lists at an older revision
//! and watches from an older revision are answered. Pure: no clock, no I/O, no locks.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use crate::{Attributes, CommitError, Derived, Entry, Event, Expect, Key, Page, ReadError, Revision};

/// What an event costs in memory beside the values it holds.
const EVENT_OVERHEAD: usize = 256;

/// A step of a commit, checked for form, its attributes taken out.
#[derive(Debug)]
pub(crate) struct Step {
    pub key: Key,
    /// Without the revision's digits.
    pub value: Bytes,
    pub at: Option<usize>,
    pub deleted: bool,
    /// `None` when the step is replayed from the log: it was checked when it was written.
    pub expect: Option<Expect>,
    pub attributes: Attributes,
}

/// A commit as history keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub revision: Revision,
    /// When, in milliseconds since 1970.
    pub millis: u64,
    pub events: Arc<[Event]>,
}

impl Commit {
    /// Bytes that only history holds on to: what the commit replaced or removed.
    fn cost(&self) -> usize {
        let event = |e: &Event| {
            EVENT_OVERHEAD
                + e.previous.as_ref().map_or(0, |p| p.value.len())
                + if e.deleted { e.entry.value.len() } else { 0 }
        };
        self.events.iter().map(event).sum()
    }
}

/// Commits that are not visible yet, on top of a state; later ones see earlier ones.
pub(crate) struct Draft<'a> {
    state: &'a State,
    pending: HashMap<Key, Option<Arc<Entry>>>,
    pub commits: Vec<Commit>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        Draft { state, pending: HashMap::new(), commits: Vec::new() }
    }

    /// The revision the next commit will have.
    pub(crate) fn next(&self) -> Revision {
        Revision(self.commits.last().map_or(self.state.visible, |c| c.revision).0 + 1)
    }

    fn current(&self, key: &str) -> Option<&Arc<Entry>> {
        match self.pending.get(key) {
            Some(entry) => entry.as_ref(),
            None => self.state.get(key),
        }
    }

    /// Adds a commit if all its expectations hold. Keys within a commit are distinct.
    pub(crate) fn add(&mut self, steps: &[Step], millis: u64) -> Result<Revision, CommitError> {
        for step in steps {
            let now = self.current(&step.key);
            let holds = match step.expect {
                None => true,
                Some(Expect::Absent) => now.is_none(),
                Some(Expect::At(revision)) => now.is_some_and(|e| e.modified == revision),
            };
            if !holds {
                return Err(CommitError::Conflict { key: step.key.clone(), now: now.cloned() });
            }
        }
        let revision = self.next();
        let mut events = Vec::with_capacity(steps.len());
        for step in steps {
            let previous = self.current(&step.key).cloned();
            // One allocation holds the key for all its versions.
            let key = previous.as_ref().map_or(&step.key, |p| &p.key).clone();
            let entry = Arc::new(Entry {
                key: key.clone(),
                value: splice(&step.value, step.at, revision),
                created: previous.as_ref().map_or(revision, |p| p.created),
                modified: revision,
                attributes: step.attributes.clone(),
                derived: Derived::default(),
            });
            self.pending.insert(key, (!step.deleted).then(|| entry.clone()));
            events.push(Event { entry, previous, deleted: step.deleted });
        }
        self.commits.push(Commit { revision, millis, events: events.into() });
        Ok(revision)
    }
}

/// The value with the revision's digits in it, in an allocation of exactly its size.
pub(crate) fn splice(value: &[u8], at: Option<usize>, revision: Revision) -> Bytes {
    let Some((head, tail)) = at.and_then(|at| value.split_at_checked(at)) else {
        return Bytes::copy_from_slice(value);
    };
    let digits = revision.0.to_string();
    let mut spliced = Vec::with_capacity(value.len() + digits.len());
    spliced.extend_from_slice(head);
    spliced.extend_from_slice(digits.as_bytes());
    spliced.extend_from_slice(tail);
    spliced.into()
}

#[derive(Debug)]
enum Version {
    Live(Arc<Entry>),
    Gone(Revision),
}

impl Version {
    fn revision(&self) -> Revision {
        match self {
            Version::Live(entry) => entry.modified,
            Version::Gone(revision) => *revision,
        }
    }

    fn live(&self) -> Option<&Arc<Entry>> {
        match self {
            Version::Live(entry) => Some(entry),
            Version::Gone(_) => None,
        }
    }
}

/// A key's versions: the newest, and those before it that history still needs, oldest first.
#[derive(Debug)]
struct Versions {
    now: Version,
    older: Vec<Version>,
}

impl Versions {
    fn at(&self, revision: Revision) -> Option<&Arc<Entry>> {
        if self.now.revision() <= revision {
            return self.now.live();
        }
        self.older.iter().rev().find(|v| v.revision() <= revision)?.live()
    }

    /// Drops what no read at `floor` or later needs; says whether the key is needed at all.
    fn trim(&mut self, floor: Revision) -> bool {
        let now_is_base = self.now.revision() <= floor;
        let below = self.older.iter().take_while(|v| v.revision() <= floor).count();
        let keep = if now_is_base { self.older.len() } else { below.saturating_sub(1) };
        self.older.drain(..keep);
        if matches!(self.older.first(), Some(Version::Gone(gone)) if *gone <= floor) {
            self.older.remove(0);
        }
        if self.older.is_empty() {
            self.older = Vec::new();
        }
        !(now_is_base && matches!(self.now, Version::Gone(_)))
    }
}

/// The store's memory.
#[derive(Default)]
pub(crate) struct State {
    keys: BTreeMap<Key, Versions>,
    history: VecDeque<Commit>,
    history_bytes: usize,
    visible: Revision,
    floor: Revision,
    /// By path up to and including a slash: the last revision that touched a key below it.
    directories: HashMap<Box<str>, Revision>,
    /// The same for all directories that are empty and forgotten.
    vanished: Revision,
}

impl State {
    /// The state a snapshot holds, before any of its objects.
    pub(crate) fn at_snapshot(revision: Revision) -> State {
        State { visible: revision, floor: revision, vanished: revision, ..State::default() }
    }

    /// Adds an object of a snapshot.
    pub(crate) fn insert(&mut self, entry: Entry) {
        touch(&mut self.directories, &entry.key, entry.modified);
        let key = entry.key.clone();
        self.keys.insert(key, Versions { now: Version::Live(Arc::new(entry)), older: Vec::new() });
    }

    pub(crate) fn visible(&self) -> Revision {
        self.visible
    }

    /// The oldest revision that can be read.
    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    pub(crate) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// When the oldest commit of the history was made, in milliseconds since 1970.
    pub(crate) fn oldest_millis(&self) -> Option<u64> {
        self.history.front().map(|c| c.millis)
    }

    /// The floor that leaves at most `bytes` of history.
    pub(crate) fn floor_for_bytes(&self, bytes: usize) -> Revision {
        let mut left = self.history_bytes;
        let mut floor = self.floor;
        for commit in &self.history {
            if left <= bytes {
                break;
            }
            left = left.saturating_sub(commit.cost());
            floor = commit.revision;
        }
        floor
    }

    /// The commits after `after`, oldest first.
    pub(crate) fn commits_after(&self, after: Revision) -> impl Iterator<Item = &Commit> {
        let first = self.history.front().map_or(0, |c| c.revision.0);
        let skip = (after.0 + 1).saturating_sub(first).min(self.history.len() as u64);
        self.history.range(skip as usize..)
    }

    /// Makes a commit visible. Its revision is the next.
    pub(crate) fn apply(&mut self, commit: Commit) {
        for event in commit.events.iter() {
            let key = &event.entry.key;
            touch(&mut self.directories, key, commit.revision);
            let now = if event.deleted {
                Version::Gone(commit.revision)
            } else {
                Version::Live(event.entry.clone())
            };
            match self.keys.get_mut(key) {
                Some(versions) => versions.older.push(std::mem::replace(&mut versions.now, now)),
                None => drop(self.keys.insert(key.clone(), Versions { now, older: Vec::new() })),
            }
        }
        self.visible = commit.revision;
        self.history_bytes += commit.cost();
        self.history.push_back(commit);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.keys.get(key)?.now.live()
    }

    pub(crate) fn readable(&self, at: Revision) -> Result<(), ReadError> {
        if at > self.visible {
            return Err(ReadError::Future { asked: at, current: self.visible });
        }
        if at < self.floor {
            return Err(ReadError::Compacted { asked: at, oldest: self.floor });
        }
        Ok(())
    }

    pub(crate) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, ReadError> {
        let revision = at.unwrap_or(self.visible);
        self.readable(revision)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page { revision, ..Page::default() };
        let under = self.keys.range::<str, _>((start, Bound::Unbounded));
        for (_, versions) in under.take_while(|(key, _)| key.starts_with(prefix)) {
            let Some(entry) = versions.at(revision) else { continue };
            if limit != 0 && page.entries.len() == limit {
                page.remaining += 1;
            } else {
                page.entries.push(entry.clone());
            }
        }
        Ok(page)
    }

    pub(crate) fn last_change(&self, prefix: &str) -> Revision {
        match prefix.rfind('/') {
            Some(slash) => self.directories.get(&prefix[..=slash]).copied().unwrap_or(self.vanished),
            None => self.visible,
        }
    }

    /// From now on nothing before `floor` can be read. [`State::trim`] then frees the memory.
    pub(crate) fn raise_floor(&mut self, floor: Revision) {
        self.floor = self.floor.max(floor.min(self.visible));
    }

    /// Frees up to `budget` commits that the floor has left behind; says whether there are more.
    pub(crate) fn trim(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            if self.history.front().is_none_or(|c| c.revision > self.floor) {
                return false;
            }
            let Some(commit) = self.history.pop_front() else { return false };
            self.history_bytes = self.history_bytes.saturating_sub(commit.cost());
            for event in commit.events.iter() {
                let key = &event.entry.key;
                if self.keys.get_mut(key).is_some_and(|versions| !versions.trim(self.floor)) {
                    self.keys.remove(key);
                    self.forget_directories(key);
                }
            }
        }
        true
    }

    fn forget_directories(&mut self, key: &str) {
        for directory in directories(key) {
            let mut under = self.keys.range::<str, _>((Bound::Included(directory), Bound::Unbounded));
            if under.next().is_some_and(|(key, _)| key.starts_with(directory)) {
                continue;
            }
            if let Some(revision) = self.directories.remove(directory) {
                self.vanished = self.vanished.max(revision);
            }
        }
    }
}

fn directories(key: &str) -> impl Iterator<Item = &str> {
    key.match_indices('/').map(|(slash, _)| &key[..=slash])
}

fn touch(last: &mut HashMap<Box<str>, Revision>, key: &str, revision: Revision) {
    for directory in directories(key) {
        match last.get_mut(directory) {
            Some(known) => *known = (*known).max(revision),
            None => drop(last.insert(directory.into(), revision)),
        }
    }
}
