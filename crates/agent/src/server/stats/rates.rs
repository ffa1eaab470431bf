//! How fast counters rise: from two looks at them, taken when somebody asks.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Nanoseconds between the two looks at least; nearer ones would mostly show the clock's grain.
const APART: i64 = 1_000_000_000;

/// Nanoseconds since 1970 and the counter then, and how fast it rose to it.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: i64,
    count: u64,
    rate: Option<u64>,
    looked: Instant,
}

/// The last looks.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, Look>>);

impl Rates {
    /// The rise a second of the counter `key`, which is `count` at `at`; `None` at the first look, or when it began anew.
    pub(super) fn per_second(&self, key: &str, at: i64, count: u64) -> Option<u64> {
        let mut looks = self.0.lock();
        let Some(last) = looks.get_mut(key).filter(|last| last.count <= count && last.at <= at) else {
            looks.insert(key.to_owned(), Look { at, count, rate: None, looked: Instant::now() });
            return None;
        };
        let apart = at - last.at;
        if apart < APART {
            return last.rate;
        }
        let rate = u128::from(count - last.count) * 1_000_000_000 / apart.unsigned_abs() as u128;
        *last = Look { at, count, rate: u64::try_from(rate).ok(), looked: Instant::now() };
        last.rate
    }

    /// Forgets counters that nobody has looked at for so long.
    pub(super) fn forget(&self, after: Duration) {
        self.0.lock().retain(|_, look| look.looked.elapsed() < after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn two_looks_give_a_rate() {
        let rates = Rates::default();
        assert_eq!(rates.per_second("a", 10 * SECOND, 1000), None);
        assert_eq!(rates.per_second("a", 12 * SECOND, 5000), Some(2000));
        // too near to tell: what was told last
        assert_eq!(rates.per_second("a", 12 * SECOND + 1, 9_000_000), Some(2000));
        assert_eq!(rates.per_second("a", 13 * SECOND, 5000), Some(0));
        assert_eq!(rates.per_second("b", 13 * SECOND, 5000), None);
    }

    #[test]
    fn a_counter_that_begins_anew_has_no_rate() {
        let rates = Rates::default();
        rates.per_second("a", 10 * SECOND, 1000);
        assert_eq!(rates.per_second("a", 12 * SECOND, 10), None);
        assert_eq!(rates.per_second("a", 13 * SECOND, 20), Some(10));
    }

    #[test]
    fn counters_that_have_gone_are_forgotten() {
        let rates = Rates::default();
        rates.per_second("a", SECOND, 1);
        rates.forget(Duration::from_secs(60));
        assert_eq!(rates.0.lock().len(), 1);
        rates.forget(Duration::ZERO);
        assert!(rates.0.lock().is_empty());
    }
}
