//! What a connection is at, and when it has been that for too long.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};

/// Shared by a connection's bytes, its requests, and whoever ends it.
pub(super) struct Occupation {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Requests whose answers have not been given out whole.
    open: usize,
    /// When the last one had been.
    idle: Instant,
    /// When bytes were written last; what was given out may still wait for a client that is slow to read.
    written: Instant,
    /// When the first byte after the last request came: of the next one's head.
    head: Option<Instant>,
    /// Then bytes alone say nothing: they may be pings and their answers.
    http2: bool,
    /// See [`Occupation::discourage`].
    unwelcome: bool,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing was asked for a while.
    Idle,
    /// The head of a request takes too long.
    SlowHead,
    /// See [`Occupation::discourage`].
    Unwelcome,
}

impl Occupation {
    pub(super) fn new(http2: bool) -> Arc<Self> {
        let now = Instant::now();
        let state = State { open: 0, idle: now, written: now, head: None, http2, unwelcome: false };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    /// A request has been read. It ends when what this gives is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        let mut state = self.state.lock();
        state.open += 1;
        state.head = None;
        Request(self.clone())
    }

    /// Ends a connection of HTTP/2: whoever has no name may not send many requests over one.
    pub(super) fn discourage(&self) {
        let mut state = self.state.lock();
        if state.http2 {
            state.unwelcome = true;
            self.changed.notify_one();
        }
    }

    /// Several requests are being answered.
    pub(super) fn is_crowded(&self) -> bool {
        self.state.lock().open > 1
    }

    /// Resolves when nothing has been asked for `idle`, or the connection has been at one head for `head`.
    pub(super) async fn outstayed(&self, idle: Duration, head: Duration) -> Ending {
        let due = |state: &State| match state.head {
            _ if state.unwelcome => Some((Instant::now(), Ending::Unwelcome)),
            _ if state.open > 0 => None,
            Some(begun) => Some((begun + head, Ending::SlowHead)),
            None => Some((state.idle + idle, Ending::Idle)),
        };
        self.reached(due).await
    }

    /// Resolves when from now on nothing is being answered, and nothing has been written, for `idle`.
    pub(super) async fn quiet(&self, idle: Duration) {
        let begun = Instant::now();
        let last = |state: &State| state.idle.max(state.written).max(begun);
        self.reached(|state| (state.open == 0).then(|| (last(state) + idle, ()))).await;
    }

    /// Waits for the moment that `due` tells, and asks it again whenever something has changed.
    async fn reached<T>(&self, due: impl Fn(&State) -> Option<(Instant, T)>) -> T {
        loop {
            let next = due(&self.state.lock());
            match next {
                Some((at, what)) if at <= Instant::now() => return what,
                Some((at, _)) => _ = tokio::time::timeout_at(at, self.changed.notified()).await,
                None => self.changed.notified().await,
            }
        }
    }

    fn read(&self) {
        let mut state = self.state.lock();
        if state.open == 0 && state.head.is_none() && !state.http2 {
            state.head = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    fn written(&self) {
        let mut state = self.state.lock();
        if !state.http2 {
            state.written = Instant::now();
        }
    }
}

/// A request that is being answered.
pub(super) struct Request(Arc<Occupation>);

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.open -= 1;
        if state.open == 0 {
            (state.idle, state.head) = (Instant::now(), None);
            self.0.changed.notify_one();
        }
    }
}

/// An answer's body, with which its request ends.
pub(super) struct Held<B> {
    pub(super) body: B,
    pub(super) _request: Request,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection's bytes, noted as they come and go.
pub(super) struct Noted<IO> {
    pub(super) io: IO,
    pub(super) occupation: Arc<Occupation>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Noted<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let noted = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut noted.io).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            noted.occupation.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Noted<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let noted = self.get_mut();
        let written = ready!(Pin::new(&mut noted.io).poll_write(cx, bytes))?;
        noted.occupation.written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let noted = self.get_mut();
        let written = ready!(Pin::new(&mut noted.io).poll_write_vectored(cx, parts))?;
        noted.occupation.written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
