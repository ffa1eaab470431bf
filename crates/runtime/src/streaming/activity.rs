//! Ends a stream that nobody uses.

use std::time::Duration;

use tokio::{sync::watch, time::Instant};

/// Upstream's `streamingConnectionIdleTimeout`.
pub(super) const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

/// When something last went over a connection.
#[derive(Clone)]
pub(super) struct Activity(watch::Sender<Instant>);

impl Activity {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Instant::now()))
    }

    /// Something went over the connection.
    pub(super) fn note(&self) {
        self.0.send_replace(Instant::now());
    }

    /// Resolves when nothing has gone over the connection for `limit`.
    pub(super) async fn ceased(&self, limit: Duration) {
        loop {
            let end = *self.0.borrow() + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_from_its_last_use_on() {
        let activity = Activity::new();
        let limit = Duration::from_millis(20);
        let start = Instant::now();
        tokio::time::sleep(limit / 2).await;
        activity.note();
        let noted = Instant::now();
        activity.ceased(limit).await;
        assert!(start.elapsed() >= limit * 3 / 2 && noted.elapsed() >= limit - Duration::from_millis(1));
    }
}
