//! Files that are not as they were written: cut, flipped, from the future, in use.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use store::{Attributes, Embedded, Expect, Op, OpenError, Options, Revision, Store};

fn open(dir: &Path) -> Result<Arc<Embedded>, OpenError> {
    Embedded::open(dir, Options::default(), Arc::new(|_, _| Attributes::default()))
}

/// A store of eight commits, and the length of its log after each of them.
async fn eight_commits(dir: &Path) -> (PathBuf, Vec<u64>) {
    let store = open(dir).unwrap();
    let log = dir.join(format!("{:020}.log", 1));
    let mut lengths = vec![fs::metadata(&log).unwrap().len()];
    for n in 1..=8 {
        let (key, value) = (format!("/{n}").into(), format!("value {n}").into());
        let put = Op::Put { key, value, revision_at: None, expect: Expect::Absent };
        assert_eq!(store.commit(vec![put]).await.unwrap(), Revision(n));
        lengths.push(fs::metadata(&log).unwrap().len());
    }
    (log, lengths)
}

#[tokio::test]
async fn a_log_cut_at_any_byte_opens_to_the_commits_that_are_whole_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (log, lengths) = eight_commits(dir.path()).await;
    let whole = fs::read(&log).unwrap();
    for cut in lengths[4]..=lengths[8] {
        fs::write(&log, &whole[..cut as usize]).unwrap();
        let store = open(dir.path()).unwrap();
        let expected = lengths.iter().filter(|len| **len <= cut).count() as u64 - 1;
        assert_eq!(store.revision(), Revision(expected), "cut at {cut}");
        assert_eq!(store.list("", None, 0, None).unwrap().entries.len() as u64, expected);
        assert_eq!(fs::metadata(&log).unwrap().len(), lengths[expected as usize], "the rest is gone");
    }
}

#[tokio::test]
async fn pages_that_never_reached_the_disk_are_a_torn_tail_too() {
    let dir = tempfile::tempdir().unwrap();
    let (log, lengths) = eight_commits(dir.path()).await;
    let mut bytes = fs::read(&log).unwrap();
    bytes[lengths[7] as usize..].fill(0);
    bytes.resize(bytes.len() + 9000, 0);
    fs::write(&log, &bytes).unwrap();
    assert_eq!(open(dir.path()).unwrap().revision(), Revision(7));
}

#[tokio::test]
async fn a_corrupt_middle_is_refused_with_its_place_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (log, lengths) = eight_commits(dir.path()).await;
    let whole = fs::read(&log).unwrap();
    for at in lengths[3]..lengths[4] {
        let mut damaged = whole.clone();
        damaged[at as usize] ^= 0x10;
        fs::write(&log, &damaged).unwrap();
        let Err(OpenError::Corrupt { file, offset, .. }) = open(dir.path()) else { panic!("byte {at}") };
        assert_eq!((&file, offset), (&log, lengths[3]));
        assert_eq!(fs::read(&log).unwrap(), damaged);
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_and_both_versions_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = eight_commits(dir.path()).await;
    let mut bytes = fs::read(&log).unwrap();
    bytes[8] = 9;
    fs::write(&log, bytes).unwrap();
    let message = open(dir.path()).err().unwrap().to_string();
    assert!(message.contains("format 9") && message.contains("up to format 1"), "{message}");
}

#[tokio::test]
async fn a_missing_segment_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = eight_commits(dir.path()).await;
    fs::rename(&log, dir.path().join(format!("{:020}.log", 5))).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Corrupt { .. })));
}

#[test]
fn a_second_opener_is_refused_and_told_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    let message = open(dir.path()).err().unwrap().to_string();
    assert!(message.contains("in use") && message.contains(&std::process::id().to_string()), "{message}");
    drop(first);
    open(dir.path()).unwrap();
}
