//! OCI images: one content-addressed store, unpacked layers for overlayfs, pull, push, import and export.
//!
//! The public face that the runtime and the builder use is [`Images`].

use std::path::PathBuf;

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
}
