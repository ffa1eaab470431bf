//! A log over WebSocket: its bytes as they come, each part a message (upstream's `wsstream.Reader`).

use std::{sync::Arc, time::Duration};

use apimachinery::ApiError;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _, TryStreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{
    Response,
    audit::Trail,
    body::{Body, BoxError},
    respond,
};

/// Nothing is expected of the client but control frames.
const MAX_MESSAGE: usize = 64 << 10;
/// How long the client has for its half of the goodbye.
const LINGER: Duration = Duration::from_secs(10);

/// Whether a WebSocket is asked for.
pub(super) fn wanted(headers: &HeaderMap) -> bool {
    super::upgrades(headers)
        && headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Takes over the client's connection and sends the answer's body there.
pub(super) fn send(
    response: Response,
    headers: &HeaderMap,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
    trail: Option<Arc<Trail>>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("Upgrade request required"))?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.ok_or_else(|| ApiError::bad_request("missing Sec-WebSocket-Key"))?;
    let (protocol, base64) = negotiate(headers)
        .ok_or_else(|| ApiError::bad_request("none of the WebSocket subprotocols is known"))?;
    let mut answer = respond::plain(StatusCode::SWITCHING_PROTOCOLS.as_u16(), "text/plain", Body::empty());
    let map = answer.headers_mut();
    map.remove(header::CONTENT_TYPE);
    map.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    map.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&derive_accept_key(key)).map_err(ApiError::internal)?;
    map.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if !protocol.is_empty() {
        map.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let parts = match response.into_body() {
        Body::Full(bytes) => futures::stream::iter(bytes.map(Ok)).boxed(),
        Body::Stream(chunks) => chunks.boxed(),
    };
    tokio::spawn(async move {
        // The request is complete when all is sent.
        let _trail = trail;
        let io = match upgrade.await {
            Ok(io) => TokioIo::new(io),
            Err(error) => return tracing::debug!(%error, "a connection could not be taken over"),
        };
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let (sink, stream) = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split();
        copy(parts, sink, stream, base64).await;
    });
    Ok(answer)
}

/// The first of the client's subprotocols that is known, and whether it is base64.
fn negotiate(headers: &HeaderMap) -> Option<(&'static str, bool)> {
    let known = [("binary.k8s.io", false), ("base64.binary.k8s.io", true)];
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    let mut offered = offered.flat_map(|v| v.split(',')).map(str::trim).peekable();
    if offered.peek().is_none() {
        return Some(("", false));
    }
    offered.find_map(|o| known.iter().find(|(name, _)| *name == o).copied())
}

async fn copy(
    mut parts: impl Stream<Item = Result<Bytes, BoxError>> + Unpin,
    mut sink: impl Sink<Message, Error = Error> + Unpin,
    mut stream: impl Stream<Item = Result<Message, Error>> + Unpin,
    base64: bool,
) {
    let message = |bytes: Bytes| {
        if base64 { Message::text(BASE64_STANDARD.encode(&bytes)) } else { Message::Binary(bytes) }
    };
    let write = async {
        // An empty message tells the client that the connection stands.
        sink.send(message(Bytes::new())).await?;
        while let Some(bytes) = parts.try_next().await? {
            if !bytes.is_empty() {
                sink.send(message(bytes)).await?;
            }
        }
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
        sink.send(Message::Close(Some(goodbye))).await?;
        Ok::<_, BoxError>(())
    };
    let gone = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::pin!(gone);
    tokio::select! {
        written = write => match written {
            Ok(()) => {}
            Err(error) => return tracing::debug!(error, "a log over WebSocket ended"),
        },
        () = &mut gone => return,
    }
    let _ = tokio::time::timeout(LINGER, gone).await;
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;

    use super::*;

    #[test]
    fn the_clients_first_known_subprotocol_is_spoken() {
        let offer = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(text));
            negotiate(&headers)
        };
        assert_eq!(offer("x, base64.binary.k8s.io, binary.k8s.io"), Some(("base64.binary.k8s.io", true)));
        assert_eq!(offer("binary.k8s.io"), Some(("binary.k8s.io", false)));
        assert_eq!(offer("channel.k8s.io"), None);
        assert_eq!(negotiate(&HeaderMap::new()), Some(("", false)));
    }

    #[tokio::test]
    async fn a_log_is_sent_part_by_part_between_hello_and_goodbye() {
        let parts = futures::stream::iter(["one\n", "", "two\n"].map(|p| Ok(Bytes::from(p))));
        let (sink, sent) = mpsc::unbounded::<Message>();
        let (client, stream) = mpsc::unbounded();
        let sink = sink.sink_map_err(|_| Error::ConnectionClosed);
        let sent = tokio::spawn(async move {
            let messages: Vec<Message> = sent.take(4).collect().await;
            drop(client);
            messages
        });
        copy(parts, sink, stream, false).await;
        let sent = sent.await.unwrap();
        assert_eq!(sent[..3], [Message::binary(""), Message::binary("one\n"), Message::binary("two\n")]);
        assert!(sent[3].is_close());
    }
}
