//! The state folder: everything of one cluster on one machine lies under it.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Where state lies unless `--data` says otherwise.
pub const DEFAULT: &str = "/var/lib/plimsoll";

/// A state folder.
#[derive(Clone, Debug)]
pub struct Data {
    root: PathBuf,
}

impl Data {
    /// The folder at `root`; it is made when something is written.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path inside, `pki/ca.crt`.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Makes a folder inside, readable by its owner only.
    pub fn folder(&self, relative: &str) -> Result<PathBuf> {
        let path = self.path(relative);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}: choose another folder with --data", path.display()))?;
        Ok(path)
    }

    /// Reads a text file inside; `None` if there is none.
    pub fn read(&self, relative: &str) -> Result<Option<String>> {
        let path = self.path(relative);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Writes a text file inside, readable by its owner only, whole or not at all.
    pub fn write(&self, relative: &str, text: &str) -> Result<()> {
        use std::io::Write;
        let path = self.path(relative);
        if let Some(parent) = Path::new(relative).parent() {
            self.folder(parent.to_str().unwrap_or_default())?;
        }
        let partial = path.with_extension("partial");
        let write = || -> std::io::Result<()> {
            let mut file =
                fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&partial, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}
