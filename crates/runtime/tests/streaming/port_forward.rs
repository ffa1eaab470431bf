//! Port-forward over SPDY, over SPDY in a WebSocket, and over channels.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use k8s_cri::v1 as cri;
use runtime::streaming::{Server, spdy::Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Spdy, Ws, raw, server};

fn url(server: &Server, ports: &[i32]) -> String {
    let request = cri::PortForwardRequest { pod_sandbox_id: "pod".into(), port: ports.to_vec() };
    server.port_forward_url(&request).unwrap()
}

async fn pair<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    spdy: &mut Spdy<S>,
    port: &str,
    id: &str,
) -> (u32, u32) {
    let error = spdy.open(&[("streamtype", "error"), ("port", port), ("requestid", id)]).await;
    spdy.data(error, "", true).await;
    let data = spdy.open(&[("streamtype", "data"), ("port", port), ("requestid", id)]).await;
    (data, error)
}

async fn several_connections(mut spdy: Spdy<impl AsyncReadExt + AsyncWriteExt + Unpin>) {
    // one whose port reads nothing must not hold up the others
    let (stuck, _) = pair(&mut spdy, "9", "0").await;
    spdy.data(stuck, &"x".repeat(100_000), false).await;
    let (data, _) = pair(&mut spdy, "80", "1").await;
    spdy.data(data, &"y".repeat(50_000), false).await;
    spdy.data(data, "z", true).await;
    assert_eq!(spdy.read(data).await.unwrap(), "50001 bytes");
    let (data, _) = pair(&mut spdy, "7", "2").await;
    spdy.data(data, "echo", true).await;
    assert_eq!(spdy.read(data).await.unwrap(), "echo");
    let (_, error) = pair(&mut spdy, "81", "3").await;
    let text = spdy.read(error).await.unwrap();
    assert_eq!(text, "error forwarding port 81 to pod pod, uid : connection refused");
}

#[tokio::test]
async fn spdy_carries_several_connections() {
    let (server, _) = server().await;
    several_connections(Spdy::connect(&url(&server, &[]), "portforward.k8s.io").await.unwrap()).await;
}

#[tokio::test]
async fn a_websocket_carries_spdy() {
    let (server, _) = server().await;
    let ws = Ws::connect(&url(&server, &[]), "SPDY/3.1+portforward.k8s.io").await;
    let (mut sink, mut stream) = ws.0.split();
    let (ours, theirs) = tokio::io::duplex(1000);
    let (mut from, mut to) = tokio::io::split(theirs);
    let up = tokio::spawn(async move {
        let mut buffer = [0; 777];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..n]))).await.is_err() {
                return;
            }
        }
    });
    let down = tokio::spawn(async move {
        while let Some(Ok(Message::Binary(bytes))) = stream.next().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    several_connections(Spdy::over(ours)).await;
    up.await.unwrap();
    down.abort();
}

#[tokio::test]
async fn both_streams_end_as_soon_as_the_pod_has_spoken_its_last() {
    let (server, _) = server().await;
    let mut spdy = Spdy::connect(&url(&server, &[]), "portforward.k8s.io").await.unwrap();
    let error = spdy.opened(&[("streamtype", "error"), ("port", "21"), ("requestid", "0")]).await;
    let data = spdy.open(&[("port", "21"), ("requestid", "0"), ("streamtype", "data")]).await;
    assert_eq!(spdy.read(data).await.unwrap(), "220 ready");
    // the client still has its side open, as kubectl has while it waits for this
    assert_eq!(spdy.read(error).await.unwrap(), "");
}

#[tokio::test]
async fn old_clients_do_not_number_their_connections() {
    let (server, _) = server().await;
    let mut spdy = Spdy::connect(&url(&server, &[]), "portforward.k8s.io").await.unwrap();
    spdy.opened(&[("streamtype", "error"), ("port", "21")]).await;
    let data = spdy.open(&[("streamtype", "data"), ("port", "21")]).await;
    assert_eq!(spdy.read(data).await.unwrap(), "220 ready");
}

#[tokio::test]
async fn streams_without_port_or_type_are_refused() {
    let (server, _) = server().await;
    let mut spdy = Spdy::connect(&url(&server, &[]), "portforward.k8s.io").await.unwrap();
    for headers in [
        &[("streamtype", "data"), ("requestid", "1")][..],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "stdin"), ("port", "80")],
        &[("port", "80")],
    ] {
        let id = spdy.open(headers).await;
        assert_eq!(spdy.frame().await, Some(Frame::RstStream { id, status: 1 }), "{headers:?}");
    }
}

#[tokio::test]
async fn channels_come_in_pairs_for_each_port() {
    let (server, _) = server().await;
    let mut ws = Ws::connect(&url(&server, &[7, 81]), "v4.channel.k8s.io").await;
    let mut channels: [Vec<u8>; 4] = Default::default();
    let mut sent = false;
    while channels[0].len() < 2 + 4 || channels[3].len() < 3 {
        let Some(Message::Binary(bytes)) = ws.next().await else { panic!("it has ended") };
        channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        if !sent && channels[0].len() == 2 {
            ws.send(raw(0, b"echo")).await;
            sent = true;
        }
    }
    assert_eq!(channels[0], b"\x07\x00echo");
    assert_eq!(channels[1], b"\x07\x00");
    assert_eq!(channels[2], b"\x51\x00");
    assert!(channels[3].ends_with(b"connection refused"));
}
