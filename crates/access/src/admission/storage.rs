//! DefaultStorageClass and StorageObjectInUseProtection.

use apimachinery::ApiError;
use async_trait::async_trait;
use serde_json::json;

use crate::{Admission, AdmissionRequest, Reader};

/// The annotation that makes a class the default one.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// A claim that names no class gets the default one.
pub struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        let at = request.attributes;
        let claim =
            at.group.is_empty() && at.resource == "persistentvolumeclaims" && at.subresource.is_empty();
        let named = !request.object["spec"]["storageClassName"].is_null()
            || request.object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
                .is_string();
        if !claim || request.operation != "CREATE" || named {
            return Ok(());
        }
        let mut defaults: Vec<_> = reader
            .list("storage.k8s.io", "storageclasses", "")
            .into_iter()
            .filter(|c| c["metadata"]["annotations"][DEFAULT_CLASS] == "true")
            .collect();
        // The newest wins, then the first by name.
        let created = |c: &serde_json::Value| {
            c["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned()
        };
        let name = |c: &serde_json::Value| c["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        defaults.sort_by_key(|c| (std::cmp::Reverse(created(c)), name(c)));
        if let Some(class) = defaults.first() {
            request.object["spec"]["storageClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}

/// Claims and volumes are not removed while something uses them.
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, _reader: &dyn Reader) -> Result<(), ApiError> {
        let at = request.attributes;
        if request.operation != "CREATE" || !at.group.is_empty() || !at.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match at.resource.as_str() {
            "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
            "persistentvolumes" => "kubernetes.io/pv-protection",
            _ => return Ok(()),
        };
        let finalizers = &mut request.object["metadata"]["finalizers"];
        if !finalizers.is_array() {
            *finalizers = json!([]);
        }
        if let Some(list) = finalizers.as_array_mut()
            && !list.iter().any(|f| f == finalizer)
        {
            list.push(json!(finalizer));
        }
        Ok(())
    }
}
