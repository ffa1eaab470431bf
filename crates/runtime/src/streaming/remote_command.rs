//! Exec and attach over either transport.

use std::{collections::HashMap, convert::Infallible, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Backend, Process, TerminalSize, Wanted,
    process::{self, Client, Ends, Event, Output, Purpose},
    spdy,
    websocket::{self, Incoming, Protocol, Upgraded},
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// How long a client may take to open its streams.
const CREATION: Duration = Duration::from_secs(30);
/// Bytes of a terminal's size.
const MAX_SIZE: usize = 1024;

/// An exec or attach that was allowed.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) container: String,
    pub(super) purpose: Purpose,
    pub(super) wanted: Wanted,
}

impl Command {
    fn start(
        &self,
        backend: Arc<dyn Backend>,
    ) -> impl Future<Output = Result<Process, tonic::Status>> + use<> {
        let Command { container, purpose, wanted } = self.clone();
        async move {
            match purpose {
                Purpose::Exec { command } => backend.exec(&container, &command, wanted).await,
                Purpose::Attach => backend.attach(&container, wanted).await,
            }
        }
    }

    fn run(&self, backend: Arc<dyn Backend>, client: Client) -> impl Future<Output = ()> + use<> {
        process::run(self.purpose.clone(), self.start(backend), client)
    }
}

/// Serves it over a WebSocket with this subprotocol.
pub(super) async fn over_websocket(
    command: Command,
    backend: Arc<dyn Backend>,
    protocol: Protocol,
    io: Upgraded,
) {
    let socket = websocket::accept(io).await;
    let (client, Ends { stdin, resize, mut events }) = Client::new();
    let work = command.run(backend, client);
    let (messages, outgoing) = mpsc::channel(1);
    // An empty message tells the client that the connection stands.
    let first = match command.wanted {
        Wanted { stdout: true, .. } => STDOUT,
        Wanted { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    let translate = async move {
        let mut next = Some(protocol.encode(first, &[]));
        loop {
            if let Some(message) = next.take()
                && messages.send(message).await.is_err()
            {
                return;
            }
            next = match events.recv().await {
                Some(Event::Data(Output::Stdout, bytes)) => Some(protocol.encode(STDOUT, &bytes)),
                Some(Event::Data(Output::Stderr, bytes)) => Some(protocol.encode(STDERR, &bytes)),
                // the channels have no end of their own
                Some(Event::End(_)) => None,
                Some(Event::Over(outcome)) => {
                    let text =
                        if protocol.has_status() { outcome.status().to_string() } else { outcome.message() };
                    (!text.is_empty()).then(|| protocol.encode(ERROR, text.as_bytes()))
                }
                None => return,
            };
        }
    };
    let work = async {
        tokio::join!(work, translate);
    };
    let mut stdin = command.wanted.stdin.then_some(stdin);
    let incoming = move |message| {
        let mut to = None;
        match message {
            Incoming::Data(STDIN, bytes) => to = stdin.clone().map(|s| Sending::Stdin(s, bytes)),
            Incoming::Data(RESIZE, bytes) => {
                to = terminal_size(&bytes).map(|size| Sending::Resize(resize.clone(), size));
            }
            Incoming::Closed(STDIN) => stdin = None,
            _ => {}
        }
        async move {
            // Whoever no longer takes it has ended; the rest of the connection goes on.
            match to {
                Some(Sending::Stdin(to, bytes)) => _ = to.send(bytes).await,
                Some(Sending::Resize(to, size)) => _ = to.send(size).await,
                None => {}
            }
        }
    };
    websocket::carry(socket, protocol, work, outgoing, incoming).await;
}

/// Serves it over SPDY; `version` counts the protocols of its streams, 1 to 4.
pub(super) async fn over_spdy(command: Command, backend: Arc<dyn Backend>, version: usize, io: Upgraded) {
    let (reader, writer) = tokio::io::split(io);
    let (mut streams, drive) = spdy::serve(reader, writer);
    let work = async {
        match tokio::time::timeout(CREATION, collect(&mut streams, command.wanted, version)).await {
            Ok(Some(open)) => {
                let refuse_others = async {
                    while let Some(stream) = streams.next().await {
                        stream.refuse().await;
                    }
                    std::future::pending::<Infallible>().await
                };
                tokio::select! {
                    () = converse(&command, backend, version, open) => {}
                    never = refuse_others => match never {},
                }
            }
            Ok(None) => {}
            Err(_) => tracing::debug!("timed out waiting for client to create streams"),
        }
        streams.close().await;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        ended = drive => if let Err(error) = ended {
            tracing::debug!(%error, "a SPDY connection ended");
        },
        never = work => match never {},
    }
}

/// The streams of a command, by their type.
type Open = HashMap<&'static str, (spdy::Reader, spdy::Writer)>;

/// Waits for the streams that the client has to open; `None` if it goes before.
async fn collect(streams: &mut spdy::Streams, wanted: Wanted, version: usize) -> Option<Open> {
    let expected: Vec<&'static str> = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !wanted.tty),
        ("resize", wanted.tty && version >= 3),
    ]
    .into_iter()
    .filter_map(|(name, wanted)| wanted.then_some(name))
    .collect();
    let mut open = Open::new();
    while open.len() < expected.len() {
        let stream = streams.next().await?;
        let kind = stream.headers().get("streamtype").unwrap_or_default();
        match expected.iter().find(|e| **e == kind) {
            Some(kind) if !open.contains_key(kind) => _ = open.insert(kind, stream.accept().await),
            _ => stream.refuse().await,
        }
    }
    Some(open)
}

async fn converse(command: &Command, backend: Arc<dyn Backend>, version: usize, mut open: Open) {
    let (client, Ends { stdin, resize, mut events }) = Client::new();
    let run = command.run(backend, client);
    let mut writers = HashMap::new();
    let mut reader = |kind: &'static str| {
        let (reader, writer) = open.remove(kind).map_or((None, None), |(r, w)| (Some(r), Some(w)));
        writers.insert(kind, writer);
        reader
    };
    let (input, sizes) = (reader("stdin"), reader("resize"));
    for kind in ["stdout", "stderr", "error"] {
        reader(kind);
    }
    let inputs = async {
        tokio::join!(feed(input, stdin), resizes(sizes, resize));
        std::future::pending::<Infallible>().await
    };
    let outputs = async {
        while let Some(event) = events.recv().await {
            match event {
                Event::Data(output, bytes) => {
                    if let Some(Some(writer)) = writers.get_mut(name(output)) {
                        // Closed by the client: the process goes on without.
                        let _ = writer.send(bytes).await;
                    }
                }
                Event::End(output) => {
                    if let Some(Some(writer)) = writers.get_mut(name(output)) {
                        writer.finish().await;
                    }
                }
                Event::Over(outcome) => {
                    let text = if version >= 4 { outcome.status().to_string() } else { outcome.message() };
                    if let Some(Some(writer)) = writers.get_mut("error") {
                        let _ = writer.send(text.into()).await;
                    }
                }
            }
        }
        for writer in writers.values_mut().flatten() {
            writer.finish().await;
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(run, outputs) } => {}
        never = inputs => match never {},
    }
}

fn name(output: Output) -> &'static str {
    match output {
        Output::Stdout => "stdout",
        Output::Stderr => "stderr",
    }
}

async fn feed(from: Option<spdy::Reader>, to: mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    while let Some(bytes) = from.next().await {
        // A process that has closed its input must not hold up the other streams: what comes is thrown away.
        let _ = to.send(bytes).await;
    }
}

/// Sizes come as JSON, one after the other.
async fn resizes(from: Option<spdy::Reader>, to: mpsc::Sender<TerminalSize>) {
    let Some(mut from) = from else { return };
    let mut text = Vec::new();
    while let Some(bytes) = from.next().await {
        text.extend_from_slice(&bytes);
        while let Some(end) = text.iter().position(|b| *b == b'}') {
            let one: Vec<u8> = text.drain(..=end).collect();
            if let Some(size) = terminal_size(&one) {
                let _ = to.send(size).await;
            }
        }
        if text.len() > MAX_SIZE {
            text.clear();
        }
    }
}

enum Sending {
    Stdin(mpsc::Sender<Bytes>, Bytes),
    Resize(mpsc::Sender<TerminalSize>, TerminalSize),
}

/// `{"Width":80,"Height":24}`; anything else changes nothing.
fn terminal_size(text: &[u8]) -> Option<TerminalSize> {
    #[derive(serde::Deserialize)]
    struct Size {
        #[serde(alias = "width")]
        #[serde(rename = "Width")]
        width: u16,
        #[serde(alias = "height")]
        #[serde(rename = "Height")]
        height: u16,
    }
    let size: Size = serde_json::from_slice(text).ok()?;
    Some(TerminalSize { width: size.width, height: size.height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_terminals_are_read_and_nonsense_is_passed_over() {
        let size = Some(TerminalSize { width: 80, height: 24 });
        assert_eq!(terminal_size(br#"{"Width":80,"Height":24}"#), size);
        assert_eq!(terminal_size(b"{\"Width\":80,\"Height\":24}\n"), size);
        assert_eq!(terminal_size(br#"{"Width":-1,"Height":24}"#), None);
        assert_eq!(terminal_size(b"80x24"), None);
    }
}
