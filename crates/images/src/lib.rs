//! OCI images: one content-addressed store, unpacked layers for overlayfs, pull, push, import and export.
//!
//! [`Images`] is the public face that the runtime and the builder use: a cheap handle on a folder. Everything in that
//! folder is complete or absent, whatever was interrupted; several processes may use it at once. This crate never runs
//! anything from an image, and takes nothing in an image as an instruction about the host.
//!
//! In reading order: [`reference`](Reference) and [`digest`](Digest) are names; `manifest` reads documents; `blobs`
//! keeps content by digest; `layer/` unpacks and packs archives; `index` says what there is; `lease` keeps what is in
//! use; `store` puts these together; `prune` collects garbage; `registry/` speaks the distribution protocol, `pull` and
//! `push` use it; `import` and `export` exchange files with other tools.

mod blobs;
mod digest;
mod durable;
mod error;
mod export;
mod import;
mod index;
mod layer;
mod layers;
mod lease;
mod manifest;
mod options;
mod progress;
mod prune;
mod pull;
mod push;
mod reference;
mod registry;
mod store;

use std::path::PathBuf;

pub use digest::Digest;
pub use error::{Error, Result};
pub use export::ExportFormat;
pub use import::{ImportOptions, unpack_archive};
pub use layer::compression::Compression;
pub use layers::{Cached, CommitOptions, Layer, NewImage, WorkDir};
pub use lease::Lease;
pub use manifest::Platform;
pub use options::{Limits, Options, Registries};
pub use progress::{Event, Progress};
pub use prune::Pruned;
pub use pull::PullPolicy;
pub use reference::Reference;
pub use registry::Credentials;
pub use store::{Images, Removed};

/// An image in the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the config, `sha256:…`: the image ID.
    pub id: String,
    /// Names with a tag: `docker.io/library/busybox:1.36`, normalised.
    pub tags: Vec<String>,
    /// Names with a digest: `docker.io/library/busybox@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes of all compressed blobs.
    pub size: u64,
    /// The OCI image configuration.
    pub config: oci_spec::image::ImageConfiguration,
    /// Unpacked layers, base first: directories that never change and can be overlayfs lower dirs.
    pub layers: Vec<PathBuf>,
    /// Digest of the manifest, `sha256:…`.
    pub manifest: String,
}
