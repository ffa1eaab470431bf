//! Shares of a sum by the fairest proportion: everybody gets the same part of what it aims at, but for bounds.
//!
//! Source: KEP-1040; `k8s.io/apiserver/pkg/util/flowcontrol/conc_alloc.go`.

/// One that wants a share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// At least `lower`; less than [`LEAST_TARGET`] counts as that.
    pub target: f64,
    /// Not negative.
    pub lower: f64,
    /// At least `lower`.
    pub upper: f64,
}

const LEAST_TARGET: f64 = 0.001;
/// What floating point may be off.
const SLACK: f64 = 1e-7;

impl Class {
    fn aim(&self) -> f64 {
        self.target.max(LEAST_TARGET)
    }

    /// The share where everybody gets `proportion` of what it aims at.
    fn share(&self, proportion: f64) -> f64 {
        (proportion * self.aim()).min(self.upper).max(self.lower)
    }
}

/// The shares, which add up to `sum`, and the least proportion that they are made by. `None`: bounds leave no solution.
pub fn allocate(sum: f64, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    let sound = |class: &Class| {
        class.lower >= 0.0
            && class.upper >= class.lower
            && class.target >= class.lower
            && class.upper.is_finite()
    };
    let total = |proportion: f64| -> f64 { classes.iter().map(|class| class.share(proportion)).sum() };
    // The total grows with the proportion, straight between these.
    let mut bends: Vec<f64> = classes.iter().flat_map(|c| [c.lower / c.aim(), c.upper / c.aim()]).collect();
    bends.sort_by(f64::total_cmp);
    let (Some(&first), Some(&last)) = (bends.first(), bends.last()) else {
        return (sum.abs() <= SLACK).then_some((Vec::new(), 0.0));
    };
    if !classes.iter().all(sound) || total(first) > sum + SLACK || total(last) < sum - SLACK {
        return None;
    }
    let mut at = (first, total(first));
    for bend in bends {
        if at.1 >= sum - SLACK {
            break;
        }
        let next = (bend, total(bend));
        at = if next.1 >= sum {
            let part = (sum - at.1) / (next.1 - at.1);
            (at.0 + part * (next.0 - at.0), sum)
        } else {
            next
        };
    }
    Some((classes.iter().map(|class| class.share(at.0)).collect(), at.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn class(lower: f64, target: f64, upper: f64) -> Class {
        Class { target, lower, upper }
    }

    fn shares(sum: f64, classes: &[Class]) -> (Vec<f64>, f64) {
        let (shares, proportion) = allocate(sum, classes).unwrap();
        let round = |x: f64| (x * 1e6).round() / 1e6;
        (shares.into_iter().map(round).collect(), round(proportion))
    }

    /// Numbers by hand: 30 for targets of 10 and 20 is a proportion of 1; 12 is 0.4, which bounds then bend.
    #[test]
    fn everybody_gets_the_same_part_but_for_bounds() {
        let two = |low: f64, high: f64| [class(low, 10.0, 100.0), class(0.0, 20.0, high)];
        assert_eq!(shares(30.0, &two(0.0, 100.0)), (vec![10.0, 20.0], 1.0));
        assert_eq!(shares(12.0, &two(0.0, 100.0)), (vec![4.0, 8.0], 0.4));
        assert_eq!(shares(12.0, &two(7.0, 100.0)), (vec![7.0, 5.0], 0.25));
        assert_eq!(shares(60.0, &two(0.0, 25.0)), (vec![35.0, 25.0], 3.5));
        assert_eq!(shares(7.0, &two(7.0, 100.0)), (vec![7.0, 0.0], 0.0));
        assert_eq!(shares(125.0, &two(0.0, 25.0)), (vec![100.0, 25.0], 10.0));
        assert_eq!(shares(4.0, &[class(0.0, 0.0, 3.0), class(0.0, 0.0, 3.0)]), (vec![2.0, 2.0], 2000.0));
    }

    #[test]
    fn what_bounds_do_not_allow_has_no_solution() {
        let one = [class(2.0, 3.0, 4.0)];
        assert!(allocate(1.0, &one).is_none() && allocate(5.0, &one).is_none());
        assert!(allocate(3.0, &[class(2.0, 1.0, 4.0)]).is_none(), "a target below its bound");
        assert_eq!(allocate(0.0, &[]), Some((Vec::new(), 0.0)));
    }

    proptest! {
        /// The three ways in which upstream's comment says that a share may come about.
        #[test]
        fn every_share_is_the_proportion_or_a_bound(
            items in proptest::collection::vec((0.0..5.0_f64, 0.0..2.0_f64, 0.0..3.0_f64), 1..9),
            part in 0.0..1.0_f64,
        ) {
            let classes: Vec<Class> =
                items.iter().map(|(low, above, room)| class(*low, low + above, low + room)).collect();
            let (low, high): (f64, f64) = classes.iter().fold((0.0, 0.0), |(l, h), c| (l + c.lower, h + c.upper));
            let sum = low + part * (high - low);
            let (shares, proportion) = allocate(sum, &classes).unwrap();
            prop_assert!((shares.iter().sum::<f64>() - sum).abs() < 1e-6);
            for (class, share) in classes.iter().zip(shares) {
                let fair = proportion * class.target.max(LEAST_TARGET);
                let wanted = if fair < class.lower { class.lower } else if fair > class.upper { class.upper } else { fair };
                prop_assert!((share - wanted).abs() < 1e-9);
            }
        }
    }
}
