//! Events as they were written last: watches of one resource in one form share their bytes.
//!
//! A change wakes all of its watchers at once, so a few events suffice; a watcher that is far behind writes its own.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use store::Entry;

use crate::negotiate::Media;

/// At most so many events …
const MOST: usize = 64;
/// … of at most so many bytes together are kept.
const MOST_BYTES: usize = 1 << 20;

/// The events of one resource.
#[derive(Debug, Default)]
pub struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    written: VecDeque<Written>,
    bytes: usize,
}

#[derive(Debug)]
struct Written {
    entry: Arc<Entry>,
    kind: &'static str,
    media: Media,
    bytes: Bytes,
}

impl Recent {
    /// The event `kind` (`ADDED`, …) about `entry` in the form `media`, as it was written before, else as `write` writes it.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn get<E>(
        &self,
        kind: &'static str,
        entry: &Arc<Entry>,
        media: Media,
        write: impl FnOnce() -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let is = |w: &&Written| Arc::ptr_eq(&w.entry, entry) && w.kind == kind && w.media == media;
        if let Some(found) = self.0.lock().written.iter().rev().find(is) {
            return Ok(found.bytes.clone());
        }
        let bytes = write()?;
        let mut kept = self.0.lock();
        kept.bytes += bytes.len();
        kept.written.push_back(Written { entry: entry.clone(), kind, media, bytes: bytes.clone() });
        while kept.written.len() > MOST || kept.bytes > MOST_BYTES {
            let Some(oldest) = kept.written.pop_front() else { break };
            kept.bytes -= oldest.bytes.len();
        }
        Ok(bytes)
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        *self.0.lock() = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::negotiate::Form;

    fn entry(key: &str) -> Arc<Entry> {
        Arc::new(Entry {
            key: key.into(),
            value: Bytes::new(),
            created: store::Revision(1),
            modified: store::Revision(1),
            attributes: store::Attributes::default(),
            derived: store::Derived::default(),
        })
    }

    fn text(text: impl Into<Bytes>) -> impl FnOnce() -> Result<Bytes, Infallible> {
        move || Ok(text.into())
    }

    #[test]
    fn an_event_is_written_once_a_form() {
        let (recent, entry, json) = (Recent::default(), entry("a"), Media::default());
        let protobuf = Media { form: Form::Protobuf, ..json };
        assert_eq!(recent.get("ADDED", &entry, json, text("1")).unwrap(), "1");
        assert_eq!(recent.get("ADDED", &entry, json, text("2")).unwrap(), "1");
        assert_eq!(recent.get("ADDED", &entry, protobuf, text("3")).unwrap(), "3");
        assert_eq!(recent.get("DELETED", &entry, json, text("4")).unwrap(), "4");
    }

    #[test]
    fn only_the_last_ones_are_kept() {
        let (recent, media) = (Recent::default(), Media::default());
        let entries: Vec<_> = (0..=MOST).map(|i| entry(&i.to_string())).collect();
        for entry in &entries {
            recent.get("ADDED", entry, media, text("old")).unwrap();
        }
        assert_eq!(recent.get("ADDED", &entries[0], media, text("new")).unwrap(), "new");
        assert_eq!(recent.get("ADDED", &entries[MOST], media, text("new")).unwrap(), "old");
        let large = entry("large");
        recent.get("ADDED", &large, media, text(vec![0; MOST_BYTES + 1])).unwrap();
        assert_eq!(recent.get("ADDED", &large, media, text("new")).unwrap(), "new");
    }
}
