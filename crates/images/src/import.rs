//! Importing images from files: OCI layouts, `docker save` archives, and root file systems.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Compression, Digest, Error, Image, Images, Lease, Limits, Result,
    blobs::{Claim, MAX_DOCUMENT},
    digest::HashingReader,
    error::IoContext,
    index::ImageRecord,
    layer::{
        beneath::Beneath,
        compression::{Compressor, decompress},
        unpack::{Whiteouts, unpack},
    },
    manifest::{self, Descriptor, Document, MAX_MANIFEST},
    store::tag_name,
};

/// How [`Images::import`] reads a file.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Names to give, instead of those in the archive.
    pub tags: Vec<String>,
    /// The file is a root file system, to become an image with this config (`{"config": {"Cmd": […]}}`; platform and
    /// rootfs are filled in).
    pub rootfs: Option<Value>,
}

/// Unpacks a plain, gzip or zstd tar archive beneath an existing folder, with the safety of layers; names that would
/// be whiteouts in a layer are ordinary here.
///
/// # Errors
/// When the archive is malformed, hostile or too large.
pub fn unpack_archive(archive: impl Read + Send, into: &Path, what: &str, limits: &Limits) -> Result<()> {
    unpack(archive, None, into, what, limits, Whiteouts::Plain).map(|_| ())
}

/// `manifest.json` of a docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Images {
    /// Imports the images in an OCI layout (folder or archive), a docker archive, or, if told so, a root file system.
    ///
    /// # Errors
    /// When the file cannot be read or is none of these, or breaks its specification.
    pub fn import(&self, path: &Path, options: &ImportOptions) -> Result<Vec<Image>> {
        if let Some(config) = &options.rootfs {
            let file = File::open(path).at("opening", path)?;
            return Ok(vec![self.import_rootfs(
                file,
                config.clone(),
                &options.tags,
                &path.display().to_string(),
            )?]);
        }
        let names = options.tags.iter().map(|t| tag_name(t)).collect::<Result<Vec<_>>>()?;
        let lease = self.new_lease()?;
        let source = |dir: &Path| -> Result<Source> {
            Ok(Source { root: Beneath::open(dir).at("opening", dir)?, shown: path.to_owned() })
        };
        if path.is_dir() {
            return self.import_folder(&source(path)?, &names, &lease);
        }
        let file = File::open(path).at("opening", path)?;
        let size = file.metadata().at("reading", path)?.len();
        let work = self.work_dir()?;
        let what = path.display().to_string();
        unpack(file, Some(size), work.path(), &what, &self.store.options.limits, Whiteouts::Plain)?;
        self.import_folder(&source(work.path())?, &names, &lease)
    }

    /// Makes an image with one layer of a root file system archive (plain, gzip or zstd tar).
    ///
    /// # Errors
    /// When the archive is malformed or a name is not one.
    pub fn import_rootfs(
        &self,
        archive: impl Read + Send,
        config: Value,
        tags: &[String],
        what: &str,
    ) -> Result<Image> {
        let names = tags.iter().map(|t| tag_name(t)).collect::<Result<Vec<_>>>()?;
        let lease = self.new_lease()?;
        let (layer, diff_id) = self.store_archive(archive, what, &lease)?;
        self.unpack_layer(&layer.digest, &layer.media_type, &diff_id, what)?;
        let mut config = config;
        if !config.is_object() {
            return Err(Error::invalid(what, "the config is not a JSON object"));
        }
        let platform = &self.store.options.platform;
        for (key, value) in [("architecture", &platform.architecture), ("os", &platform.os)] {
            if config[key].is_null() {
                config[key] = json!(value);
            }
        }
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [diff_id] });
        let config = serde_json::to_vec(&config).map_err(|e| Error::invalid(what, e.to_string()))?;
        self.enter(&config, vec![layer], &names, what, &lease)
    }

    fn import_folder(&self, source: &Source, names: &[String], lease: &Lease) -> Result<Vec<Image>> {
        if source.root.read(Path::new("index.json")).is_ok() {
            return self.import_oci(source, names, lease);
        }
        if source.root.read(Path::new("manifest.json")).is_ok() {
            return self.import_docker(source, names, lease);
        }
        Err(Error::invalid(
            source.shown.display().to_string(),
            "is neither an OCI layout (no index.json) nor a docker archive (no manifest.json); if it is a root file system, import it as one",
        ))
    }

    fn import_oci(&self, source: &Source, names: &[String], lease: &Lease) -> Result<Vec<Image>> {
        let what = source.shown.display().to_string();
        let index = source.document(Path::new("index.json"), MAX_MANIFEST)?;
        let Document::Index(entries) = manifest::parse(&index, None, &what)? else {
            return Err(Error::invalid(what, "index.json is no index"));
        };
        if entries.is_empty() {
            return Err(Error::invalid(what, "index.json names no image"));
        }
        // Several entries of one name for several platforms are one image.
        let (images, mut own): (Vec<_>, Vec<_>) =
            if entries.iter().all(|e| e.platform.is_some() && e.annotations.is_none()) {
                (vec![manifest::choose(&entries, &self.store.options.platform, &what)?.clone()], vec![None])
            } else {
                entries.iter().map(|e| (e.clone(), ref_name(e))).unzip()
            };
        if !names.is_empty() && images.len() > 1 {
            return Err(Error::invalid(
                what,
                format!("holds {} images; import it without giving a name", images.len()),
            ));
        }
        let mut imported = Vec::new();
        for (entry, own) in images.into_iter().zip(own.drain(..)) {
            let mut bytes = source.blob(&entry, MAX_MANIFEST)?;
            let mut document = manifest::parse(&bytes, None, &what)?;
            if let Document::Index(entries) = &document {
                let entry = manifest::choose(entries, &self.store.options.platform, &what)?;
                bytes = source.blob(entry, MAX_MANIFEST)?;
                document = manifest::parse(&bytes, None, &what)?;
            }
            let Document::Manifest(manifest) = document else {
                return Err(Error::invalid(what, "an index within an index is not supported"));
            };
            let claim: Claim<'_> = &|digest| lease.hold(&self.store.index, [digest]);
            let digest = self.store.blobs.put(&bytes, claim)?;
            let config = source.blob(&manifest.config, MAX_DOCUMENT)?;
            for layer in &manifest.layers {
                lease.hold(&self.store.index, [&layer.digest])?;
                if self.store.blobs.size(&layer.digest) != Some(layer.size) {
                    let file = source.open(&blob_path(&layer.digest))?;
                    self.store.blobs.copy(
                        file,
                        layer.size,
                        Some(&layer.digest),
                        &format!("layer {} of {what}", layer.digest),
                        claim,
                    )?;
                }
            }
            let names = if names.is_empty() { own.into_iter().collect() } else { names.to_vec() };
            imported.push(self.complete(
                &config,
                digest,
                bytes.len() as u64,
                &manifest.layers,
                &names,
                &what,
                lease,
            )?);
        }
        Ok(imported)
    }

    fn import_docker(&self, source: &Source, names: &[String], lease: &Lease) -> Result<Vec<Image>> {
        let what = source.shown.display().to_string();
        let bytes = source.document(Path::new("manifest.json"), MAX_MANIFEST)?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(&what, format!("manifest.json: {e}")))?;
        if !names.is_empty() && entries.len() != 1 {
            return Err(Error::invalid(
                what,
                format!("holds {} images; import it without giving a name", entries.len()),
            ));
        }
        let mut imported = Vec::new();
        for entry in entries {
            let config = source.document(&source.relative(&entry.config)?, MAX_DOCUMENT)?;
            let mut layers = Vec::new();
            for layer in &entry.layers {
                layers.push(
                    self.store_archive(
                        source.open(&source.relative(layer)?)?,
                        &format!("{layer} in {what}"),
                        lease,
                    )?
                    .0,
                );
            }
            let own = || entry.repo_tags.iter().flatten().map(|t| tag_name(t)).collect::<Result<Vec<_>>>();
            let names = if names.is_empty() { own()? } else { names.to_vec() };
            imported.push(self.enter(&config, layers, &names, &what, lease)?);
        }
        Ok(imported)
    }

    /// Stores an archive as a zstd layer; gives its descriptor and diffID.
    fn store_archive(
        &self,
        archive: impl Read + Send,
        what: &str,
        lease: &Lease,
    ) -> Result<(Descriptor, Digest)> {
        let (stream, _) = decompress(BufReader::new(archive)).doing(|| format!("reading {what}"))?;
        let mut diff_id = None;
        let claim: Claim<'_> = &|digest| lease.hold(&self.store.index, [digest]);
        let write = |to| {
            let mut reader = HashingReader::new(stream, self.store.options.limits.bytes);
            let mut compressor =
                Compressor::new(to, Compression::Zstd).doing(|| format!("packing {what}"))?;
            std::io::copy(&mut reader, &mut compressor).doing(|| format!("packing {what}"))?;
            diff_id = Some(reader.finish().doing(|| format!("reading {what}"))?.0);
            compressor.finish().doing(|| format!("packing {what}"))
        };
        let (digest, size) = self.store.blobs.write(write, claim)?;
        let diff_id = diff_id.ok_or_else(|| Error::invalid(what, "was not packed"))?;
        lease.hold(&self.store.index, [&diff_id])?;
        let media_type = Compression::Zstd.media_type().to_owned();
        Ok((Descriptor { media_type, digest, size, platform: None, annotations: None }, diff_id))
    }

    /// Enters an image whose layers are in the store under a manifest of our own.
    fn enter(
        &self,
        config: &[u8],
        layers: Vec<Descriptor>,
        names: &[String],
        what: &str,
        lease: &Lease,
    ) -> Result<Image> {
        let id = Digest::of(config);
        let descriptor = Descriptor {
            media_type: manifest::OCI_CONFIG.to_owned(),
            digest: id,
            size: config.len() as u64,
            platform: None,
            annotations: None,
        };
        let bytes = manifest::encode(&descriptor, &layers)?;
        let digest = self.store.blobs.put(&bytes, &|digest| lease.hold(&self.store.index, [digest]))?;
        self.complete(config, digest, bytes.len() as u64, &layers, names, what, lease)
    }

    /// Unpacks the layers of an image whose blobs are in the store, several at once, and enters it.
    #[allow(clippy::too_many_arguments)]
    fn complete(
        &self,
        config: &[u8],
        manifest: Digest,
        manifest_size: u64,
        layers: &[Descriptor],
        names: &[String],
        what: &str,
        lease: &Lease,
    ) -> Result<Image> {
        let id = self.store.blobs.put(config, &|digest| lease.hold(&self.store.index, [digest]))?;
        let (_, diff_ids) = manifest::parse_config(config, what)?;
        if diff_ids.len() != layers.len() {
            return Err(Error::invalid(
                what,
                format!("its config names {} layers and its manifest {}", diff_ids.len(), layers.len()),
            ));
        }
        lease.hold(&self.store.index, &diff_ids)?;
        let queue = Mutex::new(layers.iter().zip(&diff_ids).collect::<Vec<_>>());
        let failure = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.store.options.parallel.clamp(1, layers.len().max(1)) {
                scope.spawn(|| {
                    loop {
                        // Not in the condition: the guard would live as long as the body.
                        let next = queue.lock().pop();
                        let Some((layer, diff_id)) = next else { break };
                        let lock = self.store.busy(diff_id);
                        let _turn = lock.blocking_lock();
                        let what = format!("layer {} of {what}", layer.digest);
                        if let Err(error) =
                            self.unpack_layer(&layer.digest, &layer.media_type, diff_id, &what)
                        {
                            *failure.lock() = Some(error);
                            queue.lock().clear();
                        }
                    }
                });
            }
        });
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        let record = ImageRecord {
            manifest,
            blobs: layers.iter().map(|l| l.digest.clone()).collect(),
            layers: diff_ids,
            size: manifest_size + config.len() as u64 + layers.iter().map(|l| l.size).sum::<u64>(),
        };
        self.register(&id, record, names.to_vec())
    }
}

/// A folder from a stranger.
struct Source {
    root: Beneath,
    shown: PathBuf,
}

impl Source {
    fn open(&self, path: &Path) -> Result<File> {
        self.root.read(path).doing(|| format!("{}: reading {}", self.shown.display(), path.display()))
    }

    fn relative(&self, path: &str) -> Result<PathBuf> {
        crate::layer::beneath::clean(path.as_bytes()).ok_or_else(|| {
            Error::invalid(
                self.shown.display().to_string(),
                format!("names the file \"{path}\" outside of it"),
            )
        })
    }

    fn document(&self, path: &Path, most: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.take(most + 1).read_to_end(&mut bytes).at("reading", path)?;
        if bytes.len() as u64 > most {
            return Err(Error::Limit {
                what: format!("{} in {}", path.display(), self.shown.display()),
                limit: format!("{most} bytes"),
            });
        }
        Ok(bytes)
    }

    /// A small blob of an OCI layout, verified.
    fn blob(&self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_path(&descriptor.digest), most)?;
        let actual = Digest::of(&bytes);
        if actual != descriptor.digest {
            let what = format!("a blob of {}", self.shown.display());
            return Err(Error::DigestMismatch {
                what,
                expected: descriptor.digest.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(bytes)
    }
}

fn blob_path(digest: &Digest) -> PathBuf {
    Path::new("blobs/sha256").join(digest.hex())
}

/// The name that containerd or the archive's maker wrote beside an image, if it is a full one.
fn ref_name(entry: &Descriptor) -> Option<String> {
    let annotations = entry.annotations.as_ref()?;
    let text = |key: &str| annotations.get(key).and_then(Value::as_str);
    let name = text("io.containerd.image.name")
        .or_else(|| text("org.opencontainers.image.ref.name").filter(|n| n.contains([':', '/'])))?;
    tag_name(name).ok()
}
