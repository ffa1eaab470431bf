//! How many seats a level could use: over time, and in figures of the last period.
//!
//! Source: `fairqueuing/integrator.go`, `seatDemandStats` in `apf_controller.go`.

use tokio::time::Instant;

/// What stays of a figure after a period without demand: half of it after five minutes.
const SMOOTHING: f64 = 0.977;

/// Seats in use and wanted, summed up over time.
#[derive(Clone, Copy, Debug)]
pub struct Integrator {
    at: Instant,
    seats: f64,
    most: f64,
    /// Integrals of 1, the seats, and their square, over seconds.
    moments: [f64; 3],
}

/// What a period was like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Observed {
    pub seconds: f64,
    pub average: f64,
    /// The standard deviation.
    pub deviation: f64,
    pub most: f64,
}

impl Integrator {
    pub fn new(now: Instant) -> Self {
        Self { at: now, seats: 0.0, most: 0.0, moments: [0.0; 3] }
    }

    fn advance(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        for (moment, of) in self.moments.iter_mut().zip([1.0, self.seats, self.seats * self.seats]) {
            *moment += seconds * of;
        }
    }

    /// From now on it is so many.
    pub fn set(&mut self, seats: f64, now: Instant) {
        self.advance(now);
        self.seats = seats;
        self.most = self.most.max(seats);
    }

    /// What it was like since the last time.
    pub fn take(&mut self, now: Instant) -> Observed {
        self.advance(now);
        let [seconds, sum, squares] = self.moments;
        let mut observed = Observed { seconds, most: self.most, ..Observed::default() };
        if seconds > 0.0 {
            observed.average = sum / seconds;
            // Rounding may make a constant's variance negative.
            observed.deviation = (squares / seconds - observed.average * observed.average).max(0.0).sqrt();
        }
        (self.moments, self.most) = ([0.0; 3], self.seats);
        observed
    }
}

/// The figures that borrowing goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// The high watermark.
    pub most: u32,
    pub average: f64,
    pub deviation: f64,
    /// Rises at once and falls slowly.
    pub smoothed: f64,
}

impl Demand {
    /// A period more.
    pub fn update(&mut self, observed: Observed) {
        self.most = observed.most.round() as u32;
        if observed.seconds <= 0.0 {
            return;
        }
        (self.average, self.deviation) = (observed.average, observed.deviation);
        let envelope = observed.average + observed.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }

    /// So many periods without any demand have passed.
    pub fn fade(&mut self, periods: u32) {
        self.smoothed *= SMOOTHING.powi(i32::try_from(periods).unwrap_or(i32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_period_is_told_by_its_mean_its_deviation_and_its_peak() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut integrator = Integrator::new(start);
        integrator.set(4.0, at(5));
        integrator.set(7.0, at(10));
        integrator.set(2.0, at(10));
        // Five seconds of nothing, five of four: 2 in the mean, 2 from it.
        assert_eq!(
            integrator.take(at(10)),
            Observed { seconds: 10.0, average: 2.0, deviation: 2.0, most: 7.0 }
        );
        let next = integrator.take(at(20));
        assert_eq!(next, Observed { seconds: 10.0, average: 2.0, deviation: 0.0, most: 2.0 }, "what stays");
        assert_eq!(integrator.take(at(20)).seconds, 0.0);
    }

    #[test]
    fn demand_rises_at_once_and_halves_in_five_minutes() {
        let busy = Observed { seconds: 10.0, average: 8.0, deviation: 2.0, most: 14.6 };
        let idle = Observed { seconds: 10.0, ..Observed::default() };
        let mut demand = Demand::default();
        demand.update(busy);
        assert_eq!(demand, Demand { most: 15, average: 8.0, deviation: 2.0, smoothed: 10.0 });
        let mut faded = demand;
        demand.update(idle);
        assert!((demand.smoothed - 9.77).abs() < 1e-9, "{}", demand.smoothed);
        (1..30).for_each(|_| demand.update(idle));
        assert!((demand.smoothed - 4.98).abs() < 0.01, "{}", demand.smoothed);
        faded.fade(30);
        assert!((demand.smoothed - faded.smoothed).abs() < 1e-9, "the same at once");
        demand.update(Observed { most: 3.0, ..Observed::default() });
        assert_eq!(demand.most, 3);
        assert!((demand.smoothed - faded.smoothed).abs() < 1e-9, "no time, no change");
    }
}
