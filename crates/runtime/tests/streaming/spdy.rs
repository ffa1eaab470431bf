//! Exec over SPDY.

use k8s_cri::v1 as cri;
use runtime::streaming::spdy::Frame;
use serde_json::Value;

use crate::client::{Spdy, exec, server, soon};

#[tokio::test]
async fn streams_are_told_apart_by_their_type() {
    let (server, _) = server().await;
    let mut spdy =
        Spdy::connect(&server.exec_url(&exec(&["cat"])).unwrap(), "v4.channel.k8s.io").await.unwrap();
    let error = spdy.open(&[("streamtype", "error")]).await;
    let stdin = spdy.open(&[("streamtype", "stdin")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    let stderr = spdy.open(&[("streamtype", "stderr")]).await;
    for id in [error, stdin, stdout, stderr] {
        assert_eq!(spdy.frame().await, Some(Frame::SynReply { id, fin: false, headers: Default::default() }));
    }
    spdy.data(stdin, "hello ", false).await;
    spdy.send(Frame::Ping(1)).await;
    spdy.data(stdin, "world", true).await;
    let mut seen = [const { Vec::new() }; 8];
    let mut ended = Vec::new();
    let mut pinged = false;
    while ended.len() < 4 {
        match spdy.frame().await.unwrap() {
            Frame::Data { id, fin, bytes } => {
                seen[id as usize].extend_from_slice(&bytes);
                if fin {
                    ended.push(id);
                }
            }
            Frame::Ping(1) => pinged = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(pinged);
    assert_eq!(seen[stdout as usize], b"hello world");
    let status: Value = serde_json::from_slice(&seen[error as usize]).unwrap();
    assert_eq!(status["status"], "Success");
    assert!(matches!(spdy.frame().await, Some(Frame::GoAway { .. })));
    assert_eq!(spdy.frame().await, None);
}

#[tokio::test]
async fn old_protocols_tell_an_error_in_words() {
    let (server, _) = server().await;
    for protocol in ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"] {
        let request = cri::ExecRequest { stdin: false, stderr: false, ..exec(&["exit", "5"]) };
        let mut spdy = Spdy::connect(&server.exec_url(&request).unwrap(), protocol).await.unwrap();
        let error = spdy.open(&[("streamtype", "error")]).await;
        spdy.open(&[("streamtype", "stdout")]).await;
        let text = spdy.read(error).await.unwrap();
        assert!(text.ends_with("exit code 5"), "{text}");
    }
}

#[tokio::test]
async fn a_terminal_is_resized_by_a_stream_of_its_own() {
    let (server, _) = server().await;
    let request = cri::ExecRequest { stdin: false, stderr: false, tty: true, ..exec(&["size"]) };
    let url = server.exec_url(&request).unwrap();
    let mut spdy = Spdy::connect(&url, "v9.channel.k8s.io, v4.channel.k8s.io").await.unwrap();
    spdy.open(&[("streamtype", "error")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    let resize = spdy.open(&[("streamtype", "resize")]).await;
    spdy.data(resize, "{\"Width\":100,", false).await;
    spdy.data(resize, "\"Height\":30}\n{\"Width\":1,\"Height\":1}\n", false).await;
    assert_eq!(spdy.read(stdout).await.unwrap(), "100x30");
}

#[tokio::test]
async fn streams_that_were_not_asked_for_are_refused() {
    let (server, _) = server().await;
    let request = cri::ExecRequest { stdin: false, stderr: false, ..exec(&["both", "x", ""]) };
    let mut spdy = Spdy::connect(&server.exec_url(&request).unwrap(), "v4.channel.k8s.io").await.unwrap();
    let stdin = spdy.open(&[("streamtype", "stdin")]).await;
    assert_eq!(spdy.frame().await, Some(Frame::RstStream { id: stdin, status: 1 }));
    spdy.open(&[("streamtype", "error")]).await;
    let stdout = spdy.open(&[("streamtype", "stdout")]).await;
    assert_eq!(spdy.read(stdout).await.unwrap(), "x");
}

#[tokio::test]
async fn a_client_that_goes_lets_go_of_the_process() {
    let (server, fake) = server().await;
    let request = cri::ExecRequest { stdin: false, stderr: false, ..exec(&["sleep"]) };
    let mut spdy = Spdy::connect(&server.exec_url(&request).unwrap(), "v4.channel.k8s.io").await.unwrap();
    spdy.open(&[("streamtype", "error")]).await;
    spdy.open(&[("streamtype", "stdout")]).await;
    spdy.frame().await.unwrap();
    spdy.frame().await.unwrap();
    let mut dropped = fake.dropped.subscribe();
    // it may have gone before its process began
    soon(async {
        while fake.execs.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(spdy);
    soon(dropped.wait_for(|n| *n == 1)).await.unwrap();
}

#[tokio::test]
async fn streams_out_of_turn_end_the_connection() {
    let (server, _) = server().await;
    let mut spdy =
        Spdy::connect(&server.exec_url(&exec(&["cat"])).unwrap(), "v4.channel.k8s.io").await.unwrap();
    let even = Frame::SynStream {
        id: 2,
        associated: 0,
        priority: 0,
        fin: false,
        unidirectional: false,
        headers: Default::default(),
    };
    spdy.send(even).await;
    assert_eq!(spdy.frame().await, None);
}
