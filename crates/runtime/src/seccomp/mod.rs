//! Seccomp profiles: from the JSON that Docker, OCI and Kubernetes share to the kernel's BPF.
//!
//! The default profile (`default.json`) takes the same way as a profile of the user's. Programs are compiled once for
//! each profile and set of capabilities.

mod compile;
mod profile;

use std::{collections::HashMap, path::Path, sync::Arc};

use base64::Engine as _;
use parking_lot::Mutex;

pub use profile::Profile;

/// Larger files are no profiles.
const MAX_FILE: u64 = 1 << 20;
/// Compiled programs that are kept.
const MAX_CACHED: usize = 256;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("seccomp profile {path}: {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The profile is not one.
    #[error("seccomp profile: {0}")]
    Invalid(String),
}

/// The text of a profile (`None`: the default one) and capabilities.
type Key = (Option<String>, u64);

/// Compiled profiles.
#[derive(Default)]
pub struct Filters {
    cache: Mutex<HashMap<Key, Arc<str>>>,
}

impl Filters {
    /// The default profile for a process with these capabilities, as a plan wants it.
    ///
    /// # Errors
    /// Never, unless this program is broken.
    pub fn default_for(&self, capabilities: u64) -> Result<Arc<str>, Error> {
        self.cached(None, capabilities)
    }

    /// A profile in a file, for a process with these capabilities. The file is read each time: it may have changed.
    ///
    /// # Errors
    /// When it cannot be read or is no profile. An empty one is none.
    pub fn of_file(&self, path: &Path, capabilities: u64) -> Result<Arc<str>, Error> {
        use std::io::Read;
        let fail = |source| Error::Unreadable { path: path.display().to_string(), source };
        let file = std::fs::File::open(path).map_err(fail)?;
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(fail)?;
        if text.len() as u64 > MAX_FILE {
            return Err(Error::Invalid(format!("{} is larger than {MAX_FILE} bytes", path.display())));
        }
        self.cached(Some(text), capabilities)
    }

    fn cached(&self, text: Option<String>, capabilities: u64) -> Result<Arc<str>, Error> {
        let key = (text, capabilities);
        if let Some(found) = self.cache.lock().get(&key) {
            return Ok(found.clone());
        }
        let profile = Profile::parse(key.0.as_deref().unwrap_or(include_str!("default.json")))?;
        let program = compile::compile(&profile, capabilities)?;
        let bytes: Vec<u8> = program.iter().flat_map(compile::Instruction::bytes).collect();
        let text: Arc<str> = base64::engine::general_purpose::STANDARD.encode(bytes).into();
        let mut cache = self.cache.lock();
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(key, text.clone());
        Ok(text)
    }
}
