//! What file systems and folders hold.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::summary::{Fs, Time};

/// How long the measure of a folder is kept, upstream's `volumeStatsAggPeriod`.
const KEPT: Duration = Duration::from_secs(60);
/// Files of one folder that are looked at; what a pod keeps beyond is not counted.
const MAX_FILES: u64 = 500_000;

/// Blocks and inodes of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// The file system under a path.
pub(super) fn file_system(path: &Path, time: &Time) -> io::Result<Fs> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| Some(blocks.saturating_mul(stat.f_frsize));
    Ok(Fs {
        time: time.clone(),
        available_bytes: bytes(stat.f_bavail),
        capacity_bytes: bytes(stat.f_blocks),
        used_bytes: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes_free: Some(stat.f_ffree),
        inodes: Some(stat.f_files),
        inodes_used: Some(stat.f_files.saturating_sub(stat.f_ffree)),
    })
}

/// A folder's own use of the file system it lies on.
pub(super) fn within(of: &Fs, usage: Usage) -> Fs {
    Fs { used_bytes: Some(usage.bytes), inodes_used: Some(usage.inodes), ..of.clone() }
}

/// Measures of folders, each kept for a while.
#[derive(Default)]
pub(super) struct Folders(Mutex<HashMap<PathBuf, (Instant, Usage)>>);

impl Folders {
    pub(super) fn usage(&self, path: &Path) -> Usage {
        if let Some((since, usage)) = self.0.lock().get(path)
            && since.elapsed() < KEPT
        {
            return *usage;
        }
        let usage = measure(path);
        let mut kept = self.0.lock();
        kept.retain(|_, (since, _)| since.elapsed() < KEPT);
        kept.insert(path.to_owned(), (Instant::now(), usage));
        usage
    }
}

/// Blocks and inodes of a tree on one file system. The tree belongs to a pod, which changes it meanwhile: what goes away
/// does not count, links and mounts are not followed.
pub(super) fn measure(root: &Path) -> Usage {
    let mut usage = Usage::default();
    let Ok(meta) = fs::symlink_metadata(root) else { return usage };
    let device = meta.dev();
    let mut folders = Vec::new();
    let mut count = |meta: &fs::Metadata| {
        if meta.dev() == device {
            usage.bytes += meta.blocks() * 512;
            usage.inodes += 1;
        }
        meta.dev() == device && meta.is_dir()
    };
    if count(&meta) {
        folders.push(root.to_owned());
    }
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_FILES {
                return usage;
            }
            if entry.metadata().is_ok_and(|meta| count(&meta)) {
                folders.push(entry.path());
            }
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_measured_once_in_a_while() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let folders = Folders::default();
        let usage = folders.usage(dir.path());
        assert_eq!(usage.inodes, 3);
        assert!((100_000..1 << 20).contains(&usage.bytes), "{usage:?}");
        fs::write(dir.path().join("g"), "").unwrap();
        assert_eq!(folders.usage(dir.path()), usage);
        assert_eq!(measure(dir.path()).inodes, 4);
        assert_eq!(measure(&dir.path().join("none")), Usage::default());
    }

    #[test]
    fn mounts_within_a_folder_are_not_counted() {
        assert!(measure(Path::new("/dev")).inodes < MAX_FILES);
        let fs = file_system(Path::new("/"), &String::new()).unwrap();
        assert!(fs.capacity_bytes.unwrap() >= fs.used_bytes.unwrap());
    }
}
