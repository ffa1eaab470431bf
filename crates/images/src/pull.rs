//! Pulling: name → manifest → blobs, verified while they stream, unpacked as they complete.

use std::{
    fs::{self, File},
    io::{Seek, Write},
    path::Path,
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use reqwest::{
    Method, StatusCode,
    header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE},
};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};

use crate::{
    Credentials, Digest, Error, Event, Image, Images, Lease, Progress, Reference, Result,
    blobs::MAX_DOCUMENT,
    error::IoContext,
    index::ImageRecord,
    manifest::{self, Descriptor, Document, MAX_MANIFEST, Manifest},
    registry::{Request, Session},
};

/// When the registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always for the manifest; blobs that are there stay.
    Always,
    /// Only if no image has this name.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

/// Times a download may break before it is given up.
const BREAKS: u32 = 12;
/// Times it may break without a single byte in between.
const IDLE_BREAKS: u32 = 4;

impl Images {
    /// Gets an image from its registry.
    ///
    /// Blobs are fetched and unpacked several at once and kept if a later one fails; a broken download goes on where
    /// it stopped, also in a later call. The image exists, complete, when this returns.
    ///
    /// # Errors
    /// Each names the registry and the next step; see [`Error`].
    pub async fn pull(
        &self,
        reference: &str,
        credentials: Option<&Credentials>,
        policy: PullPolicy,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let reference = Reference::parse(reference)?;
        if policy != PullPolicy::Always {
            match self.get(&reference.canonical()) {
                Ok(image) if image.layers.iter().all(|l| l.is_dir()) => return Ok(image),
                Ok(_) | Err(Error::NotFound(_)) if policy == PullPolicy::IfNotPresent => {}
                Ok(_) => return Err(Error::NotFound(reference.to_string())),
                Err(e) => return Err(e),
            }
        }
        let mut failure = None;
        for session in self.store.client.sessions(&reference, credentials, false)? {
            match self.pull_from(&session, &reference, progress).await {
                Ok(image) => return Ok(image),
                Err(error) => {
                    tracing::debug!(registry = session.registry, %error, "this endpoint does not give the image");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::NotFound(reference.to_string())))
    }

    async fn pull_from(
        &self,
        session: &Session<'_>,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let lease = self.new_lease()?;
        let what = reference.to_string();
        let (bytes, document) = self.fetch_manifest(session, reference.target(), &what).await?;
        let target = Digest::of(&bytes);
        let (manifest_bytes, manifest) = match document {
            Document::Manifest(manifest) => (bytes, manifest),
            Document::Index(entries) => {
                let entry = manifest::choose(&entries, &self.store.options.platform, &what)?;
                match self.fetch_manifest(session, entry.digest.as_str(), &what).await? {
                    (bytes, Document::Manifest(manifest)) => (bytes, manifest),
                    (_, Document::Index(_)) => {
                        return Err(Error::invalid(what, "an index within an index is not supported"));
                    }
                }
            }
        };
        let digest = Digest::of(&manifest_bytes);
        let layers = manifest.layers.iter().map(|l| (l.digest.clone(), l.size)).collect();
        progress.event(Event::Resolved { manifest: digest.clone(), layers });
        lease.hold(
            &self.store.index,
            manifest.layers.iter().map(|l| &l.digest).chain([&digest, &manifest.config.digest]),
        )?;
        self.store.blobs.put(&manifest_bytes, &|_| Ok(()))?;
        let (id, record) = self
            .fetch_image(session, &manifest, manifest_bytes.len() as u64, digest, &lease, &what, progress)
            .await?;
        let mut names = vec![reference.with_digest(&target)];
        if reference.digest().is_none() {
            names.push(reference.canonical());
        }
        self.register(&id, record, names)
    }

    #[allow(clippy::too_many_arguments)]
    async fn fetch_image(
        &self,
        session: &Session<'_>,
        manifest: &Manifest,
        manifest_size: u64,
        digest: Digest,
        lease: &Lease,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<(Digest, ImageRecord)> {
        if manifest.config.size > MAX_DOCUMENT {
            return Err(Error::Limit {
                what: format!("{what} has too large a config"),
                limit: format!("{MAX_DOCUMENT} bytes"),
            });
        }
        self.fetch_blob(session, &manifest.config, &()).await?;
        let id = manifest.config.digest.clone();
        let (_, diff_ids) = manifest::parse_config(&self.store.blobs.document(&id)?, what)?;
        if diff_ids.len() != manifest.layers.len() {
            let why = format!(
                "its config names {} layers and its manifest {}",
                diff_ids.len(),
                manifest.layers.len()
            );
            return Err(Error::invalid(what, why));
        }
        lease.hold(&self.store.index, &diff_ids)?;
        futures::stream::iter(manifest.layers.iter().zip(&diff_ids).map(Ok))
            .try_for_each_concurrent(self.store.options.parallel.max(1), |(layer, diff_id)| {
                self.fetch_layer(session, layer, diff_id, what, progress)
            })
            .await?;
        let record = ImageRecord {
            manifest: digest,
            blobs: manifest.layers.iter().map(|l| l.digest.clone()).collect(),
            layers: diff_ids,
            size: manifest_size + manifest.config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>(),
        };
        Ok((id, record))
    }

    async fn fetch_layer(
        &self,
        session: &Session<'_>,
        layer: &Descriptor,
        diff_id: &Digest,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        self.fetch_blob(session, layer, progress).await?;
        let lock = self.store.busy(diff_id);
        let _turn = lock.lock().await;
        if self.store.ready_layer(diff_id)?.is_none() {
            progress.event(Event::Unpacking(layer.digest.clone()));
            let (images, blob, media_type, diff_id) =
                (self.clone(), layer.digest.clone(), layer.media_type.clone(), diff_id.clone());
            let what = format!("layer {} of {what}", layer.digest);
            tokio::task::spawn_blocking(move || images.unpack_layer(&blob, &media_type, &diff_id, &what))
                .await
                .map_err(|e| Error::invalid("unpacking", e.to_string()))??;
        }
        progress.event(Event::Done(layer.digest.clone()));
        Ok(())
    }

    async fn fetch_manifest(
        &self,
        session: &Session<'_>,
        target: &str,
        what: &str,
    ) -> Result<(Vec<u8>, Document)> {
        let mut request = Request::new(Method::GET, session.url(&format!("manifests/{target}"))?);
        let accept =
            [manifest::OCI_INDEX, manifest::DOCKER_LIST, manifest::OCI_MANIFEST, manifest::DOCKER_MANIFEST]
                .join(", ");
        request
            .headers
            .insert(ACCEPT, HeaderValue::from_str(&accept).map_err(|e| session.fail(e.to_string()))?);
        let response = session.send(request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Error::Missing { registry: session.registry.clone(), what: what.to_owned() });
        }
        if !response.status().is_success() {
            let why = session.words(response).await;
            return Err(session.fail(format!("{what}: {why}")));
        }
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let media_type =
            header(CONTENT_TYPE.as_str()).map(|t| t.split(';').next().unwrap_or_default().trim().to_owned());
        let claimed = header("docker-content-digest").filter(|d| d.starts_with("sha256:"));
        let bytes = session.body(response, MAX_MANIFEST as usize).await?;
        let actual = Digest::of(&bytes);
        let expected = if target.starts_with("sha256:") { Some(target.to_owned()) } else { claimed };
        if let Some(expected) = expected
            && expected != actual.as_str()
        {
            return Err(Error::DigestMismatch {
                what: format!("the manifest of {what}"),
                expected,
                actual: actual.to_string(),
            });
        }
        let document = manifest::parse(&bytes, media_type.as_deref(), what)?;
        Ok((bytes, document))
    }

    /// Brings a blob into the store. The caller's lease holds it.
    async fn fetch_blob(
        &self,
        session: &Session<'_>,
        blob: &Descriptor,
        progress: &dyn Progress,
    ) -> Result<()> {
        let lock = self.store.busy(&blob.digest);
        let _turn = lock.lock().await;
        if self.store.blobs.size(&blob.digest) == Some(blob.size) {
            progress.event(Event::Present(blob.digest.clone()));
            return Ok(());
        }
        let mut path = self.store.blobs.partial(&blob.digest);
        let open = |path: &Path| {
            File::options().create(true).truncate(false).read(true).write(true).open(path).at("opening", path)
        };
        let mut file = open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Another process downloads it; neither waits for the other.
            path = self.store.blobs.temp()?.keep().map_err(|e| e.error).at("creating", &path)?.1;
            file = open(&path)?;
        }
        let mut download = Download::resume(file, blob.size, &path)?;
        let (mut breaks, mut idle) = (0, 0);
        while download.done < blob.size || blob.size == 0 && breaks == 0 {
            let before = download.done;
            match download.more(session, blob, &path, progress).await {
                Ok(()) if download.done == blob.size => break,
                Ok(()) => {}
                Err(error) if !error.is_temporary() => {
                    let _ = fs::remove_file(&path);
                    return Err(error);
                }
                Err(error) => {
                    progress.event(Event::Retrying { blob: blob.digest.clone(), why: error.to_string() })
                }
            }
            breaks += 1;
            idle = if download.done > before { 0 } else { idle + 1 };
            if breaks >= BREAKS || idle >= IDLE_BREAKS {
                let why = format!(
                    "the download of {} broke {breaks} times, {} of {} bytes are kept; try again later",
                    blob.digest, download.done, blob.size
                );
                return Err(session.fail(why));
            }
            tokio::time::sleep(Duration::from_millis(50 << idle.min(6))).await;
        }
        let actual = Digest::finish(download.hasher);
        if actual != blob.digest {
            let _ = fs::remove_file(&path);
            return Err(Error::DigestMismatch {
                what: format!("blob from {}", session.registry),
                expected: blob.digest.to_string(),
                actual: actual.to_string(),
            });
        }
        let (images, digest, file) = (self.clone(), blob.digest.clone(), download.file);
        tokio::task::spawn_blocking(move || images.store.blobs.adopt(&path, &file, &digest))
            .await
            .map_err(|e| Error::invalid("syncing", e.to_string()))?
    }
}

/// A blob that grows in a file, with the hash of what is there.
struct Download {
    file: File,
    hasher: Sha256,
    done: u64,
}

impl Download {
    /// Takes up what an earlier attempt left.
    fn resume(mut file: File, size: u64, path: &Path) -> Result<Download> {
        let there = file.metadata().at("reading", path)?.len();
        let mut hasher = Sha256::new();
        let done = if there > size {
            file.set_len(0).at("writing", path)?;
            0
        } else {
            struct Into<'a>(&'a mut Sha256);
            impl Write for Into<'_> {
                fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                    self.0.update(buf);
                    Ok(buf.len())
                }
                fn flush(&mut self) -> std::io::Result<()> {
                    Ok(())
                }
            }
            std::io::copy(&mut file, &mut Into(&mut hasher)).at("reading", path)?
        };
        Ok(Download { file, hasher, done })
    }

    fn restart(&mut self, path: &Path) -> Result<()> {
        self.file.set_len(0).at("writing", path)?;
        self.file.rewind().at("writing", path)?;
        self.hasher = Sha256::new();
        self.done = 0;
        Ok(())
    }

    /// One request for what is missing.
    async fn more(
        &mut self,
        session: &Session<'_>,
        blob: &Descriptor,
        path: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut request = Request::new(Method::GET, session.url(&format!("blobs/{}", blob.digest))?);
        if self.done > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.done))
                .map_err(|e| session.fail(e.to_string()))?;
            request.headers.insert(RANGE, range);
        }
        let response = session.send(request).await?;
        match response.status() {
            StatusCode::OK if self.done > 0 => self.restart(path)?,
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT => {
                let start = format!("bytes {}-", self.done);
                if !response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|v| v.to_str().ok())
                    .is_some_and(|r| r.starts_with(&start))
                {
                    return self.restart(path);
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => return self.restart(path),
            StatusCode::NOT_FOUND => {
                return Err(Error::Missing {
                    registry: session.registry.clone(),
                    what: format!("blob {} of {}", blob.digest, session.path),
                });
            }
            _ => return Err(session.fail(session.words(response).await)),
        }
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| session.fail(crate::registry::way(&e)))?;
            if self.done + chunk.len() as u64 > blob.size {
                return Err(Error::invalid(
                    format!("blob {} from {}", blob.digest, session.registry),
                    format!("is longer than the {} bytes that the manifest says", blob.size),
                ));
            }
            self.file.write_all(&chunk).at("writing", path)?;
            self.hasher.update(&chunk);
            self.done += chunk.len() as u64;
            progress.event(Event::Bytes { blob: blob.digest.clone(), done: self.done, total: blob.size });
        }
        Ok(())
    }
}
