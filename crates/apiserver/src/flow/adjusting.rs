//! When levels' limits are adjusted: every ten seconds as long as anything is asked, and not at all while nothing is.

use std::{
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    Flow,
    borrowing::{self, Known},
    demand::Demand,
};

/// How often limits are adjusted.
const PERIOD: Duration = Duration::from_secs(10);

/// Wakes whoever adjusts when the first request comes after a while without any.
pub struct Alarm {
    asleep: AtomicBool,
    bell: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { asleep: AtomicBool::new(true), bell: Notify::new() }
    }
}

impl Alarm {
    /// There is demand, and it has been noted.
    pub fn ring(&self) {
        if self.asleep.load(SeqCst) && self.asleep.swap(false, SeqCst) {
            self.bell.notify_one();
        }
    }

    /// Ends whoever waits.
    pub fn end(&self) {
        self.bell.notify_one();
    }
}

/// The last adjustment.
#[derive(Clone, Copy)]
pub struct Last {
    pub at: Instant,
    /// See [`borrowing::Adjusted::fair`].
    pub fair: f64,
}

/// What is to be adjusted, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The first request after a while without any.
    Woken,
    /// A period is over.
    Due,
}

/// Adjusts with `adjust`, which tells whether to go on without waiting for the alarm; until it yields `None`.
pub async fn drive(alarm: &Alarm, mut adjust: impl FnMut(Occasion) -> Option<bool>) {
    loop {
        alarm.bell.notified().await;
        let mut going = adjust(Occasion::Woken);
        while going == Some(true) {
            tokio::time::sleep(PERIOD).await;
            going = adjust(Occasion::Due);
        }
        if going.is_none() {
            return;
        }
    }
}

impl Flow {
    /// An adjustment. Whether another one is due after a period; if not, the alarm is set.
    pub fn adjust(&self, occasion: Occasion) -> bool {
        if occasion == Occasion::Woken {
            self.readjust(false);
            return true;
        }
        // Before the demand is read: what comes after that rings.
        self.alarm.asleep.store(true, SeqCst);
        let asked = self.readjust(true);
        if asked {
            self.alarm.asleep.store(false, SeqCst);
        }
        asked
    }

    /// Puts the limits of new objects in force.
    pub fn rearranged(&self) {
        self.readjust(self.alarm.asleep.load(SeqCst));
    }

    /// Adjusts all limits to the demand since the last time. Whether there was any; if not, and limits are to `settle`,
    /// they are left as they are when nobody has asked for anything for long.
    fn readjust(&self, settle: bool) -> bool {
        let mut last = self.last.lock();
        let snapshot = self.snapshot.load();
        let now = Instant::now();
        let passed = now.saturating_duration_since(last.at).as_secs() / PERIOD.as_secs();
        // One of the periods that have passed is the one that is looked at now.
        let missed = u32::try_from(passed.saturating_sub(1)).unwrap_or(u32::MAX);
        let mut known: Vec<Known> = snapshot.levels().map(|level| level.known(missed, now)).collect();
        let asked = known.iter().any(|level| level.demand.most > 0);
        if settle && !asked {
            known.iter_mut().for_each(|level| level.demand = Demand::default());
        }
        let adjusted = borrowing::adjust(&known);
        for ((level, limit), target) in snapshot.levels().zip(adjusted.limits).zip(adjusted.targets) {
            level.set_limit(limit, target);
        }
        *last = Last { at: now, fair: adjusted.fair };
        asked
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::flow::{
        level::{Level, Permit},
        snapshot::Snapshot,
    };

    fn level(name: &str, shares: u32, lends: u32) -> Value {
        json!({
            "metadata": {"name": name},
            "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": shares, "lendablePercent": lends,
                "limitResponse": {"type": "Queue", "queuing": {"queues": 8, "handSize": 1, "queueLengthLimit": 500}},
            }},
        })
    }

    /// 205 seats: 100 for each of `busy` and `idle`, half of which they lend, and 5 for everybody else.
    fn flow() -> Arc<Flow> {
        let flow = Flow::new(205);
        let levels = [level("busy", 100, 50), level("idle", 100, 50)];
        flow.snapshot.store(Arc::new(Snapshot::new(&[], &levels, 205, &flow, None)));
        flow.rearranged();
        Arc::new(flow)
    }

    fn limits(flow: &Flow) -> [u32; 2] {
        ["busy", "idle"].map(|name| named(flow, name).figures().0.current)
    }

    fn named(flow: &Flow, name: &str) -> Arc<Level> {
        flow.snapshot.load().levels().find(|level| level.spec.name == name).unwrap().clone()
    }

    async fn enter(level: &Arc<Level>, hash: u64) -> Permit {
        let entered = Level::enter(level, &Arc::default(), 1, hash, Duration::from_secs(3600)).await;
        entered.unwrap_or_else(|_| panic!("it was refused"))
    }

    /// So many requests that never end, as far as they have seats.
    fn hold(level: &Arc<Level>, count: u64) -> Vec<tokio::task::JoinHandle<Permit>> {
        (0..count)
            .map(|hash| {
                let level = level.clone();
                tokio::spawn(async move { enter(&level, hash).await })
            })
            .collect()
    }

    fn begun(held: &[tokio::task::JoinHandle<Permit>]) -> usize {
        held.iter().filter(|one| one.is_finished()).count()
    }

    fn start(flow: &Arc<Flow>) -> tokio::task::JoinHandle<()> {
        let (alarm, flow) = (flow.alarm.clone(), Arc::downgrade(flow));
        tokio::spawn(async move { drive(&alarm, |occasion| Some(flow.upgrade()?.adjust(occasion))).await })
    }

    /// Nobody has asked: both have 205/105 of their lower bounds, 50, that of everybody else being 5.
    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_get_the_seats_of_a_level_that_needs_none() {
        let flow = flow();
        assert_eq!(limits(&flow), [98, 98]);
        let driver = start(&flow);
        let held = hold(&named(&flow, "busy"), 200);
        // 100 are its own to use: of 205, with 50 and 5 for the others, that makes 205/155 of each.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((limits(&flow), begun(&held)), ([132, 66], 132));
        tokio::time::sleep(Duration::from_secs(20)).await;
        // It could use 200: with 50 and 5 for the others that leaves 150.
        assert_eq!(limits(&flow), [150, 50]);
        assert_eq!(begun(&held), 150);
        // The other wants its own back.
        let back = hold(&named(&flow, "idle"), 100);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(limits(&flow), [100, 100]);
        assert_eq!(begun(&back), 100);
        assert_eq!(begun(&held), 150, "nobody is thrown out");
        driver.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_done_while_nothing_is_asked() {
        let flow = flow();
        let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = {
            let (alarm, flow, turns) = (flow.alarm.clone(), Arc::downgrade(&flow), turns.clone());
            tokio::spawn(async move {
                let adjust = |occasion| {
                    turns.fetch_add(1, SeqCst);
                    Some(flow.upgrade()?.adjust(occasion))
                };
                drive(&alarm, adjust).await;
            })
        };
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(turns.load(SeqCst), 0);
        let busy = named(&flow, "busy");
        let held: Vec<Permit> =
            futures::future::join_all((0..90).map(|hash| enter(&busy, hash))).await.into_iter().collect();
        tokio::time::sleep(Duration::from_secs(15)).await;
        // 90 and 50 are aimed at, and 5: 205/145 of each.
        assert_eq!(limits(&flow), [127, 71]);
        drop(held);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        // Woken; after 10 s; after 20 s, in whose period it ended; after 30 s, the last.
        assert_eq!(turns.load(SeqCst), 4);
        assert_eq!(limits(&flow), [98, 98], "as if nobody had ever asked");
        let smoothed = busy.figures().0.demand.smoothed;
        drop(enter(&busy, 0).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let faded = busy.figures().0.demand.smoothed;
        assert!(smoothed > 60.0 && faded < 1.0, "what was is forgotten meanwhile: {smoothed}, {faded}");
        drop(flow);
        counted.await.unwrap();
    }
}
