//! A PriorityLevelConfiguration at work.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use apimachinery::{Object, meta};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{
    adjusting::Alarm,
    borrowing::{Bounds, Known},
    demand::Demand,
    now,
    queues::{Arrangement, Arrival, Queues, Ticket},
    stats::Stats,
};

/// Part of a level's seats that one list may have at most.
const WIDEST: f64 = 0.15;
/// The longest time that clients are asked to stay away, in seconds.
const LONGEST_RETRY: u64 = 32;

/// What a level's object says.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    pub name: String,
    pub uid: String,
    pub exempt: bool,
    pub shares: u32,
    /// How many percent of its seats others may have.
    pub lends: u32,
    /// How many percent more it may have of others'; `None`: as many as there are.
    pub borrows: Option<u32>,
    /// Queues, hand, length of a queue.
    pub queuing: (usize, usize, usize),
}

impl Spec {
    /// Reads the object; what is absent has upstream's default. Bounds keep a wrong object from taking all memory.
    pub fn of(object: &Object) -> Self {
        let spec = &object["spec"];
        let exempt = spec["type"] == "Exempt";
        let part = if exempt { &spec["exempt"] } else { &spec["limited"] };
        let shares = part["nominalConcurrencyShares"].as_u64().unwrap_or(if exempt { 0 } else { 30 });
        let response = &part["limitResponse"];
        let percent = |field: &str| part[field].as_u64().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let number = |field: &str, default: u64, most: u64| {
            let asked = response["queuing"][field].as_u64().filter(|n| *n > 0).unwrap_or(default);
            usize::try_from(asked.min(most)).unwrap_or_default()
        };
        let queuing = if response["type"] == "Queue" {
            (number("queues", 64, 10_000), number("handSize", 8, 32), number("queueLengthLimit", 50, 100_000))
        } else {
            (0, 0, 0)
        };
        Self {
            name: meta::name(object).to_owned(),
            uid: meta::uid(object).to_owned(),
            exempt,
            shares: u32::try_from(shares).unwrap_or(u32::MAX),
            lends: percent("lendablePercent").unwrap_or(0).min(100),
            borrows: if exempt { None } else { percent("borrowingLimitPercent") },
            queuing,
        }
    }

    /// A level that every server has, if nobody says otherwise.
    pub fn mandatory(name: &str, exempt: bool, shares: u32) -> Self {
        let (name, uid) = (name.to_owned(), String::new());
        Self { name, uid, exempt, shares, lends: 0, borrows: None, queuing: (0, 0, 0) }
    }
}

/// How a waiting request gets its permit, and what it is counted by.
type Wake = (oneshot::Sender<Permit>, Arc<Stats>);

/// How often requests were turned away lately.
#[derive(Default)]
struct Dropped {
    /// The second that is counted, and how many it had.
    since: Option<Instant>,
    count: u64,
    retry: u64,
}

impl Dropped {
    /// One more. How long its client should stay away, in seconds: longer while many are turned away.
    fn note(&mut self) -> u64 {
        let retry = self.retry.max(1);
        let now = now();
        let over = self.since.is_none_or(|since| now - since >= Duration::from_secs(retry));
        if over {
            self.retry = if self.count >= 3 * retry {
                (retry * 2).min(LONGEST_RETRY)
            } else if self.count < retry {
                (retry - 1).max(1)
            } else {
                retry
            };
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.retry
    }
}

/// What a level has to do with others.
struct Lending {
    bounds: Bounds,
    demand: Demand,
    /// The limit now.
    current: u32,
    /// What was aimed at when it was set.
    target: Option<f64>,
}

impl Lending {
    fn known(&self, exempt: bool) -> Known {
        Known { exempt, bounds: self.bounds, current: self.current, demand: self.demand }
    }
}

/// See the module.
pub struct Level {
    pub spec: Spec,
    pub exempt: bool,
    pub mark: HeaderValue,
    queues: Mutex<Queues<Wake>>,
    lending: Mutex<Lending>,
    alarm: Arc<Alarm>,
    dropped: Mutex<Dropped>,
}

/// A request that is turned away.
pub struct Refusal {
    /// Seconds after which it may be tried again.
    pub retry_after: u64,
}

/// Seats. They are given back when it is dropped.
pub struct Permit {
    level: Arc<Level>,
    stats: Arc<Stats>,
    /// `None`: exempt.
    ticket: Option<Ticket>,
}

impl Permit {
    /// Whether anybody could wait for what it holds.
    pub fn counts(&self) -> bool {
        self.ticket.is_some()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let seats = self.ticket.map_or(1, |t| t.seats);
        self.stats.executing.fetch_sub(1, Relaxed);
        self.stats.executing_seats.fetch_sub(seats.into(), Relaxed);
        match self.ticket {
            Some(ticket) => {
                let started = self.level.queues.lock().finish(ticket, now());
                self.level.wake(started);
            }
            None => self.level.queues.lock().exit(1, now()),
        }
    }
}

/// A place in a queue; given up when it is dropped.
struct Waiter<'a> {
    level: &'a Arc<Level>,
    stats: &'a Stats,
    queue: usize,
    number: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.stats.waiting.fetch_sub(1, Relaxed);
        // Whoever was served meanwhile is not there any more.
        let (_, started) = self.level.queues.lock().leave(self.queue, self.number, now());
        self.level.wake(started);
    }
}

impl Level {
    pub fn new(spec: Spec, bounds: Bounds, alarm: Arc<Alarm>) -> Self {
        let (queues, hand, length) = spec.queuing;
        let limit = bounds.first();
        let arrangement = Arrangement { limit, queues, hand, length };
        Self {
            exempt: spec.exempt,
            mark: HeaderValue::from_str(&spec.uid).unwrap_or(HeaderValue::from_static("")),
            queues: Mutex::new(Queues::new(arrangement, now())),
            lending: Mutex::new(Lending { bounds, demand: Demand::default(), current: limit, target: None }),
            alarm,
            dropped: Mutex::default(),
            spec,
        }
    }

    /// Between which limits it is.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.lending.lock().bounds = bounds;
    }

    /// What borrowing goes by, with the demand since the last time. `missed`: so many periods had passed before without
    /// anybody looking, as there was no demand.
    pub fn known(&self, missed: u32, at: Instant) -> Known {
        let observed = self.queues.lock().take_demand(at);
        let mut lending = self.lending.lock();
        lending.demand.fade(missed);
        lending.demand.update(observed);
        lending.known(self.exempt)
    }

    /// Sets the limit, and notes what was aimed at.
    pub fn set_limit(self: &Arc<Self>, limit: u32, target: Option<f64>) {
        {
            let mut lending = self.lending.lock();
            (lending.current, lending.target) = (limit, target);
        }
        let started = self.queues.lock().set_limit(limit, now());
        self.wake(started);
    }

    /// What it has to do with others: its bounds and limit, its demand in the last period, and what was aimed at then.
    pub fn figures(&self) -> (Known, Option<f64>) {
        let lending = self.lending.lock();
        (lending.known(self.exempt), lending.target)
    }

    /// The most seats that one request may take.
    pub fn widest(&self) -> u32 {
        let limit = self.lending.lock().bounds.nominal;
        let hand = u32::try_from(self.spec.queuing.1.max(1)).unwrap_or(u32::MAX);
        ((f64::from(limit) * WIDEST).ceil() as u32).min(limit / hand).max(1)
    }

    fn permit(self: &Arc<Self>, stats: &Arc<Stats>, ticket: Option<Ticket>) -> Permit {
        stats.dispatched.fetch_add(1, Relaxed);
        stats.executing.fetch_add(1, Relaxed);
        stats.executing_seats.fetch_add(ticket.map_or(1, |t| t.seats).into(), Relaxed);
        Permit { level: self.clone(), stats: stats.clone(), ticket }
    }

    /// Outside the lock: a permit whose receiver is gone gives its seats back at once.
    fn wake(self: &Arc<Self>, started: Vec<(Wake, Ticket)>) {
        for ((wake, stats), ticket) in started {
            let _ = wake.send(self.permit(&stats, Some(ticket)));
        }
    }

    /// Waits for `seats`, at most `patience`.
    pub async fn enter(
        level: &Arc<Self>,
        stats: &Arc<Stats>,
        seats: u32,
        hash: u64,
        patience: Duration,
    ) -> Result<Permit, Refusal> {
        let begun = now();
        if level.exempt {
            level.queues.lock().enter(1, begun);
            level.alarm.ring();
            return Ok(level.permit(stats, None));
        }
        let mut receiver = None;
        let arrival = level.queues.lock().arrive(seats, hash, begun, || {
            let (sender, got) = oneshot::channel();
            receiver = Some(got);
            (sender, stats.clone())
        });
        level.alarm.ring();
        let (reason, waited) = match (arrival, receiver) {
            (Arrival::Start(ticket), _) => {
                stats.waited(true, Duration::ZERO);
                return Ok(level.permit(stats, Some(ticket)));
            }
            (Arrival::Wait { queue, number }, Some(receiver)) => {
                stats.waiting.fetch_add(1, Relaxed);
                let waiter = Waiter { level, stats, queue, number };
                let got = tokio::time::timeout(patience, receiver).await;
                drop(waiter);
                match got {
                    Ok(Ok(permit)) => {
                        stats.waited(true, begun.elapsed());
                        return Ok(permit);
                    }
                    _ => ("time-out", begun.elapsed()),
                }
            }
            (Arrival::Refused(reason), _) => (reason, Duration::ZERO),
            (Arrival::Wait { .. }, None) => ("cancelled", Duration::ZERO),
        };
        stats.reject(reason);
        stats.waited(false, waited);
        Err(Refusal { retry_after: level.dropped.lock().note() })
    }
}
