//! Administrators' access to devices: only in namespaces that are marked for it.
//!
//! Upstream judges this in the strategies of ResourceClaim and ResourceClaimTemplate, which may look at namespaces; here
//! it is a plugin with the same answers.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/resource/utils.go`.

use apimachinery::{ApiError, FieldError, FieldPath};
use async_trait::async_trait;
use serde_json::Value;

use crate::{Admission, AdmissionRequest, Reader};

/// The mark.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// See the module.
pub struct DeviceAdminAccess;

/// The first item at `list` that has `field` set, as a path.
fn first(object: &Value, list: &str, field: &str, path: &str) -> Option<FieldPath> {
    let items = object.pointer(list)?.as_array()?;
    let index = items.iter().position(|item| item.pointer(field) == Some(&Value::Bool(true)))?;
    Some(FieldPath::from(path).index(index).child("adminAccess"))
}

#[async_trait]
impl Admission for DeviceAdminAccess {
    fn name(&self) -> &'static str {
        "DeviceAdminAccess"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        const REQUESTS: &str = "spec.devices.requests";
        const RESULTS: &str = "/status/allocation/devices/results";
        let at = request.attributes;
        if at.group != "resource.k8s.io" {
            return Ok(());
        }
        let object = &*request.object;
        let wanted = match (at.resource.as_str(), request.operation, at.subresource.as_str()) {
            ("resourceclaims", "CREATE", "") => {
                first(object, "/spec/devices/requests", "/exactly/adminAccess", REQUESTS)
            }
            ("resourceclaimtemplates", "CREATE", "") => {
                first(object, "/spec/spec/devices/requests", "/exactly/adminAccess", REQUESTS)
            }
            ("resourceclaims", "UPDATE", "status") => {
                let path = "status.allocation.devices.results";
                // What was granted stays granted.
                let had = request.old.is_some_and(|old| first(old, RESULTS, "/adminAccess", path).is_some());
                first(object, RESULTS, "/adminAccess", path).filter(|_| !had)
            }
            _ => None,
        };
        let Some(path) = wanted else { return Ok(()) };
        let namespace = reader.get("", "namespaces", "", &at.namespace);
        if namespace.is_some_and(|namespace| namespace["metadata"]["labels"][LABEL] == "true") {
            return Ok(());
        }
        let detail =
            format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let errors = [FieldError::forbidden(&path, detail)];
        Err(ApiError::invalid(&at.group, &request.resource.kind, name, &errors))
    }
}
