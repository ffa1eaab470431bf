//! What comes before a stream: tokens and handshakes.

use k8s_cri::v1 as cri;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

use crate::client::{Spdy, Ws, exec, server, soon};

/// Sends this head to the server, and gives the answer.
async fn ask(url: &str, method: &str, headers: &str) -> String {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut io = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} /{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    io.write_all(head.as_bytes()).await.unwrap();
    let mut reply = String::new();
    soon(io.read_to_string(&mut reply)).await.unwrap();
    reply
}

#[tokio::test]
async fn a_url_is_good_for_one_request() {
    let (server, _) = server().await;
    let url = server.exec_url(&exec(&["exit", "0"])).unwrap();
    assert!(url.starts_with(&format!("http://{}/exec/", server.address())));
    Ws::connect(&url, "v5.channel.k8s.io").await.rest().await;
    assert!(ask(&url, "GET", "Connection: close\r\n").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(&url[..url.len() - 1], "GET", "Connection: close\r\n").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_url_is_good_for_its_own_kind_of_request() {
    let (server, _) = server().await;
    let url = server.exec_url(&exec(&["exit", "0"])).unwrap();
    assert!(
        ask(&url.replace("/exec/", "/attach/"), "GET", "Connection: close\r\n")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    let url = server.exec_url(&exec(&["exit", "0"])).unwrap();
    assert!(ask(&url, "PUT", "Connection: close\r\n").await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn requests_that_contradict_themselves_get_no_url() {
    let (server, _) = server().await;
    let refusal = |request: cri::ExecRequest| server.exec_url(&request).unwrap_err();
    let none = refusal(cri::ExecRequest { stdin: false, stdout: false, stderr: false, ..exec(&["cat"]) });
    assert_eq!(none.code(), Code::InvalidArgument);
    assert_eq!(refusal(cri::ExecRequest { tty: true, ..exec(&["cat"]) }).code(), Code::InvalidArgument);
    assert_eq!(
        refusal(cri::ExecRequest { container_id: String::new(), ..exec(&["cat"]) }).code(),
        Code::InvalidArgument
    );
    let forward = |port| cri::PortForwardRequest { pod_sandbox_id: "pod".into(), port: vec![port] };
    for port in [0, -1, 65536] {
        assert_eq!(server.port_forward_url(&forward(port)).unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn urls_that_nobody_uses_are_bounded() {
    let (server, _) = server().await;
    let full = (0..2000).find_map(|_| server.exec_url(&exec(&["cat"])).err()).unwrap();
    assert_eq!(full.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn handshakes_that_are_none_are_refused_in_words() {
    let (server, _) = server().await;
    let url = || server.exec_url(&exec(&["cat"])).unwrap();
    let reply = ask(&url(), "GET", "Connection: close\r\n").await;
    assert!(
        reply.starts_with("HTTP/1.1 400 ") && reply.contains("X-Stream-Protocol-Version is required"),
        "{reply}"
    );
    let ws =
        "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let reply = ask(&url(), "GET", &format!("{ws}Sec-WebSocket-Version: 8\r\n")).await;
    assert!(reply.starts_with("HTTP/1.1 400 ") && reply.contains("sec-websocket-version: 13"), "{reply}");
    let reply =
        ask(&url(), "GET", &format!("{ws}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: x\r\n")).await;
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    let reply = Spdy::connect(&url(), "v9.channel.k8s.io").await.err().unwrap();
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    assert!(reply.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"), "{reply}");
}

#[tokio::test]
async fn the_server_stops_with_its_last_handle() {
    let (server, _) = server().await;
    let address = server.address();
    let mut ws = Ws::connect(&server.exec_url(&exec(&["sleep"])).unwrap(), "v5.channel.k8s.io").await;
    ws.next().await;
    drop(server);
    soon(async {
        while let Some(Ok(_)) = futures::StreamExt::next(&mut ws.0).await {}
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
