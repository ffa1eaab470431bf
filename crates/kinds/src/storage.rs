//! `storage.k8s.io/v1`: StorageClass.

use apimachinery::Object;
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    cells::created,
    declare::Declarer,
    object::{at, flag, text},
    resource::Strategy,
};

pub fn declare(to: &mut Declarer<'_>) {
    to.resource("storage.k8s.io/v1", "storageclasses").returns_deleted().strategy(StorageClass);
}

struct StorageClass;

impl Strategy for StorageClass {
    fn row(&self, object: &Object, now: DateTime<Utc>) -> Option<Vec<Value>> {
        // Upstream marks only the youngest of several defaults, which takes the whole list to know.
        let is_default =
            at(object, "metadata.annotations")["storageclass.kubernetes.io/is-default-class"] == "true";
        let mark = if is_default { " (default)" } else { "" };
        let or = |path: &str, none: &str| -> Value { at(object, path).as_str().unwrap_or(none).into() };
        Some(vec![
            format!("{}{mark}", text(object, "metadata.name")).into(),
            text(object, "provisioner").into(),
            or("reclaimPolicy", "Delete"),
            or("volumeBindingMode", "Immediate"),
            flag(object, "allowVolumeExpansion").into(),
            created(object, now),
        ])
    }
}
