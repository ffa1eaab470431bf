//! Who runs the processes of RUN steps.

use std::io;

use async_trait::async_trait;
use runtime::oneshot::{Holder, Oneshot};
use tokio_util::sync::CancellationToken;

/// Runs one process in a root file system to its end.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Returns the exit code (128 + n after signal n) once all processes of the step are gone. `output` gets what it
    /// writes to standard output and error, in that order as far as can be told. When `cancel` fires, the processes
    /// are killed and the result does not matter.
    ///
    /// # Errors
    /// When the process could not be started.
    async fn run(
        &self,
        step: &Oneshot,
        output: &mut (dyn for<'o> FnMut(&'o [u8]) + Send),
        cancel: &CancellationToken,
    ) -> io::Result<i32>;
}

#[async_trait]
impl Executor for Holder {
    async fn run(
        &self,
        step: &Oneshot,
        output: &mut (dyn for<'o> FnMut(&'o [u8]) + Send),
        cancel: &CancellationToken,
    ) -> io::Result<i32> {
        Holder::run(self, step, output, cancel).await
    }
}
