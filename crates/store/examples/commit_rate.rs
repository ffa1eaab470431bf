//! Prints how many durable commits a second 64 writers get, and how long a list of 10,000 objects takes.
//!
//! `cargo run --release -p store --example commit_rate [DIR]` (default: a folder beside where it is started, so that it
//! is the disk that is measured, not a tmpfs)

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Attributes, Embedded, Expect, Op, Options, Store};

const WRITERS: usize = 64;
const OBJECTS: usize = 10_000;
const VALUE: usize = 2_560;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(parent)?;
    let extract: store::Extract = Arc::new(|_, _| Attributes::default());
    let store = Embedded::open(dir.path(), Options::default(), extract.clone())?;

    let begin = Instant::now();
    let mut latencies = Vec::new();
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer))).collect();
    for writer in writers {
        latencies.extend(writer.await??);
    }
    let took = begin.elapsed();
    latencies.sort();
    println!(
        "{OBJECTS} commits of {VALUE} bytes by {WRITERS} writers: {:.0} commits/s, p50 {:?}, p99 {:?}",
        OBJECTS as f64 / took.as_secs_f64(),
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100]
    );

    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let begin = Instant::now();
        let page = store.list("/registry/pods/", None, 0, None)?;
        fastest = fastest.min(begin.elapsed());
        assert_eq!(page.entries.len(), latencies.len());
    }
    println!("list of {} objects: {fastest:?}", latencies.len());

    drop(store);
    let begin = Instant::now();
    let store = Embedded::open(dir.path(), Options::default(), extract)?;
    println!("opened again at revision {} in {:?}", store.revision(), begin.elapsed());
    Ok(())
}

async fn write(store: Arc<Embedded>, writer: usize) -> Result<Vec<Duration>, store::CommitError> {
    let value = bytes::Bytes::from(vec![b'x'; VALUE]);
    let mut latencies = Vec::new();
    for n in (writer..OBJECTS).step_by(WRITERS) {
        let key = format!("/registry/pods/default/pod-{n:05}").into();
        let begin = Instant::now();
        let put = Op::Put { key, value: value.clone(), revision_at: Some(1), expect: Expect::Absent };
        store.commit(vec![put]).await?;
        latencies.push(begin.elapsed());
    }
    Ok(latencies)
}
