//! How long to wait before trying again what keeps failing.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Waits that double from `initial` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Curve {
    /// The first wait.
    pub initial: SignedDuration,
    /// No wait is longer.
    pub max: SignedDuration,
}

/// The waits of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Between restarts of a container that ends: 10 s to 5 min upstream.
    pub crash: Curve,
    /// Between failed pulls of an image: 10 s to 5 min upstream.
    pub pull: Curve,
    /// Between attempts to make a sandbox, mount volumes or create a container.
    pub retry: Curve,
}

impl Default for Policy {
    fn default() -> Self {
        let curve = |initial, max| Curve {
            initial: SignedDuration::from_secs(initial),
            max: SignedDuration::from_secs(max),
        };
        Self { crash: curve(10, 300), pull: curve(10, 300), retry: curve(1, 10) }
    }
}

/// Where one thing stands on its curve.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backoff {
    wait: Option<(SignedDuration, Timestamp)>,
}

impl Backoff {
    /// The wait that the next attempt has to keep after the last end, zero for the first.
    pub fn wait(&self) -> SignedDuration {
        self.wait.map_or(SignedDuration::ZERO, |(wait, _)| wait)
    }

    /// Notes an attempt at `now` after an end at `ended`: the next wait is twice as long. A thing that ran longer than
    /// twice the longest wait starts over.
    pub fn attempt(&mut self, curve: Curve, ended: Timestamp, now: Timestamp) {
        let next = match self.wait {
            Some((wait, last)) if ended.duration_since(last) <= curve.max.saturating_mul(2) => {
                wait.saturating_mul(2).min(curve.max)
            }
            _ => curve.initial.min(curve.max),
        };
        self.wait = Some((next, now));
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.wait = None;
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`, `500ms`.
pub fn go_duration(duration: SignedDuration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return if millis == 0 { "0s".into() } else { format!("{millis}ms") };
    }
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let fraction =
        if rest == 0 { String::new() } else { format!(".{}", format!("{rest:03}").trim_end_matches('0')) };
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_maximum_and_start_over_after_a_long_run() {
        let curve = Policy::default().crash;
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut waits = vec![];
        for _ in 0..8 {
            waits.push(backoff.wait().as_secs());
            let ended = now;
            now += backoff.wait();
            backoff.attempt(curve, ended, now);
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        now += SignedDuration::from_secs(601);
        backoff.attempt(curve, now, now);
        assert_eq!(backoff.wait().as_secs(), 10);
    }

    #[test]
    fn durations_read_as_go_writes_them() {
        let text = |ms| go_duration(SignedDuration::from_millis(ms));
        assert_eq!([text(0), text(10_000), text(80_000), text(300_000)], ["0s", "10s", "1m20s", "5m0s"]);
        assert_eq!([text(1500), text(250), text(3_600_000)], ["1.5s", "250ms", "1h0m0s"]);
    }
}
