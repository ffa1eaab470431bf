//! What runs the loops: watches, asks them for plans, carries the plans out.
//!
//! Two layers. [`core`] decides without I/O and without a clock which key of which loop is due and keeps keys from running on
//! a world older than their own last write; [`execute`] carries out one plan against a [`execute::Server`]. The rest is the
//! shell around them: watches, requests, events.

pub mod core;
mod discovery;
mod events;
pub mod execute;
pub mod registry;
mod requests;
mod shell;
mod slim;
mod watches;

pub use core::{Core, Id, Work};
pub use execute::{Answer, Report, Server, execute};
pub use shell::{run, run_with_disks};
