//! NodeRestriction: a node changes only itself and its own pods, and cannot give itself labels that mean trust.
//!
//! Lessons of CVE-2025-5187 and CVE-2025-4563: the check covers create and update, owner references included.

use std::sync::Arc;

use apimachinery::{ApiError, Object};
use async_trait::async_trait;
use serde_json::Value;

use super::node_certificates;
use crate::{Admission, AdmissionRequest, Authorizer, Reader, node::node_name};

/// Labels of the `kubernetes.io` and `k8s.io` name spaces that a node may set on itself.
const ALLOWED_LABELS: [&str; 14] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
];

/// See the module.
pub struct NodeRestriction {
    /// Everybody who is asked whether a request may be made.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        let Some(node) = node_name(&at.user) else { return Ok(()) };
        let result = match (at.group.as_str(), at.resource.as_str()) {
            ("", "pods") => pod(request, node, reader),
            ("", "nodes") => own_node(request, node),
            ("", "serviceaccounts") if at.subresource == "token" => token(request, node, reader),
            ("coordination.k8s.io", "leases") => lease(request, node),
            ("storage.k8s.io", "csinodes") => csi_node(request, node),
            ("certificates.k8s.io", "certificatesigningrequests") if at.subresource.is_empty() => {
                node_certificates::signing_request(request, node)
            }
            ("certificates.k8s.io", "podcertificaterequests") => {
                return node_certificates::pod_request(request, node, reader, &*self.authorizer);
            }
            _ => Ok(()),
        };
        result.map_err(|why| ApiError::forbidden(&at.group, &at.resource, &at.name, &why))
    }
}

fn pod(request: &AdmissionRequest<'_>, node: &str, reader: &dyn Reader) -> Result<(), String> {
    let at = request.attributes;
    let bound = |pod: &Object| pod["spec"]["nodeName"].as_str() == Some(node);
    match (request.operation, at.subresource.as_str()) {
        ("CREATE", "") => {
            if !request.object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
                return Err(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !bound(request.object) {
                return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            let owners = request.object["metadata"]["ownerReferences"].as_array();
            let own = owners.is_some_and(|list| {
                list.len() == 1
                    && list[0]["kind"] == "Node"
                    && list[0]["name"] == node
                    && list[0]["apiVersion"] == "v1"
            });
            own.then_some(()).ok_or_else(|| {
                format!("node {node:?} can only create pods with an owner reference set to itself")
            })
        }
        ("DELETE", "") | ("UPDATE", "status") => match request.old {
            Some(old) if !bound(old) => {
                let act = if request.operation == "DELETE" { "delete" } else { "update pod status for" };
                Err(format!("node {node:?} can only {act} pods with spec.nodeName set to itself"))
            }
            Some(old)
                if request.operation == "UPDATE"
                    && old["metadata"]["labels"] != request.object["metadata"]["labels"] =>
            {
                Err(format!("node {node:?} cannot update labels through pod status"))
            }
            _ => Ok(()),
        },
        ("CREATE", "eviction") => match reader.get("", "pods", &at.namespace, &at.name) {
            Some(pod) if bound(&pod) => Ok(()),
            Some(_) => Err(format!("node {node:?} can only evict pods with spec.nodeName set to itself")),
            None => Ok(()),
        },
        (operation, "") => Err(format!(
            "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
        )),
        (_, sub) => {
            Err(format!("unexpected pod subresource {sub:?}, only 'status' and 'eviction' are allowed"))
        }
    }
}

fn own_node(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    let at = request.attributes;
    let name = if at.name.is_empty() {
        request.object["metadata"]["name"].as_str().unwrap_or_default()
    } else {
        &at.name
    };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    if request.operation == "DELETE" {
        return Err(format!("node {node:?} is not allowed to delete itself"));
    }
    let new = &*request.object;
    let empty = Value::Null;
    let old = request.old.unwrap_or(&empty);
    if !new["spec"]["configSource"].is_null() && new["spec"]["configSource"] != old["spec"]["configSource"] {
        return Err(format!(
            "node {node:?} is not allowed to update configSource to a new non-nil configSource"
        ));
    }
    if request.operation == "UPDATE"
        && new["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"]
    {
        return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    if request.operation == "CREATE"
        && new["metadata"]["ownerReferences"].as_array().is_some_and(|l| !l.is_empty())
    {
        return Err(format!("node {node:?} is not allowed to set ownerReferences"));
    }
    // The bootstrap taint is put on by the server itself before this check.
    if request.operation == "UPDATE" && new["spec"]["taints"] != old["spec"]["taints"] {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let forbidden = changed_labels(&new["metadata"]["labels"], &old["metadata"]["labels"])
        .into_iter()
        .filter(|l| is_restricted(l))
        .collect::<Vec<_>>();
    if forbidden.is_empty() {
        Ok(())
    } else {
        Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
    }
}

fn changed_labels(new: &Value, old: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (new, old) = (new.as_object().unwrap_or(&empty), old.as_object().unwrap_or(&empty));
    let mut keys: Vec<String> =
        new.keys().chain(old.keys()).filter(|k| new.get(*k) != old.get(*k)).cloned().collect();
    keys.sort();
    keys.dedup();
    keys
}

fn is_restricted(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(n, _)| n);
    let is = |domain: &str| namespace == domain || namespace.ends_with(&format!(".{domain}"));
    if is("node-restriction.kubernetes.io") {
        return true;
    }
    if !(is("kubernetes.io") || is("k8s.io")) || ALLOWED_LABELS.contains(&label) {
        return false;
    }
    !(is("kubelet.kubernetes.io") || is("node.kubernetes.io"))
}

fn token(request: &AdmissionRequest<'_>, node: &str, reader: &dyn Reader) -> Result<(), String> {
    let at = request.attributes;
    let bound = &request.object["spec"]["boundObjectRef"];
    if bound["kind"] != "Pod" {
        return Err("node requested token not bound to a pod".to_owned());
    }
    let name = bound["name"].as_str().unwrap_or_default();
    let Some(pod) = reader.get("", "pods", &at.namespace, name) else {
        return Err(format!("node requested token bound to a pod {name:?} that does not exist"));
    };
    if pod["metadata"]["uid"] != bound["uid"] {
        return Err(format!(
            "the UID in the bound object reference ({}) does not match the UID in record",
            bound["uid"]
        ));
    }
    if pod["spec"]["nodeName"].as_str() != Some(node) {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    if pod["spec"]["serviceAccountName"].as_str() != Some(&at.name) {
        return Err("node requested token for a service account that its pod does not use".to_owned());
    }
    Ok(())
}

fn csi_node(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    let name = match request.operation {
        "CREATE" => request.object["metadata"]["name"].as_str().unwrap_or_default(),
        _ => request.attributes.name.as_str(),
    };
    (name == node)
        .then_some(())
        .ok_or_else(|| "can only access CSINode with the same name as the requesting node".to_owned())
}

fn lease(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    let at = request.attributes;
    let name = if at.name.is_empty() {
        request.object["metadata"]["name"].as_str().unwrap_or_default()
    } else {
        &at.name
    };
    if at.namespace == "kube-node-lease" && name == node {
        Ok(())
    } else {
        Err(format!(
            "can only access leases in the \"kube-node-lease\" system namespace with the name of the node, not {name:?}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_mean_trust_are_restricted() {
        assert!(is_restricted("node-restriction.kubernetes.io/pci"));
        assert!(is_restricted("node-role.kubernetes.io/control-plane"));
        assert!(is_restricted("x.k8s.io/y"));
        assert!(!is_restricted("kubernetes.io/hostname"));
        assert!(!is_restricted("kubelet.kubernetes.io/x"));
        assert!(!is_restricted("team"));
    }
}
