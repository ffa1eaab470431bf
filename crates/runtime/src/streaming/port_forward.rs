//! Port-forward: connections to ports of a pod, each with a stream for its data and one for why it failed.

use std::{collections::HashMap, convert::Infallible, fmt::Display, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    Backend,
    process::{QUEUE, part},
    spdy,
    websocket::{self, Incoming, Upgraded},
};

/// How long a client may take between the two streams of a connection.
const PAIRING: Duration = Duration::from_secs(30);
/// How long the client may go on sending to a port that has said its last.
const GRACE: Duration = Duration::from_secs(1);
/// Ports of one WebSocket with channels: two channels each, and a channel must fit a digit of base64 messages.
pub(super) const MAX_PORTS: usize = 32;

/// A port-forward that was allowed.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    pub(super) sandbox: String,
    /// For WebSockets with channels, which have a pair for each; otherwise the client names ports as it goes.
    pub(super) ports: Vec<u16>,
}

impl Forward {
    fn failed(&self, port: u16, why: &dyn Display) -> String {
        format!("error forwarding port {port} to pod {}, uid : {why}", self.sandbox)
    }
}

/// What a WebSocket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// SPDY's bytes in binary messages.
    Tunnel,
    /// A pair of channels for each port.
    Channels(websocket::Protocol),
}

impl Protocol {
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "SPDY/3.1+portforward.k8s.io" => Some(Self::Tunnel),
            "" | "v4.channel.k8s.io" | "v4.base64.channel.k8s.io" => {
                websocket::Protocol::named(name).map(Self::Channels)
            }
            _ => None,
        }
    }
}

/// Serves it over a WebSocket.
pub(super) async fn over_websocket(
    forward: Forward,
    backend: Arc<dyn Backend>,
    protocol: Protocol,
    io: Upgraded,
) {
    let socket = websocket::accept(io).await;
    match protocol {
        Protocol::Tunnel => over_spdy(forward, backend, websocket::tunnel(socket)).await,
        Protocol::Channels(channels) => over_channels(forward, backend, channels, socket).await,
    }
}

/// Serves it over SPDY: a pair of streams for each connection, told apart by `requestid`.
pub(super) async fn over_spdy<R, W>(forward: Forward, backend: Arc<dyn Backend>, (reader, writer): (R, W))
where
    R: AsyncRead,
    W: AsyncWrite,
{
    tokio::pin!(reader, writer);
    let (streams, drive) = spdy::serve(reader, writer);
    tokio::select! {
        ended = drive => if let Err(error) = ended {
            tracing::debug!(%error, "a SPDY connection ended");
        },
        never = pair_up(forward, backend, streams) => match never {},
    }
}

type Accepted = (spdy::Reader, spdy::Writer);

/// The stream of a pair that came first.
struct Half {
    stream: Accepted,
    port: u16,
    is_data: bool,
    /// The timer that gives it up.
    waiting: tokio::task::AbortHandle,
}

async fn pair_up(forward: Forward, backend: Arc<dyn Backend>, mut streams: spdy::Streams) -> Infallible {
    let forward = Arc::new(forward);
    let mut halves: HashMap<String, Half> = HashMap::new();
    // Dropped with the connection, and their connections to the pod with them.
    let mut connections = JoinSet::new();
    let mut timers = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = streams.next() => stream,
            Some(_) = connections.join_next() => continue,
            Some(timer) = timers.join_next() => {
                if let Ok(id) = timer
                    && let Some(half) = halves.remove(&id)
                {
                    half.give_up().await;
                }
                continue;
            }
        };
        let Some(stream) = stream else { return std::future::pending().await };
        let (port, is_data, id) = match read(&stream) {
            Ok(read) => read,
            Err(why) => {
                tracing::debug!(%why, "a stream of a port-forward is refused");
                stream.refuse().await;
                continue;
            }
        };
        if halves.get(&id).is_some_and(|first| first.is_data == is_data) {
            stream.refuse().await;
            continue;
        }
        // At once: a client opens the second stream when the first has been accepted.
        let stream = stream.accept().await;
        match halves.remove(&id) {
            None => {
                let key = id.clone();
                let waiting = timers.spawn(async move {
                    tokio::time::sleep(PAIRING).await;
                    key
                });
                halves.insert(id, Half { stream, port, is_data, waiting });
            }
            Some(first) => {
                first.waiting.abort();
                // The data stream names the port.
                let (data, error, port) =
                    if is_data { (stream, first.stream, port) } else { (first.stream, stream, first.port) };
                let (forward, backend) = (forward.clone(), backend.clone());
                connections.spawn(async move { connect(&forward, &*backend, port, data, error).await });
            }
        }
    }
}

impl Half {
    async fn give_up(self) {
        let (_, mut writer) = self.stream;
        if !self.is_data {
            let _ = writer.send(Bytes::from_static(b"timed out waiting for the data stream")).await;
        }
        writer.finish().await;
    }
}

/// Port, whether it is for data, and which connection it belongs to.
fn read(stream: &spdy::Stream) -> Result<(u16, bool, String), String> {
    let headers = stream.headers();
    let port = headers.get("port").ok_or("\"port\" header is required")?;
    let port = match port.parse() {
        Ok(0) => return Err(format!("port {port:?} must be > 0")),
        Ok(port) => port,
        Err(error) => return Err(format!("unable to parse {port:?} as a port: {error}")),
    };
    let is_data = match headers.get("streamtype") {
        Some("data") => true,
        Some("error") => false,
        Some(other) => return Err(format!("invalid stream type {other:?}")),
        None => return Err("\"streamType\" header is required".to_owned()),
    };
    // Old clients open an error stream and then its data stream, and do not say that they belong together.
    let first = if is_data { stream.id().wrapping_sub(2) } else { stream.id() };
    let id = headers.get("requestid").map_or_else(|| format!("stream {first}"), str::to_owned);
    Ok((port, is_data, id))
}

async fn connect(
    forward: &Forward,
    backend: &dyn Backend,
    port: u16,
    (mut from_client, mut to_client): Accepted,
    (_, mut why): Accepted,
) {
    match backend.port_forward(&forward.sandbox, port).await {
        Ok(pod) => {
            let (mut from_pod, mut to_pod) = tokio::io::split(pod);
            let up = async {
                while let Some(bytes) = from_client.next().await {
                    if to_pod.write_all(&bytes).await.is_err() || to_pod.flush().await.is_err() {
                        // The pod no longer listens; it may still speak.
                        while from_client.next().await.is_some() {}
                        return;
                    }
                }
                let _ = to_pod.shutdown().await;
            };
            let mut buffer = BytesMut::new();
            let down = async {
                while let Some(bytes) = part(&mut from_pod, &mut buffer).await {
                    if to_client.send(bytes).await.is_err() {
                        return;
                    }
                }
                // The client takes these for the end, and then closes its side.
                to_client.finish().await;
                why.finish().await;
            };
            both(up, down).await;
        }
        Err(status) => {
            let text = forward.failed(port, &status.message());
            let _ = why.send(text.into()).await;
        }
    }
    to_client.finish().await;
    why.finish().await;
}

/// Both directions: until the pod has said its last, and the client has, or has had its time to.
async fn both(up: impl Future<Output = ()>, down: impl Future<Output = ()>) {
    tokio::pin!(up);
    let mut up_ended = false;
    let up_then_wait = async {
        up.as_mut().await;
        up_ended = true;
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        () = down => {}
        never = up_then_wait => match never {},
    }
    if !up_ended {
        let _ = tokio::time::timeout(GRACE, up).await;
    }
}

/// Serves it over a WebSocket: of the port at `n` the data have channel 2n, and why it failed 2n + 1.
async fn over_channels(
    forward: Forward,
    backend: Arc<dyn Backend>,
    protocol: websocket::Protocol,
    socket: websocket::Socket,
) {
    let (messages, outgoing) = mpsc::channel(QUEUE);
    let mut inputs = Vec::new();
    let mut works = Vec::new();
    for (n, port) in (0u8..).step_by(2).zip(forward.ports.iter().copied().take(MAX_PORTS)) {
        let (input, from_client) = mpsc::channel(QUEUE);
        inputs.push(input);
        works.push(channel(&forward, &*backend, port, (protocol, n), from_client, messages.clone()));
    }
    drop(messages);
    let work = async {
        futures::future::join_all(works).await;
    };
    let incoming = |message| {
        let to = match message {
            Incoming::Data(channel, bytes) if channel % 2 == 0 => {
                inputs.get(usize::from(channel / 2)).map(|input| (input.clone(), bytes))
            }
            _ => None,
        };
        async move {
            if let Some((input, bytes)) = to {
                // A port that has closed takes no more.
                let _ = input.send(bytes).await;
            }
        }
    };
    websocket::carry(socket, protocol, work, outgoing, incoming).await;
}

async fn channel(
    forward: &Forward,
    backend: &dyn Backend,
    port: u16,
    (protocol, n): (websocket::Protocol, u8),
    mut from_client: mpsc::Receiver<Bytes>,
    messages: mpsc::Sender<Message>,
) {
    // Both channels begin with their port.
    for n in [n, n + 1] {
        let _ = messages.send(protocol.encode(n, &port.to_le_bytes())).await;
    }
    let pod = match backend.port_forward(&forward.sandbox, port).await {
        Ok(pod) => pod,
        Err(status) => {
            let text = forward.failed(port, &status.message());
            let _ = messages.send(protocol.encode(n + 1, text.as_bytes())).await;
            return;
        }
    };
    let (mut from_pod, mut to_pod) = tokio::io::split(pod);
    let up = async {
        while let Some(bytes) = from_client.recv().await {
            if to_pod.write_all(&bytes).await.is_err() || to_pod.flush().await.is_err() {
                break;
            }
        }
        from_client.close();
        std::future::pending::<Infallible>().await
    };
    let mut buffer = BytesMut::new();
    let down = async {
        while let Some(bytes) = part(&mut from_pod, &mut buffer).await {
            if messages.send(protocol.encode(n, &bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        never = up => match never {},
    }
}
