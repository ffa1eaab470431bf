//! The control loops: what turns what is wanted into what is there.
//!
//! A loop is a pure function: [`Controller::reconcile`] takes a key, the [`World`] as last seen and the time, and gives a
//! [`Plan`]. It has no clock, does no I/O and keeps nothing to itself. One [`driver`] runs all loops: it watches, calls,
//! writes, and never runs a key on a world older than that key's own last write.
//!
//! Reading order: [`world`] (what is seen) → [`plan`] (what is to be done) → one file a loop → [`driver`].

pub mod about;
pub mod backends;
pub mod endpointslice;
#[cfg(test)]
mod fixtures;
pub mod plan;
pub mod world;

use k8s_openapi::jiff::Timestamp;

pub use plan::{Failure, Outcome, Plan, Target, Write};
pub use world::{Change, Key, World};

/// One control loop.
pub trait Controller: Send + Sync {
    /// As upstream names it: `deployment-controller`. It is the events' `reportingController`, and the field manager is
    /// the program's.
    fn name(&self) -> &'static str;

    /// The kinds whose objects the loop reads; the driver watches them, once for all loops.
    fn watches(&self) -> Vec<world::Kind>;

    /// The loop also reads the metadata of every served kind but events, and [`World::served`].
    fn watches_all(&self) -> bool {
        false
    }

    /// The keys to look at after a change. The world already contains it; `change.before` is what was there.
    fn keys(&self, change: &Change, world: &World) -> Vec<Key>;

    /// What to do about a key. `last` tells what became of this key's previous plan.
    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan;
}
