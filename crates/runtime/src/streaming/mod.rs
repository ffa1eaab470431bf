//! Exec, attach and port-forward over HTTP: the streaming server that CRI's `Exec`, `Attach` and `PortForward` name a URL of.
//!
//! The server speaks the protocols (WebSocket, every `channel.k8s.io` version, and SPDY/3.1); a [`Backend`] has the
//! processes.
//!
//! In reading order: `tokens` (what a URL is good for), `server` (HTTP, upgrades), `process` (a process' streams, whatever
//! carries them), `websocket` and `spdy` (what carries them), `remote_command` and `port_forward` (what is carried).

mod activity;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod port_forward;
mod process;
mod remote_command;
mod server;
pub mod spdy;
mod tokens;
mod websocket;

pub use server::Server;

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Which of a process' streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// A terminal; standard error then comes with standard output.
    pub tty: bool,
    /// See the name.
    pub stdin: bool,
    /// See the name.
    pub stdout: bool,
    /// See the name.
    pub stderr: bool,
}

/// A process whose streams are connected.
pub struct Process {
    /// Dropping it is the end of the process' standard input (for an attach: only if the container has `stdinOnce`).
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Ends when the process has closed it.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// See `stdout`.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Takes the terminal's sizes.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves to the exit code when the process has ended. Dropping it ends an exec'd process that still runs.
    pub exit: futures::future::BoxFuture<'static, std::io::Result<i32>>,
}

/// A connection to a port of a pod.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What has the processes. Errors are CRI's statuses (`NotFound`, `FailedPrecondition`, …).
#[async_trait]
pub trait Backend: Send + Sync {
    /// Starts a process in a running container.
    async fn exec(
        &self,
        container: &str,
        command: &[String],
        wanted: Wanted,
    ) -> Result<Process, tonic::Status>;
    /// Connects to the main process of a running container.
    async fn attach(&self, container: &str, wanted: Wanted) -> Result<Process, tonic::Status>;
    /// Connects to a TCP port on the loopback interface of a sandbox.
    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, tonic::Status>;
}
