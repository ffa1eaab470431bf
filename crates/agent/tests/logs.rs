//! The log reader on real files.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use agent::logs::{Options, read};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A log with these lines.
fn log(lines: &[&str]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut file = File::create(&path).unwrap();
    for line in lines {
        write(&mut file, line);
    }
    (dir, path)
}

fn write(file: &mut File, text: &str) {
    file.write_all(format!("2026-01-01T00:00:00Z stdout F {text}\n").as_bytes()).unwrap();
}

fn append(path: &Path, text: &str) {
    write(&mut OpenOptions::new().append(true).open(path).unwrap(), text);
}

async fn whole(path: PathBuf, options: Options) -> String {
    text(read(path, options, None).await.unwrap(), usize::MAX).await
}

/// What comes, until the end or until it is this long.
async fn text(stream: impl Stream<Item = std::io::Result<Bytes>>, length: usize) -> String {
    let mut stream = std::pin::pin!(stream);
    rest(&mut stream, length).await
}

async fn rest<S: Stream<Item = std::io::Result<Bytes>> + Unpin>(stream: &mut S, length: usize) -> String {
    let mut text = Vec::new();
    while text.len() < length {
        let next = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("nothing comes");
        let Some(bytes) = next else { break };
        text.extend_from_slice(&bytes.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_log_is_read_to_its_end() {
    let (_dir, path) = log(&["one", "two", ""]);
    assert_eq!(whole(path.clone(), Options::default()).await, "one\ntwo\n\n");
    assert_eq!(whole(path.clone(), Options { tail: Some(2), ..Default::default() }).await, "two\n\n");
    assert_eq!(whole(path.clone(), Options { tail: Some(0), ..Default::default() }).await, "");
    assert_eq!(whole(path, Options { limit: Some(5), ..Default::default() }).await, "one\nt");
}

#[tokio::test]
async fn a_log_much_larger_than_a_block_is_read_whole() {
    let lines: Vec<String> = (0..30_000).map(|n| format!("line {n} {}", "x".repeat(n % 50))).collect();
    let (_dir, path) = log(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(whole(path.clone(), Options::default()).await, lines.join("\n") + "\n");
    let last = whole(path, Options { tail: Some(20_000), ..Default::default() }).await;
    assert_eq!(last, lines[10_000..].join("\n") + "\n");
}

#[tokio::test]
async fn what_is_not_a_log_line_is_passed_over() {
    let (_dir, path) = log(&["one"]);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"nonsense\n").unwrap();
    file.write_all(&vec![b'x'; 3 << 20]).unwrap();
    file.write_all(b"\n").unwrap();
    write(&mut file, "two");
    file.write_all(b"2026-01-01T00:00:00Z stdout F no end").unwrap();
    assert_eq!(whole(path, Options::default()).await, "one\ntwo\nno end\n");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let missing = read(dir.path().join("0.log"), Options::default(), None).await;
    assert_eq!(missing.err().unwrap().kind(), std::io::ErrorKind::NotFound);
    assert!(read(dir.path().to_owned(), Options::default(), None).await.is_err());
}

#[tokio::test]
async fn a_follower_is_given_lines_as_they_come_until_the_container_has_ended() {
    let (_dir, path) = log(&["old", "one"]);
    let (end, ended) = oneshot::channel::<()>();
    let options = Options { tail: Some(1), ..Default::default() };
    let stream = read(path.clone(), options, Some(Box::pin(async { _ = ended.await }))).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    assert_eq!(rest(&mut stream, 4).await, "one\n");
    append(&path, "two");
    assert_eq!(rest(&mut stream, 4).await, "two\n");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"2026-01-01T00:00:00Z stdout F th").unwrap();
    file.write_all(b"ree\n").unwrap();
    assert_eq!(rest(&mut stream, 6).await, "three\n");
    append(&path, "four");
    end.send(()).unwrap();
    assert_eq!(rest(&mut stream, usize::MAX).await, "four\n");
}

#[tokio::test]
async fn a_follower_keeps_the_order_and_reaches_the_end_over_many_rotations() {
    let (dir, path) = log(&["0"]);
    let (end, ended) = oneshot::channel::<()>();
    let stream =
        read(path.clone(), Options::default(), Some(Box::pin(async { _ = ended.await }))).await.unwrap();
    let writer = std::thread::spawn({
        let path = path.clone();
        move || {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            for n in 1..5000 {
                if n % 500 == 0 {
                    // the kubelet renames, and the runtime goes on with the old file until it has made the new one
                    fs::rename(&path, dir.path().join(format!("0.log.{n}"))).unwrap();
                    write(&mut file, "late");
                    file = File::create(&path).unwrap();
                }
                write(&mut file, &n.to_string());
            }
            end.send(()).unwrap();
            dir
        }
    });
    let mut expected = String::from("0\n");
    for n in 1..5000 {
        expected.push_str(&if n % 500 == 0 { format!("late\n{n}\n") } else { format!("{n}\n") });
    }
    // A reader that lags may miss a file that came and went between two looks, but never part of one it has seen.
    let seen = text(stream, usize::MAX).await;
    drop(writer.join().unwrap());
    assert!(seen.starts_with("0\n1\n"));
    assert!(seen.ends_with("\n4999\n"), "{}", &seen[seen.len().saturating_sub(50)..]);
    let mut at = expected.lines().peekable();
    for line in seen.lines() {
        assert!(at.by_ref().any(|l| l == line), "{line} is out of order");
    }
}

#[tokio::test]
async fn a_follower_goes_over_to_the_new_file() {
    let (dir, path) = log(&["one"]);
    let stream =
        read(path.clone(), Options::default(), Some(Box::pin(std::future::pending()))).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    assert_eq!(rest(&mut stream, 4).await, "one\n");
    for n in 0..3 {
        let mut old = OpenOptions::new().append(true).open(&path).unwrap();
        fs::rename(&path, dir.path().join(format!("0.log.{n}"))).unwrap();
        write(&mut old, "late");
        let mut new = File::create(&path).unwrap();
        write(&mut new, "new");
        assert_eq!(rest(&mut stream, 9).await, "late\nnew\n");
        append(&path, "more");
        assert_eq!(rest(&mut stream, 5).await, "more\n");
    }
}
