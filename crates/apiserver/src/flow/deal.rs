//! Shuffle sharding: a flow's hash deals it a hand of queues, so that two flows hardly ever share all of theirs.
//!
//! Source: `k8s.io/apiserver/pkg/util/shufflesharding`.

/// The most queues that a hand may have.
const LARGEST: usize = 32;

/// A hand of `size` different numbers below `deck`, told by `hash` alone.
pub fn deal(mut hash: u64, deck: usize, size: usize) -> impl Iterator<Item = usize> {
    let size = size.clamp(1, LARGEST).min(deck);
    let mut dealt = [0; LARGEST];
    // What was dealt, in ascending order.
    let mut sorted = [0; LARGEST];
    for (at, slot) in dealt.iter_mut().enumerate().take(size) {
        let left = (deck - at) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or_default();
        hash /= left;
        let mut place = 0;
        while place < at && card >= sorted[place] {
            card += 1;
            place += 1;
        }
        sorted.copy_within(place..at, place + 1);
        sorted[place] = card;
        *slot = card;
    }
    dealt.into_iter().take(size)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_hand_has_different_queues_of_the_deck(hash: u64, deck in 1_usize..200, size in 1_usize..20) {
            let hand: Vec<usize> = deal(hash, deck, size).collect();
            let different: BTreeSet<usize> = hand.iter().copied().collect();
            prop_assert_eq!(hand.len(), size.min(deck));
            prop_assert_eq!(different.len(), hand.len());
            prop_assert!(hand.iter().all(|card| *card < deck));
        }
    }

    #[test]
    fn every_queue_is_dealt_about_as_often() {
        let mut often = [0; 64];
        for flow in 0..20_000_u64 {
            let hash =
                flow.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            deal(hash, 64, 8).for_each(|card| often[card] += 1);
        }
        assert!(often.iter().all(|n| (1500..3500).contains(n)), "{often:?}");
    }
}
