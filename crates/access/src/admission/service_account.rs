//! ServiceAccount: every pod has one, and its token, root certificate and namespace as a volume.

use apimachinery::ApiError;
use async_trait::async_trait;
use rand::Rng;
use serde_json::{Value, json};

use super::mountable_secrets;
use crate::{Admission, AdmissionRequest, Reader};

/// Where containers find their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The lifetime by which the API server recognises this volume's token.
const TOKEN_SECONDS: u32 = 3607;

/// See the module.
pub struct ServiceAccount;

#[async_trait]
impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    async fn mutate(&self, request: &mut AdmissionRequest<'_>, reader: &dyn Reader) -> Result<(), ApiError> {
        let at = request.attributes;
        let is_pod_create = at.group.is_empty() && at.resource == "pods" && at.subresource.is_empty();
        if !is_pod_create || request.operation != "CREATE" {
            return Ok(());
        }
        let pod = &mut *request.object;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let forbidden = |why: &str| Err(ApiError::forbidden("", "pods", &name, why));
        if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
            if pod["spec"]["serviceAccountName"].as_str().is_some_and(|n| !n.is_empty()) {
                return forbidden("a mirror pod may not reference service accounts");
            }
            return Ok(());
        }
        if pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
            pod["spec"]["serviceAccountName"] = json!("default");
            pod["spec"]["serviceAccount"] = json!("default");
        }
        let account_name = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default().to_owned();
        let Some(account) = reader.get("", "serviceaccounts", &at.namespace, &account_name) else {
            return forbidden(&format!(
                "error looking up service account {}/{account_name}: serviceaccount {account_name:?} not found",
                at.namespace
            ));
        };
        if pod["spec"]["imagePullSecrets"].as_array().is_none_or(Vec::is_empty)
            && let Some(secrets) = account["imagePullSecrets"].as_array().filter(|s| !s.is_empty())
        {
            pod["spec"]["imagePullSecrets"] = json!(secrets);
        }
        let automount = pod["spec"]["automountServiceAccountToken"]
            .as_bool()
            .or_else(|| account["automountServiceAccountToken"].as_bool())
            .unwrap_or(true);
        if automount {
            mount_token(pod);
        }
        Ok(())
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        let names_secrets = matches!(
            (at.group.as_str(), at.resource.as_str(), request.operation, at.subresource.as_str()),
            ("", "pods", "CREATE", "") | ("", "pods", "UPDATE", "ephemeralcontainers")
        );
        if !names_secrets {
            return Ok(());
        }
        let name = request.object["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        // A mirror pod has none, and that there is one was seen before.
        let Some(account) = reader.get("", "serviceaccounts", &at.namespace, name) else { return Ok(()) };
        mountable_secrets::check(request.object, &account)
            .map_err(|why| ApiError::forbidden("", "pods", &at.name, &why))
    }
}

/// Adds the volume, and a mount in every container that has none at that place.
fn mount_token(pod: &mut Value) {
    let existing = pod["spec"]["volumes"].as_array().into_iter().flatten().find_map(|volume| {
        let sources = volume["projected"]["sources"].as_array()?;
        let name = volume["name"].as_str().filter(|n| n.starts_with("kube-api-access-"))?;
        sources.iter().any(|s| s["serviceAccountToken"].is_object()).then(|| name.to_owned())
    });
    let present = existing.is_some();
    let volume = existing.unwrap_or_else(|| format!("kube-api-access-{}", suffix()));
    let mut used = false;
    for field in ["initContainers", "containers"] {
        // Indexing would make a `null` of what is absent.
        let Some(list) = pod["spec"].get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in list {
            let mounts = &mut container["volumeMounts"];
            if mounts.as_array().into_iter().flatten().any(|m| m["mountPath"] == MOUNT_PATH) {
                continue;
            }
            if !mounts.is_array() {
                *mounts = json!([]);
            }
            if let Some(list) = mounts.as_array_mut() {
                list.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            }
            used = true;
        }
    }
    if present || !used {
        return;
    }
    let volumes = &mut pod["spec"]["volumes"];
    if !volumes.is_array() {
        *volumes = json!([]);
    }
    let field_ref = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    if let Some(list) = volumes.as_array_mut() {
        list.push(json!({"name": volume, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field_ref}]}},
        ]}}));
    }
}

/// Five characters of the alphabet that generated names use.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}
