//! Exec and attach over WebSocket.

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_cri::v1 as cri;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Ws, exec, raw, server, soon};

fn status(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[tokio::test]
async fn v5_closes_standard_input_and_ends_with_a_status() {
    let (server, fake) = server().await;
    let mut ws = Ws::connect(&server.exec_url(&exec(&["cat"])).unwrap(), "v5.channel.k8s.io").await;
    assert_eq!(ws.next().await, Some(raw(1, b"")), "an empty message says that the connection stands");
    ws.send(raw(0, b"hello ")).await;
    ws.send(raw(0, b"world, longer than the pipe is")).await;
    ws.send(Message::Binary(vec![255, 0].into())).await;
    let [_, out, err, error, _] = ws.rest().await;
    assert_eq!(out, b"hello world, longer than the pipe is");
    assert_eq!(err, b"");
    assert_eq!(status(&error), json!({"metadata": {}, "status": "Success"}));
    assert_eq!(fake.execs.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn v4_tells_the_exit_code_in_a_status() {
    let (server, _) = server().await;
    for (protocol, base64) in [("v4.channel.k8s.io", false), ("v4.base64.channel.k8s.io", true)] {
        let url = server.exec_url(&exec(&["exit", "42"])).unwrap();
        let mut ws = Ws::connect(&url, protocol).await;
        let mut last = Vec::new();
        while let Some(message) = ws.next().await {
            last = match message {
                Message::Binary(bytes) if !base64 => bytes.to_vec(),
                Message::Text(text) if base64 => {
                    let (channel, data) = text.split_at(1);
                    let mut bytes = vec![channel.parse::<u8>().unwrap()];
                    bytes.extend(BASE64_STANDARD.decode(data).unwrap());
                    bytes
                }
                other => panic!("{other:?}"),
            };
        }
        assert_eq!(last[0], 3);
        let status = status(&last[1..]);
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"], json!([{"reason": "ExitCode", "message": "42"}]));
    }
}

#[tokio::test]
async fn the_oldest_protocols_tell_an_error_in_words_and_a_success_in_none() {
    let (server, _) = server().await;
    let mut ws = Ws::connect(&server.exec_url(&exec(&["exit", "1"])).unwrap(), "channel.k8s.io").await;
    let [.., error, _] = ws.rest().await;
    let error = String::from_utf8(error).unwrap();
    assert!(error.starts_with("command terminated with non-zero exit code"), "{error}");
    let url = server.exec_url(&exec(&["both", "to stdout", "to stderr"])).unwrap();
    let mut ws = Ws::connect(&url, "channel.k8s.io").await;
    let [_, out, err, error, _] = ws.rest().await;
    assert_eq!(
        (out.as_slice(), err.as_slice(), error.as_slice()),
        (&b"to stdout"[..], &b"to stderr"[..], &b""[..])
    );
}

#[tokio::test]
async fn base64_carries_both_ways() {
    let (server, _) = server().await;
    let mut ws = Ws::connect(&server.exec_url(&exec(&["cat"])).unwrap(), "base64.channel.k8s.io").await;
    assert_eq!(ws.next().await, Some(Message::text("1")));
    ws.send(Message::text(format!("0{}", BASE64_STANDARD.encode("hello")))).await;
    assert_eq!(ws.next().await, Some(Message::text("1aGVsbG8=")));
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let (server, _) = server().await;
    let request = cri::ExecRequest { tty: true, stderr: false, ..exec(&["size"]) };
    let mut ws = Ws::connect(&server.exec_url(&request).unwrap(), "v5.channel.k8s.io").await;
    ws.send(raw(4, b"nonsense")).await;
    ws.send(raw(4, br#"{"Width":120,"Height":40}"#)).await;
    let [_, out, ..] = ws.rest().await;
    assert_eq!(out, b"120x40");
}

#[tokio::test]
async fn what_cannot_be_done_is_said_on_the_error_channel() {
    let (server, _) = server().await;
    let request = cri::ExecRequest { container_id: "gone".into(), ..exec(&["cat"]) };
    let mut ws = Ws::connect(&server.exec_url(&request).unwrap(), "v5.channel.k8s.io").await;
    let [.., error, _] = ws.rest().await;
    let status = status(&error);
    assert_eq!((&status["reason"], &status["code"]), (&json!("InternalError"), &json!(500)));
    let why = "error executing command in container: container \"gone\" is not there";
    assert_eq!(status["message"], format!("Internal error occurred: {why}"));
    assert_eq!(status["details"]["causes"][0]["message"], why);
}

#[tokio::test]
async fn attach_ends_with_success_whatever_the_container_exits_with() {
    let (server, _) = server().await;
    let request = cri::AttachRequest { container_id: "box".into(), stdout: true, ..Default::default() };
    let mut ws = Ws::connect(&server.attach_url(&request).unwrap(), "v4.channel.k8s.io").await;
    let [_, out, _, error, _] = ws.rest().await;
    assert_eq!(out, b"attached");
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn a_large_output_arrives_whole() {
    let (server, _) = server().await;
    let mut ws =
        Ws::connect(&server.exec_url(&exec(&["yes", "3000000"])).unwrap(), "v5.channel.k8s.io").await;
    let [_, out, ..] = ws.rest().await;
    assert_eq!(out.len(), 3_000_000);
    assert!(out.iter().all(|b| *b == b'y'));
}

#[tokio::test]
async fn a_client_that_goes_lets_go_of_the_process() {
    let (server, fake) = server().await;
    let mut ws = Ws::connect(&server.exec_url(&exec(&["sleep"])).unwrap(), "v5.channel.k8s.io").await;
    assert_eq!(ws.next().await, Some(raw(1, b"")));
    let mut dropped = fake.dropped.subscribe();
    drop(ws);
    soon(dropped.wait_for(|n| *n == 1)).await.unwrap();
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_hold_up_the_rest() {
    let (server, _) = server().await;
    let request = cri::ExecRequest { tty: true, stderr: false, ..exec(&["deaf"]) };
    let mut ws = Ws::connect(&server.exec_url(&request).unwrap(), "v5.channel.k8s.io").await;
    for _ in 0..100 {
        ws.send(raw(0, &[0; 1000])).await;
    }
    ws.send(raw(4, br#"{"Width":1,"Height":1}"#)).await;
    let [.., error, _] = ws.rest().await;
    assert_eq!(status(&error)["status"], "Success");
}

#[tokio::test]
async fn a_message_that_breaks_the_protocol_ends_the_connection_with_the_reason() {
    let (server, fake) = server().await;
    let mut ws = Ws::connect(&server.exec_url(&exec(&["sleep"])).unwrap(), "v5.channel.k8s.io").await;
    assert_eq!(ws.next().await, Some(raw(1, b"")));
    ws.send(Message::Binary(vec![255, 0, 1].into())).await;
    let Some(Ok(Message::Close(Some(frame)))) = soon(futures::StreamExt::next(&mut ws.0)).await else {
        panic!("no goodbye")
    };
    assert_eq!(u16::from(frame.code), 1002);
    assert!(frame.reason.contains("close signal"), "{}", frame.reason);
    soon(fake.dropped.subscribe().wait_for(|n| *n == 1)).await.unwrap();
}
