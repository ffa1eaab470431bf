//! Exec, attach and port-forward: asked of the runtime, and joined with it.

use http::Method;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};

use crate::{
    client::{Answer, request, send, soon, text},
    fakes::Node,
};

/// A streaming server for one connection, which answers this and then echoes; gives the head of its request.
async fn streaming(node: &Node, answer: &'static str) -> oneshot::Receiver<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/exec/TOKEN", listener.local_addr().unwrap());
    *node.runtime.streaming.lock().unwrap() = Some(url);
    let (told, head) = oneshot::channel();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        // not every test wants it
        let _ = told.send(String::from_utf8(head).unwrap());
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    head
}

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
                      X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";

async fn upgrade(node: &Node, path: &str) -> Answer {
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "SPDY/3.1"),
        ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ("authorization", "Bearer secret"),
    ];
    let identity = node.authority.identity("kube-apiserver", "system:masters");
    send(node, Some(identity), request(Method::POST, path, &headers)).await
}

#[tokio::test]
async fn a_stream_is_joined_with_the_runtimes() {
    let node = Node::start().await;
    let head = streaming(&node, SWITCH).await;
    let answer =
        upgrade(&node, "/exec/shop/web/app?command=sh&command=-c&command=a%20b&input=1&output=1&error=1")
            .await;
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
    let mut stream = TokioIo::new(soon(hyper::upgrade::on(answer)).await.unwrap());
    let sent = "hello ".repeat(100_000);
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut received = String::new();
    let send = async {
        write.write_all(sent.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    };
    tokio::join!(send, async { soon(read.read_to_string(&mut received)).await.unwrap() });
    assert!(received == sent);
    let head = head.await.unwrap().to_lowercase();
    assert!(head.starts_with("post /exec/token http/1.1\r\n"), "{head}");
    assert!(
        head.contains("x-stream-protocol-version: v4.channel.k8s.io") && head.contains("upgrade: spdy/3.1")
    );
    assert!(!head.contains("secret"), "credentials stay here: {head}");
    let asked = node.runtime.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        "ExecRequest { container_id: \"app-1\", cmd: [\"sh\", \"-c\", \"a b\"], tty: false, stdin: true, \
         stdout: true, stderr: true }"
    );
}

#[tokio::test]
async fn an_attach_has_the_terminal_that_the_container_has() {
    let node = Node::start().await;
    streaming(&node, SWITCH).await;
    assert_eq!(upgrade(&node, "/attach/shop/web/u-1/app?output=1&error=1").await.status(), 101);
    let asked = node.runtime.asked.lock().unwrap().clone();
    assert!(asked.contains("tty: true") && asked.contains("stderr: false"), "{asked}");
}

#[tokio::test]
async fn ports_are_forwarded_to_the_sandbox() {
    let node = Node::start().await;
    streaming(&node, SWITCH).await;
    assert_eq!(upgrade(&node, "/portForward/shop/web").await.status(), 101);
    let asked = node.runtime.asked.lock().unwrap().clone();
    assert_eq!(asked, "PortForwardRequest { pod_sandbox_id: \"sandbox-1\", port: [] }");
    let answer = upgrade(&node, "/portForward/shop/web/other").await;
    assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (404, "pod not found"));
}

#[tokio::test]
async fn a_refusal_of_the_runtime_comes_through_as_it_is() {
    let node = Node::start().await;
    streaming(&node, "HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope").await;
    let answer = upgrade(&node, "/exec/shop/web/app?output=1").await;
    assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (403, "nope"));
    *node.runtime.streaming.lock().unwrap() = None;
    let answer = upgrade(&node, "/exec/shop/web/app?output=1").await;
    assert_eq!(answer.status(), 429);
    *node.runtime.streaming.lock().unwrap() = Some("http://127.0.0.1:1/exec/x".into());
    assert_eq!(upgrade(&node, "/exec/shop/web/app?output=1").await.status(), 500);
}

#[tokio::test]
async fn what_cannot_be_a_stream_is_refused_in_words() {
    let node = Node::start().await;
    let refusal = async |path: &str| {
        let answer = upgrade(&node, path).await;
        (answer.status().as_u16(), text(answer).await)
    };
    let none = "you must specify at least 1 of stdin, stdout, stderr";
    assert_eq!(refusal("/exec/shop/web/app?command=id").await, (400, none.into()));
    assert_eq!(refusal("/exec/shop/web/app?tty=1&error=1").await, (400, none.into()));
    assert_eq!(refusal("/exec/shop/none/app?output=1").await, (404, "pod does not exist".into()));
    assert_eq!(refusal("/exec/shop/web/late?output=1").await, (500, "container not found (\"late\")".into()));
    let identity = node.authority.identity("kube-apiserver", "system:masters");
    *node.runtime.streaming.lock().unwrap() = Some("http://127.0.0.1:1/".into());
    let plain = request(Method::POST, "/exec/shop/web/app?output=1", &[]);
    let answer = send(&node, Some(identity), plain).await;
    assert_eq!((answer.status().as_u16(), text(answer).await.as_str()), (400, "Upgrade request required"));
}
