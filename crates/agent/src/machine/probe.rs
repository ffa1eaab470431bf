//! What a row of probe results means: thresholds, delays and periods, without doing any probing.

use k8s_openapi::{
    api::core::v1::{Container, Probe},
    jiff::{SignedDuration, Timestamp},
};

/// Which question a probe answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Has it come up? Holds the two others back until it has.
    Startup,
    /// Is it alive? Failing restarts it.
    Liveness,
    /// May it get traffic?
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// The probe of this kind in a container.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// `Startup`, `Liveness`, `Readiness`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// The state of one probe of one container instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeState {
    /// What the results so far add up to; `None` before the first threshold was reached.
    pub verdict: Option<bool>,
    /// When the last one was begun.
    pub last_begun: Option<Timestamp>,
    /// One is running now.
    pub in_flight: bool,
    run: (bool, i32),
}

impl ProbeState {
    /// When the next probe is due, for a container running since `since` (for liveness and readiness behind a startup
    /// probe the delay still counts from the container's start).
    pub fn due(&self, probe: &Probe, since: Timestamp) -> Timestamp {
        match self.last_begun {
            Some(last) => {
                last + SignedDuration::from_secs(i64::from(probe.period_seconds.unwrap_or(10).max(1)))
            }
            None => {
                since + SignedDuration::from_secs(i64::from(probe.initial_delay_seconds.unwrap_or(0).max(0)))
            }
        }
    }

    /// Notes that a probe has begun.
    pub fn begin(&mut self, now: Timestamp) {
        self.last_begun = Some(now);
        self.in_flight = true;
    }

    /// Takes one result; the verdict changes once the threshold of equal results in a row is reached.
    /// `None` counts for nothing.
    pub fn record(&mut self, probe: &Probe, answer: Option<bool>) {
        self.in_flight = false;
        let Some(success) = answer else { return };
        self.run = if self.run.0 == success && self.run.1 > 0 {
            (success, self.run.1.saturating_add(1))
        } else {
            (success, 1)
        };
        let threshold = if success {
            probe.success_threshold.unwrap_or(1).max(1)
        } else {
            probe.failure_threshold.unwrap_or(3).max(1)
        };
        if self.run.1 >= threshold {
            self.verdict = Some(success);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(success: i32, failure: i32) -> Probe {
        Probe { success_threshold: Some(success), failure_threshold: Some(failure), ..Probe::default() }
    }

    fn verdicts(probe: &Probe, results: &str) -> String {
        let mut state = ProbeState::default();
        let mut out = String::new();
        for result in results.chars() {
            state.record(probe, Some(result == '+'));
            out.push(match state.verdict {
                None => '?',
                Some(true) => '+',
                Some(false) => '-',
            });
        }
        out
    }

    #[test]
    fn a_verdict_changes_only_after_its_threshold_of_equal_results() {
        assert_eq!(verdicts(&probe(1, 3), "+--+---+"), "++++++-+");
        assert_eq!(verdicts(&probe(2, 1), "+-++-+"), "?--+--");
        assert_eq!(verdicts(&probe(1, 3), "--"), "??");
    }

    #[test]
    fn the_first_probe_waits_for_its_delay_and_the_next_for_its_period() {
        let p = Probe { initial_delay_seconds: Some(7), period_seconds: Some(3), ..Probe::default() };
        let start = Timestamp::UNIX_EPOCH;
        let mut state = ProbeState::default();
        assert_eq!(state.due(&p, start).as_second(), 7);
        state.begin(start + SignedDuration::from_secs(8));
        assert_eq!(state.due(&p, start).as_second(), 11);
    }
}
