//! Garbage collection: what no name, no remembered build and no lease needs.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

use crate::{Digest, Images, Result, error::IoContext, lease};

/// How long a file of an interrupted import or export is left alone.
const ABANDONED_FILE: Duration = Duration::from_secs(3600);
/// How long an interrupted download can be resumed.
const ABANDONED_DOWNLOAD: Duration = Duration::from_secs(24 * 3600);

/// What [`Images::prune`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Blobs and their bytes.
    pub blobs: usize,
    /// Bytes of these blobs and of abandoned downloads; unpacked layers come on top.
    pub bytes: u64,
    /// Unpacked layers.
    pub layers: usize,
    /// Remembered build results.
    pub cache: usize,
}

impl Images {
    /// Removes what nothing uses. With `unused_cache`, also build results that were of no use for so long.
    ///
    /// Safe beside pulls, builds and running containers, in this and in other processes: their leases hold what they
    /// need. What goes is renamed away under the lock, and deleted after it.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn prune(&self, unused_cache: Option<Duration>) -> Result<Pruned> {
        let store = &self.store;
        let mut pruned = Pruned::default();
        let mut rubbish: Vec<PathBuf> = Vec::new();
        {
            let locked = store.index.lock()?;
            let held = lease::held(&store.dir.join("leases"), &locked)?;
            let fresh: BTreeSet<Digest> = store.fresh.lock().keys().cloned().collect();
            let trash = tempfile::Builder::new()
                .prefix("trash-")
                .tempdir_in(store.dir.join("work"))
                .at("creating a folder in", &store.dir)?
                .keep();
            let gone_layers = store.index.update_locked(&locked, |index| {
                if let Some(age) = unused_cache {
                    let oldest =
                        chrono::Utc::now().timestamp() - i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                    let before = index.cache.len();
                    index.cache.retain(|_, c| c.used > oldest);
                    pruned.cache = before - index.cache.len();
                }
                let mut wanted = held.clone();
                wanted.extend(index.images.values().flat_map(|i| i.layers.iter().cloned()));
                wanted.extend(index.cache.values().filter_map(|c| c.layer.clone()));
                Ok(index
                    .layers
                    .extract_if(.., |d, _| !wanted.contains(d))
                    .map(|(d, _)| d)
                    .collect::<Vec<_>>())
            })?;
            pruned.layers = gone_layers.len();
            let index = store.index.read()?;
            let mut blobs = held.clone();
            for (id, image) in &index.images {
                blobs.extend([id.clone(), image.manifest.clone()]);
                blobs.extend(image.blobs.iter().cloned());
            }
            blobs.extend(index.layers.values().map(|l| l.blob.clone()));
            for digest in store.blobs.all()?.into_iter().filter(|d| !blobs.contains(d)) {
                pruned.blobs += 1;
                pruned.bytes += store.blobs.size(&digest).unwrap_or(0);
                move_away(&store.blobs.path(&digest), &trash)?;
            }
            let layers = store.dir.join("layers");
            for entry in fs::read_dir(&layers).at("reading", &layers)? {
                let entry = entry.at("reading", &layers)?;
                let digest =
                    entry.file_name().to_str().and_then(|n| Digest::parse(&format!("sha256:{n}")).ok());
                let wanted = digest.is_some_and(|d| {
                    index.layers.contains_key(&d) || held.contains(&d) || fresh.contains(&d)
                });
                if !wanted {
                    move_away(&entry.path(), &trash)?;
                }
            }
            pruned.bytes += abandoned_downloads(store.blobs.ingest(), &held, &trash)?;
            rubbish.extend(abandoned_work(&store.dir.join("work"))?);
        }
        for path in rubbish {
            fs::remove_dir_all(&path).at("removing", &path)?;
        }
        Ok(pruned)
    }
}

fn move_away(path: &Path, trash: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default();
    // A blob and a layer may have the same digest.
    let mut to = trash.join(name);
    if to.exists() {
        to.set_extension("too");
    }
    fs::rename(path, &to).at("renaming", path)
}

fn abandoned_downloads(ingest: &Path, held: &BTreeSet<Digest>, trash: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(ingest).at("reading", ingest)? {
        let entry = entry.at("reading", ingest)?;
        let Ok(meta) = entry.metadata() else { continue };
        let name = entry.file_name().to_string_lossy().into_owned();
        let age =
            meta.modified().ok().and_then(|m| SystemTime::now().duration_since(m).ok()).unwrap_or_default();
        let abandoned = match name.strip_suffix(".partial").map(|hex| Digest::parse(&format!("sha256:{hex}")))
        {
            Some(Ok(digest)) => !held.contains(&digest) && age > ABANDONED_DOWNLOAD,
            _ => age > ABANDONED_FILE,
        };
        if abandoned {
            bytes += meta.len();
            move_away(&entry.path(), trash)?;
        }
    }
    Ok(bytes)
}

/// Work folders whose owner is gone, and trash. Owners hold a lock on their folder.
fn abandoned_work(work: &Path) -> Result<Vec<PathBuf>> {
    let mut abandoned = Vec::new();
    for entry in fs::read_dir(work).at("reading", work)? {
        let path = entry.at("reading", work)?.path();
        if let Ok(folder) = File::open(&path)
            && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            abandoned.push(path);
        }
    }
    Ok(abandoned)
}
