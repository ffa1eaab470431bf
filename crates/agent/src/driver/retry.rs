//! Trying again what has to succeed in the end.

use std::{fmt::Display, future::Future, time::Duration};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);

/// How long to wait after this many failures in a row: nothing, then 0.2 s to 10 s.
pub(crate) fn wait(failures: u32) -> Duration {
    match failures.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST.saturating_mul(1 << doublings.min(6)).min(LONGEST),
    }
}

/// Waits that double from 0.2 s to 10 s.
pub(crate) struct Waits(Duration);

impl Waits {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// Waits; the next wait is twice as long.
    pub(crate) async fn pause(&mut self) {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        tokio::time::sleep(wait).await;
    }

    /// Starts over: something worked.
    pub(crate) fn reset(&mut self) {
        self.0 = FIRST;
    }
}

/// Does `attempt` until it succeeds; what goes wrong meanwhile is logged.
pub(crate) async fn persist<T, E: Display, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, E>>,
{
    let mut waits = Waits::new();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%error, "{what}, trying again"),
        }
        waits.pause().await;
    }
}
