//! Terminals, attachers and ports, as the streaming server gets them.

use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use runtime::streaming::{Backend, TerminalSize, Wanted};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tonic::Request;

use crate::lab::Lab;

const ALL: Wanted = Wanted { tty: false, stdin: true, stdout: true, stderr: true };

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_has_three_streams_and_an_exit_code() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("a", &["sleep", "1000"])).await;
    let command = ["sh", "-c", "cat; echo err >&2; exit 6"].map(String::from);
    let mut process = Backend::exec(&**lab.runtime(), &id, &command, ALL).await.unwrap();
    process.stdin.take().unwrap().write_all(b"through\n").await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    process.stdout.unwrap().read_to_string(&mut out).await.unwrap();
    process.stderr.unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str(), process.exit.await.unwrap()), ("through\n", "err\n", 6));
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_ends_when_nobody_waits_for_it() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("a", &["sleep", "1000"])).await;
    let process =
        Backend::exec(&**lab.runtime(), &id, &["sleep", "555"].map(String::from), ALL).await.unwrap();
    let mut stdout = process.stdout.unwrap();
    drop(process.exit);
    // its end closes its streams
    assert_eq!(stdout.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_echoes() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let id = lab.run(&pod, lab.container_config("a", &["sleep", "1000"])).await;
    let wanted = Wanted { tty: true, stdin: true, stdout: true, stderr: false };
    let command = ["sh", "-c", "read line; stty size; tty; exit 4"].map(String::from);
    let process = Backend::exec(&**lab.runtime(), &id, &command, wanted).await.unwrap();
    let resize = process.resize.unwrap();
    resize.send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    // a channel keeps what it was given: the second is taken up after the first was set
    resize.send(TerminalSize { width: 123, height: 45 }).await.unwrap();
    drop(resize);
    let mut stdin = process.stdin.unwrap();
    stdin.write_all(b"go\n").await.unwrap();
    let mut out = String::new();
    process.stdout.unwrap().read_to_string(&mut out).await.unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "go", "{out}");
    assert!(lines[1] == "45 123" || lines[1] == "0 0", "{out}");
    assert!(lines[2].starts_with("/dev/pts/"), "{out}");
    assert_eq!(process.exit.await.unwrap(), 4);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attacher_gets_the_output_and_gives_the_input() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let mut config =
        lab.container_config("a", &["sh", "-c", "while read l; do echo got $l; done; echo over"]);
    (config.stdin, config.stdin_once) = (true, true);
    let id = lab.run(&pod, config).await;
    let process = Backend::attach(&**lab.runtime(), &id, ALL).await.unwrap();
    let mut stdout = BufReader::new(process.stdout.unwrap()).lines();
    let mut stdin = process.stdin.unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    assert_eq!(stdout.next_line().await.unwrap().unwrap(), "got one");
    // the first attacher's leaving is the end of the input
    drop(stdin);
    assert_eq!(stdout.next_line().await.unwrap().unwrap(), "over");
    assert_eq!(stdout.next_line().await.unwrap(), None);
    assert_eq!(process.exit.await.unwrap(), 0);
    assert_eq!(lab.output("a"), "got one\nover\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_terminal_logs_what_it_shows() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let mut config = lab.container_config("a", &["sh", "-c", "tty; read l; echo got $l"]);
    (config.stdin, config.tty) = (true, true);
    let id = lab.run(&pod, config).await;
    let wanted = Wanted { tty: true, stdin: true, stdout: true, stderr: false };
    let mut process = Backend::attach(&**lab.runtime(), &id, wanted).await.unwrap();
    assert!(process.resize.is_some());
    lab.wait_for_output("a", "/dev/pts/0").await;
    process.stdin.as_mut().unwrap().write_all(b"words\n").await.unwrap();
    assert_eq!(lab.ended(&id).await.exit_code, 0);
    let text = lab.output("a").replace('\r', "");
    // a terminal of the container's own devpts, and the echo
    assert_eq!(text, "/dev/pts/0\nwords\ngot words\n");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_attacher_loses_nothing() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let mut config = lab.container_config("a", &["sh", "-c", "read l; seq 200000; exit 0"]);
    config.stdin = true;
    let id = lab.run(&pod, config).await;
    let mut process = Backend::attach(&**lab.runtime(), &id, ALL).await.unwrap();
    process.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let mut text = String::new();
    process.stdout.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text.lines().count(), 200_000);
    assert_eq!(lab.ended(&id).await.exit_code, 0);
    assert_eq!(lab.output("a").lines().count(), 200_000);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_pod_can_be_reached() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let script = "echo ready; exec nc -l -p 8080 -e /bin/sh -c 'read l; echo you said $l'";
    let id = lab.run(&pod, lab.container_config("a", &["sh", "-c", script])).await;
    lab.wait_for_output("a", "ready").await;
    let mut stream = loop {
        match Backend::port_forward(&**lab.runtime(), &pod, 8080).await {
            Ok(stream) => break stream,
            // nc says nothing when it listens
            Err(_) => tokio::task::yield_now().await,
        }
    };
    stream.write_all(b"hello\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "you said hello\n");
    assert!(Backend::port_forward(&**lab.runtime(), &pod, 9).await.is_err());
    lab.stop(&id, 0).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_moved_away_is_opened_again() {
    let Some(lab) = Lab::new().await else { return };
    let pod = lab.sandbox("web").await;
    let mut config = lab.container_config("a", &["sh", "-c", "echo one; read l; echo two"]);
    config.stdin = true;
    let id = lab.run(&pod, config).await;
    lab.wait_for_output("a", "one").await;
    let log = lab.logs().join("a.log");
    std::fs::rename(&log, lab.logs().join("a.log.1")).unwrap();
    let request = cri::ReopenContainerLogRequest { container_id: id.clone() };
    lab.runtime().reopen_container_log(Request::new(request)).await.unwrap();
    let mut process = Backend::attach(&**lab.runtime(), &id, ALL).await.unwrap();
    process.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    lab.ended(&id).await;
    assert_eq!(lab.output("a"), "two\n");
    lab.end().await;
}
