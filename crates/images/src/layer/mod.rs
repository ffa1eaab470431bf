//! Layers: reading archives, unpacking them beneath a folder, and packing folders.

pub(crate) mod beneath;
pub(crate) mod compression;
pub(crate) mod pack;
pub(crate) mod tar_reader;
pub(crate) mod tar_writer;
pub(crate) mod unpack;

/// Prefix of a whiteout in a layer archive.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Marks a folder that hides everything of the same folder below it.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// How overlayfs marks such a folder.
pub(crate) const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
