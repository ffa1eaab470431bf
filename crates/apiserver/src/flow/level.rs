//! A PriorityLevelConfiguration at work.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use apimachinery::{Object, meta};
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
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
            queuing,
        }
    }

    /// A level that every server has, if nobody says otherwise.
    pub fn mandatory(name: &str, exempt: bool, shares: u32) -> Self {
        Self { name: name.to_owned(), uid: String::new(), exempt, shares, queuing: (0, 0, 0) }
    }
}

/// How a waiting request gets its permit, and what it is counted by.
type Wake = (oneshot::Sender<Permit>, Arc<Stats>);

/// How often requests were turned away lately.
#[derive(Default)]
struct Dropped {
    /// The second that is counted, and how many it had.
    since: Option<tokio::time::Instant>,
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

/// See the module.
pub struct Level {
    pub spec: Spec,
    pub exempt: bool,
    pub mark: HeaderValue,
    queues: Mutex<Queues<Wake>>,
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
        if let Some(ticket) = self.ticket {
            let started = self.level.queues.lock().finish(ticket, now());
            self.level.wake(started);
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
    pub fn new(spec: Spec, limit: u32) -> Self {
        let (queues, hand, length) = spec.queuing;
        let arrangement = Arrangement { limit, queues, hand, length };
        Self {
            exempt: spec.exempt,
            mark: HeaderValue::from_str(&spec.uid).unwrap_or(HeaderValue::from_static("")),
            queues: Mutex::new(Queues::new(arrangement, now())),
            dropped: Mutex::default(),
            spec,
        }
    }

    /// Seats of the level.
    pub fn limit(&self) -> u32 {
        self.queues.lock().limit()
    }

    pub fn set_limit(self: &Arc<Self>, limit: u32) {
        let started = self.queues.lock().set_limit(limit, now());
        self.wake(started);
    }

    /// The most seats that one request may take.
    pub fn widest(&self) -> u32 {
        let limit = self.limit();
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
        if level.exempt {
            return Ok(level.permit(stats, None));
        }
        let begun = now();
        let mut receiver = None;
        let arrival = level.queues.lock().arrive(seats, hash, begun, || {
            let (sender, got) = oneshot::channel();
            receiver = Some(got);
            (sender, stats.clone())
        });
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
