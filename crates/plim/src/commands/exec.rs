//! `plim exec`, and the terminal it shares with `plim run -it`.

use std::io::IsTerminal;

use anyhow::{Context, Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{AttachParams, AttachedProcess, TerminalSize},
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
};

use crate::{client, commands::logs::pods_of, data::Data};

/// Shown by `plim exec --help`.
pub const EXAMPLES: &str = "Examples:\n  plim exec web -- env\n  plim exec -it web -- sh";

/// Run a command in a running container.
#[derive(Args, Debug)]
pub struct Exec {
    /// A pod or a workload.
    name: String,
    /// The command.
    #[arg(last = true, required = true)]
    command: Vec<String>,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The container; the first when left out.
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// With a terminal.
    #[arg(short, long)]
    tty: bool,
}

impl Exec {
    /// Runs it; the exit code is the command's.
    pub fn run(self, data: &Data) -> Result<u8> {
        client::with(data, async |client| {
            let pods =
                pods_of(&client, &self.namespace, &self.name).await.map_err(|e| client::explain(e, data))?;
            let Some(pod) = pods.iter().find(|p| running(p)).and_then(|p| p.metadata.name.clone()) else {
                bail!("nothing of {:?} runs: `plim why {}` says why", self.name, self.name);
            };
            let api = Api::<Pod>::namespaced(client, &self.namespace);
            let mut params =
                AttachParams::default().stdin(self.stdin).tty(self.tty).stdout(true).stderr(!self.tty);
            if let Some(container) = &self.container {
                params = params.container(container);
            }
            let process = api.exec(&pod, self.command.clone(), &params).await?;
            converse(process, self.tty).await
        })
    }
}

fn running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
}

/// A terminal in raw mode, put back when dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal is gone if this fails; then nobody needs it any more.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Connects the process with this one's streams until it ends; gives its exit code.
pub async fn converse(mut process: AttachedProcess, tty: bool) -> Result<u8> {
    let raw = if tty { Raw::new() } else { None };
    let status = process.take_status().context("the server gives no status")?;
    if let Some(mut to) = process.stdin() {
        tokio::spawn(async move {
            let mut from = tokio::io::stdin();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
    if let Some(mut sizes) = process.terminal_size() {
        let mut changes = signal(SignalKind::window_change())?;
        tokio::spawn(async move {
            loop {
                if let Ok(size) = tcgetwinsize(std::io::stdout()) {
                    let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                    if futures::SinkExt::send(&mut sizes, size).await.is_err() {
                        return;
                    }
                }
                if changes.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    let out = process.stdout();
    let err = process.stderr();
    let (one, two) = tokio::join!(pass(out, tokio::io::stdout()), pass(err, tokio::io::stderr()));
    one.and(two)?;
    let status = status.await;
    drop(raw);
    // Standard input may still be blocked in a read that nothing ends: the runtime must not wait for it.
    let code = status.map_or(Some(1), |s| match s.status.as_deref() {
        Some("Success") => Some(0),
        _ => s
            .details
            .into_iter()
            .flat_map(|d| d.causes)
            .flatten()
            .find(|c| c.reason.as_deref() == Some("ExitCode"))
            .and_then(|c| c.message?.parse().ok()),
    });
    Ok(code.unwrap_or(1))
}

async fn pass(
    from: Option<impl tokio::io::AsyncRead + Unpin>,
    mut to: impl tokio::io::AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
    }
}
