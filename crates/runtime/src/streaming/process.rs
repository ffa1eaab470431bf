//! A process' streams joined to a client's, whatever protocol carries them.

use std::{convert::Infallible, future::Future, io};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

use super::{Process, TerminalSize};

/// Bytes that go into one message.
pub(super) const CHUNK: usize = 32 << 10;
/// Messages that wait for a slow reader, in each direction.
pub(super) const QUEUE: usize = 8;

/// An output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// What a client is told, in this order: data and ends of the outputs, then the outcome.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    Data(Output, Bytes),
    End(Output),
    Over(Outcome),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    /// A command that exited with another code than 0.
    Exit {
        code: i32,
        command: Vec<String>,
    },
    /// It could not be done.
    Failed(String),
}

impl Outcome {
    /// The `metav1.Status` that protocols from v4 on end with.
    pub(super) fn status(&self) -> Value {
        match self {
            Outcome::Success => json!({"metadata": {}, "status": "Success"}),
            Outcome::Exit { code, .. } => json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": self.message(),
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Outcome::Failed(why) => json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": self.message(), "details": {"causes": [{"message": why}]},
            }),
        }
    }

    /// The text that protocols before v4 end with; nothing for a success.
    pub(super) fn message(&self) -> String {
        match self {
            Outcome::Success => String::new(),
            Outcome::Exit { code, command } => format!(
                "command terminated with non-zero exit code: error executing command [{}], exit code {code}",
                command.join(" ")
            ),
            Outcome::Failed(why) => format!("Internal error occurred: {why}"),
        }
    }
}

/// The client's ends.
pub(super) struct Client {
    /// Its end is the end of standard input.
    pub(super) stdin: mpsc::Receiver<Bytes>,
    pub(super) resize: mpsc::Receiver<TerminalSize>,
    pub(super) events: mpsc::Sender<Event>,
}

/// The channels that a protocol feeds and drains on the client's behalf.
pub(super) struct Ends {
    pub(super) stdin: mpsc::Sender<Bytes>,
    pub(super) resize: mpsc::Sender<TerminalSize>,
    pub(super) events: mpsc::Receiver<Event>,
}

impl Client {
    pub(super) fn new() -> (Client, Ends) {
        let (stdin, stdin_out) = mpsc::channel(QUEUE);
        let (resize, resize_out) = mpsc::channel(QUEUE);
        let (events_in, events) = mpsc::channel(QUEUE);
        (Client { stdin: stdin_out, resize: resize_out, events: events_in }, Ends { stdin, resize, events })
    }
}

/// What is done with a process.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    Exec { command: Vec<String> },
    Attach,
}

impl Purpose {
    fn failed(&self, why: &dyn std::fmt::Display) -> Outcome {
        Outcome::Failed(match self {
            Purpose::Exec { .. } => format!("error executing command in container: {why}"),
            Purpose::Attach => format!("error attaching to container: {why}"),
        })
    }

    fn outcome(&self, exit: &io::Result<i32>) -> Outcome {
        match (self, exit) {
            // who attaches is not told how the container's process ended
            (Purpose::Attach, Ok(_)) | (_, Ok(0)) => Outcome::Success,
            (Purpose::Exec { command }, Ok(code)) => Outcome::Exit { code: *code, command: command.clone() },
            (_, Err(why)) => self.failed(why),
        }
    }
}

/// Starts or finds the process and carries its streams until its outputs have ended and it has exited. Dropped before,
/// it lets go of the process.
pub(super) async fn run(
    purpose: Purpose,
    start: impl Future<Output = Result<Process, tonic::Status>>,
    client: Client,
) {
    let Client { stdin, resize, events } = client;
    let outcome = match start.await {
        Err(status) => purpose.failed(&status.message()),
        Ok(process) => {
            let inputs = async {
                tokio::join!(feed(stdin, process.stdin), forward(resize, process.resize),);
                std::future::pending::<Infallible>().await
            };
            let outputs = async {
                tokio::join!(
                    drain(Output::Stdout, process.stdout, &events),
                    drain(Output::Stderr, process.stderr, &events),
                    process.exit,
                )
            };
            tokio::select! {
                (.., exit) = outputs => purpose.outcome(&exit),
                never = inputs => match never {},
            }
        }
    };
    // Nobody to tell: the connection is gone.
    let _ = events.send(Event::Over(outcome)).await;
}

async fn feed(mut from: mpsc::Receiver<Bytes>, to: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>) {
    let Some(mut to) = to else { return };
    while let Some(bytes) = from.recv().await {
        // A process may close its input and go on; what comes then is thrown away with the receiver.
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn forward(mut from: mpsc::Receiver<TerminalSize>, to: Option<mpsc::Sender<TerminalSize>>) {
    let Some(to) = to else { return };
    while let Some(size) = from.recv().await {
        if to.send(size).await.is_err() {
            return;
        }
    }
}

async fn drain(
    output: Output,
    from: Option<Box<dyn AsyncRead + Send + Unpin>>,
    events: &mpsc::Sender<Event>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::new();
    while let Some(bytes) = part(&mut from, &mut buffer).await {
        if events.send(Event::Data(output, bytes)).await.is_err() {
            return;
        }
    }
    let _ = events.send(Event::End(output)).await;
}

/// The next bytes, at most [`CHUNK`]; `None` at the end. Small parts share `buffer`.
pub(super) async fn part(from: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> Option<Bytes> {
    if buffer.capacity() < CHUNK / 8 {
        buffer.reserve(CHUNK);
    }
    match from.read_buf(buffer).await {
        // a terminal whose last process has gone reads as EIO
        Ok(0) | Err(_) => None,
        Ok(_) => Some(buffer.split().freeze()),
    }
}
