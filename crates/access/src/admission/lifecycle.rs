//! NamespaceLifecycle: nothing is made in a namespace that is missing or going away, and three namespaces stay.

use apimachinery::ApiError;
use async_trait::async_trait;
use serde_json::json;

use crate::{Admission, AdmissionRequest, Reader};

/// Namespaces that may not be deleted.
const PERMANENT: [&str; 3] = ["default", "kube-system", "kube-public"];

/// See the module.
pub struct NamespaceLifecycle;

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        let at = request.attributes;
        if at.group.is_empty() && at.resource == "namespaces" {
            let removes = request.operation == "DELETE" && at.subresource.is_empty();
            if removes && PERMANENT.contains(&at.name.as_str()) {
                return Err(ApiError::forbidden(
                    "",
                    "namespaces",
                    &at.name,
                    "this namespace may not be deleted",
                ));
            }
            return Ok(());
        }
        if at.namespace.is_empty() || request.operation != "CREATE" {
            return Ok(());
        }
        // Reviews are answered, not stored; they work in a namespace that is going away too.
        if at.group == "authorization.k8s.io" {
            return Ok(());
        }
        let Some(namespace) = reader.get("", "namespaces", "", &at.namespace) else {
            return Err(ApiError::not_found("", "namespaces", &at.namespace));
        };
        if namespace["status"]["phase"] != "Terminating"
            && namespace["metadata"]["deletionTimestamp"].is_null()
        {
            return Ok(());
        }
        let name = request.object["metadata"]["name"].as_str().unwrap_or_default();
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            at.namespace
        );
        let mut error = ApiError::forbidden(&at.group, &at.resource, name, &why);
        if let Some(details) = error.details.as_mut() {
            details["causes"] = json!([{
                "reason": "NamespaceTerminating",
                "message": format!("namespace {} is being terminated", at.namespace),
                "field": "metadata.namespace",
            }]);
        }
        Err(error)
    }
}
