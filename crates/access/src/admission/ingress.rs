//! DefaultIngressClass: an Ingress that names no class gets the default one.

use apimachinery::ApiError;
use async_trait::async_trait;

use super::newest_default;
use crate::{Admission, AdmissionRequest, Reader};

/// See the module.
pub struct DefaultIngressClass;

#[async_trait]
impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
        let at = request.attributes;
        let ingress =
            at.group == "networking.k8s.io" && at.resource == "ingresses" && at.subresource.is_empty();
        let named = !request.object["spec"]["ingressClassName"].is_null()
            || !request.object["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
        if !ingress || request.operation != "CREATE" || named {
            return Ok(());
        }
        if let Some(class) = newest_default(reader, "networking.k8s.io", "ingressclasses", DEFAULT) {
            request.object["spec"]["ingressClassName"] = class["metadata"]["name"].clone();
        }
        Ok(())
    }
}
