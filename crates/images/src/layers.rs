//! Layers in the store: unpacked once for each diffID, or committed from a folder that a build made.

use std::{
    collections::HashMap,
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use crate::{
    Compression, Digest, Error, Image, Images, Lease, Result,
    blobs::Claim,
    digest::HashingWriter,
    error::IoContext,
    index::{CacheRecord, ImageRecord, LayerRecord},
    layer::{
        beneath::Beneath,
        compression::Compressor,
        pack::{PackOptions, pack},
        unpack::{Whiteouts, unpack},
    },
    manifest::{self, Descriptor},
    store::{Store, tag_name},
};

/// A layer in the store.
#[derive(Clone, Debug)]
pub struct Layer {
    /// sha256 of the uncompressed archive.
    pub diff_id: Digest,
    /// sha256 of the compressed blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
    /// The unpacked layer.
    pub path: PathBuf,
}

/// How [`Images::commit_layer`] packs.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommitOptions {
    /// `SOURCE_DATE_EPOCH`: later times become this one (seconds since 1970).
    pub newest: Option<i64>,
    /// Compression of the blob.
    pub compression: Compression,
}

/// An image to be.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// The config; its `rootfs` is filled in.
    pub config: serde_json::Value,
    /// Layers, base first.
    pub layers: Vec<Layer>,
    /// Names to give.
    pub tags: Vec<String>,
}

/// What the builder remembered.
#[derive(Clone, Debug)]
pub struct Cached {
    /// The layer, if that step made one.
    pub layer: Option<Layer>,
    /// The builder's note.
    pub note: serde_json::Value,
}

/// A folder in the store that is removed when this is dropped, unless it was committed.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Its path; on the same file system as the layers.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.path.exists()
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a work folder stays until the next prune");
        }
    }
}

impl Store {
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join("layers").join(diff_id.hex())
    }

    /// The record of a layer that is there, in the index or not yet.
    pub(crate) fn ready_layer(&self, diff_id: &Digest) -> Result<Option<LayerRecord>> {
        let record = match self.index.read()?.layers.get(diff_id) {
            Some(record) => Some(record.clone()),
            None => self.fresh.lock().get(diff_id).cloned(),
        };
        Ok(record.filter(|_| self.layer_path(diff_id).is_dir()))
    }

    /// The lock of one thing being fetched or unpacked.
    pub(crate) fn busy(&self, digest: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut busy = self.busy.lock();
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        busy.entry(digest.clone()).or_default().clone()
    }

    /// Gives a finished folder its place; a layer that someone else finished first is as good.
    fn place_layer(&self, work: WorkDir, diff_id: &Digest, record: LayerRecord) -> Result<()> {
        let place = self.layer_path(diff_id);
        match renameat_with(CWD, &work.path, CWD, &place, RenameFlags::NOREPLACE) {
            // A folder that no index knows: left by an interrupted run, or just made by another process. Ours is
            // certainly complete; the other goes with the work folder.
            Err(rustix::io::Errno::EXIST) if self.ready_layer(diff_id)?.is_none() => {
                renameat_with(CWD, &work.path, CWD, &place, RenameFlags::EXCHANGE)
                    .at("renaming into", &place)?;
            }
            Err(rustix::io::Errno::EXIST) => return Ok(()),
            result => result.at("renaming into", &place)?,
        }
        self.fresh.lock().insert(diff_id.clone(), record);
        Ok(())
    }
}

impl Images {
    /// A new empty folder (0755) beside the layers.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn work_dir(&self) -> Result<WorkDir> {
        let dir = self.store.dir.join("work");
        // Locked before anyone who collects rubbish can see it.
        let _locked = self.store.index.lock()?;
        let path = tempfile::Builder::new()
            .prefix("work-")
            .tempdir_in(&dir)
            .at("creating a folder in", &dir)?
            .keep();
        // The root of the topmost layer is the root of the container.
        fs::set_permissions(&path, Permissions::from_mode(0o755)).at("changing the mode of", &path)?;
        let lock = File::open(&path).at("opening", &path)?;
        flock(&lock, FlockOperation::LockExclusive).at("locking", &path)?;
        Ok(WorkDir { path, _lock: lock })
    }

    /// Unpacks a layer from its blob, unless it is there. The caller holds both digests and the diffID's `busy` lock.
    pub(crate) fn unpack_layer(
        &self,
        blob: &Digest,
        media_type: &str,
        diff_id: &Digest,
        what: &str,
    ) -> Result<()> {
        if self.store.ready_layer(diff_id)?.is_some() {
            return Ok(());
        }
        let work = self.work_dir()?;
        let file = self.store.blobs.open_blob(blob)?;
        let size = file.metadata().at("reading", &self.store.blobs.path(blob))?.len();
        let unpacked =
            unpack(file, Some(size), work.path(), what, &self.store.options.limits, Whiteouts::Convert)?;
        if &unpacked.diff_id != diff_id {
            return Err(Error::DigestMismatch {
                what: format!("{what}, uncompressed"),
                expected: diff_id.to_string(),
                actual: unpacked.diff_id.to_string(),
            });
        }
        let record = LayerRecord {
            blob: blob.clone(),
            media_type: media_type.to_owned(),
            size,
            unsettled: Some(self.store.boot.clone()),
            implied: unpacked.implied,
        };
        self.store.place_layer(work, diff_id, record)
    }

    /// Makes a layer of a folder: it becomes the unpacked layer as it is, and is packed once for its digests.
    ///
    /// # Errors
    /// When the folder cannot be read or the store not be written.
    pub fn commit_layer(&self, work: WorkDir, options: CommitOptions, lease: &Lease) -> Result<Layer> {
        let claim: Claim<'_> = &|digest| lease.hold(&self.store.index, [digest]);
        let mut diff_id = None;
        let write = |to: HashingWriter<File>| {
            let compressor = Compressor::new(to, options.compression).at("packing", work.path())?;
            let buffered = std::io::BufWriter::with_capacity(256 * 1024, HashingWriter::new(compressor));
            let packed = pack(work.path(), buffered, &PackOptions { newest: options.newest })?;
            let packed = packed.into_inner().map_err(|e| e.into_error()).at("packing", work.path())?;
            let (compressor, digest, _) = packed.finish();
            diff_id = Some(digest);
            compressor.finish().at("packing", work.path())
        };
        let (digest, size) = self.store.blobs.write(write, claim)?;
        let diff_id = diff_id.ok_or_else(|| Error::invalid("layer", "was not packed"))?;
        lease.hold(&self.store.index, [&diff_id])?;
        let media_type = options.compression.media_type().to_owned();
        let record = LayerRecord {
            blob: digest.clone(),
            media_type: media_type.clone(),
            size,
            unsettled: Some(self.store.boot.clone()),
            implied: Vec::new(),
        };
        if self.store.ready_layer(&diff_id)?.is_none() {
            self.store.place_layer(work, &diff_id, record)?;
        }
        Ok(Layer { path: self.store.layer_path(&diff_id), diff_id, digest, size, media_type })
    }

    /// The layers of an image, base first, to build upon.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn layers(&self, name: &str) -> Result<Vec<Layer>> {
        let index = self.store.index.read()?;
        let id = crate::store::find(&index, name)?;
        let record = &index.images[&id];
        let what = format!("image {name}");
        let manifest::Document::Manifest(manifest) =
            manifest::parse(&self.store.blobs.document(&record.manifest)?, None, &what)?
        else {
            return Err(Error::invalid(what, "the store names an index as its manifest"));
        };
        let layer = |(descriptor, diff_id): (Descriptor, &Digest)| Layer {
            path: self.store.layer_path(diff_id),
            diff_id: diff_id.clone(),
            digest: descriptor.digest,
            size: descriptor.size,
            media_type: descriptor.media_type,
        };
        Ok(manifest.layers.into_iter().zip(&record.layers).map(layer).collect())
    }

    /// Makes an image of layers in the store.
    ///
    /// # Errors
    /// When a name is not one, the config breaks the specification, or the store cannot be written.
    pub fn create(&self, new: NewImage, lease: &Lease) -> Result<Image> {
        let claim: Claim<'_> = &|digest| lease.hold(&self.store.index, [digest]);
        let names = new.tags.iter().map(|t| tag_name(t)).collect::<Result<Vec<_>>>()?;
        let mut config = new.config;
        let diff_ids: Vec<&str> = new.layers.iter().map(|l| l.diff_id.as_str()).collect();
        config["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        let bytes = serde_json::to_vec(&config).map_err(|e| Error::invalid("image config", e.to_string()))?;
        let (_, diff_ids) = manifest::parse_config(&bytes, "new image")?;
        let id = self.store.blobs.put(&bytes, claim)?;
        let descriptor = |media_type: &str, digest: &Digest, size| Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.clone(),
            size,
            platform: None,
            annotations: None,
        };
        let layers: Vec<_> =
            new.layers.iter().map(|l| descriptor(&l.media_type, &l.digest, l.size)).collect();
        let document = manifest::encode(&descriptor(manifest::OCI_CONFIG, &id, bytes.len() as u64), &layers)?;
        let manifest = self.store.blobs.put(&document, claim)?;
        let record = ImageRecord {
            manifest,
            size: document.len() as u64 + bytes.len() as u64 + layers.iter().map(|l| l.size).sum::<u64>(),
            blobs: layers.into_iter().map(|l| l.digest).collect(),
            layers: diff_ids,
        };
        self.register(&id, record, names)
    }

    /// Enters a complete image into the index. The caller's lease holds all of it.
    pub(crate) fn register(&self, id: &Digest, record: ImageRecord, names: Vec<String>) -> Result<Image> {
        self.describe_implied(&record)?;
        let fresh: HashMap<_, _> = {
            let fresh = self.store.fresh.lock();
            record.layers.iter().filter_map(|l| Some((l.clone(), fresh.get(l)?.clone()))).collect()
        };
        self.store.index.update(|index| {
            for layer in &record.layers {
                if !self.store.layer_path(layer).is_dir() {
                    return Err(Error::invalid(
                        format!("image {id}"),
                        format!("its layer {layer} is not there; pull or build it again"),
                    ));
                }
            }
            for (diff_id, layer) in &fresh {
                index.layers.entry(diff_id.clone()).or_insert_with(|| layer.clone());
            }
            for name in names {
                index.names.insert(name, id.clone());
            }
            index.images.insert(id.clone(), record);
            Ok(())
        })?;
        self.store.fresh.lock().retain(|diff_id, _| !fresh.contains_key(diff_id));
        self.settle();
        self.get(id.as_str())
    }

    /// What is remembered under this key, if it is still complete.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn recall(&self, key: &str, lease: &Lease) -> Result<Option<Cached>> {
        let Some(record) = self.store.index.read()?.cache.get(key).cloned() else { return Ok(None) };
        let layer = match record.layer {
            None => None,
            Some(diff_id) => {
                lease.hold(&self.store.index, [&diff_id])?;
                let Some(layer) = self.store.ready_layer(&diff_id)? else { return Ok(None) };
                lease.hold(&self.store.index, [&layer.blob])?;
                if self.store.blobs.size(&layer.blob) != Some(layer.size) {
                    return Ok(None);
                }
                let path = self.store.layer_path(&diff_id);
                Some(Layer {
                    diff_id,
                    digest: layer.blob,
                    size: layer.size,
                    media_type: layer.media_type,
                    path,
                })
            }
        };
        Ok(Some(Cached { layer, note: record.note }))
    }

    /// Remembers a result; keeps its layer until a prune of the cache.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn remember(&self, key: &str, layer: Option<&Layer>, note: serde_json::Value) -> Result<()> {
        let fresh = layer.and_then(|l| self.store.fresh.lock().get(&l.diff_id).cloned());
        let record = CacheRecord {
            layer: layer.map(|l| l.diff_id.clone()),
            note,
            used: chrono::Utc::now().timestamp(),
        };
        self.store.index.update(|index| {
            if let (Some(layer), Some(fresh)) = (layer, fresh) {
                index.layers.entry(layer.diff_id.clone()).or_insert(fresh);
            }
            index.cache.insert(key.to_owned(), record);
            Ok(())
        })
    }

    /// Notes that these keys were of use now, so that a prune by age spares them.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn touch(&self, keys: &[String]) -> Result<()> {
        let now = chrono::Utc::now().timestamp();
        self.store.index.update(|index| {
            for key in keys {
                if let Some(record) = index.cache.get_mut(key) {
                    record.used = now;
                }
            }
            Ok(())
        })
    }

    /// Gives folders that an archive used without describing them the owner and mode they have in the layers below,
    /// lest `usr/bin/x` alone turn a `/tmp` or `/home/user` into root's.
    fn describe_implied(&self, record: &ImageRecord) -> Result<()> {
        for (i, layer) in record.layers.iter().enumerate() {
            let Some(fresh) = self.store.fresh.lock().get(layer).cloned() else { continue };
            let path = self.store.layer_path(layer);
            let mut beneath = Beneath::open(&path).at("opening", &path)?;
            for implied in &fresh.implied {
                let below = record.layers[..i].iter().rev().map(|l| self.store.layer_path(l).join(implied));
                let Some(meta) = below.filter_map(|p| fs::symlink_metadata(p).ok()).find(|m| m.is_dir())
                else {
                    continue;
                };
                let Ok(folder) = beneath.folder(implied) else { continue };
                let (uid, gid) =
                    (rustix::fs::Uid::from_raw(meta.uid()), rustix::fs::Gid::from_raw(meta.gid()));
                rustix::fs::fchown(&*folder, Some(uid), Some(gid)).at("changing the owner of", implied)?;
                rustix::fs::fchmod(&*folder, rustix::fs::Mode::from_raw_mode(meta.mode() & 0o7777))
                    .at("changing the mode of", implied)?;
            }
        }
        Ok(())
    }

    /// Waits in the background until unpacked layers are on disk, then says so in the index.
    fn settle(&self) {
        let images = self.clone();
        let settle = move || -> Result<()> {
            let unsettled: Vec<Digest> = {
                let index = images.store.index.read()?;
                index.layers.iter().filter(|(_, l)| l.unsettled.is_some()).map(|(d, _)| d.clone()).collect()
            };
            if unsettled.is_empty() {
                return Ok(());
            }
            let dir = File::open(&images.store.dir).at("opening", &images.store.dir)?;
            rustix::fs::syncfs(&dir).at("syncing", &images.store.dir)?;
            images.store.index.update(|index| {
                for diff_id in &unsettled {
                    if let Some(layer) = index.layers.get_mut(diff_id) {
                        layer.unsettled = None;
                    }
                }
                Ok(())
            })
        };
        let spawned = std::thread::Builder::new().name("images-settle".into()).spawn(move || {
            if let Err(error) = settle() {
                tracing::debug!(%error, "layers stay unsettled");
            }
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "layers stay unsettled");
        }
    }

    /// After a boot that did not see the layers reach the disk, unpacks those again.
    pub(crate) fn recover(&self) -> Result<()> {
        let lost: Vec<_> = {
            let index = self.store.index.read()?;
            let other_boot =
                |l: &LayerRecord| l.unsettled.as_ref().is_some_and(|boot| *boot != self.store.boot);
            index.layers.iter().filter(|(_, l)| other_boot(l)).map(|(d, l)| (d.clone(), l.clone())).collect()
        };
        if lost.is_empty() {
            return Ok(());
        }
        let lease = self.new_lease()?;
        lease.hold(&self.store.index, lost.iter().flat_map(|(d, l)| [d, &l.blob]))?;
        self.store.index.update(|index| {
            for (diff_id, _) in &lost {
                index.layers.remove(diff_id);
            }
            Ok(())
        })?;
        for (diff_id, layer) in &lost {
            if let Err(error) =
                self.unpack_layer(&layer.blob, &layer.media_type, diff_id, &format!("layer {diff_id}"))
            {
                tracing::warn!(%diff_id, %error, "a layer was lost in a power cut and cannot be unpacked again; pull the image");
            }
        }
        let fresh = std::mem::take(&mut *self.store.fresh.lock());
        let images: Vec<_> = self.store.index.read()?.images.values().cloned().collect();
        *self.store.fresh.lock() = fresh.clone();
        for image in images {
            self.describe_implied(&image)?;
        }
        self.store.index.update(|index| {
            index.layers.extend(fresh);
            Ok(())
        })?;
        self.store.fresh.lock().clear();
        self.settle();
        Ok(())
    }
}
