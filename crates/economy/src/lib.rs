//! What things cost: machine shapes with their prices, a plan for a list of VMs, and a ledger of what runs.
//!
//! Pure. Loads are packed with the scheduler's own core, so that a plan says what the cluster will then do. All money is
//! US dollars a month of 730 hours; every sum is made of lines that add up to it.
//!
//! Reading order: [`shapes`] → [`packing`] → [`plan`] (before moving) → [`ledger`] (what runs).

pub mod ledger;
pub mod packing;
pub mod plan;
pub mod shapes;

/// Hours of a month, as clouds bill.
pub const HOURS: f64 = 730.0;
/// Bytes of a GiB.
pub const GIB: f64 = 1_073_741_824.0;

/// What cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A line of a CSV file is wrong.
    #[error("{file}:{line}: {why}")]
    Line { file: String, line: u64, why: String },
    /// A column is missing.
    #[error("{file}: column {column:?} is missing; the first line has to name {expected}")]
    Column { file: String, column: &'static str, expected: &'static str },
    /// Nothing to plan.
    #[error("{0}: no machines in it")]
    Empty(String),
    /// Something does not fit on any machine.
    #[error("{name} needs {cpu:.1} vCPU and {memory:.1} GiB: no shape of the catalogue is that large")]
    TooLarge { name: String, cpu: f64, memory: f64 },
}
