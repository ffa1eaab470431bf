//! How many seats a request takes: a list as many as its bytes in memory are worth, everything else one.
//!
//! Source: `util/flowcontrol/request/list_work_estimator.go`, by size; lists are always read from memory here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::server::{Call, Inner};

/// One seat, in bytes.
const SEAT: u64 = 100_000;
/// A list is streamed in pieces: more than this is never held at once.
const STREAMED: u64 = 1_000_000;
/// So many objects tell the size of all.
const SAMPLE: usize = 64;
/// How long a count is good for, even if something changed.
const FRESH: Duration = Duration::from_secs(1);

/// Objects below a prefix.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub objects: u64,
    /// The mean size of an object, bytes.
    pub size: u64,
}

/// Counts of the last moment, by prefix.
#[derive(Default)]
pub(crate) struct Counts(Mutex<HashMap<String, (Instant, store::Revision, Count)>>);

impl Counts {
    /// How many objects lie below a prefix that is one of the catalogue's.
    pub fn of(&self, inner: &Inner, prefix: &str) -> Count {
        let changed = inner.config.store.last_change(prefix);
        if let Some((at, seen, count)) = self.0.lock().get(prefix)
            && (*seen == changed || at.elapsed() < FRESH)
        {
            return *count;
        }
        // Not under the lock: others may count something else meanwhile.
        let Ok(page) = inner.config.store.list(prefix, None, SAMPLE, None) else { return Count::default() };
        let sample = page.entries.len() as u64;
        let bytes: u64 = page.entries.iter().map(|e| e.value.len() as u64).sum();
        let count =
            Count { objects: sample + page.remaining as u64, size: bytes.checked_div(sample).unwrap_or(0) };
        self.0.lock().insert(prefix.to_owned(), (Instant::now(), changed, count));
        count
    }
}

/// The seats of a request, at most `widest`.
pub fn seats(inner: &Inner, call: &Call, widest: u32) -> u32 {
    let info = &call.info;
    let lists = match info.verb {
        "list" => true,
        // A watch that wants what is there first begins with a list.
        "watch" => {
            call.query.flag("sendInitialEvents") || matches!(call.query.text("resourceVersion"), "" | "0")
        }
        _ => false,
    };
    if !lists || !info.name.is_empty() {
        return 1;
    }
    let Some(served) = inner.served(&info.group, &info.version, &info.resource) else { return 1 };
    let count = inner.flow.counts.of(inner, &served.prefix);
    let limit = call.query.integer("limit").ok().flatten().and_then(|n| u64::try_from(n).ok());
    of(count, limit.filter(|n| *n > 0), widest)
}

fn of(count: Count, limit: Option<u64>, widest: u32) -> u32 {
    let objects = limit.map_or(count.objects, |limit| limit.min(count.objects));
    let seats = objects.saturating_mul(count.size).min(STREAMED).div_ceil(SEAT);
    u32::try_from(seats).unwrap_or(u32::MAX).clamp(1, widest.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_as_wide_as_what_it_holds() {
        let pods = Count { objects: 10_000, size: 2_000 };
        assert_eq!(of(pods, None, 60), 10);
        assert_eq!(of(pods, Some(100), 60), 2);
        assert_eq!(of(pods, Some(10), 60), 1);
        assert_eq!(of(pods, None, 4), 4);
        assert_eq!(of(Count::default(), None, 4), 1);
    }
}
