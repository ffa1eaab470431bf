//! What fuzz targets call of this module; only there when they are built.

use std::io::{Cursor, Read, Write};

use tokio_tungstenite::tungstenite::{WebSocket, protocol::Role};

use super::websocket::{self, Protocol};

/// A client's bytes that are read; what is written to it is dropped.
struct Client<'a>(Cursor<&'a [u8]>);

impl Read for Client<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Client<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads messages until the bytes end or break the protocol.
pub fn websocket(protocol: u8, bytes: &[u8]) {
    const NAMES: [&str; 5] = [
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "v5.channel.k8s.io",
    ];
    let name = NAMES[usize::from(protocol) % NAMES.len()];
    let Some(protocol) = Protocol::named(name) else { return };
    let client = Client(Cursor::new(bytes));
    let mut socket = WebSocket::from_raw_socket(client, Role::Server, Some(websocket::config()));
    while let Ok(message) = socket.read() {
        if protocol.decode(message).is_err() {
            return;
        }
    }
}
