//! Exporting images for other tools.

use std::{
    collections::BTreeSet,
    io::{self, Read, Write},
};

use serde_json::json;
use tar::EntryType;

use crate::{
    Digest, Error, Images, Reference, Result,
    blobs::Blobs,
    error::IoContext,
    layer::{compression::decompress, tar_reader::Entry, tar_writer::TarWriter},
    manifest::{self, Document},
    store::find,
};

/// A file format for images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// An OCI image layout in a tar archive.
    #[default]
    Oci,
    /// What `docker save` writes: `docker load` of every version reads it.
    Docker,
}

impl Images {
    /// Writes images as one archive; the same images give the same bytes.
    ///
    /// # Errors
    /// When there is no such image, or the output cannot be written.
    pub fn export(&self, names: &[&str], format: ExportFormat, to: impl Write) -> Result<()> {
        let mut leases = Vec::new();
        for name in names {
            leases.push(self.lease(name)?);
        }
        let mut archive = Archive { writer: TarWriter::new(to), written: BTreeSet::new() };
        match format {
            ExportFormat::Oci => self.export_oci(names, &mut archive)?,
            ExportFormat::Docker => self.export_docker(names, &mut archive)?,
        }
        archive.writer.finish().and_then(|mut w| w.flush()).doing(|| "writing the archive".into())
    }

    fn export_oci(&self, names: &[&str], archive: &mut Archive<impl Write>) -> Result<()> {
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut entries = Vec::new();
        for name in names {
            let (_, digest, manifest, bytes) = self.manifest_of(name)?;
            let media_type: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let mut entry = json!({
                "mediaType": media_type["mediaType"].as_str().unwrap_or(manifest::OCI_MANIFEST),
                "digest": digest, "size": bytes.len(),
            });
            if let Some(reference) = Reference::parse(name).ok().filter(|r| self.get(&r.canonical()).is_ok())
            {
                entry["annotations"] = json!({
                    "io.containerd.image.name": reference.canonical(),
                    "org.opencontainers.image.ref.name": reference.tag().unwrap_or("latest"),
                });
            }
            entries.push(entry);
            archive.blob(&self.store.blobs, &digest)?;
            archive.blob(&self.store.blobs, &manifest.config.digest)?;
            for layer in &manifest.layers {
                archive.blob(&self.store.blobs, &layer.digest)?;
            }
        }
        let index = json!({ "schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": entries });
        archive.file("index.json", index.to_string().as_bytes())
    }

    fn export_docker(&self, names: &[&str], archive: &mut Archive<impl Write>) -> Result<()> {
        let mut entries = Vec::new();
        for name in names {
            let (id, _, manifest, _) = self.manifest_of(name)?;
            let config = self.store.blobs.document(&id)?;
            let (_, diff_ids) = manifest::parse_config(&config, name)?;
            let config_name = format!("{}.json", id.hex());
            archive.file(&config_name, &config)?;
            let mut layers = Vec::new();
            for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
                let layer_name = format!("{}/layer.tar", diff_id.hex());
                archive.uncompressed(&self.store.blobs, &layer.digest, &layer_name)?;
                layers.push(layer_name);
            }
            let tag =
                Reference::parse(name).ok().filter(|r| r.tag().is_some() && self.get(&r.canonical()).is_ok());
            // Docker shows names of its own hub without the registry.
            let tag = tag
                .map(|r| r.canonical())
                .map(|t| t.strip_prefix("docker.io/library/").map(str::to_owned).unwrap_or(t));
            entries.push(json!({ "Config": config_name, "RepoTags": tag.into_iter().collect::<Vec<_>>(), "Layers": layers }));
        }
        archive.file("manifest.json", serde_json::Value::Array(entries).to_string().as_bytes())
    }

    fn manifest_of(&self, name: &str) -> Result<(Digest, Digest, manifest::Manifest, Vec<u8>)> {
        let index = self.store.index.read()?;
        let id = find(&index, name)?;
        let digest = index.images[&id].manifest.clone();
        let bytes = self.store.blobs.document(&digest)?;
        match manifest::parse(&bytes, None, name)? {
            Document::Manifest(manifest) => Ok((id, digest, manifest, bytes)),
            Document::Index(_) => Err(Error::invalid(name, "the store names an index as its manifest")),
        }
    }
}

struct Archive<W: Write> {
    writer: TarWriter<W>,
    written: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let entry = Entry {
            path: name.as_bytes().to_vec(),
            link: Vec::new(),
            kind: EntryType::Regular,
            size,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
        };
        self.writer.append(&entry, content).doing(|| format!("writing {name} to the archive"))
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.written.insert(name.to_owned()) {
            true => self.add(name, bytes.len() as u64, &mut { bytes }),
            false => Ok(()),
        }
    }

    fn blob(&mut self, blobs: &Blobs, digest: &Digest) -> Result<()> {
        let name = format!("blobs/sha256/{}", digest.hex());
        if !self.written.insert(name.clone()) {
            return Ok(());
        }
        let mut file = blobs.open_blob(digest)?;
        let size = file.metadata().at("reading", &blobs.path(digest))?.len();
        self.add(&name, size, &mut file)
    }

    /// A layer without its compression: read twice, as its size stands before it.
    fn uncompressed(&mut self, blobs: &Blobs, digest: &Digest, name: &str) -> Result<()> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        let open = || decompress(blobs.open_blob(digest)?).at("reading", &blobs.path(digest));
        let size = io::copy(&mut open()?.0, &mut io::sink()).at("reading", &blobs.path(digest))?;
        self.add(name, size, &mut open()?.0)
    }
}
