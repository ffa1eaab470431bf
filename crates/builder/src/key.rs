//! Keys of the layer cache: what a step does, upon what, with what.

use images::Layer;
use sha2::{Digest, Sha256};

/// Part of every key; another number when a step of the same key would make something else.
const FORMAT: &str = "1";

/// A key in the making.
#[derive(Clone)]
pub(crate) struct Key(Sha256);

impl Key {
    /// A step of this kind upon these layers.
    pub(crate) fn new(kind: &str, layers: &[Layer], epoch: Option<i64>) -> Key {
        let mut key = Key(Sha256::new());
        key.field(FORMAT).field(kind);
        // Layers made without clamped times are others.
        key.field(epoch.map(|e| e.to_string()).unwrap_or_default());
        key.layers(layers);
        key
    }

    pub(crate) fn field(&mut self, bytes: impl AsRef<[u8]>) -> &mut Key {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    pub(crate) fn fields<T: AsRef<[u8]>>(&mut self, list: impl IntoIterator<Item = T>) -> &mut Key {
        let list: Vec<T> = list.into_iter().collect();
        self.field(list.len().to_string());
        for item in list {
            self.field(item);
        }
        self
    }

    /// The content of layers, whatever way they came about.
    pub(crate) fn layers(&mut self, layers: &[Layer]) -> &mut Key {
        self.fields(layers.iter().map(|l| l.diff_id.as_str()))
    }

    /// The key as the image store takes it.
    pub(crate) fn text(&self) -> String {
        format!("build:{}", hex::encode(self.0.clone().finalize()))
    }
}
