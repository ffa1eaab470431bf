//! The server's side of a connection: the streams that the client opens, and what goes over them.

use std::{collections::HashMap, future::Future, sync::Arc};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{Decoder, Encoder, Error, Frame, Headers};
use crate::streaming::{
    activity::{Activity, IDLE},
    websocket::LINGER,
};

/// Streams open at once.
const MAX_STREAMS: usize = 1024;
/// Bytes that wait for one stream's reader …
const STREAM_BYTES: usize = 1 << 20;
/// … and for all of them. Beyond, the connection is not read.
const CONNECTION_BYTES: usize = 4 << 20;
/// What a part that waits costs beyond its bytes.
const PART: usize = 128;
/// Frames that wait to be written.
const OUTGOING: usize = 16;
/// Bytes read from the connection at once, and of data in a frame of ours.
const CHUNK: usize = 32 << 10;

const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 3;

enum Outgoing {
    Frame(Frame),
    Close,
}

/// The streams that the client opens, in their order.
pub struct Streams {
    incoming: mpsc::Receiver<Stream>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Streams {
    /// The next stream; `None` once the connection has ended.
    pub async fn next(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Says goodbye after all that was sent before. The connection ends once the client has said so too, or after a
    /// while.
    pub async fn close(&self) {
        let _ = self.outgoing.send(Outgoing::Close).await;
    }
}

/// A stream of the client's, not yet accepted.
pub struct Stream {
    id: u32,
    headers: Headers,
    outgoing: mpsc::Sender<Outgoing>,
    inbound: mpsc::UnboundedReceiver<Part>,
    gone: CancellationToken,
}

/// Data that has been read, which counts until it is taken.
struct Part {
    bytes: Bytes,
    _counted: [OwnedSemaphorePermit; 2],
}

impl Stream {
    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the client says of it.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Accepts it.
    pub async fn accept(self) -> (Reader, Writer) {
        let reply = Frame::SynReply { id: self.id, fin: false, headers: Headers::default() };
        // If the connection has gone, both halves say so.
        let _ = self.outgoing.send(Outgoing::Frame(reply)).await;
        let writer = Writer { id: self.id, outgoing: self.outgoing, gone: self.gone, open: true };
        (Reader { inbound: self.inbound }, writer)
    }

    /// Refuses it.
    pub async fn refuse(self) {
        let reset = Frame::RstStream { id: self.id, status: PROTOCOL_ERROR };
        let _ = self.outgoing.send(Outgoing::Frame(reset)).await;
    }
}

/// What the client sends.
pub struct Reader {
    inbound: mpsc::UnboundedReceiver<Part>,
}

impl Reader {
    /// The next bytes; `None` when the client has closed or reset the stream, or gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        Some(self.inbound.recv().await?.bytes)
    }
}

/// What is sent to the client.
pub struct Writer {
    id: u32,
    outgoing: mpsc::Sender<Outgoing>,
    gone: CancellationToken,
    open: bool,
}

/// The client has reset the stream or gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

impl Writer {
    /// Sends the bytes; waits while the client does not read.
    ///
    /// # Errors
    /// When nobody will read them.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(CHUNK));
            self.frame(Frame::Data { id: self.id, fin: false, bytes: part }).await?;
        }
        Ok(())
    }

    /// Says that no more comes.
    pub async fn finish(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = self.frame(Frame::Data { id: self.id, fin: true, bytes: Bytes::new() }).await;
        }
    }

    /// Resolves when the client has reset the stream or gone.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    async fn frame(&self, frame: Frame) -> Result<(), Gone> {
        let sent = self.gone.run_until_cancelled(self.outgoing.send(Outgoing::Frame(frame))).await;
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }
}

/// The streams of a connection whose client has begun to speak SPDY, and what moves them: it must be polled, and resolves
/// when the connection has ended.
pub fn serve<R, W>(reader: R, writer: W) -> (Streams, impl Future<Output = Result<(), Error>>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (outgoing, outgoing_out) = mpsc::channel(OUTGOING);
    let (incoming, incoming_out) = mpsc::channel(1);
    let connection = Arc::new(Connection {
        streams: Mutex::default(),
        gone: CancellationToken::new(),
        activity: Activity::new(),
    });
    let streams = Streams { incoming: incoming_out, outgoing: outgoing.clone() };
    let drive = async move {
        let _end = connection.gone.clone().drop_guard();
        let read = connection.read(reader, incoming, outgoing);
        tokio::pin!(read);
        tokio::select! {
            ended = &mut read => return ended,
            written = connection.write(writer, outgoing_out) => written?,
            () = connection.activity.ceased(IDLE) => return Ok(()),
        }
        // What the client has not read yet would be lost if the connection were reset by what it still sends.
        let _ = tokio::time::timeout(LINGER, read).await;
        Ok(())
    };
    (streams, drive)
}

struct Connection {
    streams: Mutex<HashMap<u32, Live>>,
    gone: CancellationToken,
    activity: Activity,
}

struct Live {
    /// `None` once the client has said that no more comes.
    inbound: Option<Inbound>,
    /// Whether we may still send.
    open: bool,
    gone: CancellationToken,
}

#[derive(Clone)]
struct Inbound {
    parts: mpsc::UnboundedSender<Part>,
    room: Arc<Semaphore>,
}

impl Connection {
    async fn read(
        &self,
        mut reader: impl AsyncRead + Unpin,
        incoming: mpsc::Sender<Stream>,
        outgoing: mpsc::Sender<Outgoing>,
    ) -> Result<(), Error> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let budget = Arc::new(Semaphore::new(CONNECTION_BYTES));
        let mut last = 0;
        loop {
            while let Some(frame) = decoder.decode(&mut buffer)? {
                match frame {
                    Frame::SynStream { id, fin, headers, .. } => {
                        if id % 2 == 0 || id <= last {
                            return Err(Error::StreamId(id));
                        }
                        last = id;
                        match self.open(id, fin, headers, &outgoing) {
                            // Nobody wants streams any more: the connection is about to end.
                            Some(stream) => _ = incoming.send(stream).await,
                            None => {
                                let reset = Frame::RstStream { id, status: REFUSED_STREAM };
                                let _ = outgoing.send(Outgoing::Frame(reset)).await;
                            }
                        }
                    }
                    Frame::Data { id, fin, bytes } => {
                        let inbound = self.streams.lock().get(&id).and_then(|s| s.inbound.clone());
                        // Data of a stream that has gone may still be on its way.
                        if let Some(inbound) = inbound {
                            self.deliver(&inbound, bytes, &budget).await;
                        }
                        if fin {
                            self.finish_remote(id);
                        }
                    }
                    Frame::RstStream { id, .. } => {
                        if let Some(live) = self.streams.lock().remove(&id) {
                            live.gone.cancel();
                        }
                    }
                    // The client's numbers are odd.
                    Frame::Ping(id) if id % 2 == 1 => {
                        let _ = outgoing.send(Outgoing::Frame(Frame::Ping(id))).await;
                    }
                    Frame::Headers { id, fin: true, .. } => self.finish_remote(id),
                    Frame::Headers { .. }
                    | Frame::Ping(_)
                    | Frame::SynReply { .. }
                    | Frame::Settings
                    | Frame::GoAway { .. }
                    | Frame::WindowUpdate { .. } => {}
                }
            }
            // Parts that wait share a buffer, so that small ones do not keep a large one each.
            if buffer.capacity() - buffer.len() < CHUNK / 8 {
                buffer.reserve(CHUNK);
            }
            if reader.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            self.activity.note();
        }
    }

    async fn deliver(&self, inbound: &Inbound, bytes: Bytes, budget: &Arc<Semaphore>) {
        if bytes.is_empty() {
            return;
        }
        let cost = u32::try_from(bytes.len() + PART).unwrap_or(u32::MAX);
        let count = async {
            let own = inbound.room.clone().acquire_many_owned(cost).await?;
            Ok::<_, tokio::sync::AcquireError>([own, budget.clone().acquire_many_owned(cost).await?])
        };
        let counted = tokio::select! {
            counted = count => counted,
            // A reader that has gone takes nothing.
            () = inbound.parts.closed() => return,
        };
        if let Ok(counted) = counted {
            let _ = inbound.parts.send(Part { bytes, _counted: counted });
        }
    }

    fn open(
        &self,
        id: u32,
        fin: bool,
        headers: Headers,
        outgoing: &mpsc::Sender<Outgoing>,
    ) -> Option<Stream> {
        let mut streams = self.streams.lock();
        if streams.len() >= MAX_STREAMS {
            return None;
        }
        let (parts, inbound) = mpsc::unbounded_channel();
        let from_client = (!fin).then(|| Inbound { parts, room: Arc::new(Semaphore::new(STREAM_BYTES)) });
        let gone = self.gone.child_token();
        streams.insert(id, Live { inbound: from_client, open: true, gone: gone.clone() });
        Some(Stream { id, headers, outgoing: outgoing.clone(), inbound, gone })
    }

    fn finish_remote(&self, id: u32) {
        let mut streams = self.streams.lock();
        if let Some(live) = streams.get_mut(&id) {
            live.inbound = None;
            if !live.open {
                streams.remove(&id);
            }
        }
    }

    /// Keeps account of what has been said on our side.
    fn said(&self, frame: &Frame) {
        let mut streams = self.streams.lock();
        match frame {
            Frame::RstStream { id, .. } => _ = streams.remove(id),
            Frame::Data { id, fin: true, .. } => {
                if let Some(live) = streams.get_mut(id) {
                    live.open = false;
                    if live.inbound.is_none() {
                        streams.remove(id);
                    }
                }
            }
            _ => {}
        }
    }

    /// Writes until told to close.
    async fn write(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut outgoing: mpsc::Receiver<Outgoing>,
    ) -> Result<(), Error> {
        let mut encoder = Encoder::default();
        let mut buffer = BytesMut::new();
        while let Some(first) = outgoing.recv().await {
            let mut close = matches!(first, Outgoing::Close);
            let mut next = Some(first);
            // What waits already goes into the same write.
            while let Some(Outgoing::Frame(frame)) = next {
                self.said(&frame);
                encoder.encode(&frame, &mut buffer);
                next = if buffer.len() < 2 * CHUNK { outgoing.try_recv().ok() } else { None };
                close = matches!(next, Some(Outgoing::Close));
            }
            if close {
                encoder.encode(&Frame::GoAway { last: 0, status: 0 }, &mut buffer);
            }
            writer.write_all(&buffer).await?;
            writer.flush().await?;
            self.activity.note();
            buffer.clear();
            if close {
                writer.shutdown().await?;
                return Ok(());
            }
        }
        Ok(())
    }
}
