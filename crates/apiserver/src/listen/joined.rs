//! What a connection writes, joined: all that one look at it has produced leaves together.
//!
//! HTTP/2 flushes behind every frame of data. A flush of [`Joined`] is therefore only a wish as long as [`Outlet::drive`]
//! looks at the connection, and is done behind it, once: the frames of many watches then leave in a few TLS records and
//! one system call.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// So many bytes are joined at most.
const MOST: usize = 64 << 10;
/// A connection that has nothing to write keeps this much room.
const KEPT: usize = 16 << 10;

/// A connection's bytes, for whoever speaks HTTP over it.
pub(super) struct Joined<IO>(Arc<Mutex<State<IO>>>);

/// Lets a connection's bytes out.
pub(super) struct Outlet<IO> {
    state: Arc<Mutex<State<IO>>>,
    /// Others have had their turn to write.
    waited: bool,
}

struct State<IO> {
    io: IO,
    buffer: Vec<u8>,
    /// So much of the buffer has been written.
    gone: usize,
    /// Something was written since the last flush.
    dirty: bool,
    /// The outlet will flush.
    deferring: bool,
    /// Why the outlet could not.
    failed: Option<io::ErrorKind>,
}

/// The two ends of a connection's writing.
pub(super) fn joined<IO>(io: IO) -> (Joined<IO>, Outlet<IO>) {
    let state = State { io, buffer: Vec::new(), gone: 0, dirty: false, deferring: false, failed: None };
    let state = Arc::new(Mutex::new(state));
    (Joined(state.clone()), Outlet { state, waited: false })
}

impl<IO: AsyncWrite + Unpin> Outlet<IO> {
    /// Resolves as `connection`, which writes to the other end. `crowded`: others are about to write to it too, so that
    /// what there is waits until those that are already awake have had their turn.
    pub(super) async fn drive<C: Future>(
        &mut self,
        mut connection: Pin<&mut C>,
        crowded: impl Fn() -> bool,
    ) -> C::Output {
        poll_fn(|cx| {
            self.state.lock().deferring = true;
            let polled = connection.as_mut().poll(cx);
            let mut state = self.state.lock();
            state.deferring = false;
            if !state.dirty {
                return polled;
            }
            if polled.is_pending() && !self.waited && crowded() {
                self.waited = true;
                cx.waker().wake_by_ref();
                return polled;
            }
            self.waited = false;
            if let Poll::Ready(Err(error)) = state.poll_flush(cx)
                && polled.is_pending()
            {
                // The connection hears of it at its next look.
                state.failed = Some(error.kind());
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await
    }
}

impl<IO: AsyncWrite + Unpin> State<IO> {
    fn sound(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Writes the buffer out.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.buffer.len() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.buffer[self.gone..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += written;
        }
        self.gone = 0;
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.dirty = false;
        Poll::Ready(Ok(()))
    }

    /// Makes room for `len` bytes; whether there is enough.
    fn poll_room(&mut self, cx: &mut Context<'_>, len: usize) -> Poll<io::Result<bool>> {
        self.sound()?;
        self.dirty = true;
        if self.buffer.len() + len > MOST {
            ready!(self.poll_drain(cx))?;
        }
        Poll::Ready(Ok(len < MOST))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Joined<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.sound()?;
        // Whoever has taken the connection over may have found something left to write.
        if state.dirty && !state.deferring {
            let _ = state.poll_flush(cx)?;
        }
        Pin::new(&mut state.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Joined<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        if !ready!(state.poll_room(cx, bytes.len()))? {
            return Pin::new(&mut state.io).poll_write(cx, bytes);
        }
        state.buffer.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        let len = parts.iter().map(|part| part.len()).sum();
        if !ready!(state.poll_room(cx, len))? {
            return Pin::new(&mut state.io).poll_write_vectored(cx, parts);
        }
        parts.iter().for_each(|part| state.buffer.extend_from_slice(part));
        Poll::Ready(Ok(len))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        state.sound()?;
        if state.deferring { Poll::Ready(Ok(())) } else { state.poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        ready!(state.poll_flush(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// The size of every write.
    type Writes = Arc<Mutex<Vec<usize>>>;

    /// Counts the writes that reach it.
    struct Counted(DuplexStream, Writes);

    impl AsyncWrite for Counted {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
            self.1.lock().push(written);
            Poll::Ready(Ok(written))
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    fn counted(room: usize) -> (Joined<Counted>, Outlet<Counted>, DuplexStream, Writes) {
        let (client, server) = tokio::io::duplex(room);
        let writes = Writes::default();
        let (inner, outlet) = joined(Counted(server, writes.clone()));
        (inner, outlet, client, writes)
    }

    #[tokio::test]
    async fn what_is_flushed_piece_by_piece_leaves_in_one_write() {
        let (mut inner, mut outlet, mut client, writes) = counted(1 << 10);
        let connection = std::pin::pin!(async {
            for _ in 0..3 {
                inner.write_all(b"abc").await.unwrap();
                inner.flush().await.unwrap();
            }
            std::future::pending::<()>().await;
        });
        let mut read = [0; 9];
        tokio::select! {
            () = outlet.drive(connection, || false) => unreachable!("it never ends"),
            done = client.read_exact(&mut read) => drop(done.unwrap()),
        }
        assert_eq!((&read, &**writes.lock()), (b"abcabcabc", &[9][..]));
    }

    #[tokio::test]
    async fn more_than_fits_goes_on_when_the_client_reads() {
        let (mut inner, mut outlet, mut client, _) = counted(1 << 10);
        let connection = std::pin::pin!(async move {
            for _ in 0..100 {
                inner.write_all(&[7; 10 << 10]).await.unwrap();
                inner.flush().await.unwrap();
            }
            inner.shutdown().await.unwrap();
            drop(inner);
        });
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        outlet.drive(connection, || true).await;
        drop(outlet);
        assert_eq!(reading.await.unwrap(), 1000 << 10);
    }

    #[tokio::test]
    async fn what_the_last_look_wrote_leaves_too() {
        let (mut inner, mut outlet, mut client, _) = counted(1 << 10);
        let connection = std::pin::pin!(async move {
            inner.write_all(b"switching").await.unwrap();
            inner.flush().await.unwrap();
            inner
        });
        let mut inner = outlet.drive(connection, || true).await;
        let mut read = [0; 9];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"switching");
        // And from then on a flush is a flush.
        inner.write_all(b"x").await.unwrap();
        inner.flush().await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_connection_hears_that_its_bytes_could_not_leave() {
        let (mut inner, mut outlet, client, _) = counted(1 << 10);
        drop(client);
        let connection = std::pin::pin!(async move {
            inner.write_all(b"abc").await.unwrap();
            inner.flush().await.unwrap();
            tokio::task::yield_now().await;
            inner.write_all(b"abc").await.unwrap_err().kind()
        });
        assert_eq!(outlet.drive(connection, || false).await, io::ErrorKind::BrokenPipe);
    }
}
