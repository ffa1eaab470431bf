//! One connection, within limits that keep a client from holding it for nothing.

use std::{convert::Infallible, time::Duration};

use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    joined::joined,
    occupation::{Ending, Held, Noted, Occupation},
};
use crate::{Response, server::Unauthenticated};

/// How long a client may take for what.
pub(super) struct Deadlines {
    /// To send a request's head.
    head: Duration,
    /// To ask for the next thing.
    idle: Duration,
    /// To read what is left when a connection ends, and to go.
    linger: Duration,
}

impl Default for Deadlines {
    /// Upstream's.
    fn default() -> Self {
        Self { head: Duration::from_secs(32), idle: Duration::from_secs(90), linger: Duration::from_secs(10) }
    }
}

/// Largest head, in bytes.
const HEAD_LIMIT: usize = 1 << 20;
/// HTTP/2 requests at a time on one connection.
const STREAMS: u32 = 100;
/// Requests of HTTP/2 taken back by the client before they were looked at, at a time; more end the connection.
const RESETS: usize = 20;

/// Serves a connection until it ends. `http2`: that is what was agreed on.
pub(super) async fn serve<IO, S>(io: IO, http2: bool, service: S, deadlines: Deadlines)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: tower::Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let occupation = Occupation::new(http2);
    let noted = Noted { io, occupation: occupation.clone() };
    let (joined, mut outlet) = joined(noted);
    let requests = occupation.clone();
    let service = hyper::service::service_fn(move |request| {
        let (occupied, occupation) = (requests.begin(), requests.clone());
        let answer = service.clone().call(request);
        async move {
            let response = answer.await?;
            if response.extensions().get::<Unauthenticated>().is_some() {
                occupation.discourage();
            }
            Ok::<_, Infallible>(response.map(|body| Held { body, _request: occupied }))
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    // The deadline of a head is the occupation's: hyper's would begin with the end of the request before.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None::<Duration>).max_buf_size(HEAD_LIMIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_LIMIT as u32)
        .max_pending_accept_reset_streams(RESETS);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(joined), service);
    tokio::pin!(connection);
    let crowded = || occupation.is_crowded();
    let served = tokio::select! {
        served = outlet.drive(connection.as_mut(), crowded) => served,
        ending = occupation.outstayed(deadlines.idle, deadlines.head) => {
            tracing::debug!(?ending, "a connection is ended");
            if ending == Ending::SlowHead {
                return;
            }
            // What is being answered is answered.
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                served = outlet.drive(connection, crowded) => served,
                () = occupation.quiet(deadlines.linger) => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "a connection ended");
    }
}

#[cfg(test)]
mod tests;
