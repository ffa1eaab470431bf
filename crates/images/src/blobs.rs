//! The blob store: files named by the sha256 of their content, complete or absent.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use crate::{
    Digest, Error, Result,
    digest::{HashingReader, HashingWriter},
    durable,
    error::IoContext,
};

/// Largest manifest, index or config that is read into memory.
pub(crate) const MAX_DOCUMENT: u64 = 8 * 1024 * 1024;

/// Told a digest just before its blob appears, to hold it against collection.
pub(crate) type Claim<'a> = &'a dyn Fn(&Digest) -> Result<()>;

/// The folder of blobs.
#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    ingest: PathBuf,
}

impl Blobs {
    pub(crate) fn open(store: &Path) -> Result<Blobs> {
        let blobs = Blobs { dir: store.join("blobs/sha256"), ingest: store.join("ingest") };
        durable::create_private_dir(&blobs.dir)?;
        durable::create_private_dir(&blobs.ingest)?;
        Ok(blobs)
    }

    /// Where the blob is, or would be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Where a download of this blob grows, over several attempts.
    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.ingest.join(format!("{}.partial", digest.hex()))
    }

    /// The size of the blob, if it is there.
    pub(crate) fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    /// Opens a blob.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).at("opening", &path)
    }

    /// Reads a small document and checks its digest again.
    pub(crate) fn document(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .at("reading", &self.path(digest))?;
        let actual = Digest::of(&bytes);
        if &actual != digest {
            return Err(Error::DigestMismatch {
                what: format!("the stored blob {}", self.path(digest).display()),
                expected: digest.to_string(),
                actual: actual.to_string(),
            });
        }
        Ok(bytes)
    }

    /// Stores bytes.
    pub(crate) fn put(&self, bytes: &[u8], claim: Claim<'_>) -> Result<Digest> {
        let digest = Digest::of(bytes);
        claim(&digest)?;
        if self.size(&digest) != Some(bytes.len() as u64) {
            durable::write_atomic(&self.path(&digest), bytes)?;
        }
        Ok(digest)
    }

    /// Stores a stream; with `expected`, only if it has that digest.
    pub(crate) fn copy(
        &self,
        from: impl Read,
        limit: u64,
        expected: Option<&Digest>,
        what: &str,
        claim: Claim<'_>,
    ) -> Result<(Digest, u64)> {
        let mut temp = self.temp()?;
        let mut reader = HashingReader::new(BufReader::new(from), limit);
        io::copy(&mut reader, &mut temp).doing(|| format!("copying {what}"))?;
        let (digest, size) = reader.finish().doing(|| format!("copying {what}"))?;
        if let Some(expected) = expected
            && &digest != expected
        {
            return Err(Error::DigestMismatch {
                what: what.to_owned(),
                expected: expected.to_string(),
                actual: digest.to_string(),
            });
        }
        claim(&digest)?;
        durable::persist(temp, &self.path(&digest))?;
        Ok((digest, size))
    }

    /// Stores what `write` writes.
    pub(crate) fn write(
        &self,
        write: impl FnOnce(HashingWriter<File>) -> Result<HashingWriter<File>>,
        claim: Claim<'_>,
    ) -> Result<(Digest, u64)> {
        let temp = self.temp()?;
        let file = temp.as_file().try_clone().at("opening", temp.path())?;
        let (mut file, digest, size) = write(HashingWriter::new(file))?.finish();
        file.flush().at("writing", temp.path())?;
        claim(&digest)?;
        durable::persist(temp, &self.path(&digest))?;
        Ok((digest, size))
    }

    /// A temporary file on the same file system.
    pub(crate) fn temp(&self) -> Result<NamedTempFile> {
        NamedTempFile::with_prefix_in("blob-", &self.ingest).at("creating a file in", &self.ingest)
    }

    /// Makes a completely downloaded and verified file a blob.
    pub(crate) fn adopt(&self, partial: &Path, file: &File, digest: &Digest) -> Result<()> {
        file.sync_data().at("syncing", partial)?;
        let path = self.path(digest);
        fs::rename(partial, &path).at("renaming into", &path)?;
        durable::sync_parent(&path)
    }

    /// The digests of all blobs.
    pub(crate) fn all(&self) -> Result<Vec<Digest>> {
        let entries = fs::read_dir(&self.dir).at("reading", &self.dir)?;
        Ok(entries
            .filter_map(|e| Digest::parse(&format!("sha256:{}", e.ok()?.file_name().to_str()?)).ok())
            .collect())
    }

    /// The folder of downloads that are not finished.
    pub(crate) fn ingest(&self) -> &Path {
        &self.ingest
    }
}
