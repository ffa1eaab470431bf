//! What the embedded engine does, one behaviour a test.

use std::{sync::Arc, time::Duration};

use store::{
    Attributes, CommitError, Embedded, Expect, Extract, Op, Options, ReadError, Revision, Store, WatchItem,
};

fn no_attributes() -> Extract {
    Arc::new(|_, _| Attributes::default())
}

fn open(dir: &std::path::Path) -> Arc<Embedded> {
    Embedded::open(dir, Options::default(), no_attributes()).unwrap()
}

fn put(key: &str, value: &str, expect: Expect) -> Op {
    Op::Put { key: key.into(), value: value.to_owned().into(), revision_at: None, expect }
}

fn delete(key: &str, at: Revision) -> Op {
    Op::Delete { key: key.into(), last: "last".into(), revision_at: None, expect: Expect::At(at) }
}

fn keys(page: &store::Page) -> Vec<&str> {
    page.entries.iter().map(|e| &*e.key).collect()
}

#[tokio::test]
async fn a_commit_is_seen_by_gets_lists_and_watches_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch("/pods/", Revision(0)).unwrap();
    let value = r#"{"resourceVersion":""}"#;
    let op = Op::Put {
        key: "/pods/a".into(),
        value: value.into(),
        revision_at: Some(value.len() - 2),
        expect: Expect::Absent,
    };
    assert_eq!(store.commit(vec![op]).await.unwrap(), Revision(1));
    let entry = store.get("/pods/a").unwrap();
    assert_eq!(entry.value, r#"{"resourceVersion":"1"}"#);
    assert_eq!(keys(&store.list("/pods/", None, 0, None).unwrap()), ["/pods/a"]);
    let WatchItem::Events(events) = watch.next().await.unwrap() else { panic!() };
    assert!(Arc::ptr_eq(&events[0].entry, &entry), "the bytes are shared");
    drop((store, watch));
    let store = open(dir.path());
    assert_eq!(store.get("/pods/a").unwrap(), entry);
    assert_eq!(store.revision(), Revision(1));
}

#[tokio::test]
async fn an_expectation_that_does_not_hold_refuses_the_whole_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(vec![put("/a", "1", Expect::Absent)]).await.unwrap();
    let both = vec![put("/b", "1", Expect::Absent), put("/a", "2", Expect::At(Revision(7)))];
    let Err(CommitError::Conflict { key, now }) = store.commit(both).await else { panic!() };
    assert_eq!((&*key, now.unwrap().modified), ("/a", Revision(1)));
    assert!(store.get("/b").is_none());
    assert_eq!(store.revision(), Revision(1));
}

#[tokio::test]
async fn a_commit_that_makes_no_sense_is_the_callers_fault() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let twice = vec![put("/a", "1", Expect::Absent), put("/a", "2", Expect::Absent)];
    assert!(matches!(store.commit(twice).await, Err(CommitError::Invalid(_))));
    assert!(matches!(store.commit(vec![]).await, Err(CommitError::Invalid(_))));
    let big = put("/a", &"x".repeat((3 << 20) + 1), Expect::Absent);
    assert!(matches!(store.commit(vec![big]).await, Err(CommitError::TooLarge { .. })));
    let outside =
        Op::Put { key: "/a".into(), value: "1".into(), revision_at: Some(2), expect: Expect::Absent };
    assert!(matches!(store.commit(vec![outside]).await, Err(CommitError::Invalid(_))));
    assert_eq!(store.revision(), Revision(0));
}

#[tokio::test]
async fn pages_of_an_old_revision_stay_the_same_until_it_is_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for key in ["/p/a", "/p/b", "/p/c", "/q/a"] {
        store.commit(vec![put(key, "1", Expect::Absent)]).await.unwrap();
    }
    let page = store.list("/p/", None, 1, None).unwrap();
    assert_eq!((keys(&page), page.remaining, page.revision), (vec!["/p/a"], 2, Revision(4)));
    store.commit(vec![delete("/p/b", Revision(2))]).await.unwrap();
    store.commit(vec![put("/p/bb", "1", Expect::Absent)]).await.unwrap();
    let rest = store.list("/p/", Some("/p/a"), 0, Some(Revision(4))).unwrap();
    assert_eq!(keys(&rest), ["/p/b", "/p/c"]);
    store.compact(Revision(5)).await.unwrap();
    let error = store.list("/p/", Some("/p/a"), 0, Some(Revision(4))).unwrap_err();
    assert_eq!(error, ReadError::Compacted { asked: Revision(4), oldest: Revision(5) });
    assert_eq!(keys(&store.list("/p/", None, 0, Some(Revision(5))).unwrap()), ["/p/a", "/p/c"]);
    let error = store.list("/p/", None, 0, Some(Revision(9))).unwrap_err();
    assert_eq!(error, ReadError::Future { asked: Revision(9), current: Revision(6) });
}

#[tokio::test]
async fn a_watch_begins_in_the_past_and_sees_only_its_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(vec![put("/p/a", "1", Expect::Absent), put("/q/a", "1", Expect::Absent)]).await.unwrap();
    store.commit(vec![put("/q/a", "2", Expect::At(Revision(1)))]).await.unwrap();
    store.commit(vec![delete("/p/a", Revision(1))]).await.unwrap();
    let mut watch = store.watch("/p/", Revision(0)).unwrap();
    assert_eq!(watch.progress(), Revision(0));
    let WatchItem::Events(events) = watch.next().await.unwrap() else { panic!() };
    assert_eq!((events.len(), events[0].entry.modified), (1, Revision(1)));
    let WatchItem::Events(events) = watch.next().await.unwrap() else { panic!() };
    assert!(events[0].deleted);
    assert_eq!(events[0].entry.modified, Revision(3));
    assert_eq!(events[0].previous.as_ref().unwrap().modified, Revision(1));
    store.commit(vec![put("/q/a", "3", Expect::At(Revision(2)))]).await.unwrap();
    assert_eq!(watch.progress(), Revision(4), "nothing of its own is missing");
}

#[tokio::test]
async fn a_slow_watcher_gets_an_error_and_never_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut slow = store.watch("/p/", Revision(0)).unwrap();
    let mut quiet = store.watch("/none/", Revision(0)).unwrap();
    store.commit(vec![put("/p/a", "1", Expect::Absent)]).await.unwrap();
    store.commit(vec![put("/p/b", "1", Expect::Absent)]).await.unwrap();
    store.compact(Revision(2)).await.unwrap();
    assert!(matches!(slow.next().await, Err(ReadError::Compacted { asked: Revision(0), .. })));
    assert!(matches!(store.watch("/p/", Revision(1)), Err(ReadError::Compacted { .. })));
    store.commit(vec![put("/none/a", "1", Expect::Absent)]).await.unwrap();
    assert!(quiet.next().await.is_ok(), "who has missed nothing goes on");
}

#[tokio::test]
async fn history_is_forgotten_by_age_and_by_size() {
    let dir = tempfile::tempdir().unwrap();
    let start = std::time::SystemTime::now();
    let hours = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (clock_hours, options) = (hours.clone(), Options { history_bytes: 10_000, ..Options::default() });
    let clock =
        move || start + Duration::from_secs(3600 * clock_hours.load(std::sync::atomic::Ordering::Relaxed));
    let store =
        Embedded::open(dir.path(), Options { clock: Arc::new(clock), ..options }, no_attributes()).unwrap();
    store.commit(vec![put("/a", "1", Expect::Absent)]).await.unwrap();
    store.list("", None, 0, Some(Revision(0))).unwrap();
    hours.store(1, std::sync::atomic::Ordering::Relaxed);
    let mut at = store.commit(vec![put("/b", "1", Expect::Absent)]).await.unwrap();
    store.compact(Revision(0)).await.unwrap();
    assert!(store.list("", None, 0, Some(Revision(0))).is_err(), "too old");
    store.list("", None, 0, Some(Revision(1))).unwrap();
    for _ in 0..20 {
        at = store.commit(vec![put("/b", &"x".repeat(1000), Expect::At(at))]).await.unwrap();
    }
    assert!(store.list("", None, 0, Some(Revision(5))).is_err(), "too large");
    store.list("", None, 0, Some(Revision(at.0 - 3))).unwrap();
}

#[tokio::test]
async fn last_change_moves_with_its_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(vec![put("/p/ns/a", "1", Expect::Absent)]).await.unwrap();
    store.commit(vec![put("/q/ns/a", "1", Expect::Absent)]).await.unwrap();
    assert_eq!(store.last_change("/p/"), Revision(1));
    assert_eq!(store.last_change("/p/ns/"), Revision(1));
    assert_eq!(store.last_change("/q/"), Revision(2));
    let removed = store.commit(vec![delete("/p/ns/a", Revision(1))]).await.unwrap();
    assert_eq!(store.last_change("/p/"), removed);
    store.compact(removed).await.unwrap();
    assert!(store.last_change("/p/") >= removed);
}

#[tokio::test]
async fn who_waits_for_a_revision_wakes_when_it_is_visible() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move {
            store.reached(Revision(1)).await;
            store.get("/a").is_some()
        }
    });
    store.commit(vec![put("/a", "1", Expect::Absent)]).await.unwrap();
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn a_closed_store_says_so_and_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(vec![put("/a", "1", Expect::Absent)]).await.unwrap();
    store.close();
    assert!(matches!(store.commit(vec![put("/b", "1", Expect::Absent)]).await, Err(CommitError::Closed)));
    assert!(store.get("/a").is_some());
    open(dir.path());
}
