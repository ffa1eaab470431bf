//! How levels lend each other seats: pure.
//!
//! Every period each level is given a limit between its bounds, as near to its demand as those of all others allow.
//!
//! Source: KEP-1040, "Dynamic adjustments of limits"; `updateBorrowingLocked` in `apf_controller.go`.

use super::{
    allocate::{Class, allocate},
    demand::Demand,
};

/// The seats that a level may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// By its shares.
    pub nominal: u32,
    /// Less what it lends.
    pub least: u32,
    /// More what it may borrow.
    pub most: u32,
}

impl Bounds {
    /// Of a level that lends and borrows so many percent of its nominal seats; `None`: as much as there is, which is
    /// `server` seats.
    pub fn new(nominal: u32, lends: u32, borrows: Option<u32>, server: u32) -> Self {
        let part = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
        let least = nominal.saturating_sub(part(lends));
        Self { nominal, least, most: nominal.saturating_add(borrows.map_or(server, part)) }
    }

    /// The limit before anything is known of the demand.
    pub fn first(&self) -> u32 {
        self.nominal - (self.nominal - self.least) / 2
    }
}

/// What is known of a level.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// It is never limited, but what it uses others cannot have.
    pub exempt: bool,
    pub bounds: Bounds,
    pub current: u32,
    pub demand: Demand,
}

impl Known {
    /// What it has in any case: what it used, as far as that is its own.
    fn least(&self) -> u32 {
        let used = self.demand.most;
        let own = if self.exempt { used } else { used.min(self.bounds.nominal) };
        own.max(self.bounds.least)
    }

    fn target(&self) -> f64 {
        f64::from(self.least()).max(self.demand.smoothed)
    }
}

/// The new limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Adjusted {
    /// In the order of the levels.
    pub limits: Vec<u32>,
    /// What was aimed at; `None` for an exempt level.
    pub targets: Vec<Option<f64>>,
    /// Of its target, what a level gets that no bound stops; 0 where there is too little for that.
    pub fair: f64,
}

/// Adjusts the limits of all levels.
pub fn adjust(levels: &[Known]) -> Adjusted {
    let seats: i64 = levels.iter().map(|level| i64::from(level.bounds.nominal)).sum();
    let limited = || levels.iter().filter(|level| !level.exempt);
    let taken: i64 = levels.iter().filter(|level| level.exempt).map(|level| i64::from(level.least())).sum();
    let left = seats - taken;
    let bounds: i64 = limited().map(|level| i64::from(level.bounds.least)).sum();
    let used: i64 = limited().map(|level| i64::from(level.least())).sum();
    let (shares, fair) = if left <= bounds {
        (limited().map(|level| level.bounds.least).collect(), 0.0)
    } else if left <= used {
        // Everybody gets the same part of the way from its bound to what it used.
        let part = (left - bounds) as f64 / (used - bounds) as f64;
        let share = |level: &Known| {
            let least = level.bounds.least;
            least + (f64::from(level.least() - least) * part).round() as u32
        };
        (limited().map(share).collect(), 0.0)
    } else {
        let classes: Vec<Class> = limited()
            .map(|level| Class {
                target: level.target(),
                lower: level.least().into(),
                upper: level.bounds.most.into(),
            })
            .collect();
        match allocate(seats as f64, &classes) {
            Some((shares, fair)) => (shares.into_iter().map(|share| share.round() as u32).collect(), fair),
            None => (limited().map(|level| level.current).collect::<Vec<_>>(), 0.0),
        }
    };
    let mut shares = shares.into_iter();
    let limit = |level: &Known| if level.exempt { level.least() } else { shares.next().unwrap_or_default() };
    Adjusted {
        limits: levels.iter().map(limit).collect(),
        targets: levels.iter().map(|level| (!level.exempt).then(|| level.target())).collect(),
        fair,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(nominal: u32, lends: u32, borrows: Option<u32>, most: u32, smoothed: f64) -> Known {
        let bounds = Bounds::new(nominal, lends, borrows, 600);
        let demand = Demand { most, smoothed, ..Demand::default() };
        Known { exempt: false, bounds, current: bounds.first(), demand }
    }

    fn exempt(most: u32) -> Known {
        Known { exempt: true, ..level(0, 0, None, most, 0.0) }
    }

    #[test]
    fn bounds_are_parts_of_the_nominal_seats() {
        assert_eq!(Bounds::new(245, 90, None, 600), Bounds { nominal: 245, least: 24, most: 845 });
        assert_eq!(Bounds::new(245, 50, Some(10), 600), Bounds { nominal: 245, least: 122, most: 270 });
        assert_eq!(Bounds::new(100, 0, Some(0), 600), Bounds { nominal: 100, least: 100, most: 100 });
        assert_eq!(Bounds::new(245, 90, None, 600).first(), 135);
    }

    /// Upstream's suggested levels, 600 seats, nobody asks for anything. Nominal seats add up to 604, lower bounds to 264:
    /// everybody has 604/264 of its own.
    #[test]
    fn without_demand_limits_are_as_lower_bounds() {
        let shares = [(245, 90), (98, 33), (74, 33), (25, 0), (50, 25), (99, 50), (13, 0)];
        let levels: Vec<Known> =
            shares.iter().map(|(nominal, lends)| level(*nominal, *lends, None, 0, 0.0)).collect();
        let least: Vec<u32> = levels.iter().map(|level| level.bounds.least).collect();
        assert_eq!(least, [24, 66, 50, 25, 37, 49, 13]);
        let sum: u32 = least.iter().sum();
        assert_eq!(sum, 264);
        let adjusted = adjust(&levels);
        assert!((adjusted.fair - 604.0 / f64::from(sum)).abs() < 1e-9, "{}", adjusted.fair);
        let wanted: Vec<u32> =
            least.iter().map(|least| (f64::from(*least) * 604.0 / f64::from(sum)).round() as u32).collect();
        assert_eq!(adjusted.limits, wanted);
    }

    /// One of two wants 150 of 200 seats and the other nothing: 150 for the target of 150 and 50 for that of 50 (its
    /// bound), with a proportion of 1.
    #[test]
    fn a_busy_level_borrows_what_an_idle_one_lends() {
        let busy = level(100, 50, None, 180, 150.0);
        let idle = level(100, 50, None, 0, 0.0);
        let adjusted = adjust(&[busy, idle]);
        assert_eq!(adjusted.limits, [150, 50]);
        assert_eq!(adjusted.targets, [Some(150.0), Some(50.0)]);
        assert!((adjusted.fair - 1.0).abs() < 1e-9);
        let capped = level(100, 50, Some(20), 180, 150.0);
        assert_eq!(adjust(&[capped, idle]).limits, [120, 80], "no more than it may borrow");
        let stingy = level(100, 0, None, 0, 0.0);
        assert_eq!(adjust(&[busy, stingy]).limits, [100, 100], "nothing is lent");
    }

    #[test]
    fn whoever_needs_its_own_seats_gets_them_back() {
        let busy = level(100, 50, None, 180, 180.0);
        let awake = level(100, 50, None, 90, 10.0);
        // Its least is now 90, of which nobody takes anything; the other has what is left.
        assert_eq!(adjust(&[busy, awake]).limits, [110, 90]);
    }

    /// 200 seats, bounds of 50 each. Exempt requests have used 120: 80 are left, less than both bounds; 60: 140 are left,
    /// 40 above the bounds, for 50 + 50 that were used above them.
    #[test]
    fn what_exempt_requests_use_others_cannot_have() {
        let both = [level(100, 50, None, 100, 100.0), level(100, 50, None, 100, 100.0)];
        let with = |used| adjust(&[exempt(used), both[0], both[1]]);
        assert_eq!(
            with(120),
            Adjusted { limits: vec![120, 50, 50], targets: vec![None, Some(100.0), Some(100.0)], fair: 0.0 }
        );
        assert_eq!(with(60).limits, [60, 70, 70]);
        assert_eq!(with(0).limits, [0, 100, 100]);
    }

    #[test]
    fn no_levels_have_no_limits() {
        assert_eq!(adjust(&[]), Adjusted { limits: Vec::new(), targets: Vec::new(), fair: 0.0 });
    }
}
