//! Files that survive a power cut: written beside their place, synced, then renamed into it.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use tempfile::NamedTempFile;

use crate::{Result, error::IoContext};

/// Replaces `path` by a file with these bytes. After this returns, a power cut leaves the new content; before, the old.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut temp = NamedTempFile::new_in(parent).at("creating a file in", parent)?;
    temp.write_all(bytes).at("writing", path)?;
    persist(temp, path)
}

/// Syncs a finished temporary file and gives it its name.
pub(crate) fn persist(temp: NamedTempFile, path: &Path) -> Result<()> {
    temp.as_file().sync_data().at("syncing", path)?;
    temp.persist(path).map_err(|e| e.error).at("renaming into", path)?;
    sync_parent(path)
}

/// Makes a rename in the folder of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).at("syncing", parent)
}

/// Creates a folder and its parents; only root reads it, as it holds other users' files.
pub(crate) fn create_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).at("creating", path)
}
