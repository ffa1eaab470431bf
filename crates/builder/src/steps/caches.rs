//! Folders of `--mount=type=cache`: they stay from build to build, by name.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::{Result, dockerfile::Sharing, error::IoContext};

/// Private caches of one name.
const MAX_PRIVATE: usize = 64;

/// A cache in use.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) path: PathBuf,
    _lock: File,
}

/// Opens (and makes) the cache of this name; waits for those who may not have it at the same time.
pub(super) fn open(
    caches: &Path,
    id: &str,
    sharing: Sharing,
    (mode, uid, gid): (u32, u32, u32),
) -> Result<Cache> {
    let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    make(caches).at("creating", caches)?;
    // Two caches with other owners are two, as one could not be used by both.
    let name = hex::encode(Sha256::digest(format!("{mode:o}:{uid}:{gid}:{id}")));
    let tries = if sharing == Sharing::Private { MAX_PRIVATE } else { 1 };
    for n in 0..tries {
        let lock_path = caches.join(format!("{name}.{n}.lock"));
        let lock = File::options().create(true).append(true).open(&lock_path).at("opening", &lock_path)?;
        let how = match (sharing, n + 1 == tries) {
            (Sharing::Shared, _) => FlockOperation::LockShared,
            (Sharing::Private, false) => FlockOperation::NonBlockingLockExclusive,
            (Sharing::Locked | Sharing::Private, _) => FlockOperation::LockExclusive,
        };
        match take(&lock, how) {
            Err(rustix::io::Errno::WOULDBLOCK) => continue,
            result => result.at("locking", &lock_path)?,
        }
        let path = caches.join(format!("{name}.{n}"));
        if !path.is_dir() {
            // Complete or absent: others may look at the same time.
            let new = tempfile::Builder::new()
                .prefix("new-")
                .tempdir_in(caches)
                .at("creating a folder in", caches)?;
            chown(new.path(), Some(uid), Some(gid)).at("changing the owner of", new.path())?;
            fs::set_permissions(new.path(), Permissions::from_mode(mode))
                .at("changing the mode of", new.path())?;
            match fs::rename(new.path(), &path) {
                Err(_) if path.is_dir() => {}
                result => {
                    result.at("renaming into", &path)?;
                    let _ = new.keep();
                }
            }
        }
        return Ok(Cache { path, _lock: lock });
    }
    Err(crate::Error::Invalid(format!("the cache \"{id}\" is in use {MAX_PRIVATE} times over")))
}

fn take(lock: &File, how: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match flock(lock, how) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_cache_in_use_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let owner = (0o755, rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let open = |sharing| open(dir.path(), "x", sharing, owner).unwrap();
        let first = open(Sharing::Private);
        fs::write(first.path.join("f"), "1").unwrap();
        let second = open(Sharing::Private);
        assert_ne!(first.path, second.path);
        drop((first, second));
        let again = open(Sharing::Locked);
        assert_eq!(fs::read(again.path.join("f")).unwrap(), b"1");
        assert_eq!(fs::metadata(&again.path).unwrap().permissions().mode() & 0o777, 0o755);
        drop(again);
        assert_eq!(open(Sharing::Shared).path, open(Sharing::Shared).path);
    }
}
