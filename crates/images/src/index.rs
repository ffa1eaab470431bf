//! The index: which names, images, layers and build results the store holds. One small JSON file, replaced atomically.
//!
//! Several processes may use a store at once (`plim up` and `plim build`): every change happens under an exclusive
//! `flock`, and readers notice a replaced file by its inode and times.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Result, durable, error::IoContext};

/// The content of the index file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Version of this format.
    #[serde(default)]
    pub(crate) version: u32,
    /// Normalised name (with tag or digest) → image ID.
    #[serde(default)]
    pub(crate) names: BTreeMap<String, Digest>,
    /// Image ID (digest of the config) → the image.
    #[serde(default)]
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    /// diffID → a layer that is completely unpacked under `layers/`.
    #[serde(default)]
    pub(crate) layers: BTreeMap<Digest, LayerRecord>,
    /// Key → a remembered build result.
    #[serde(default)]
    pub(crate) cache: BTreeMap<String, CacheRecord>,
}

/// An image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the manifest in the blob store.
    pub(crate) manifest: Digest,
    /// The blobs that the manifest names, itself and the config excluded.
    pub(crate) blobs: Vec<Digest>,
    /// Its layers' diffIDs, base first.
    pub(crate) layers: Vec<Digest>,
    /// Bytes of all blobs.
    pub(crate) size: u64,
}

/// An unpacked layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// A blob from which it can be unpacked again.
    pub(crate) blob: Digest,
    /// Media type of that blob.
    pub(crate) media_type: String,
    /// Size of that blob in bytes.
    pub(crate) size: u64,
    /// The boot in which it was unpacked, until its files are known to be on disk (see [`crate::store`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unsettled: Option<String>,
    /// Folders which the archive used without describing them; they take their mode and owner from the layers below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) implied: Vec<PathBuf>,
}

/// What the builder remembers under a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CacheRecord {
    /// The layer it made, if it made one.
    pub(crate) layer: Option<Digest>,
    /// The builder's own note.
    #[serde(default)]
    pub(crate) note: serde_json::Value,
    /// When it was last of use, seconds since 1970.
    pub(crate) used: i64,
}

const VERSION: u32 = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
    size: u64,
}

/// The index file, its lock, and the last content read.
pub(crate) struct IndexFile {
    path: PathBuf,
    lock: PathBuf,
    last: Mutex<Option<(Stamp, Arc<Index>)>>,
}

/// The exclusive lock of the store; others wait until it is dropped.
pub(crate) struct Locked {
    _file: File,
}

impl IndexFile {
    pub(crate) fn new(dir: &Path) -> IndexFile {
        IndexFile { path: dir.join("index.json"), lock: dir.join("lock"), last: Mutex::new(None) }
    }

    /// Takes the store's lock. A new open file each time, so that it also keeps threads of one process apart.
    pub(crate) fn lock(&self) -> Result<Locked> {
        let file = File::options().create(true).append(true).open(&self.lock).at("opening", &self.lock)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result.at("locking", &self.lock)?,
            }
        }
        Ok(Locked { _file: file })
    }

    /// The current content, from memory unless the file was replaced.
    pub(crate) fn read(&self) -> Result<Arc<Index>> {
        let stamp = match fs::metadata(&self.path) {
            Ok(meta) => Stamp {
                inode: meta.ino(),
                seconds: meta.mtime(),
                nanoseconds: meta.mtime_nsec(),
                size: meta.size(),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(e) => return Err(e).at("reading", &self.path),
        };
        let mut last = self.last.lock();
        if let Some((seen, index)) = &*last
            && *seen == stamp
        {
            return Ok(index.clone());
        }
        let bytes = fs::read(&self.path).at("reading", &self.path)?;
        let index: Index = serde_json::from_slice(&bytes).map_err(|e| {
            Error::invalid(
                format!("the image index {}", self.path.display()),
                format!("{e}; move it away to start afresh"),
            )
        })?;
        if index.version > VERSION {
            return Err(Error::invalid(
                format!("the image index {}", self.path.display()),
                format!(
                    "was written by a newer version (format {}, this one knows {VERSION})",
                    index.version
                ),
            ));
        }
        let index = Arc::new(index);
        *last = Some((stamp, index.clone()));
        Ok(index)
    }

    /// Changes the index under the lock; durable once it returns.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let locked = self.lock()?;
        self.update_locked(&locked, change)
    }

    /// Changes the index while the caller holds the lock.
    pub(crate) fn update_locked<T>(
        &self,
        _: &Locked,
        change: impl FnOnce(&mut Index) -> Result<T>,
    ) -> Result<T> {
        let mut index = (*self.read()?).clone();
        let result = change(&mut index)?;
        index.version = VERSION;
        let bytes = serde_json::to_vec(&index).map_err(io::Error::from).at("encoding", &self.path)?;
        durable::write_atomic(&self.path, &bytes)?;
        Ok(result)
    }
}
