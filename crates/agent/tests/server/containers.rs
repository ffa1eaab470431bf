//! Logs, and commands to their end.

use std::{fs, io::Write};

use http::Method;
use http_body_util::BodyExt;
use k8s_cri::v1 as cri;

use crate::{
    client::{ask, get, request, send, soon},
    fakes::Node,
};

fn lines(texts: &[&str]) -> String {
    texts.iter().map(|t| format!("2026-01-01T00:00:00.5Z stdout F {t}\n")).collect()
}

#[tokio::test]
async fn logs_are_shown_as_asked_for() {
    let node = Node::start().await;
    fs::write(node.logs().join("app/1.log"), lines(&["one", "two", "three"])).unwrap();
    fs::write(node.logs().join("app/0.log"), lines(&["before"])).unwrap();
    fs::write(node.logs().join("side/3.log"), lines(&["crash"])).unwrap();
    let logs = async |rest: &str| get(&node, &format!("/containerLogs/shop/web/{rest}")).await;
    assert_eq!(logs("app").await, (200, "one\ntwo\nthree\n".into()));
    assert_eq!(
        logs("app?tailLines=1&timestamps=true").await,
        (200, "2026-01-01T00:00:00.500000000Z three\n".into())
    );
    assert_eq!(logs("app?limitBytes=5").await, (200, "one\nt".into()));
    assert_eq!(logs("app?sinceTime=2026-01-02T00:00:00Z").await, (200, String::new()));
    assert_eq!(logs("app?stream=Stderr").await, (200, String::new()));
    assert_eq!(logs("app?previous=true").await, (200, "before\n".into()));
    assert_eq!(logs("side?previous=true").await, (200, "crash\n".into()));
    // one that does not run is not followed
    assert_eq!(logs("side?follow=true").await, (200, "crash\n".into()));
}

#[tokio::test]
async fn logs_that_there_are_not_are_explained() {
    let node = Node::start().await;
    for (path, status, words) in [
        ("shop/none/app", 404, "pod \"none\" does not exist"),
        ("shop/web/none", 404, "container \"none\" not found in pod \"web\""),
        ("shop/web/new", 400, "container \"new\" in pod \"web\" is not available"),
        (
            "shop/web/late",
            400,
            "container \"late\" in pod \"web\" is waiting to start: trying and failing to pull image",
        ),
        (
            "shop/web/late?previous=true",
            400,
            "previous terminated container \"late\" in pod \"web\" not found",
        ),
        ("shop/web/app?tailLines=-1", 422, "{\"message\": \"Invalid request.\"}"),
        ("shop/web/app?tailLines=x", 400, "{\"message\": \"Unable to decode query.\"}"),
    ] {
        assert_eq!(get(&node, &format!("/containerLogs/{path}")).await, (status, words.to_owned()), "{path}");
    }
    let (status, words) = get(&node, "/containerLogs/shop/web/app").await;
    assert!(status == 400 && words.starts_with("failed to open log file"), "{words}");
}

#[tokio::test]
async fn a_log_is_followed_until_the_container_ends() {
    let node = Node::start().await;
    let path = node.logs().join("app/1.log");
    fs::write(&path, lines(&["one"])).unwrap();
    let identity = node.authority.identity("a", "system:masters");
    let ask = request(Method::GET, "/containerLogs/shop/web/app?follow=true", &[]);
    let mut answer = send(&node, Some(identity), ask).await;
    let mut seen = String::new();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let mut next = 2;
    while let Some(frame) = soon(answer.frame()).await {
        seen.push_str(std::str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        if seen.lines().count() == next - 1 && next <= 4 {
            write!(file, "{}", lines(&[&format!("line {next}")])).unwrap();
            if next == 4 {
                let over = |id: &str| cri::ContainerEventResponse {
                    container_id: id.into(),
                    container_event_type: cri::ContainerEventType::ContainerStoppedEvent.into(),
                    ..Default::default()
                };
                soon(async {
                    while node.runtime.events.receiver_count() == 0 {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
                node.runtime.events.send(over("other")).unwrap();
                node.runtime.events.send(over("app-1")).unwrap();
            }
            next += 1;
        }
    }
    assert_eq!(seen, "one\nline 2\nline 3\nline 4\n");
}

#[tokio::test]
async fn a_container_that_has_ended_meanwhile_is_not_waited_for() {
    let node = Node::start().await;
    fs::write(node.logs().join("app/1.log"), lines(&["one"])).unwrap();
    *node.runtime.running.lock().unwrap() = false;
    assert_eq!(get(&node, "/containerLogs/shop/web/app?follow=true").await, (200, "one\n".into()));
}

#[tokio::test]
async fn a_command_is_run_to_its_end() {
    let node = Node::start().await;
    let run = async |path: &str| {
        let (status, _, text) = ask(&node, Method::POST, path).await;
        (status, text)
    };
    assert_eq!(run("/run/shop/web/app?cmd=echo%20a").await, (200, "echo|a and stderr".into()));
    assert_eq!(run("/run/shop/web/u-1/app?cmd=id").await.0, 200);
    let (status, words) = run("/run/shop/web/app?cmd=false").await;
    assert_eq!((status, words.as_str()), (500, "command 'false' exited with 1: false and stderr"));
    assert_eq!(run("/run/shop/none/app?cmd=id").await, (404, "pod does not exist".into()));
    assert_eq!(run("/run/shop/web/side?cmd=id").await, (500, "container not found (\"side\")".into()));
    assert_eq!(run("/run/shop/web/u-2/app?cmd=id").await.0, 500);
}
