//! Who has which address and host ports, kept over restarts.
//!
//! Promise: after [`Leases::save`] a crash of the process loses nothing (the file is replaced by a rename). A
//! power cut may lose the last leases, but then the sandboxes that held them are gone as well, so there is no
//! fsync on the path of a pod's start.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PortMapping;
use crate::error::{Error, Result};

/// What one sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its host ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
}

/// The leases of a node, by sandbox id.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Leases {
    /// The address handed out last.
    pub cursor: Option<Ipv4Addr>,
    /// By sandbox id.
    pub sandboxes: BTreeMap<String, Lease>,
    #[serde(skip)]
    path: PathBuf,
}

impl Leases {
    /// Reads the leases in `dir`; none if there is no file yet.
    pub fn load(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let path = dir.join("leases.json");
        let mut leases: Self = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::State { path: path.display().to_string(), reason: e.to_string() })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(Error::io(format!("read {}", path.display()))(e)),
        };
        leases.path = path;
        Ok(leases)
    }

    /// Replaces the file.
    pub fn save(&self) -> Result<()> {
        let new = self.path.with_extension("new");
        let bytes = serde_json::to_vec(self)
            .map_err(|e| Error::State { path: self.path.display().to_string(), reason: e.to_string() })?;
        std::fs::write(&new, bytes).map_err(Error::io(format!("write {}", new.display())))?;
        std::fs::rename(&new, &self.path).map_err(Error::io(format!("replace {}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut leases = Leases::load(dir.path()).unwrap();
        leases.sandboxes.insert("a".into(), Lease { address: [10, 1, 0, 2].into(), ports: vec![] });
        leases.save().unwrap();
        assert_eq!(Leases::load(dir.path()).unwrap().sandboxes, leases.sandboxes);
    }

    #[test]
    fn a_damaged_file_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("leases.json"), "{\"sandboxes\":").unwrap();
        assert!(matches!(Leases::load(dir.path()), Err(Error::State { .. })));
        assert!(dir.path().join("leases.json").exists());
    }
}
