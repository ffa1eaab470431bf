//! PodTopologyLabels: a pod carries the zone and the region of its node.

use apimachinery::ApiError;
use async_trait::async_trait;
use serde_json::json;

use crate::{Admission, AdmissionRequest, Reader};

/// What is copied from the node.
const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

/// See the module.
pub struct PodTopologyLabels;

#[async_trait]
impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        let at = request.attributes;
        let writes = matches!(request.operation, "CREATE" | "UPDATE");
        if !writes || !at.group.is_empty() || at.resource != "pods" {
            return Ok(());
        }
        // A binding comes as the pod that has its node.
        if !matches!(at.subresource.as_str(), "" | "binding") {
            return Ok(());
        }
        let node = request.object["spec"]["nodeName"].as_str();
        let Some(node) = node.filter(|node| !node.is_empty()) else { return Ok(()) };
        let Some(node) = reader.get("", "nodes", "", node) else { return Ok(()) };
        for label in LABELS {
            let Some(value) = node["metadata"]["labels"].get(label).cloned() else { continue };
            if !request.object["metadata"].is_object() {
                request.object["metadata"] = json!({});
            }
            if !request.object["metadata"]["labels"].is_object() {
                request.object["metadata"]["labels"] = json!({});
            }
            request.object["metadata"]["labels"][label] = value;
        }
        Ok(())
    }
}
