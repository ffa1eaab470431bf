//! What NodeRestriction lets a node do to pods and volume claims: make and delete mirror pods of its own, evict its own,
//! and tell how they are.
//!
//! Lesson of CVE-2025-4563: a mirror pod names no object of the API. Whatever a pod names, its node may read.

use apimachinery::Object;
use serde_json::{Value, json};

use crate::{AdmissionRequest, Reader};

/// Sources of volumes that need no object of the API; their secrets are looked for all the same.
const PLAIN_VOLUMES: [&str; 23] = [
    "awsElasticBlockStore",
    "azureDisk",
    "cephfs",
    "cinder",
    "downwardAPI",
    "emptyDir",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "hostPath",
    "image",
    "iscsi",
    "name",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What upstream calls the first object of the API that the pod names.
fn reference(pod: &Object) -> Option<&'static str> {
    let spec = &pod["spec"];
    let named = |value: &Value| !value.is_null();
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if list(&spec["imagePullSecrets"]).next().is_some() {
        return Some("secrets");
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    for container in containers.iter().flat_map(|field| list(&spec[*field])) {
        let sources = list(&container["envFrom"]);
        let variables = list(&container["env"]).map(|variable| &variable["valueFrom"]);
        for source in sources.chain(variables) {
            if named(&source["secretRef"]) || named(&source["secretKeyRef"]) {
                return Some("secrets");
            }
            if named(&source["configMapRef"]) || named(&source["configMapKeyRef"]) {
                return Some("configmaps");
            }
        }
    }
    if list(&spec["resourceClaims"]).next().is_some() {
        return Some("resourceclaims");
    }
    list(&spec["volumes"]).find_map(in_volume)
}

fn in_volume(volume: &Value) -> Option<&'static str> {
    let sources = volume.as_object().into_iter().flatten();
    for (name, source) in sources.filter(|(_, source)| !source.is_null()) {
        match name.as_str() {
            plain if PLAIN_VOLUMES.contains(&plain) => {
                if !source["secretRef"].is_null() {
                    return Some("secrets");
                }
            }
            "configMap" => return Some("configmaps (via configmap volumes)"),
            "secret" => return Some("secrets (via secret volumes)"),
            "csi" => return Some("csidrivers (via CSI volumes)"),
            "glusterfs" => return Some("endpoints (via glusterFS volumes)"),
            "persistentVolumeClaim" => return Some("persistentvolumeclaims"),
            "ephemeral" => return Some("persistentvolumeclaims (via ephemeral volumes)"),
            "azureFile" => return Some("secrets (via azureFile volumes)"),
            "projected" => {
                let parts = list(&source["sources"]).flat_map(|part| part.as_object().into_iter().flatten());
                let mut parts = parts.filter(|(_, part)| !part.is_null()).map(|(name, _)| name.as_str());
                if let Some(found) = parts.find(|part| *part != "downwardAPI") {
                    return Some(match found {
                        "configMap" => "configmaps (via projected volumes)",
                        "secret" => "secrets (via projected volumes)",
                        "serviceAccountToken" => "serviceaccounts (via projected volumes)",
                        "clusterTrustBundle" => "clustertrustbundles",
                        "podCertificate" => "podcertificates",
                        _ => "unknown sources (via projected volumes)",
                    });
                }
            }
            _ => return Some("unknown volumes"),
        }
    }
    None
}

/// Whether the node may do this to a pod; why not.
pub(super) fn pod(request: &AdmissionRequest<'_>, node: &str, reader: &dyn Reader) -> Result<(), String> {
    let at = request.attributes;
    let bound = |pod: &Object| pod["spec"]["nodeName"].as_str() == Some(node);
    match (request.operation, at.subresource.as_str()) {
        ("CREATE", "") => mirror_pod(request.object, node, reader),
        ("DELETE", "") => match request.old {
            Some(old) if !bound(old) => {
                Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            _ => Ok(()),
        },
        ("UPDATE", "status") => {
            let old = request.old.unwrap_or(&Value::Null);
            if !bound(old) {
                return Err(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            status(request.object, old, node)
        }
        ("CREATE", "eviction") => match reader.get("", "pods", &at.namespace, &at.name) {
            Some(pod) if bound(&pod) => Ok(()),
            Some(_) => Err(format!("node {node} can only evict pods with spec.nodeName set to itself")),
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

fn mirror_pod(pod: &Object, node: &str, reader: &dyn Reader) -> Result<(), String> {
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Err(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod["spec"]["nodeName"].as_str() != Some(node) {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let own = |why: &str| Err(format!("node {node:?} can only create pods with {why}"));
    let owners: Vec<&Value> = list(&pod["metadata"]["ownerReferences"]).collect();
    let owner = match owners.as_slice() {
        [] => return own("an owner reference set to itself"),
        [owner] => *owner,
        _ => return own("a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return own("an owner reference set to itself");
    }
    if owner["controller"] != true {
        return own("a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let Some(known) = reader.get("", "nodes", "", node) else {
        return Err(format!("nodes {node:?} not found"));
    };
    if owner["uid"] != known["metadata"]["uid"] {
        let uid = |object: &Value| object["uid"].as_str().unwrap_or_default().to_owned();
        return Err(format!(
            "node {node} UID mismatch: expected {} got {}",
            uid(owner),
            uid(&known["metadata"])
        ));
    }
    match reference(pod) {
        Some(found) => Err(format!("node {node:?} can not create pods that reference {found}")),
        None => Ok(()),
    }
}

/// A status tells how a pod is, not whose it is and which claims it has.
fn status(new: &Object, old: &Object, node: &str) -> Result<(), String> {
    let same = |path: &str| {
        let at = |object: &Object| object.pointer(path).cloned().unwrap_or_default();
        let empty =
            |value: &Value| matches!(value, Value::Null) || *value == json!([]) || *value == json!({});
        let (new, old) = (at(new), at(old));
        new == old || empty(&new) && empty(&old)
    };
    for (path, what) in [
        ("/metadata/labels", "labels through pod status"),
        ("/status/resourceClaimStatuses", "resource claim statues"),
        ("/status/extendedResourceClaimStatus", "extended resource claim status"),
        ("/status/nodeAllocatableResourceClaimStatuses", "node allocatable resource claim statuses"),
    ] {
        if !same(path) {
            return Err(format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

/// Whether the node may do this to a volume claim: tell how large it has become.
pub(super) fn claim(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    if request.attributes.subresource != "status" {
        return Err("may only update PVC status".to_owned());
    }
    let rest = |claim: &Object| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        }
        if let Some(status) = claim["status"].as_object_mut() {
            for own in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
                status.remove(own);
            }
        }
        claim
    };
    match request.old {
        Some(old) if request.operation == "UPDATE" && rest(old) == rest(request.object) => Ok(()),
        _ => Err(format!(
            "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn mirror() -> Object {
        json!({
            "metadata": {
                "name": "static", "namespace": "shop", "annotations": {"kubernetes.io/config.mirror": "hash"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "u1", "controller": true}],
            },
            "spec": {"nodeName": "one", "containers": [{"name": "c", "env": [{"name": "A", "value": "b"}]}],
                "volumes": [{"name": "v", "hostPath": {"path": "/etc"}}]},
        })
    }

    fn refusal(change: impl FnOnce(&mut Object)) -> String {
        let memory = Memory::default();
        memory.put("", "nodes", json!({"metadata": {"name": "one", "uid": "u1"}}));
        let mut pod = mirror();
        change(&mut pod);
        mirror_pod(&pod, "one", &memory).err().unwrap_or_default()
    }

    #[test]
    fn a_mirror_pod_is_its_nodes_own() {
        assert_eq!(refusal(|_| {}), "");
        let cases: [(&str, Value, &str); 7] = [
            ("/metadata/annotations", json!({}), "can only create mirror pods"),
            ("/spec/nodeName", json!("two"), "spec.nodeName set to itself"),
            ("/metadata/ownerReferences", json!([]), "an owner reference set to itself"),
            ("/metadata/ownerReferences/0/name", json!("two"), "an owner reference set to itself"),
            ("/metadata/ownerReferences/0/controller", json!(false), "a controller owner reference"),
            ("/metadata/ownerReferences/0/uid", json!("u2"), "UID mismatch: expected u2 got u1"),
            (
                "/metadata/ownerReferences/0",
                json!({"apiVersion": "v1", "kind": "Node", "name": "one", "uid": "u1",
                "controller": true, "blockOwnerDeletion": true}),
                "must not set blockOwnerDeletion",
            ),
        ];
        for (path, value, why) in cases {
            let said = refusal(|pod| *pod.pointer_mut(path).unwrap() = value);
            assert!(said.contains(why), "{path}: {said}");
        }
    }

    #[test]
    fn a_mirror_pod_names_no_object_of_the_api() {
        let container = |more: Value| json!([{"name": "c", "envFrom": [more]}]);
        for (field, value, what) in [
            ("serviceAccountName", json!("default"), "serviceaccounts"),
            ("imagePullSecrets", json!([{"name": "s"}]), "secrets"),
            ("resourceClaims", json!([{"name": "c"}]), "resourceclaims"),
            ("containers", container(json!({"secretRef": {"name": "s"}})), "secrets"),
            ("initContainers", container(json!({"configMapRef": {"name": "s"}})), "configmaps"),
            (
                "ephemeralContainers",
                json!([{"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}]),
                "secrets",
            ),
            ("volumes", json!([{"secret": {"secretName": "s"}}]), "secrets (via secret volumes)"),
            ("volumes", json!([{"rbd": {"secretRef": {"name": "s"}}}]), "secrets"),
            ("volumes", json!([{"persistentVolumeClaim": {"claimName": "c"}}]), "persistentvolumeclaims"),
            (
                "volumes",
                json!([{"projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {}}]}}]),
                "serviceaccounts (via projected volumes)",
            ),
            ("volumes", json!([{"name": "v", "somethingNew": {}}]), "unknown volumes"),
        ] {
            let said = refusal(|pod| pod["spec"][field] = value.clone());
            assert_eq!(
                said,
                format!("node \"one\" can not create pods that reference {what}"),
                "{field} {value}"
            );
        }
    }

    #[test]
    fn a_status_changes_no_labels_and_no_claims() {
        let old = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Pending"}});
        let with = |path: [&str; 2], value: Value| {
            let mut new = old.clone();
            new[path[0]][path[1]] = value;
            status(&new, &old, "one")
        };
        assert_eq!(with(["status", "phase"], json!("Running")), Ok(()));
        assert_eq!(with(["status", "resourceClaimStatuses"], json!([])), Ok(()));
        assert!(with(["metadata", "labels"], json!({"a": "c"})).is_err());
        assert!(with(["status", "resourceClaimStatuses"], json!([{"name": "c"}])).is_err());
        assert!(with(["status", "extendedResourceClaimStatus"], json!({"resourceClaimName": "c"})).is_err());
    }
}
