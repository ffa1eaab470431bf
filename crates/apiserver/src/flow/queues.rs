//! The seats of one priority level and the queues before them: fair queuing by virtual time.
//!
//! Pure: time comes in. Work is measured in seat-seconds. A queue's virtual start is when, in a server that worked for all
//! busy queues at once, its next request would begin; whichever queue would end its next request first has the next seats.
//! A request counts as [`GUESS`] long until it is over; the difference is given back to its queue.
//!
//! Source: `fairqueuing/queueset/queueset.go`.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{
    deal::deal,
    demand::{Integrator, Observed},
};

/// How long a request is taken to be before it is over, in seconds.
const GUESS: f64 = 60.0;

/// How a level is arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Seats.
    pub limit: u32,
    /// How many queues; 0: nobody waits.
    pub queues: usize,
    /// How many of them a flow is dealt.
    pub hand: usize,
    /// How many requests may wait in one.
    pub length: usize,
}

/// A request that has seats.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub seats: u32,
    queue: Option<usize>,
    since: Instant,
}

/// What becomes of a request that comes.
pub enum Arrival {
    /// It has its seats.
    Start(Ticket),
    /// It waits, under this number, in this queue.
    Wait { queue: usize, number: u64 },
    /// There is no room: `queue-full` or `concurrency-limit`.
    Refused(&'static str),
}

struct Waiting<W> {
    number: u64,
    seats: u32,
    arrived: f64,
    wake: W,
}

struct Queue<W> {
    waiting: VecDeque<Waiting<W>>,
    /// Virtual start of the next request.
    next: f64,
    executing: u32,
    /// Seats of those that wait.
    wanted: u64,
}

impl<W> Queue<W> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    /// A queue gets no credit for the time in which it had nothing to do.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next = self.next.max(first.arrived);
        }
    }
}

/// See the module. `W` is how a waiting request is woken.
pub struct Queues<W> {
    arrangement: Arrangement,
    queues: Vec<Queue<W>>,
    /// Virtual time, and when it was so.
    virtual_now: f64,
    at: Instant,
    in_use: u32,
    executing: usize,
    waiting: usize,
    wanted: u64,
    busy: usize,
    robin: usize,
    numbers: u64,
    /// Of seats in use and wanted.
    demand: Integrator,
}

impl<W> Queues<W> {
    pub fn new(arrangement: Arrangement, now: Instant) -> Self {
        let queue = || Queue { waiting: VecDeque::new(), next: 0.0, executing: 0, wanted: 0 };
        Self {
            arrangement,
            queues: (0..arrangement.queues).map(|_| queue()).collect(),
            virtual_now: 0.0,
            at: now,
            in_use: 0,
            executing: 0,
            waiting: 0,
            wanted: 0,
            busy: 0,
            robin: 0,
            numbers: 0,
            demand: Integrator::new(now),
        }
    }

    /// More or fewer seats from now on. Returns who may begin.
    pub fn set_limit(&mut self, limit: u32, now: Instant) -> Vec<(W, Ticket)> {
        self.advance(now);
        self.arrangement.limit = limit;
        self.dispatch(now)
    }

    /// What the demand was like since the last time.
    pub fn take_demand(&mut self, now: Instant) -> Observed {
        self.demand.take(now)
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(f64::from(self.in_use) + self.wanted as f64, now);
    }

    /// A request begins that nobody limits: only its demand counts.
    pub fn enter(&mut self, seats: u32, now: Instant) {
        self.in_use += seats;
        self.note_demand(now);
    }

    /// It is over.
    pub fn exit(&mut self, seats: u32, now: Instant) {
        self.in_use -= seats;
        self.note_demand(now);
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        if self.busy > 0 {
            let used = (f64::from(self.in_use) + self.wanted as f64).min(f64::from(self.arrangement.limit));
            self.virtual_now += elapsed * used / self.busy as f64;
        }
    }

    fn fits(&self, seats: u32) -> bool {
        // What is wider than the level runs alone.
        if seats > self.arrangement.limit {
            self.executing == 0
        } else {
            self.in_use + seats <= self.arrangement.limit
        }
    }

    fn begin(&mut self, queue: Option<usize>, seats: u32, now: Instant) -> Ticket {
        self.in_use += seats;
        self.executing += 1;
        if let Some(queue) = queue.and_then(|index| self.queues.get_mut(index)) {
            queue.executing += 1;
            queue.next += f64::from(seats) * GUESS;
        }
        Ticket { seats, queue, since: now }
    }

    /// A request of the flow `hash` comes. `wake` is made if it has to wait.
    pub fn arrive(&mut self, seats: u32, hash: u64, now: Instant, wake: impl FnOnce() -> W) -> Arrival {
        self.advance(now);
        let arrival = self.place(seats, hash, now, wake);
        self.note_demand(now);
        arrival
    }

    fn place(&mut self, seats: u32, hash: u64, now: Instant, wake: impl FnOnce() -> W) -> Arrival {
        if self.queues.is_empty() {
            if self.fits(seats) {
                return Arrival::Start(self.begin(None, seats, now));
            }
            return Arrival::Refused("concurrency-limit");
        }
        let index = self.choose(hash);
        let free = self.waiting == 0 && self.fits(seats);
        let virtual_now = self.virtual_now;
        let length = self.arrangement.length;
        let queue = &mut self.queues[index];
        if !free && queue.waiting.len() >= length {
            return Arrival::Refused("queue-full");
        }
        if queue.is_idle() {
            queue.next = virtual_now;
            self.busy += 1;
        }
        if free {
            // The usual way: nobody waits, and nothing is kept.
            queue.next = queue.next.max(virtual_now);
            return Arrival::Start(self.begin(Some(index), seats, now));
        }
        self.numbers += 1;
        let number = self.numbers;
        queue.waiting.push_back(Waiting { number, seats, arrived: virtual_now, wake: wake() });
        queue.wanted += u64::from(seats);
        queue.bound();
        self.waiting += 1;
        self.wanted += u64::from(seats);
        Arrival::Wait { queue: index, number }
    }

    /// The queue of the flow's hand with the least work before it.
    fn choose(&mut self, hash: u64) -> usize {
        let hand = deal(hash, self.queues.len(), self.arrangement.hand);
        let key = |index: &usize| (self.queues[*index].wanted, self.queues[*index].executing);
        hand.min_by_key(key).unwrap_or_default()
    }

    /// Everybody who may begin now.
    pub fn dispatch(&mut self, now: Instant) -> Vec<(W, Ticket)> {
        let mut started = Vec::new();
        // A level that has lent all its seats works at one request at a time.
        while self.waiting > 0 && (self.executing == 0 || self.in_use < self.arrangement.limit) {
            let Some(index) = self.first() else { break };
            let queue = &mut self.queues[index];
            let Some(seats) = queue.waiting.front().map(|w| w.seats) else { break };
            if !self.fits(seats) {
                break;
            }
            let queue = &mut self.queues[index];
            let Some(next) = queue.waiting.pop_front() else { break };
            queue.wanted -= u64::from(seats);
            self.wanted -= u64::from(seats);
            self.waiting -= 1;
            self.robin = index;
            let ticket = self.begin(Some(index), seats, now);
            self.queues[index].bound();
            started.push((next.wake, ticket));
        }
        started
    }

    /// The queue whose next request would end first; of equal ones the next in turn.
    fn first(&self) -> Option<usize> {
        let count = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for step in 1..=count {
            let index = (self.robin + step) % count;
            let queue = &self.queues[index];
            let Some(first) = queue.waiting.front() else { continue };
            let end = queue.next + f64::from(first.seats) * GUESS;
            if best.is_none_or(|(least, _)| end < least) {
                best = Some((end, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// A request is over. Returns who may begin.
    pub fn finish(&mut self, ticket: Ticket, now: Instant) -> Vec<(W, Ticket)> {
        self.advance(now);
        self.in_use -= ticket.seats;
        self.executing -= 1;
        if let Some(queue) = ticket.queue.and_then(|index| self.queues.get_mut(index)) {
            queue.executing -= 1;
            let took = now.saturating_duration_since(ticket.since).as_secs_f64();
            queue.next -= f64::from(ticket.seats) * (GUESS - took);
            queue.bound();
            self.busy -= usize::from(queue.is_idle());
        }
        self.note_demand(now);
        if self.waiting == 0 { Vec::new() } else { self.dispatch(now) }
    }

    /// A request does not wait any longer. Returns who may begin because it stood before them, and whether it waited.
    pub fn leave(&mut self, queue: usize, number: u64, now: Instant) -> (bool, Vec<(W, Ticket)>) {
        self.advance(now);
        let Some(queue) = self.queues.get_mut(queue) else { return (false, Vec::new()) };
        let Some(place) = queue.waiting.iter().position(|w| w.number == number) else {
            return (false, Vec::new());
        };
        let seats = queue.waiting.remove(place).map_or(0, |w| u64::from(w.seats));
        queue.wanted -= seats;
        queue.bound();
        self.busy -= usize::from(queue.is_idle());
        self.wanted -= seats;
        self.waiting -= 1;
        self.note_demand(now);
        (true, self.dispatch(now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ONE: Arrangement = Arrangement { limit: 2, queues: 8, hand: 1, length: 50 };

    fn waits(arrival: &Arrival) -> bool {
        matches!(arrival, Arrival::Wait { .. })
    }

    fn ticket(arrival: Arrival) -> Ticket {
        match arrival {
            Arrival::Start(ticket) => ticket,
            _ => panic!("it has no seats"),
        }
    }

    #[test]
    fn a_flood_of_one_flow_lets_another_in_by_turns() {
        let now = Instant::now();
        let mut queues: Queues<&str> = Queues::new(ONE, now);
        let mut running: VecDeque<Ticket> =
            (0..2).map(|_| ticket(queues.arrive(1, 0, now, || "flood"))).collect();
        for _ in 0..40 {
            assert!(waits(&queues.arrive(1, 0, now, || "flood")));
        }
        assert!(waits(&queues.arrive(1, 1, now, || "small")));
        let mut order = Vec::new();
        for second in 1..=4 {
            let over = running.pop_front().unwrap();
            for (who, ticket) in queues.finish(over, now + Duration::from_secs(second)) {
                order.push(who);
                running.push_back(ticket);
            }
        }
        assert!(order[..2].contains(&"small"), "{order:?}");
    }

    #[test]
    fn a_queue_has_an_end_and_a_level_without_queues_refuses_at_once() {
        let now = Instant::now();
        let mut queues: Queues<()> = Queues::new(Arrangement { length: 1, ..ONE }, now);
        for _ in 0..2 {
            ticket(queues.arrive(1, 0, now, || ()));
        }
        assert!(waits(&queues.arrive(1, 0, now, || ())));
        assert!(matches!(queues.arrive(1, 0, now, || ()), Arrival::Refused("queue-full")));
        assert!(waits(&queues.arrive(1, 3, now, || ())), "another flow's queue has room");
        let mut none: Queues<()> = Queues::new(Arrangement { queues: 0, ..ONE }, now);
        ticket(none.arrive(2, 0, now, || ()));
        assert!(matches!(none.arrive(1, 0, now, || ()), Arrival::Refused("concurrency-limit")));
    }

    #[test]
    fn a_wide_request_waits_for_its_seats_and_one_wider_than_all_runs_alone() {
        let now = Instant::now();
        let mut queues: Queues<&str> = Queues::new(ONE, now);
        let small = ticket(queues.arrive(1, 0, now, || "a"));
        assert!(waits(&queues.arrive(2, 1, now, || "wide")));
        let started = queues.finish(small, now);
        assert_eq!(started[0].0, "wide");
        assert!(waits(&queues.arrive(9, 2, now, || "huge")));
        let started = queues.finish(started[0].1, now);
        assert_eq!((started[0].0, started[0].1.seats), ("huge", 9));
    }

    #[test]
    fn whoever_leaves_makes_room() {
        let now = Instant::now();
        let mut queues: Queues<&str> = Queues::new(Arrangement { length: 1, ..ONE }, now);
        let _first = ticket(queues.arrive(2, 0, now, || "a"));
        let Arrival::Wait { queue, number } = queues.arrive(1, 0, now, || "b") else { panic!() };
        let (left, started) = queues.leave(queue, number, now);
        assert!(left && started.is_empty());
        assert!(!queues.leave(queue, number, now).0);
        assert!(waits(&queues.arrive(1, 0, now, || "c")));
    }

    #[test]
    fn a_level_without_seats_works_at_one_request_after_the_other() {
        let now = Instant::now();
        let mut queues: Queues<&str> = Queues::new(Arrangement { limit: 0, ..ONE }, now);
        let first = ticket(queues.arrive(1, 0, now, || "a"));
        assert!(waits(&queues.arrive(1, 0, now, || "b")));
        assert!(waits(&queues.arrive(1, 0, now, || "c")));
        let started = queues.finish(first, now);
        assert_eq!(started.iter().map(|(who, _)| *who).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn who_waits_wants_seats_too() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut queues: Queues<&str> = Queues::new(ONE, now);
        let _held = ticket(queues.arrive(2, 0, now, || "a"));
        let Arrival::Wait { queue, number } = queues.arrive(3, 1, now, || "b") else { panic!() };
        let demand = queues.take_demand(later);
        assert_eq!((demand.average, demand.deviation, demand.most), (5.0, 0.0, 5.0));
        queues.leave(queue, number, later);
        assert_eq!(queues.take_demand(later).most, 5.0, "it was there when the period began");
        assert_eq!(queues.take_demand(later + Duration::from_secs(1)).most, 2.0);
    }

    #[test]
    fn everything_that_comes_goes() {
        let now = Instant::now();
        let mut queues: Queues<u64> = Queues::new(Arrangement { hand: 4, ..ONE }, now);
        let mut running = VecDeque::new();
        for flow in 0..60_u64 {
            match queues.arrive(1 + (flow % 2) as u32, flow, now, || flow) {
                Arrival::Start(ticket) => running.push_back(ticket),
                Arrival::Wait { .. } => {}
                Arrival::Refused(why) => panic!("{why}"),
            }
        }
        let mut over = 0;
        while let Some(ticket) = running.pop_front() {
            over += 1;
            running
                .extend(queues.finish(ticket, now + Duration::from_millis(over)).into_iter().map(|(_, t)| t));
        }
        assert_eq!((over, queues.in_use, queues.waiting, queues.wanted, queues.busy), (60, 0, 0, 0, 0));
    }
}
