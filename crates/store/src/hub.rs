//! The one way events go out. Watchers of the same prefix share one queue of events, which is trimmed with the history:
//! a slow watcher costs nothing, reads on from where it is, and learns that it was too slow when what it has not seen
//! yet is compacted away.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::{
    Event, ReadError, Revision, Watch, WatchItem,
    state::{Commit, State},
};

#[derive(Default)]
pub(crate) struct Hub {
    topics: Mutex<Topics>,
    /// Every event up to here is in the queues.
    published: AtomicU64,
}

#[derive(Default)]
struct Topics {
    by_prefix: HashMap<Arc<str>, Arc<Topic>>,
    /// How many topics have a prefix of this length: a key is looked up by its beginnings of these lengths only.
    lengths: BTreeMap<usize, usize>,
}

/// A watched prefix.
struct Topic {
    prefix: Arc<str>,
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Default)]
struct Queue {
    /// The events under the prefix, one item a commit.
    items: VecDeque<(Revision, Arc<[Event]>)>,
    /// `items` begins behind this revision …
    since: Revision,
    /// … and has everything up to this one, and what was published after it.
    until: Revision,
    /// The newest item that was trimmed off.
    lost: Revision,
    watchers: usize,
    /// Has news of the batch that is being published.
    woken: bool,
}

impl Topics {
    fn of(&self, key: &str) -> impl Iterator<Item = &Arc<Topic>> {
        let beginnings = self.lengths.range(..=key.len()).filter_map(|(len, _)| key.get(..*len));
        beginnings.filter_map(|prefix| self.by_prefix.get(prefix))
    }
}

impl Hub {
    pub(crate) fn watch(
        self: &Arc<Self>,
        state: &RwLock<State>,
        prefix: &str,
        after: Revision,
    ) -> Result<Watcher, ReadError> {
        // Lock order everywhere: topics, queue, state. While we hold the topics nothing is published.
        let mut topics = self.topics.lock();
        let state = state.read();
        state.readable(after)?;
        let topic = match topics.by_prefix.get(prefix) {
            Some(topic) => topic.clone(),
            None => {
                let queue = Queue { since: state.visible(), until: state.visible(), ..Queue::default() };
                let topic =
                    Arc::new(Topic { prefix: prefix.into(), queue: Mutex::new(queue), news: Notify::new() });
                topics.by_prefix.insert(topic.prefix.clone(), topic.clone());
                *topics.lengths.entry(prefix.len()).or_default() += 1;
                topic
            }
        };
        let mut queue = topic.queue.lock();
        queue.watchers += 1;
        if after < queue.since {
            let since = queue.since;
            let missing = state.commits_after(after).take_while(|c| c.revision <= since);
            let missing: Vec<_> =
                missing.filter_map(|c| Some((c.revision, under(prefix, &c.events)?))).collect();
            missing.into_iter().rev().for_each(|item| queue.items.push_front(item));
            queue.since = after;
        }
        drop(queue);
        Ok(Watcher { hub: self.clone(), topic, cursor: after })
    }

    /// Hands out commits that have just become visible.
    pub(crate) fn publish(&self, commits: &[Commit]) {
        let Some(last) = commits.last() else { return };
        let topics = self.topics.lock();
        let mut woken: Vec<Arc<Topic>> = Vec::new();
        for commit in commits {
            for topic in commit.events.iter().flat_map(|e| topics.of(&e.entry.key)) {
                let mut queue = topic.queue.lock();
                // Already there when the topic was made between becoming visible and now, or when an earlier event of
                // this commit has put all of them in.
                if commit.revision <= queue.until {
                    continue;
                }
                let Some(events) = under(&topic.prefix, &commit.events) else { continue };
                queue.items.push_back((commit.revision, events));
                queue.until = commit.revision;
                if !std::mem::replace(&mut queue.woken, true) {
                    woken.push(topic.clone());
                }
            }
        }
        self.published.store(last.revision.0, Ordering::Release);
        drop(topics);
        for topic in woken {
            topic.queue.lock().woken = false;
            topic.news.notify_waiters();
        }
    }

    /// Sets the revision the store begins with.
    pub(crate) fn begin(&self, revision: Revision) {
        self.published.store(revision.0, Ordering::Release);
    }

    /// Forgets the events up to `floor`.
    pub(crate) fn trim(&self, floor: Revision) {
        let topics: Vec<_> = self.topics.lock().by_prefix.values().cloned().collect();
        for topic in topics {
            let mut queue = topic.queue.lock();
            let gone = queue.items.partition_point(|(revision, _)| *revision <= floor);
            if gone > 0 {
                queue.lost = queue.items[gone - 1].0;
                queue.items.drain(..gone);
                queue.items.shrink_to(64);
            }
            queue.since = queue.since.max(floor);
        }
    }
}

/// The events under a prefix, shared with the commit where that is all of them.
fn under(prefix: &str, events: &Arc<[Event]>) -> Option<Arc<[Event]>> {
    let hits = events.iter().filter(|e| e.entry.key.starts_with(prefix)).count();
    match hits {
        0 => None,
        all if all == events.len() => Some(events.clone()),
        _ => Some(events.iter().filter(|e| e.entry.key.starts_with(prefix)).cloned().collect()),
    }
}

/// A watch on the embedded engine.
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    topic: Arc<Topic>,
    cursor: Revision,
}

impl Watcher {
    fn take(&mut self) -> Result<Option<WatchItem>, ReadError> {
        let queue = self.topic.queue.lock();
        if self.cursor < queue.lost {
            return Err(ReadError::Compacted { asked: self.cursor, oldest: queue.since });
        }
        let next = queue.items.partition_point(|(revision, _)| *revision <= self.cursor);
        Ok(queue.items.get(next).map(|(revision, events)| {
            self.cursor = *revision;
            WatchItem::Events(events.clone())
        }))
    }
}

#[async_trait]
impl Watch for Watcher {
    async fn next(&mut self) -> Result<WatchItem, ReadError> {
        loop {
            if let Some(item) = self.take()? {
                return Ok(item);
            }
            let topic = self.topic.clone();
            let mut news = std::pin::pin!(topic.news.notified());
            // Listening before looking, so that what comes between the two is not missed.
            news.as_mut().enable();
            if let Some(item) = self.take()? {
                return Ok(item);
            }
            news.await;
        }
    }

    fn ready(&mut self) -> Option<Arc<[Event]>> {
        match self.take() {
            Ok(Some(WatchItem::Events(events))) => Some(events),
            Ok(Some(WatchItem::Progress(_)) | None) | Err(_) => None,
        }
    }

    fn progress(&self) -> Revision {
        // Read before the queue: everything up to it is in the queue then.
        let published = Revision(self.hub.published.load(Ordering::Acquire));
        let queue = self.topic.queue.lock();
        let seen_all = queue.items.back().is_none_or(|(revision, _)| *revision <= self.cursor);
        if seen_all && queue.lost <= self.cursor { self.cursor.max(published) } else { self.cursor }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut topics = self.hub.topics.lock();
        let mut queue = self.topic.queue.lock();
        queue.watchers -= 1;
        if queue.watchers == 0 {
            topics.by_prefix.remove(&self.topic.prefix);
            let len = self.topic.prefix.len();
            if let Some(count) = topics.lengths.get_mut(&len) {
                *count -= 1;
                if *count == 0 {
                    topics.lengths.remove(&len);
                }
            }
        }
    }
}
