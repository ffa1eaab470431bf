//! `kill -9` at random moments under load: a child process writes and tells what was acknowledged, dies, and the store
//! it leaves behind is looked at. 200 rounds on the same store, with small segments, so that the deaths also meet new
//! segments and snapshots.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use store::{Attributes, Embedded, Expect, Op, Options, Revision, Store};

const ROUNDS: usize = 200;
const WRITERS: usize = 8;
const DIR: &str = "STORE_KILL_TEST_DIR";

fn open(dir: &Path) -> Arc<Embedded> {
    let options = Options {
        segment_bytes: 64 << 10,
        rewrite_bytes: 64 << 10,
        history_bytes: 32 << 10,
        ..Options::default()
    };
    Embedded::open(dir, options, Arc::new(|_, _| Attributes::default())).unwrap()
}

/// The child's part; without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_writing_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let store = open(Path::new(&dir));
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write(store.clone(), writer))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Counts up in two keys at once, until killed.
async fn write(store: Arc<Embedded>, writer: usize) {
    let keys = [format!("/left/{writer}"), format!("/right/{writer}")];
    loop {
        let now = store.get(&keys[0]);
        let count = now.as_ref().map_or(0, |e| count(&e.value)) + 1;
        let expect = now.map_or(Expect::Absent, |e| Expect::At(e.modified));
        let value = format!("{count} {}", "x".repeat(500));
        let op = |key: &String| Op::Put {
            key: key.as_str().into(),
            value: value.clone().into(),
            revision_at: Some(value.len()),
            expect,
        };
        let revision = store.commit(keys.iter().map(op).collect()).await.unwrap();
        // One write call a line, so that a line is there whole or not at all.
        let line = format!("\nack {revision} {writer} {count}\n");
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

fn count(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn what_was_acknowledged_survives_kill_9_whole_and_no_revision_repeats() {
    if std::env::var_os(DIR).is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (mut revisions, mut acknowledged) = (HashSet::new(), HashMap::new());
    let mut newest = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_writing_process", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut kill_after = RandomState::new().hash_one(round) % 60;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if kill_after == 0 {
                child.kill().unwrap();
            }
            kill_after = kill_after.wrapping_sub(1);
            let Some(ack) = line.strip_prefix("ack ") else { continue };
            let numbers: Vec<u64> = ack.split(' ').map(|n| n.parse().unwrap()).collect();
            assert!(revisions.insert(numbers[0]), "revision {} twice", numbers[0]);
            acknowledged.insert(numbers[1], (numbers[0], numbers[2]));
            newest = newest.max(numbers[0]);
        }
        child.wait().unwrap();

        let store = open(dir.path());
        assert!(store.revision().0 >= newest, "round {round}: the store is behind what was acknowledged");
        newest = store.revision().0;
        for (writer, (revision, acknowledged)) in &acknowledged {
            let left = store.get(&format!("/left/{writer}")).unwrap();
            let right = store.get(&format!("/right/{writer}")).unwrap();
            assert_eq!((left.modified, &left.value), (right.modified, &right.value), "half a commit");
            assert!(left.modified >= Revision(*revision) && count(&left.value) >= *acknowledged);
            assert!(
                left.value.ends_with(format!("x{}", left.modified).as_bytes()),
                "its own revision inside"
            );
        }
    }
    // It was worth it: much was acknowledged, and the deaths met snapshots.
    assert!(revisions.len() > ROUNDS, "{} acknowledged", revisions.len());
    let mut files = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path());
    assert!(files.any(|f| f.extension().is_some_and(|e| e == "snapshot")));
}
