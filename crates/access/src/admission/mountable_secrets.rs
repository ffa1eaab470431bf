//! A service account that is annotated so lets its pods name only the secrets that it lists itself: in every sort of
//! container, by every field (CVE-2023-2728, CVE-2024-3177).

use std::collections::HashSet;

use apimachinery::Object;
use serde_json::Value;

const ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";

/// Sorts of containers, each with its name in messages.
const SORTS: [(&str, &str); 3] = [
    ("initContainers", "init container"),
    ("containers", "container"),
    ("ephemeralContainers", "ephemeral container"),
];

/// The first secret that the pod may not name, as upstream tells it.
pub(super) fn check(pod: &Object, account: &Object) -> Result<(), String> {
    let on = account["metadata"]["annotations"][ANNOTATION].as_str();
    if !matches!(on, Some("1" | "t" | "T" | "true" | "TRUE" | "True")) {
        return Ok(());
    }
    let owner = account["metadata"]["name"].as_str().unwrap_or_default();
    let allowed = names(&account["secrets"]);
    let refused = |what: String, secret: &str| {
        Err(format!(
            "{what} secret.secretName=\"{secret}\" is not allowed because service account {owner} does not reference that secret"
        ))
    };
    for volume in list(&pod["spec"]["volumes"]) {
        if let Some(secret) = volume["secret"]["secretName"].as_str().filter(|name| !allowed.contains(name)) {
            return refused("volume with".to_owned(), secret);
        }
    }
    for (field, sort) in SORTS {
        for container in list(&pod["spec"][field]) {
            let name = container["name"].as_str().unwrap_or_default();
            for variable in list(&container["env"]) {
                let reference = &variable["valueFrom"]["secretKeyRef"];
                let secret = reference["name"].as_str().unwrap_or_default();
                if reference.is_object() && !allowed.contains(secret) {
                    let variable = variable["name"].as_str().unwrap_or_default();
                    return refused(format!("{sort} {name} with envVar {variable} referencing"), secret);
                }
            }
            for source in list(&container["envFrom"]) {
                let secret = source["secretRef"]["name"].as_str().unwrap_or_default();
                if source["secretRef"].is_object() && !allowed.contains(secret) {
                    return refused(format!("{sort} {name} with envFrom referencing"), secret);
                }
            }
        }
    }
    let pulled = names(&account["imagePullSecrets"]);
    for (index, secret) in list(&pod["spec"]["imagePullSecrets"]).enumerate() {
        let secret = secret["name"].as_str().unwrap_or_default();
        if !pulled.contains(secret) {
            return Err(format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {owner} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn names(references: &Value) -> HashSet<&str> {
    list(references).filter_map(|reference| reference["name"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(enforced: &str) -> Object {
        json!({
            "metadata": {"name": "builder", "annotations": {ANNOTATION: enforced}},
            "secrets": [{"name": "mine"}], "imagePullSecrets": [{"name": "registry"}],
        })
    }

    #[test]
    fn every_way_to_name_a_secret_is_covered() {
        let container = |secret: &str| {
            [
                json!([{"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret}}}]}]),
                json!([{"name": "c", "envFrom": [{"secretRef": {"name": secret}}]}]),
            ]
        };
        for secret in ["mine", "other"] {
            let mut pods = vec![json!({"spec": {"volumes": [{"secret": {"secretName": secret}}]}})];
            for (field, _) in SORTS {
                pods.extend(container(secret).map(|containers| json!({"spec": {field: containers}})));
            }
            for pod in pods {
                let found = check(&pod, &account("true"));
                assert_eq!(found.is_ok(), secret == "mine", "{pod}: {found:?}");
                assert_eq!(check(&pod, &account("false")), Ok(()));
            }
        }
        let pull = |secret: &str| json!({"spec": {"imagePullSecrets": [{"name": secret}]}});
        assert!(check(&pull("registry"), &account("true")).is_ok());
        assert!(check(&pull("mine"), &account("true")).unwrap_err().starts_with("imagePullSecrets[0].name"));
    }
}
