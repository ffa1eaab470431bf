//! DefaultStorageClass, StorageObjectInUseProtection and PersistentVolumeClaimResize.

use apimachinery::{ApiError, quantity::Quantity};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::{forbidden, newest_default};
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
        let class = newest_default(reader, "storage.k8s.io", "storageclasses", DEFAULT_CLASS);
        if let Some(class) = class {
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

/// Claims grow only where their class says that its volumes can.
pub struct PersistentVolumeClaimResize;

/// The class of a claim, as the field or the older annotation names it.
fn class_of(claim: &Value) -> &str {
    let noted = &claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
    noted.as_str().or_else(|| claim["spec"]["storageClassName"].as_str()).unwrap_or_default()
}

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        let claim =
            at.group.is_empty() && at.resource == "persistentvolumeclaims" && at.subresource.is_empty();
        let Some(old) = request.old.filter(|_| claim && request.operation == "UPDATE") else { return Ok(()) };
        let size = |claim: &Value| {
            let text = claim["spec"]["resources"]["requests"]["storage"].as_str();
            text.and_then(|text| Quantity::parse(text).ok()).unwrap_or(Quantity::ZERO)
        };
        if size(request.object) <= size(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(forbidden(request, "Only bound persistent volume claims can be expanded"));
        }
        let class = class_of(request.object);
        let grows = !class.is_empty()
            && class == class_of(old)
            && reader
                .get("storage.k8s.io", "storageclasses", "", class)
                .is_some_and(|class| class["allowVolumeExpansion"] == true);
        if grows {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(forbidden(request, why))
    }
}
