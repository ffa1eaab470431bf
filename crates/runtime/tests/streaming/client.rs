//! Clients for the tests.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use k8s_cri::v1 as cri;
use runtime::streaming::{
    Server,
    spdy::{Decoder, Encoder, Frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::backend::Fake;

/// Nothing here takes longer.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it takes too long")
}

pub async fn server() -> (Server, Arc<Fake>) {
    let fake = Arc::new(Fake::default());
    let server = Server::start(fake.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    (server, fake)
}

pub fn exec(command: &[&str]) -> cri::ExecRequest {
    cri::ExecRequest {
        container_id: "box".into(),
        cmd: command.iter().map(|c| c.to_string()).collect(),
        tty: false,
        stdin: true,
        stdout: true,
        stderr: true,
    }
}

pub struct Ws(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Ws {
    pub async fn connect(url: &str, protocol: &str) -> Self {
        let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let (socket, response) = soon(connect_async(request)).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        Self(socket)
    }

    pub async fn send(&mut self, message: impl Into<Message>) {
        soon(self.0.send(message.into())).await.unwrap();
    }

    pub async fn next(&mut self) -> Option<Message> {
        match soon(self.0.next()).await {
            Some(Ok(Message::Close(_))) | None => None,
            Some(Ok(message)) => Some(message),
            Some(Err(error)) => panic!("{error}"),
        }
    }

    /// All that comes until the end, by channel; of raw messages.
    pub async fn rest(&mut self) -> [Vec<u8>; 5] {
        let mut channels: [Vec<u8>; 5] = Default::default();
        while let Some(message) = self.next().await {
            let Message::Binary(bytes) = message else { panic!("{message:?}") };
            channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
        channels
    }
}

pub fn raw(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

/// A SPDY client on top of the codec.
pub struct Spdy<S> {
    io: S,
    encoder: Encoder,
    decoder: Decoder,
    buffer: BytesMut,
    next: u32,
}

impl Spdy<TcpStream> {
    /// Upgrades as Go's clients do.
    pub async fn connect(url: &str, protocols: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").unwrap();
        let (address, path) = rest.split_once('/').unwrap();
        let mut io = soon(TcpStream::connect(address)).await.unwrap();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: {protocols}\r\nContent-Length: 0\r\n\r\n"
        );
        io.write_all(head.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\n") {
            reply.push(soon(io.read_u8()).await.unwrap());
        }
        let reply = String::from_utf8(reply).unwrap();
        if reply.starts_with("HTTP/1.1 101 ") { Ok(Spdy::over(io)) } else { Err(reply) }
    }
}

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Spdy<S> {
    pub fn over(io: S) -> Self {
        Self {
            io,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            buffer: BytesMut::new(),
            next: 1,
        }
    }

    pub async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes);
        soon(self.io.write_all(&bytes)).await.unwrap();
    }

    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let headers = headers.iter().copied().collect();
        self.send(Frame::SynStream {
            id,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers,
        })
        .await;
        id
    }

    /// Opens a stream and waits until it is accepted, as Go's clients do. Nothing else may be on its way.
    pub async fn opened(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.open(headers).await;
        assert_eq!(self.frame().await, Some(Frame::SynReply { id, fin: false, headers: Default::default() }));
        id
    }

    pub async fn data(&mut self, id: u32, data: &str, fin: bool) {
        self.send(Frame::Data { id, fin, bytes: Bytes::copy_from_slice(data.as_bytes()) }).await;
    }

    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            if soon(self.io.read_buf(&mut self.buffer)).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// All that comes on a stream until it ends; `None` if it is reset.
    pub async fn read(&mut self, wanted: u32) -> Option<String> {
        let mut text = Vec::new();
        loop {
            match self.frame().await.expect("the connection has ended") {
                Frame::Data { id, fin, bytes } if id == wanted => {
                    text.extend_from_slice(&bytes);
                    if fin {
                        return Some(String::from_utf8(text).unwrap());
                    }
                }
                Frame::RstStream { id, .. } if id == wanted => return None,
                _ => {}
            }
        }
    }
}
