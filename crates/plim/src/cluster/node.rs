//! One node: pod network, container runtime, DNS, services and the agent, put together.

use anyhow::Result;

use super::{control::Control, machine::Machine};
use crate::{data::Data, progress::Progress};

/// The running nodes of this machine.
pub struct Nodes {}

/// Starts every node of the machine.
pub async fn start_all(
    _data: &Data,
    _machine: &Machine,
    _control: &Control,
    _progress: &Progress,
) -> Result<Nodes> {
    Ok(Nodes {})
}

impl Nodes {
    /// Ends the agents; pods run on.
    pub async fn stop(self) {}
}

/// Ends every pod of the machine's nodes and removes what they had in the kernel.
pub async fn remove_all(_data: &Data, _machine: &Machine) -> Result<()> {
    Ok(())
}
