//! Whose the things in the kernel are when a start ends early: this start's, or an earlier one's whose pods run on.

use anyhow::Result;

use super::{machine::Machine, node};
use crate::data::Data;

/// The place of a machine's nodes in the kernel.
pub struct Layout<'a> {
    data: &'a Data,
    /// What this start makes; absent before it begins, and when it takes over what an earlier one has left running.
    made: Option<Machine>,
}

impl<'a> Layout<'a> {
    /// Nothing is made yet.
    pub fn new(data: &'a Data) -> Self {
        Self { data, made: None }
    }

    /// The state folder.
    pub fn data(&self) -> &'a Data {
        self.data
    }

    /// Makes room for the machine: what is left of another layout has no place in this one.
    pub async fn take(&mut self, machine: &Machine) -> Result<()> {
        let before = Machine::remembered(self.data)?;
        if before.as_ref() == Some(machine) {
            return Ok(());
        }
        if let Some(before) = before {
            node::remove_all(self.data, &before).await?;
        }
        self.made = Some(machine.clone());
        Ok(())
    }

    /// Takes away what this start has made; pods that it has taken over run on.
    pub async fn undo(&self) -> Result<()> {
        // The layout is written down before anything is made.
        match &self.made {
            Some(machine) if Machine::remembered(self.data)?.is_some() => {
                node::remove_all(self.data, machine).await
            }
            _ => Ok(()),
        }
    }
}
