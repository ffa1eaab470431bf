//! Pods that wait for a node, in the order in which they are tried.
//!
//! Three places, as upstream: *active* (by priority, then by age), *backing off* (until a deadline), and *unschedulable*
//! (until the cluster changes, or five minutes pass). Pure: the time comes in.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::pod::PodInfo;

const FIRST_BACKOFF: SignedDuration = SignedDuration::from_secs(1);
const LAST_BACKOFF: SignedDuration = SignedDuration::from_secs(10);
/// A pod is tried again after this time even if nothing seems to have changed.
const LEFTOVER: SignedDuration = SignedDuration::from_mins(5);

type Order = (Reverse<i32>, Timestamp, String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff(Timestamp),
    Unschedulable {
        since: Timestamp,
    },
    /// Taken by [`Queue::pop`] and not yet given back.
    InFlight,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    since: Timestamp,
    attempts: u32,
    place: Place,
    /// The cluster changed while the pod was in flight.
    stale: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeSet<Order>,
    deadlines: BTreeMap<(Timestamp, String), ()>,
}

impl Queue {
    /// Adds a pod or replaces it by its newer state. A changed pod that was unschedulable is tried again.
    pub fn put(&mut self, pod: Arc<PodInfo>, now: Timestamp) {
        let key = pod.key.clone();
        match self.pods.get_mut(&key) {
            None => {
                let waiting = Waiting { pod, since: now, attempts: 0, place: Place::Active, stale: false };
                self.active.insert(order(&waiting));
                self.pods.insert(key, waiting);
            }
            Some(waiting) => {
                let before = &waiting.pod;
                let changed = (&before.pod.spec, &before.requests, &before.ports)
                    != (&pod.pod.spec, &pod.requests, &pod.ports)
                    || before.labels() != pod.labels();
                let was = order(waiting);
                waiting.pod = pod;
                match waiting.place {
                    Place::Active => {
                        self.active.remove(&was);
                        self.active.insert(order(waiting));
                    }
                    Place::Unschedulable { .. } if changed => self.release(&key, now),
                    Place::InFlight => waiting.stale |= changed,
                    _ => {}
                }
            }
        }
    }

    /// Forgets a pod: it was bound or deleted.
    pub fn remove(&mut self, key: &str) {
        if let Some(waiting) = self.pods.remove(key) {
            self.active.remove(&order(&waiting));
            self.deadlines.retain(|(_, k), ()| k != key);
        }
    }

    /// The next pod to place; [`Queue::failed`] or [`Queue::remove`] has to follow.
    pub fn pop(&mut self, now: Timestamp) -> Option<Arc<PodInfo>> {
        self.expire(now);
        let (_, _, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.place = Place::InFlight;
        waiting.stale = false;
        waiting.attempts += 1;
        Some(Arc::clone(&waiting.pod))
    }

    /// Gives back a pod that found no node. `error`: it was a failure of the scheduler, not of the cluster; such a pod is
    /// tried again after its back-off whatever happens.
    pub fn failed(&mut self, key: &str, now: Timestamp, error: bool) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        if waiting.place != Place::InFlight {
            return;
        }
        waiting.place = Place::Unschedulable { since: now };
        let again = error || waiting.stale;
        self.deadlines.insert((now.saturating_add(LEFTOVER).unwrap_or(Timestamp::MAX), key.to_owned()), ());
        if again {
            self.release(key, now);
        }
    }

    /// The cluster changed in a way that may help: everything unschedulable is tried again after its back-off.
    pub fn cluster_changed(&mut self, now: Timestamp) {
        let parked: Vec<String> = self
            .pods
            .iter_mut()
            .filter_map(|(key, w)| {
                w.stale |= w.place == Place::InFlight;
                matches!(w.place, Place::Unschedulable { .. }).then(|| key.clone())
            })
            .collect();
        for key in parked {
            self.release(&key, now);
        }
    }

    /// When [`Queue::pop`] may have something that it has not now.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first_key_value().map(|((at, _), ())| *at)
    }

    /// Pods that wait, whatever for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pods.len()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    fn release(&mut self, key: &str, now: Timestamp) {
        let Some(waiting) = self.pods.get_mut(key) else { return };
        let Place::Unschedulable { since } = waiting.place else { return };
        self.deadlines.retain(|(_, k), ()| k != key);
        let until = since.saturating_add(backoff(waiting.attempts)).unwrap_or(Timestamp::MAX);
        if until <= now {
            waiting.place = Place::Active;
            self.active.insert(order(waiting));
        } else {
            waiting.place = Place::BackingOff(until);
            self.deadlines.insert((until, key.to_owned()), ());
        }
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some(((at, _), ())) = self.deadlines.first_key_value() {
            if *at > now {
                return;
            }
            let Some(((_, key), ())) = self.deadlines.pop_first() else { return };
            if let Some(waiting) = self.pods.get_mut(&key) {
                waiting.place = Place::Active;
                self.active.insert(order(waiting));
            }
        }
    }
}

fn order(waiting: &Waiting) -> Order {
    (Reverse(waiting.pod.priority()), waiting.since, waiting.pod.key.clone())
}

fn backoff(attempts: u32) -> SignedDuration {
    let factor = 1i32.checked_shl(attempts.saturating_sub(1).min(10)).unwrap_or(i32::MAX);
    FIRST_BACKOFF.checked_mul(factor).map_or(LAST_BACKOFF, |d| d.min(LAST_BACKOFF))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, PodSpec};

    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("d".to_owned());
        pod.spec = Some(PodSpec { priority: Some(priority), ..PodSpec::default() });
        Arc::new(PodInfo::new(Arc::new(pod)))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn popped(queue: &mut Queue, seconds: i64) -> Option<String> {
        queue.pop(at(seconds)).map(|p| p.key.clone())
    }

    #[test]
    fn the_most_important_pod_goes_first_then_the_oldest() {
        let mut queue = Queue::default();
        queue.put(pod("old", 0), at(0));
        queue.put(pod("new", 0), at(1));
        queue.put(pod("vip", 9), at(2));
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, 3)).collect();
        assert_eq!(order, ["d/vip", "d/old", "d/new"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_a_change_and_its_backoff() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), at(0));
        queue.pop(at(0));
        queue.failed("d/a", at(0), false);
        assert_eq!(popped(&mut queue, 5), None);
        queue.cluster_changed(at(5));
        assert_eq!(popped(&mut queue, 5).as_deref(), Some("d/a"));
        queue.failed("d/a", at(5), false);
        queue.cluster_changed(at(5));
        assert_eq!(queue.next_deadline(), Some(at(7)));
        assert_eq!(popped(&mut queue, 6), None);
        assert_eq!(popped(&mut queue, 7).as_deref(), Some("d/a"));
    }

    #[test]
    fn a_change_during_an_attempt_is_not_lost() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), at(0));
        queue.pop(at(0));
        queue.cluster_changed(at(0));
        queue.failed("d/a", at(0), false);
        assert_eq!(queue.next_deadline(), Some(at(1)));
    }

    #[test]
    fn nothing_is_forgotten_for_more_than_five_minutes() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), at(0));
        queue.pop(at(0));
        queue.failed("d/a", at(0), false);
        assert_eq!(popped(&mut queue, 299), None);
        assert_eq!(popped(&mut queue, 300).as_deref(), Some("d/a"));
    }

    #[test]
    fn a_removed_pod_never_comes_back() {
        let mut queue = Queue::default();
        queue.put(pod("a", 0), at(0));
        queue.pop(at(0));
        queue.remove("d/a");
        queue.failed("d/a", at(0), true);
        queue.cluster_changed(at(1));
        assert_eq!(popped(&mut queue, 1000), None);
        assert!(queue.is_empty());
    }
}
