//! The store: a folder with blobs, unpacked layers and an index.
//!
//! ```text
//! index.json   names, images, layers, remembered builds     lock      flock of whoever changes the index
//! blobs/sha256/HEX   content, synced before it is named     ingest/   downloads and files not yet complete
//! layers/HEX/  unpacked layers by diffID                    work/     folders not yet complete, and rubbish
//! leases/      what is in use
//! ```
//!
//! Durability: blobs and the index are synced before they count. Unpacked layers can be made again from blobs, so they
//! are not waited for: a layer is marked with the boot in which it was unpacked until a `syncfs` has passed, and after
//! a power cut those still marked are unpacked again when the store is opened.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::ImageConfiguration;
use parking_lot::Mutex;

use crate::{
    Digest, Error, Image, Lease, Options, Reference, Result,
    blobs::Blobs,
    durable,
    error::IoContext,
    index::{ImageRecord, Index, IndexFile, LayerRecord},
    manifest, registry,
};

/// A handle on an image store; clones share it.
#[derive(Clone)]
pub struct Images {
    pub(crate) store: Arc<Store>,
}

pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) blobs: Blobs,
    pub(crate) index: IndexFile,
    /// Layers unpacked by this process that no image in the index needs yet.
    pub(crate) fresh: Mutex<HashMap<Digest, LayerRecord>>,
    /// One lock for each thing that is being fetched or unpacked.
    pub(crate) busy: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// Parsed configs by image ID; content-addressed, so never stale.
    configs: Mutex<HashMap<Digest, ImageConfiguration>>,
    pub(crate) boot: String,
    pub(crate) client: registry::Client,
}

/// What [`Images::remove`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that no longer exist.
    pub untagged: Vec<String>,
    /// The ID of the image, if its last tag went and it with it.
    pub deleted: Option<String>,
}

impl Images {
    /// Opens or creates the store in this folder.
    ///
    /// # Errors
    /// When the folder cannot be used, or its index is damaged or from a newer version.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Images> {
        Images::open_with(dir, Options::default())
    }

    /// Opens or creates the store in this folder, with these settings.
    ///
    /// # Errors
    /// As [`Images::open`].
    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Images> {
        let dir = dir.into();
        durable::create_private_dir(&dir)?;
        // Overlayfs options and `/proc` paths want an absolute path.
        let dir = fs::canonicalize(&dir).at("resolving", &dir)?;
        for part in ["layers", "work", "leases"] {
            durable::create_private_dir(&dir.join(part))?;
        }
        let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
        let store = Store {
            blobs: Blobs::open(&dir)?,
            index: IndexFile::new(&dir),
            client: registry::Client::new(options.registries.clone()),
            options,
            fresh: Mutex::default(),
            busy: Mutex::default(),
            configs: Mutex::default(),
            boot: fs::read_to_string(boot_id).at("reading", boot_id)?.trim().to_owned(),
            dir,
        };
        let images = Images { store: Arc::new(store) };
        images.recover()?;
        Ok(images)
    }

    /// The folder of the store.
    pub fn dir(&self) -> &Path {
        &self.store.dir
    }

    /// Finds an image by name (`busybox`, `busybox:1.36`, `busybox@sha256:…`), ID or digest (`sha256:…`), or the
    /// first six or more digits of its ID.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none.
    pub fn get(&self, name: &str) -> Result<Image> {
        let index = self.store.index.read()?;
        let id = find(&index, name)?;
        self.image(&index, &id)
    }

    /// All images, in the order of their IDs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>> {
        let index = self.store.index.read()?;
        index.images.keys().map(|id| self.image(&index, id)).collect()
    }

    /// The config of an image as it was written, with the fields that the OCI specification lacks (`Healthcheck`,
    /// `OnBuild`, `Shell`).
    ///
    /// # Errors
    /// When there is no such image.
    pub fn raw_config(&self, name: &str) -> Result<serde_json::Value> {
        let id = find(&*self.store.index.read()?, name)?;
        serde_json::from_slice(&self.store.blobs.document(&id)?)
            .map_err(|e| Error::invalid(format!("image {name}"), format!("its config is not JSON: {e}")))
    }

    /// Gives an image another name.
    ///
    /// # Errors
    /// When there is no such image, or the new name is not one or has a digest.
    pub fn tag(&self, name: &str, new: &str) -> Result<()> {
        let new = tag_name(new)?;
        self.store.index.update(|index| {
            let id = find(index, name)?;
            index.names.insert(new, id);
            Ok(())
        })
    }

    /// Removes a name; with the last tag, or by ID, the image itself and what only it used.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such image.
    pub fn remove(&self, name: &str) -> Result<Removed> {
        let removed = self.store.index.update(|index| {
            let id = find(index, name)?;
            let named =
                Reference::parse(name).ok().map(|r| r.canonical()).filter(|n| index.names.contains_key(n));
            let mut removed = Removed::default();
            if let Some(name) = named {
                index.names.remove(&name);
                removed.untagged.push(name);
            }
            let by_id = removed.untagged.is_empty();
            if by_id || !index.names.iter().any(|(n, i)| i == &id && !n.contains('@')) {
                removed.untagged.extend(index.names.extract_if(.., |_, i| i == &id).map(|(n, _)| n));
                index.images.remove(&id);
                removed.deleted = Some(id.to_string());
            }
            Ok(removed)
        })?;
        if removed.deleted.is_some() {
            self.prune(None)?;
        }
        Ok(removed)
    }

    /// Keeps everything of this image until the lease is dropped, even if the image is removed: for containers that
    /// run from its layers.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn lease(&self, name: &str) -> Result<Lease> {
        let lease = self.new_lease()?;
        let index = self.store.index.read()?;
        let id = find(&index, name)?;
        let record = &index.images[&id];
        let all = record.layers.iter().chain(&record.blobs).chain([&record.manifest, &id]);
        lease.hold(&self.store.index, all)?;
        // It may have been removed between the two.
        find(&*self.store.index.read()?, id.as_str())?;
        Ok(lease)
    }

    /// An empty lease, for an operation that will make things.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn new_lease(&self) -> Result<Lease> {
        Lease::new(&self.store.dir.join("leases"), &self.store.index)
    }

    pub(crate) fn image(&self, index: &Index, id: &Digest) -> Result<Image> {
        let record = index.images.get(id).ok_or_else(|| Error::NotFound(id.to_string()))?;
        let names = index.names.iter().filter(|(_, i)| *i == id).map(|(n, _)| n.clone());
        let (digests, tags) = names.partition(|n| n.contains('@'));
        Ok(Image {
            id: id.to_string(),
            tags,
            digests,
            size: record.size,
            config: self.config(id)?,
            layers: self.layer_paths(record),
            manifest: record.manifest.to_string(),
        })
    }

    fn config(&self, id: &Digest) -> Result<ImageConfiguration> {
        if let Some(config) = self.store.configs.lock().get(id) {
            return Ok(config.clone());
        }
        let (config, _) = manifest::parse_config(&self.store.blobs.document(id)?, id.as_str())?;
        self.store.configs.lock().insert(id.clone(), config.clone());
        Ok(config)
    }

    /// Overlayfs refuses the same folder twice in a stack; the upper one of two equal layers covers the other.
    fn layer_paths(&self, record: &ImageRecord) -> Vec<PathBuf> {
        record
            .layers
            .iter()
            .enumerate()
            .filter(|(i, layer)| !record.layers[i + 1..].contains(layer))
            .map(|(_, layer)| self.store.layer_path(layer))
            .collect()
    }
}

/// A name for an image of our own: no digest.
pub(crate) fn tag_name(name: &str) -> Result<String> {
    let reference = Reference::parse(name)?;
    match reference.digest() {
        Some(_) => Err(Error::InvalidReference {
            reference: name.to_owned(),
            why: "a new name cannot have a digest",
        }),
        None => Ok(reference.canonical()),
    }
}

/// The ID of the image that answers to `name`.
pub(crate) fn find(index: &Index, name: &str) -> Result<Digest> {
    let missing = || Error::NotFound(name.to_owned());
    if let Ok(digest) = Digest::parse(name) {
        if index.images.contains_key(&digest) {
            return Ok(digest);
        }
        let by_manifest = index.images.iter().find(|(_, r)| r.manifest == digest).map(|(id, _)| id.clone());
        let suffix = format!("@{digest}");
        let by_name = || index.names.iter().find(|(n, _)| n.ends_with(&suffix)).map(|(_, id)| id.clone());
        return by_manifest.or_else(by_name).ok_or_else(missing);
    }
    let reference = Reference::parse(name);
    if let Ok(reference) = &reference
        && let Some(id) = index.names.get(&reference.canonical())
    {
        return Ok(id.clone());
    }
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    if prefix.len() >= 6 && prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
        let mut found = index.images.keys().filter(|id| id.hex().starts_with(prefix));
        return match (found.next(), found.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => Err(Error::AmbiguousId(name.to_owned())),
            _ => Err(missing()),
        };
    }
    reference.and(Err(missing()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_can_be_shared_between_threads() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<Images>();
    }

    #[test]
    fn an_empty_store_lists_nothing_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let images = Images::open(dir.path()).unwrap();
        assert!(images.list().unwrap().is_empty());
        let error = images.get("busybox").unwrap_err();
        assert!(error.to_string().contains("pull, build or import it first"), "{error}");
        assert!(matches!(images.get("Bad Name"), Err(Error::InvalidReference { .. })));
    }

    #[test]
    fn an_index_from_the_future_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("index.json"), r#"{"version": 99}"#).unwrap();
        let error = Images::open(dir.path()).err().unwrap();
        assert!(error.to_string().contains("newer version"), "{error}");
    }
}
