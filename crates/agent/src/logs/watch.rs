//! Changes of files, for any number of followers over one inotify instance: a user may have only 128 of those
//! (`fs.inotify.max_user_instances`).

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, OnceLock, Weak},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Changes of a log file, and of what stands in its place.
pub(super) struct Watch {
    hub: &'static Hub,
    changed: Arc<Notify>,
    /// The folder, and the file that was last watched.
    descriptors: Vec<WatchDescriptor>,
}

impl Watch {
    /// Watches the file and its folder from now on.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let folder = path.parent().ok_or_else(|| io::Error::other("the log has no folder"))?;
        let mut watch = Self { hub: hub()?, changed: Arc::default(), descriptors: Vec::new() };
        let flags = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        watch.descriptors.push(watch.hub.add(folder, flags, &watch.changed)?);
        watch.file(path);
        Ok(watch)
    }

    /// Watches the file that is now in this place, instead of the one before.
    pub(super) fn file(&mut self, path: &Path) {
        for old in self.descriptors.drain(1..) {
            self.hub.remove(old, &self.changed);
        }
        match self.hub.add(path, AddWatchFlags::IN_MODIFY, &self.changed) {
            Ok(descriptor) => self.descriptors.push(descriptor),
            // What comes in its place the folder tells.
            Err(error) => tracing::debug!(path = %path.display(), %error, "a log file has gone"),
        }
    }

    /// Resolves once something has changed since the last time.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for descriptor in self.descriptors.drain(..) {
            self.hub.remove(descriptor, &self.changed);
        }
    }
}

struct Hub {
    inotify: Inotify,
    /// Whom to tell. A file or folder has one descriptor, however many watch it.
    told: Mutex<HashMap<WatchDescriptor, Vec<Weak<Notify>>>>,
}

fn hub() -> io::Result<&'static Hub> {
    static HUB: OnceLock<Hub> = OnceLock::new();
    if let Some(hub) = HUB.get() {
        return Ok(hub);
    }
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let mut first = false;
    let hub = HUB.get_or_init(|| {
        first = true;
        Hub { inotify, told: Mutex::default() }
    });
    if first {
        std::thread::Builder::new().name("log-watch".to_owned()).spawn(|| hub.run())?;
    }
    Ok(hub)
}

impl Hub {
    fn add(&self, path: &Path, flags: AddWatchFlags, whom: &Arc<Notify>) -> io::Result<WatchDescriptor> {
        let mut told = self.told.lock();
        // Whoever else watches the same does so with the same flags: they are all folders' or files'.
        let descriptor = self.inotify.add_watch(path, flags)?;
        told.entry(descriptor).or_default().push(Arc::downgrade(whom));
        Ok(descriptor)
    }

    fn remove(&self, descriptor: WatchDescriptor, whom: &Arc<Notify>) {
        let mut told = self.told.lock();
        let Some(all) = told.get_mut(&descriptor) else { return };
        all.retain(|one| one.strong_count() > 0 && !Weak::ptr_eq(one, &Arc::downgrade(whom)));
        if all.is_empty() {
            told.remove(&descriptor);
            // Of what has been deleted there is no watch any more.
            let _ = self.inotify.rm_watch(descriptor);
        }
    }

    fn run(&self) {
        loop {
            match self.inotify.read_events() {
                Ok(events) => self.tell(&events),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return tracing::error!(%error, "log files can no longer be watched"),
            }
        }
    }

    fn tell(&self, events: &[InotifyEvent]) {
        let told = self.told.lock();
        let mut last = None;
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                // Events were lost: everybody looks.
                told.values().flatten().filter_map(Weak::upgrade).for_each(|n| n.notify_one());
                return;
            }
            if last.replace(event.wd) == Some(event.wd) {
                continue;
            }
            told.get(&event.wd).into_iter().flatten().filter_map(Weak::upgrade).for_each(|n| n.notify_one());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    async fn soon(watch: &Watch) {
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("no change was told");
    }

    #[tokio::test]
    async fn all_who_watch_a_file_are_told_until_they_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, "").unwrap();
        let watches: Vec<Watch> = (0..300).map(|_| Watch::new(&path).unwrap()).collect();
        fs::write(&path, "x").unwrap();
        for watch in &watches {
            soon(watch).await;
        }
        let (folder, file) = (watches[0].descriptors[0], watches[0].descriptors[1]);
        let mut watches = watches.into_iter();
        let last = watches.next().unwrap();
        drop(watches);
        fs::write(&path, "y").unwrap();
        soon(&last).await;
        let hub = last.hub;
        assert_eq!(hub.told.lock()[&file].len(), 1);
        drop(last);
        assert!(!hub.told.lock().contains_key(&file) && !hub.told.lock().contains_key(&folder));
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_another_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, "").unwrap();
        let mut watch = Watch::new(&path).unwrap();
        fs::rename(&path, dir.path().join("1.log")).unwrap();
        fs::write(&path, "").unwrap();
        soon(&watch).await;
        watch.file(&path);
        fs::write(&path, "x").unwrap();
        soon(&watch).await;
    }
}
