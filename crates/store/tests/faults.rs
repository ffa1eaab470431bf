//! Disks that fail and power that goes at any step, through an injected [`Files`].

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use store::{
    Attributes, CommitError, Embedded, Expect, Op, Options, Revision, Store,
    files::{Disk, Files, LogFile},
};

fn open(dir: &Path, files: Arc<dyn Files>) -> Result<Arc<Embedded>, store::OpenError> {
    let options = Options { segment_bytes: 2_000, rewrite_bytes: 2_000, files, ..Options::default() };
    Embedded::open(dir, options, Arc::new(|_, _| Attributes::default()))
}

fn put(key: String, value: String) -> Op {
    Op::Put { key: key.into(), value: value.into(), revision_at: None, expect: Expect::Absent }
}

/// The power goes at step `at`, before or after the step has happened. Nothing happens afterwards.
struct Power {
    step: AtomicUsize,
    at: usize,
    after: bool,
    /// What the last step was, for the message.
    last: Mutex<&'static str>,
}

impl Power {
    fn step<T>(&self, name: &'static str, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let step = self.step.fetch_add(1, Ordering::SeqCst);
        if step < self.at {
            return action();
        }
        if step == self.at {
            *self.last.lock().unwrap() = name;
            if self.after {
                action()?;
            }
        }
        Err(io::Error::other("the power is gone"))
    }
}

struct PowerFiles(Arc<Power>);
struct PowerFile(Arc<Power>, Box<dyn LogFile>);

impl Files for PowerFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(PowerFile(self.0.clone(), self.0.step("create", || Disk.create(path))?)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(PowerFile(self.0.clone(), self.0.step("open", || Disk.open(path))?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.step("rename", || Disk.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.step("remove", || Disk.remove(path))
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.0.step("sync_dir", || Ok(()))
    }
}

impl LogFile for PowerFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.step("append", || self.1.append(bytes))
    }
    fn sync(&mut self) -> io::Result<()> {
        // The test's process lives on, so that nothing needs to reach the disk.
        self.0.step("sync", || Ok(()))
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.step("truncate", || self.1.truncate(len))
    }
}

/// Commits, compactions and with them segments and snapshots; returns how many commits were acknowledged.
async fn work(store: &Embedded) -> u64 {
    for n in 1..=24 {
        if store.commit(vec![put(format!("/k/{n:03}"), format!("{n} {}", "x".repeat(300)))]).await.is_err() {
            return n - 1;
        }
        if n % 6 == 0 && store.compact(Revision(n - 2)).await.is_err() {
            return n;
        }
    }
    24
}

#[tokio::test]
async fn whatever_step_the_power_goes_at_the_store_opens_to_what_was_acknowledged() {
    let mut seen = std::collections::BTreeSet::new();
    for at in 0.. {
        let mut gone = false;
        for after in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let power = Arc::new(Power { step: AtomicUsize::new(0), at, after, last: Mutex::new("none") });
            let acknowledged = match open(dir.path(), Arc::new(PowerFiles(power.clone()))) {
                Ok(store) => work(&store).await,
                Err(_) => 0,
            };
            gone |= power.step.load(Ordering::SeqCst) > at;
            let last = *power.last.lock().unwrap();
            seen.insert(last);

            let place = format!("step {at}, {last}, after: {after}");
            let store = open(dir.path(), Arc::new(Disk)).unwrap_or_else(|error| panic!("{place}: {error}"));
            let found = store.revision().0;
            assert!(found == acknowledged || found == acknowledged + 1, "{place}: {found}, {acknowledged}");
            let page = store.list("/k/", None, 0, None).unwrap();
            assert_eq!(page.entries.len() as u64, found, "{place}");
            for (entry, n) in page.entries.iter().zip(1..) {
                assert_eq!((&*entry.key, entry.modified), (&*format!("/k/{n:03}"), Revision(n)), "{place}");
                assert!(entry.value.starts_with(format!("{n} ").as_bytes()), "{place}");
            }
            store.commit(vec![put("/after".to_owned(), String::new())]).await.unwrap();
        }
        if !gone {
            break;
        }
    }
    let all = ["append", "create", "none", "remove", "rename", "sync", "sync_dir", "truncate"];
    // A truncation fails only when something has failed before it.
    assert!(all.iter().all(|s| *s == "truncate" || seen.contains(s)), "{seen:?}");
}

/// A disk that is full (half of a write arrives), or fails to sync, or cannot even be cut.
#[derive(Default)]
struct Sick {
    full: AtomicBool,
    sync: AtomicBool,
    truncate: AtomicBool,
}

#[derive(Clone, Default)]
struct SickFiles(Arc<Sick>);
struct SickFile(Arc<Sick>, Box<dyn LogFile>);

impl Files for SickFiles {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(SickFile(self.0.clone(), Disk.create(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        Ok(Box::new(SickFile(self.0.clone(), Disk.open(path)?)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
}

impl LogFile for SickFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            self.1.append(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.1.append(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.0.sync.load(Ordering::SeqCst) {
            return Err(io::Error::other("EIO"));
        }
        self.1.sync()
    }
    fn truncate(&mut self, len: u64) -> io::Result<()> {
        if self.0.truncate.load(Ordering::SeqCst) {
            return Err(io::Error::other("EIO"));
        }
        self.1.truncate(len)
    }
}

#[tokio::test]
async fn a_sick_disk_fails_commits_shows_nothing_of_them_and_goes_on_when_it_is_well() {
    type Part = fn(&Sick) -> &AtomicBool;
    let sicknesses: [&[Part]; 4] =
        [&[|s| &s.full], &[|s| &s.sync], &[|s| &s.full, |s| &s.truncate], &[|s| &s.sync, |s| &s.truncate]];
    for sickness in sicknesses {
        let dir = tempfile::tempdir().unwrap();
        let files = SickFiles::default();
        let store = open(dir.path(), Arc::new(files.clone())).unwrap();
        let mut watch = store.watch("/", Revision(0)).unwrap();
        store.commit(vec![put("/a".into(), "1".into())]).await.unwrap();
        sickness.iter().for_each(|part| part(&files.0).store(true, Ordering::SeqCst));
        for _ in 0..2 {
            let failed = store.commit(vec![put("/b".into(), "lost".into())]).await;
            assert!(matches!(failed, Err(CommitError::Io(_))));
        }
        assert!(store.get("/b").is_none());
        assert_eq!((store.get("/a").unwrap().modified, store.revision()), (Revision(1), Revision(1)));
        sickness.iter().for_each(|part| part(&files.0).store(false, Ordering::SeqCst));
        assert_eq!(store.commit(vec![put("/c".into(), "1".into())]).await.unwrap(), Revision(2));
        watch.next().await.unwrap();
        let store::WatchItem::Events(events) = watch.next().await.unwrap() else { panic!() };
        assert_eq!(&*events[0].entry.key, "/c", "the failed commit was never an event");
        drop((store, watch));
        let store = open(dir.path(), Arc::new(Disk)).unwrap();
        let page = store.list("", None, 0, None).unwrap();
        assert_eq!(page.entries.iter().map(|e| &*e.key).collect::<Vec<_>>(), ["/a", "/c"]);
    }
}
