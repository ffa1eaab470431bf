//! Where pods go: a pure core and a thin shell.
//!
//! The core is [`schedule`]: a [`Snapshot`] of the cluster and a [`PodInfo`] give a [`Decision`]; it reads no clock and
//! does no I/O, so the same code places pods in a running cluster, in the cost planner and in simulations. The
//! [`queue`] is pure as well. The [`shell`] watches the API (through [`tracked`] into
//! [`cache`]), asks the core, and binds.
//!
//! Reading order: [`resources`] → [`pod`] → [`snapshot`] → [`plugins`] (filters and scores) → [`schedule`] →
//! [`preemption`] → [`queue`] → [`shell`].

pub mod cache;
pub mod plugins;
pub mod pod;
pub mod preemption;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod shell;
pub mod snapshot;
pub mod tracked;

pub use pod::PodInfo;
pub use resources::Resources;
pub use schedule::{Decision, Policy, schedule};
pub use snapshot::{NodeInfo, Snapshot};
