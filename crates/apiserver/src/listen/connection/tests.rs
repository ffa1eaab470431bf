//! Connections that are slow, idle, or reset again and again.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::Notify,
    task::JoinHandle,
};

use super::*;
use crate::Body;

/// Long against what the test waits for.
const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(50);

type Answering = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// A connection whose requests `answer` answers; the other end of it, and the task that serves it.
fn connected(
    http2: bool,
    deadlines: Deadlines,
    answer: impl Fn(Request<Incoming>) -> Answering + Clone + Send + 'static,
) -> (DuplexStream, JoinHandle<()>) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let service = tower::service_fn(answer);
    (client, tokio::spawn(serve(server, http2, service, deadlines)))
}

fn hello(_: Request<Incoming>) -> Answering {
    Box::pin(async { Ok(Response::new(Body::from("hello"))) })
}

/// Everything up to the end of the connection.
async fn rest(client: &mut DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    tokio::time::timeout(NEVER, client.read_to_end(&mut all)).await.unwrap().unwrap();
    all
}

fn deadlines(head: Duration, idle: Duration) -> Deadlines {
    Deadlines { head, idle, linger: SOON }
}

#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    for begun in ["", "G", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        let limits = if begun.is_empty() { deadlines(NEVER, SOON) } else { deadlines(SOON, NEVER) };
        let (mut client, served) = connected(false, limits, hello);
        client.write_all(begun.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut client).await, b"");
        served.await.unwrap();
    }
}

#[tokio::test]
async fn a_second_head_that_never_ends_ends_it_too() {
    let (mut client, served) = connected(false, deadlines(SOON, NEVER), hello);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    client.write_all(b"GET /").await.unwrap();
    assert!(rest(&mut client).await.ends_with(b"hello"));
    served.await.unwrap();
}

#[tokio::test]
async fn a_connection_without_requests_ends_and_one_with_a_request_does_not() {
    let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (go, begun) = (go.clone(), begun.clone());
        move |_| -> Answering {
            let (go, begun) = (go.clone(), begun.clone());
            Box::pin(async move {
                begun.notify_one();
                go.notified().await;
                Ok(Response::new(Body::from("late")))
            })
        }
    };
    let (mut client, served) = connected(false, deadlines(NEVER, SOON), slow);
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    begun.notified().await;
    tokio::time::sleep(SOON * 4).await;
    assert!(!served.is_finished(), "a request is no idleness");
    go.notify_one();
    assert!(rest(&mut client).await.ends_with(b"late"));
    served.await.unwrap();
}

#[tokio::test]
async fn a_head_of_more_than_a_mebibyte_is_refused() {
    let (client, served) = connected(false, deadlines(NEVER, NEVER), hello);
    let (mut read, mut write) = tokio::io::split(client);
    let sending = tokio::spawn(async move {
        let line = format!("x: {}\r\n", "y".repeat(60_000));
        let _ = write.write_all(b"GET / HTTP/1.1\r\n").await;
        for _ in 0..40 {
            let _ = write.write_all(line.as_bytes()).await;
        }
    });
    let mut all = Vec::new();
    let _ = read.read_to_end(&mut all).await;
    assert!(all.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&all));
    served.await.unwrap();
    drop(read);
    sending.await.unwrap();
}

// HTTP/2, frame by frame: length, type, flags, stream.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(body.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(body);
    out
}

/// `GET https://a/`, whole.
fn get(stream: u32) -> Vec<u8> {
    frame(1, 0b101, stream, &[0x82, 0x87, 0x84, 0x41, 1, b'a'])
}

fn reset(stream: u32) -> Vec<u8> {
    frame(3, 0, stream, &8u32.to_be_bytes())
}

/// The frames of an HTTP/2 connection until it ends: type, stream, body.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (body, after) = rest.split_at(length);
        all.push((head[3], stream, body.to_vec()));
        bytes = after;
    }
    all
}

fn goaway_code(all: &[(u8, u32, Vec<u8>)]) -> Option<u32> {
    let (_, _, body) = all.iter().rfind(|(kind, ..)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(body[4..8].try_into().unwrap()))
}

#[tokio::test]
async fn requests_taken_back_at_once_end_the_connection() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let (mut client, served) = connected(true, deadlines(NEVER, NEVER), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(pending())
    });
    let mut attack = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    for stream in (1..20_000).step_by(2) {
        attack.extend(get(stream));
        attack.extend(reset(stream));
    }
    client.write_all(&attack).await.unwrap();
    let all = frames(&rest(&mut client).await);
    assert_eq!(goaway_code(&all), Some(ENHANCE_YOUR_CALM), "{all:?}");
    assert!(seen.load(Ordering::SeqCst) <= 100, "{seen:?} requests were begun");
    served.await.unwrap();
}

#[tokio::test]
async fn a_connection_has_a_hundred_requests_at_a_time() {
    let (mut client, served) = connected(true, deadlines(NEVER, NEVER), |_| Box::pin(pending()));
    client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let mut settings = vec![0; usize::from(head[2])];
    client.read_exact(&mut settings).await.unwrap();
    let value = |id: u8| settings.chunks(6).find(|entry| entry[1] == id).map(|entry| entry[2..].to_vec());
    assert_eq!(value(3), Some(100u32.to_be_bytes().to_vec()), "concurrent streams");
    assert_eq!(value(6), Some((1u32 << 20).to_be_bytes().to_vec()), "bytes of a head");
    drop(client);
    served.await.unwrap();
}

#[tokio::test]
async fn pings_alone_do_not_keep_a_connection() {
    let (client, served) = connected(true, deadlines(NEVER, SOON), hello);
    let (mut read, mut write) = tokio::io::split(client);
    write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1)].concat()).await.unwrap();
    let pings = tokio::spawn(async move {
        while write.write_all(&frame(6, 0, 0, &[0; 8])).await.is_ok() {
            tokio::time::sleep(SOON / 10).await;
        }
    });
    let mut all = Vec::new();
    read.read_to_end(&mut all).await.unwrap();
    let all = frames(&all);
    assert_eq!(goaway_code(&all), Some(0), "{all:?}");
    assert!(all.iter().any(|(kind, stream, body)| (*kind, *stream, &**body) == (0, 1, b"hello")));
    served.await.unwrap();
    drop(read);
    pings.await.unwrap();
}

#[tokio::test]
async fn who_has_no_name_gets_one_answer_over_http2_and_then_goes() {
    let nameless = |_| -> Answering {
        let mut response = Response::new(Body::from(Bytes::from_static(b"who?")));
        response.extensions_mut().insert(Unauthenticated);
        Box::pin(async { Ok(response) })
    };
    let (mut client, served) = connected(true, deadlines(NEVER, NEVER), nameless);
    client.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1)].concat()).await.unwrap();
    let all = frames(&rest(&mut client).await);
    assert_eq!(goaway_code(&all), Some(0), "{all:?}");
    assert!(all.iter().any(|(kind, stream, body)| (*kind, *stream, &**body) == (0, 1, b"who?")));
    served.await.unwrap();

    let (mut client, _served) = connected(false, deadlines(NEVER, NEVER), nameless);
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 4096];
        let read = client.read(&mut answer).await.unwrap();
        assert!(answer[..read].ends_with(b"who?"), "HTTP/1.1 goes on");
    }
}
