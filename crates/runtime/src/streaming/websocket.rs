//! Channels over WebSocket: the first byte of each message says which channel the rest belongs to.

use std::{future::Future, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

use super::activity::{Activity, IDLE};

/// A connection that HTTP has given up.
pub(super) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;
pub(super) type Socket = WebSocketStream<Upgraded>;

/// The largest message taken, upstream's default.
const MAX_MESSAGE: usize = 32 << 20;
/// How long a client has for its half of the goodbye, so that what it has not read yet is not lost to a reset.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// First byte of a message of v5 that closes the channel named by the second.
const CLOSE: u8 = 255;

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The channel's number as a byte, then the bytes, in a binary message.
    Raw,
    /// The channel's number as a digit, then base64, in a text message.
    Base64,
}

/// The protocols that carry channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) encoding: Encoding,
    /// 1, 4 or 5.
    pub(super) version: u8,
}

impl Protocol {
    /// By the name of the subprotocol. No name at all is the first version.
    pub(super) fn named(name: &str) -> Option<Self> {
        let (encoding, version) = match name {
            "" | "channel.k8s.io" => (Encoding::Raw, 1),
            "base64.channel.k8s.io" => (Encoding::Base64, 1),
            "v4.channel.k8s.io" => (Encoding::Raw, 4),
            "v4.base64.channel.k8s.io" => (Encoding::Base64, 4),
            "v5.channel.k8s.io" => (Encoding::Raw, 5),
            _ => return None,
        };
        Some(Self { encoding, version })
    }

    /// Whether the outcome is a `metav1.Status` rather than a text.
    pub(super) fn has_status(self) -> bool {
        self.version >= 4
    }

    pub(super) fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        match self.encoding {
            Encoding::Raw => {
                let mut message = Vec::with_capacity(bytes.len() + 1);
                message.push(channel);
                message.extend_from_slice(bytes);
                Message::Binary(message.into())
            }
            Encoding::Base64 => {
                let mut message = String::with_capacity(bytes.len().div_ceil(3) * 4 + 1);
                message.push(char::from(b'0'.saturating_add(channel)));
                BASE64_STANDARD.encode_string(bytes, &mut message);
                Message::Text(message.into())
            }
        }
    }

    /// What a client's message says.
    pub(super) fn decode(self, message: Message) -> Result<Incoming, Violation> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Close(_) => return Ok(Incoming::Gone),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(Incoming::Nothing),
        };
        match (self.encoding, bytes.first()) {
            (_, None) => Ok(Incoming::Nothing),
            (Encoding::Raw, Some(&CLOSE)) if self.version >= 5 => match bytes.as_ref() {
                [_, channel] => Ok(Incoming::Closed(*channel)),
                _ => Err(Violation("a close signal is followed by the number of one channel")),
            },
            (Encoding::Raw, Some(&channel)) => Ok(Incoming::Data(channel, bytes.slice(1..))),
            (Encoding::Base64, Some(&digit)) => {
                let channel =
                    digit.checked_sub(b'0').ok_or(Violation("the channel's number is not a digit"))?;
                let data = BASE64_STANDARD
                    .decode(&bytes[1..])
                    .map_err(|_| Violation("what follows the channel's number is not base64"))?;
                Ok(Incoming::Data(channel, data.into()))
            }
        }
    }
}

/// A message of a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Data(u8, Bytes),
    /// The client sends no more on this channel.
    Closed(u8),
    /// The client has gone.
    Gone,
    Nothing,
}

/// A message that the protocol does not know; the connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) &'static str);

/// Whether the request asks for a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    super::server::names(headers, header::CONNECTION, "upgrade")
        && super::server::names(headers, header::UPGRADE, "websocket")
}

/// The first of the client's subprotocols that `known` takes, with its name (empty if the client named none).
pub(super) fn negotiate<T>(headers: &HeaderMap, known: impl Fn(&str) -> Option<T>) -> Option<(String, T)> {
    let mut offered = headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return Some((String::new(), known("")?));
    }
    offered.find_map(|name| Some((name.to_owned(), known(name)?)))
}

/// The WebSocket of an upgraded connection.
pub(super) async fn accept(io: Upgraded) -> Socket {
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await
}

/// What is taken of a client.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE))
}

/// Carries messages until `work` is done and `outgoing` has ended and been sent, or the client has gone (then `work` is
/// dropped). `incoming` is called for each message in turn; while it waits, no other is read.
pub(super) async fn carry<F>(
    socket: Socket,
    protocol: Protocol,
    work: impl Future<Output = ()>,
    mut outgoing: mpsc::Receiver<Message>,
    mut incoming: impl FnMut(Incoming) -> F,
) where
    F: Future<Output = ()>,
{
    let activity = Activity::new();
    let (mut sink, mut stream) = socket.split();
    let reader = async {
        loop {
            let message = match stream.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    tracing::debug!(%error, "a WebSocket of a client ended");
                    return None;
                }
                None => return None,
            };
            activity.note();
            match protocol.decode(message) {
                Ok(Incoming::Gone) => return None,
                Ok(Incoming::Nothing) => {}
                Ok(message) => incoming(message).await,
                Err(violation) => return Some(violation),
            }
        }
    };
    let writer = async {
        while let Some(message) = outgoing.recv().await {
            activity.note();
            sink.send(message).await?;
        }
        Ok::<_, tungstenite::Error>(())
    };
    let work = async {
        let ((), sent) = tokio::join!(work, writer);
        sent
    };
    tokio::pin!(reader);
    let (goodbye, reading) = tokio::select! {
        sent = work => match sent {
            Ok(()) => (close(CloseCode::Normal, ""), true),
            Err(error) => return tracing::debug!(%error, "a client does not read"),
        },
        ended = &mut reader => match ended {
            Some(Violation(why)) => (close(CloseCode::Protocol, why), false),
            None => (close(CloseCode::Normal, ""), false),
        },
        () = activity.ceased(IDLE) => (close(CloseCode::Away, "the stream was idle"), true),
    };
    let _ = tokio::time::timeout(LINGER, async {
        if sink.send(goodbye).await.is_ok() && reading {
            reader.await;
        }
    })
    .await;
}

fn close(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) }))
}

/// The binary messages as a stream of bytes, and the way back, for a protocol that is tunnelled.
pub(super) fn tunnel(socket: Socket) -> (impl AsyncRead, impl AsyncWrite) {
    let (sink, stream) = socket.split();
    let bytes = stream.filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => Some(Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "the tunnel takes binary messages",
            ))),
            Ok(Message::Close(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => None,
            Err(error) => Some(Err(std::io::Error::other(error))),
        })
    });
    let sink = sink.sink_map_err(std::io::Error::other);
    let sink = tokio_util::io::CopyToBytes::new(
        sink.with(|bytes: Bytes| std::future::ready(Ok::<_, std::io::Error>(Message::Binary(bytes)))),
    );
    (tokio_util::io::StreamReader::new(bytes), tokio_util::io::SinkWriter::new(sink))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 5] = [
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ];

    fn headers(offered: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for one in offered {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, one.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_clients_first_known_subprotocol_wins() {
        let (name, protocol) =
            negotiate(&headers(&["v9.x, v5.channel.k8s.io", "channel.k8s.io"]), Protocol::named).unwrap();
        assert_eq!(name, "v5.channel.k8s.io");
        assert_eq!(protocol, Protocol { encoding: Encoding::Raw, version: 5 });
        assert!(negotiate(&headers(&["v9.x"]), Protocol::named).is_none());
        assert_eq!(negotiate(&headers(&[]), Protocol::named).unwrap().0, "");
    }

    #[test]
    fn only_v5_has_a_close_signal() {
        let message = || Message::Binary(vec![255, 0].into());
        let v5 = Protocol::named("v5.channel.k8s.io").unwrap();
        let v4 = Protocol::named("v4.channel.k8s.io").unwrap();
        assert_eq!(v5.decode(message()), Ok(Incoming::Closed(0)));
        assert_eq!(v4.decode(message()), Ok(Incoming::Data(255, Bytes::from_static(&[0]))));
        assert!(v5.decode(Message::Binary(vec![255].into())).is_err());
        assert!(v5.decode(Message::Binary(vec![255, 0, 0].into())).is_err());
    }

    #[test]
    fn base64_messages_are_text() {
        let protocol = Protocol::named("v4.base64.channel.k8s.io").unwrap();
        assert_eq!(protocol.encode(1, b"hello"), Message::text("1aGVsbG8="));
        assert!(protocol.decode(Message::text("1a*")).is_err());
        assert!(protocol.decode(Message::text("!aGVsbG8=")).is_err());
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes(which in 0usize..5, channel in 0u8..5, data: Vec<u8>) {
            let protocol = Protocol::named(NAMES[which]).unwrap();
            let decoded = protocol.decode(protocol.encode(channel, &data)).unwrap();
            prop_assert_eq!(decoded, Incoming::Data(channel, data.into()));
        }

        #[test]
        fn any_message_is_read_or_refused(which in 0usize..5, data: Vec<u8>) {
            let _ = Protocol::named(NAMES[which]).unwrap().decode(Message::Binary(data.into()));
        }
    }
}
