//! Leases: what an operation in progress, or a running container, needs is not collected as garbage.
//!
//! A lease is a file with digests, locked by its holder for as long as it lives: when the holder dies, so does the
//! lock, and the next collection removes the file. Digests are added under the store's lock, which a collection holds
//! from reading the leases to taking away the garbage; so "is it there?" asked after `hold` stays true.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    Digest, Result,
    error::IoContext,
    index::{IndexFile, Locked},
};

/// Keeps blobs and layers in the store until it is dropped.
#[derive(Debug)]
pub struct Lease {
    file: File,
    path: PathBuf,
}

impl Lease {
    pub(crate) fn new(dir: &Path, index: &IndexFile) -> Result<Lease> {
        let _locked = index.lock()?;
        let (file, path) = tempfile::Builder::new()
            .prefix("lease-")
            .tempfile_in(dir)
            .at("creating a file in", dir)?
            .keep()
            .map_err(|e| e.error)
            .at("creating a file in", dir)?;
        let lease = Lease { file, path };
        flock(&lease.file, FlockOperation::LockExclusive).at("locking", &lease.path)?;
        Ok(lease)
    }

    /// From now on these (blobs, diffIDs) stay, if they are there.
    pub(crate) fn hold<'a>(
        &self,
        index: &IndexFile,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<()> {
        let text: String = digests.into_iter().map(|d| format!("{d}\n")).collect();
        let _locked = index.lock()?;
        (&self.file).write_all(text.as_bytes()).at("writing", &self.path)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A file that stays is removed by the next collection.
        let _ = fs::remove_file(&self.path);
    }
}

/// All digests that live leases hold; removes the files of dead ones.
pub(crate) fn held(dir: &Path, _: &Locked) -> Result<BTreeSet<Digest>> {
    let mut held = BTreeSet::new();
    for entry in fs::read_dir(dir).at("reading", dir)? {
        let path = entry.at("reading", dir)?.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).at("opening", &path),
        };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_file(&path);
            continue;
        }
        let text = fs::read_to_string(&path).at("reading", &path)?;
        held.extend(text.lines().filter_map(|line| Digest::parse(line).ok()));
    }
    Ok(held)
}
