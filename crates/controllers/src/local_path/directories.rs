//! The effects: directories on a node's disk.

use std::path::{Path, PathBuf};

use crate::{Failure, Write};

/// Something that makes and removes the directories of nodes, for the driver.
pub trait Directories: Send + Sync {
    /// Makes a directory, and those above it, or finds it there.
    ///
    /// # Errors
    /// When the node is not reached or its system refuses.
    fn make(&self, node: &str, path: &Path) -> std::io::Result<()>;

    /// Removes a directory with all that is in it, never following a symbolic link; gone already is success.
    ///
    /// # Errors
    /// When the node is not reached or its system refuses.
    fn remove(&self, node: &str, path: &Path) -> std::io::Result<()>;
}

/// The directories of nodes that share this machine's file system. Nothing outside of `root` is touched, and nothing
/// deeper than its direct children.
pub struct OnThisMachine {
    /// [`LocalPath::root`].
    pub root: PathBuf,
}

impl OnThisMachine {
    fn check(&self, path: &Path) -> std::io::Result<()> {
        let plain = matches!(path.components().next_back(), Some(std::path::Component::Normal(_)));
        if path.parent() == Some(&self.root) && plain {
            return Ok(());
        }
        let why = format!("{} is no volume under {}", path.display(), self.root.display());
        Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why))
    }
}

impl Directories for OnThisMachine {
    fn make(&self, _node: &str, path: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
        self.check(path)?;
        std::fs::DirBuilder::new().recursive(true).mode(0o711).create(&self.root)?;
        match std::fs::create_dir(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let found = std::fs::symlink_metadata(path)?;
                return if found.is_dir() { Ok(()) } else { Err(error) };
            }
            made => made?,
        }
        // any user that a pod runs as may write; who may reach it is decided by who may mount it
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
    }

    fn remove(&self, _node: &str, path: &Path) -> std::io::Result<()> {
        self.check(path)?;
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

/// What a failed effect says to the loop that asked for it.
fn failure(write: &Write, error: &std::io::Error) -> Failure {
    Failure {
        write: write.clone(),
        code: 0,
        reason: "Directory".to_owned(),
        message: error.to_string(),
        causes: Vec::new(),
    }
}

/// Carries out the two writes that are about directories.
///
/// # Errors
/// As [`Directories`].
pub fn perform(write: &Write, directories: &dyn Directories) -> Result<(), Box<Failure>> {
    let done = match write {
        Write::MakeDirectory { node, path } => directories.make(node, path),
        Write::RemoveDirectory { node, path } => directories.remove(node, path),
        _ => Ok(()),
    };
    done.map_err(|error| Box::new(failure(write, &error)))
}
