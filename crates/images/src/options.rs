//! What an owner of a store may set.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::Platform;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Limits against hostile archives.
    pub limits: Limits,
    /// Mirrors and plain-HTTP registries.
    pub registries: Registries,
    /// Which image of an index is taken.
    pub platform: Platform,
    /// Layers fetched and unpacked at once.
    pub parallel: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            limits: Limits::default(),
            registries: Registries::default(),
            platform: Platform::host(),
            parallel: 4,
        }
    }
}

/// How far one layer may unpack.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Uncompressed bytes of the archive.
    pub bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Uncompressed bytes for each compressed one …
    pub ratio: u64,
    /// … once the archive is larger than this many bytes.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes: 64 << 30, entries: 2_000_000, ratio: 200, ratio_from: 1 << 30 }
    }
}

/// How registries are reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    /// Registry (`docker.io`) → base addresses (`https://mirror.example`) that are asked first, in this order.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Registries spoken to by plain HTTP. `localhost` and loopback addresses always are.
    pub insecure: BTreeSet<String>,
}
