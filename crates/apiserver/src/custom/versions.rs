//! The versions of one custom resource, and how it lies in the store.

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::{ApiError, Object};
use bytes::Bytes;
use kinds::Resource;
use store::Entry;

use super::Converter;
use crate::{encoding, shape};

/// The versions of a custom resource, and the ways between them.
#[derive(Debug)]
pub struct Versions {
    /// All of the definition, those that are not served too, by `group/version`.
    pub all: BTreeMap<String, Arc<Resource>>,
    /// The `group/version` that objects are stored in.
    pub storage: String,
    /// Who converts; without it the versions differ in their name and in what their schemas keep.
    pub converter: Option<Converter>,
}

impl Versions {
    /// The resource of a version.
    ///
    /// # Errors
    /// The definition does not have it.
    pub fn resource(&self, api_version: &str) -> Result<&Arc<Resource>, ApiError> {
        self.all.get(api_version).ok_or_else(|| {
            let why = format!("request to convert CR from an invalid group/version: {api_version}");
            ApiError::other(500, "", why)
        })
    }

    /// An entry as an object of the version it is stored in, in the shape that the version now has.
    pub fn read(&self, entry: &Entry, kind: &str) -> Result<Object, ApiError> {
        let mut object: Object = serde_json::from_slice(&entry.value).map_err(ApiError::internal)?;
        // Values were stored without a version when there was only one.
        let version = object["apiVersion"].as_str().unwrap_or(&self.storage).to_owned();
        let resource = self.resource(&version)?;
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        shape::stored_custom(resource, &mut object);
        Ok(object)
    }

    /// The bytes to store for an object that differs from the stored version in its name and shape only.
    pub fn write(&self, mut object: Object) -> Result<Bytes, ApiError> {
        let resource = self.resource(&self.storage)?;
        object["apiVersion"] = self.storage.as_str().into();
        shape::converted(resource, &mut object);
        encoding::encode(&object, &encoding::tail(&self.storage, &resource.kind))
    }
}
