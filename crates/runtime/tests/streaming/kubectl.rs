//! The server as kubectl uses it, over WebSocket and over SPDY. Between them stands what an API server and a kubelet are
//! to a stream: somebody who passes on the request and joins the connections.

use std::{process::Stdio, sync::Arc};

use k8s_cri::v1 as cri;
use runtime::streaming::Server;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
};

use crate::client::{server, soon};

/// Answers for one pod, `box`; gives the address.
async fn api(server: Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Arc::new(server);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let server = server.clone();
            tokio::spawn(async move { answer(stream, &server).await });
        }
    });
    address
}

async fn answer(mut stream: TcpStream, server: &Server) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let all = |name: &str| -> Vec<String> {
        let prefix = format!("{name}=");
        query.split('&').filter_map(|p| p.strip_prefix(&prefix)).map(str::to_owned).collect()
    };
    let url = if path.ends_with("/exec") {
        let on = |name| all(name) == ["true"];
        let request = cri::ExecRequest {
            container_id: "box".into(),
            cmd: all("command"),
            tty: on("tty"),
            stdin: on("stdin"),
            stdout: on("stdout"),
            stderr: on("stderr"),
        };
        server.exec_url(&request).unwrap()
    } else if path.ends_with("/portforward") {
        let request = cri::PortForwardRequest { pod_sandbox_id: "pod".into(), port: vec![] };
        server.port_forward_url(&request).unwrap()
    } else {
        let answer = match path {
            "/api" => json!({"kind": "APIVersions", "versions": ["v1"]}),
            "/apis" => json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []}),
            "/api/v1" => json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
                "resources": [{
                    "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get"],
                }],
            }),
            _ => json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "box", "namespace": "default"},
                "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"},
            }),
        };
        let answer = answer.to_string();
        let reply = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        return stream.write_all(reply.as_bytes()).await.unwrap();
    };
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut onward = TcpStream::connect(address).await.unwrap();
    onward.write_all(format!("{method} /{path} HTTP/1.1\r\n{headers}").as_bytes()).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}

/// kubectl with these arguments, or nothing where there is none.
async fn kubectl(server: Server, websockets: bool, arguments: &[&str]) -> Option<Child> {
    let address = api(server).await;
    let enabled = websockets.to_string();
    let child = Command::new("kubectl")
        .args([
            "--server",
            &format!("http://{address}"),
            "--kubeconfig",
            "/dev/null",
            "--cache-dir",
            "/dev/null/x",
        ])
        .args(arguments)
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", &enabled)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", &enabled)
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    match child {
        Ok(child) => Some(child),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no kubectl here");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn kubectl_pipes_through_a_command() {
    for websockets in [true, false] {
        let (server, fake) = server().await;
        let Some(mut child) = kubectl(server, websockets, &["exec", "-i", "box", "--", "cat"]).await else {
            return;
        };
        let input = "0123456789".repeat(50_000);
        let mut stdin = child.stdin.take().unwrap();
        let written = input.clone();
        tokio::spawn(async move { stdin.write_all(written.as_bytes()).await });
        let output = soon(child.wait_with_output()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == input.as_bytes(), "{} bytes", output.stdout.len());
        assert_eq!(fake.execs.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn kubectl_tells_outputs_and_exit_codes() {
    for websockets in [true, false] {
        let (server, _) = server().await;
        let Some(child) =
            kubectl(server.clone(), websockets, &["exec", "box", "--", "both", "to stdout", "oops"]).await
        else {
            return;
        };
        let output = soon(child.wait_with_output()).await.unwrap();
        // the test's API does not decode what kubectl has encoded
        assert_eq!(String::from_utf8_lossy(&output.stdout), "to+stdout");
        assert!(String::from_utf8_lossy(&output.stderr).contains("oops"));
        let child = kubectl(server, websockets, &["exec", "box", "--", "exit", "42"]).await.unwrap();
        let output = soon(child.wait_with_output()).await.unwrap();
        assert_eq!(output.status.code(), Some(42));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains("command terminated with exit code 42"), "{words}");
    }
}

#[tokio::test]
async fn kubectl_forwards_ports() {
    for websockets in [true, false] {
        let (server, _) = server().await;
        let Some(mut child) = kubectl(server, websockets, &["port-forward", "pod/box", ":80", ":21"]).await
        else {
            return;
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports = std::collections::HashMap::new();
        while ports.len() < 2 {
            // Forwarding from 127.0.0.1:40001 -> 80
            let line = soon(lines.next_line()).await.unwrap().expect("kubectl has ended");
            if let Some(rest) = line.strip_prefix("Forwarding from 127.0.0.1:") {
                let (local, remote) = rest.split_once(" -> ").unwrap();
                ports.insert(remote.to_owned(), local.parse::<u16>().unwrap());
            }
        }
        for length in [1usize, 300_000, 0] {
            let mut stream = TcpStream::connect(("127.0.0.1", ports["80"])).await.unwrap();
            stream.write_all(&vec![b'x'; length]).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            soon(stream.read_to_string(&mut answer)).await.unwrap();
            assert_eq!(answer, format!("{length} bytes"), "websockets: {websockets}");
        }
        let start = std::time::Instant::now();
        let mut greeting = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", ports["21"])).await.unwrap();
        soon(stream.read_to_string(&mut greeting)).await.unwrap();
        assert_eq!(greeting, "220 ready");
        eprintln!("greeting and end after {:?}", start.elapsed());
        child.start_kill().unwrap();
        soon(child.wait()).await.unwrap();
    }
}
