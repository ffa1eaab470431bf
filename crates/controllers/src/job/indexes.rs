//! Sets of completion indexes, written as `1,3-5,7`.

use std::fmt;

/// Sorted, disjoint ranges, ends included; those of two numbers in a row or more are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a text; parts that are no numbers, and indexes not below `completions`, are left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let ranges = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            (first >= 0 && first < completions).then(|| (first, last.min(completions - 1)))
        });
        Self::of(ranges)
    }

    fn of(ranges: impl Iterator<Item = (i32, i32)>) -> Self {
        let mut sorted: Vec<(i32, i32)> = ranges.filter(|(first, last)| first <= last).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(i32, i32)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// Those in this set or among `more`.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = i32>) -> Self {
        Self::of(self.0.iter().copied().chain(more.into_iter().map(|index| (index, index))))
    }

    /// Those in this set or the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(&other.0).copied())
    }

    /// How many.
    pub fn count(&self) -> i32 {
        let sum: i64 = self.0.iter().map(|(first, last)| i64::from(last - first) + 1).sum();
        i32::try_from(sum).unwrap_or(i32::MAX)
    }

    /// Whether `index` is in it.
    pub fn has(&self, index: i32) -> bool {
        let place = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(place).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub fn common(&self, other: &Self) -> i32 {
        let (mut i, mut j, mut sum) = (0, 0, 0_i64);
        while let (Some(a), Some(b)) = (self.0.get(i), other.0.get(j)) {
            sum += (i64::from(a.1.min(b.1)) - i64::from(a.0.max(b.0)) + 1).max(0);
            if a.1 < b.1 {
                i += 1;
            } else {
                j += 1;
            }
        }
        i32::try_from(sum).unwrap_or(i32::MAX)
    }

    /// The lowest ones below `completions` that are not in it, at most `most`.
    pub fn missing(&self, completions: i32, most: usize) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            let room = most - missing.len();
            missing.extend((next..first.min(completions)).take(room));
            next = last.saturating_add(1);
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (first, last)) in self.0.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_written_with_a_comma() {
        let indexes = Indexes::default().with([7, 1, 2, 4, 5, 6]);
        assert_eq!(indexes.to_string(), "1,2,4-7");
        assert_eq!(Indexes::parse("1,2,4-7", 100), indexes);
        assert_eq!(Indexes::parse("1,x,4-7", 6).to_string(), "1,4,5");
    }

    proptest! {
        #[test]
        fn a_set_is_a_set(mut list in proptest::collection::vec(0_i32..60, 0..30), other in proptest::collection::vec(0_i32..60, 0..30)) {
            let indexes = Indexes::default().with(list.clone());
            let others = Indexes::default().with(other.clone());
            list.sort_unstable();
            list.dedup();
            prop_assert_eq!(indexes.count() as usize, list.len());
            prop_assert_eq!(&Indexes::parse(&indexes.to_string(), 60), &indexes);
            for index in 0..60 {
                prop_assert_eq!(indexes.has(index), list.contains(&index));
            }
            let missing: Vec<i32> = (0..60).filter(|i| !list.contains(i)).take(7).collect();
            prop_assert_eq!(indexes.missing(60, 7), missing);
            let common = list.iter().filter(|i| other.contains(i)).count();
            prop_assert_eq!(indexes.common(&others) as usize, common);
            prop_assert_eq!(indexes.union(&others).count() as usize, (0..60).filter(|i| list.contains(i) || other.contains(i)).count());
        }
    }
}
