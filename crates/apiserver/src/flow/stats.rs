//! What is counted of one flow schema in one level.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the waiting times, in seconds.
pub const BOUNDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// Why requests are refused.
pub const REASONS: [&str; 4] = ["queue-full", "concurrency-limit", "time-out", "cancelled"];

/// Counters; they are read one by one, so a page may see one of them a moment before another.
#[derive(Default)]
pub struct Stats {
    pub dispatched: AtomicU64,
    pub executing: AtomicI64,
    pub executing_seats: AtomicI64,
    pub waiting: AtomicI64,
    pub rejected: [AtomicU64; REASONS.len()],
    /// Of those that began, then of those that did not.
    pub waits: [Waits; 2],
}

/// A histogram.
#[derive(Default)]
pub struct Waits {
    pub buckets: [AtomicU64; BOUNDS.len()],
    pub count: AtomicU64,
    pub micros: AtomicU64,
}

impl Stats {
    pub fn reject(&self, reason: &str) {
        if let Some(index) = REASONS.iter().position(|known| *known == reason) {
            self.rejected[index].fetch_add(1, Relaxed);
        }
    }

    pub fn waited(&self, executed: bool, took: Duration) {
        let waits = &self.waits[usize::from(!executed)];
        let seconds = took.as_secs_f64();
        // Each value is in one bucket here; the page adds them up.
        if let Some(index) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            waits.buckets[index].fetch_add(1, Relaxed);
        }
        waits.count.fetch_add(1, Relaxed);
        waits.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }
}
