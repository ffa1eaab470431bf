//! Which pod address is free: next-fit over the node's range, with a rest before an address is used again.
//!
//! An address that a pod just gave back may still be in somebody's connection, DNS cache or endpoint list, so
//! the pool goes round the whole range first and, when it comes by early, leaves the address alone for
//! [`REST`]. Pure: the clock is a parameter.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;

/// How long a released address is left alone while others are free.
pub const REST: Duration = Duration::from_secs(30);

/// The addresses of one node.
#[derive(Debug)]
pub struct Pool {
    range: Ipv4Net,
    used: HashSet<u32>,
    resting: HashMap<u32, Instant>,
    /// The address handed out last.
    cursor: u32,
}

impl Pool {
    /// All of `range` but its first (network), second (kept for the node) and last (broadcast) address. `cursor`
    /// is what [`Pool::cursor`] said before a restart.
    pub fn new(range: Ipv4Net, cursor: Option<Ipv4Addr>) -> Self {
        let first = u32::from(range.network()) + 1;
        let cursor = cursor.filter(|c| range.contains(c)).map_or(first, u32::from);
        Self { range, used: HashSet::new(), resting: HashMap::new(), cursor }
    }

    /// The address handed out last, to go on from after a restart.
    pub fn cursor(&self) -> Ipv4Addr {
        self.cursor.into()
    }

    /// Marks an address as used (a lease from before a restart). False if it is not ours to give or taken.
    pub fn reserve(&mut self, address: Ipv4Addr) -> bool {
        let a = u32::from(address);
        (self.first()..=self.last()).contains(&a) && self.used.insert(a)
    }

    /// Takes the next free address. One that still rests is taken only when no other is left.
    pub fn take(&mut self, now: Instant) -> Option<Ipv4Addr> {
        let (first, last) = (self.first(), self.last());
        if first > last || self.used.len() as u64 > u64::from(last - first) {
            return None;
        }
        self.resting.retain(|_, since| now.saturating_duration_since(*since) < REST);
        let start = if self.cursor >= last || self.cursor < first { first } else { self.cursor + 1 };
        let free = (start..=last)
            .chain(first..start)
            .find(|a| !self.used.contains(a) && !self.resting.contains_key(a));
        let taken = free.or_else(|| {
            // Everything free still rests: the one that has rested longest.
            let (&a, _) = self.resting.iter().min_by_key(|(a, since)| (**since, **a))?;
            Some(a)
        })?;
        self.resting.remove(&taken);
        self.used.insert(taken);
        self.cursor = taken;
        Some(taken.into())
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr, now: Instant) {
        if self.used.remove(&u32::from(address)) {
            self.resting.insert(address.into(), now);
        }
    }

    fn first(&self) -> u32 {
        u32::from(self.range.network()) + 2
    }

    fn last(&self) -> u32 {
        u32::from(self.range.broadcast()) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().unwrap(), None)
    }

    #[test]
    fn addresses_come_in_order_and_the_ends_of_the_range_are_kept() {
        let mut p = pool("10.1.0.0/29");
        let now = Instant::now();
        let all: Vec<_> = std::iter::from_fn(|| p.take(now)).map(|a| a.octets()[3]).collect();
        assert_eq!(all, [2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_released_address_rests_while_others_are_free() {
        let mut p = pool("10.1.0.0/29");
        let now = Instant::now();
        let a = p.take(now).unwrap();
        p.release(a, now);
        for _ in 0..4 {
            assert_ne!(p.take(now), Some(a));
        }
        assert_eq!(p.take(now), Some(a), "the last one left is taken though it rests");
        assert_eq!(p.take(now), None);
    }

    #[test]
    fn after_a_restart_the_round_goes_on() {
        let mut p = Pool::new("10.1.0.0/29".parse().unwrap(), Some([10, 1, 0, 4].into()));
        assert!(p.reserve([10, 1, 0, 5].into()));
        assert!(!p.reserve([10, 1, 0, 5].into()), "twice");
        assert!(!p.reserve([10, 1, 0, 1].into()), "the node's own");
        assert!(!p.reserve([10, 2, 0, 5].into()), "foreign");
        assert_eq!(p.take(Instant::now()), Some([10, 1, 0, 6].into()));
    }

    proptest! {
        #[test]
        fn no_address_is_ever_given_twice(prefix in 24u8..=32, steps in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut p = Pool::new(Ipv4Net::new([10, 9, 8, 0].into(), prefix).unwrap(), None);
            let mut held: Vec<Ipv4Addr> = Vec::new();
            let mut now = Instant::now();
            for s in steps {
                now += Duration::from_secs(u64::from(s % 7));
                if s % 3 == 0 && !held.is_empty() {
                    let a = held.swap_remove(usize::from(s) % held.len());
                    p.release(a, now);
                } else if let Some(a) = p.take(now) {
                    prop_assert!(!held.contains(&a));
                    held.push(a);
                }
            }
        }
    }
}
