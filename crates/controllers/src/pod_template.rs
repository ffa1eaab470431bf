//! From a template to a pod, and the hash that names a template.

use apimachinery::names;
use k8s_openapi::{
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// The label by which the ReplicaSets of a Deployment and their pods differ.
pub const TEMPLATE_HASH: &str = "pod-template-hash";
/// Letters and digits of hashes and generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A pod of a template, with a name to be generated from its owner's.
#[must_use]
pub fn pod(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let from = template.metadata.as_ref();
    let prefix = format!("{}-", owner.name);
    let prefix = if names::subdomain_name(&prefix, true).is_empty() { prefix } else { owner.name.clone() };
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace.to_owned()),
            generate_name: Some(prefix),
            labels: from.and_then(|m| m.labels.clone()),
            annotations: from.and_then(|m| m.annotations.clone()),
            finalizers: from.and_then(|m| m.finalizers.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// A short name for a template, stable over time and releases as long as the template's JSON is: FNV-1a over that JSON
/// (keys in order) and, when a name is taken by another template, over how often that has happened.
#[must_use]
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let mut hash = json.iter().fold(0x811c_9dc5, fnv_1a);
    if let Some(collisions) = collisions {
        hash = u64::from(collisions.unsigned_abs()).to_le_bytes().iter().fold(hash, fnv_1a);
    }
    safe(&hash.to_string())
}

fn fnv_1a(hash: u32, byte: &u8) -> u32 {
    (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
}

/// A text in letters that make no words, `rand.SafeEncodeString` of `k8s.io/apimachinery/pkg/util/rand`.
#[must_use]
pub fn safe(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::object;

    #[test]
    fn a_pod_has_the_templates_labels_and_its_owners_name_and_a_dash() {
        let template: PodTemplateSpec =
            object(json!({"metadata": {"labels": {"a": "b"}, "finalizers": ["x/y"]},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}));
        let owner = OwnerReference { name: "web".to_owned(), ..OwnerReference::default() };
        let pod = pod(&template, "n", owner.clone());
        assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
        assert_eq!(pod.metadata.finalizers, Some(vec!["x/y".to_owned()]));
        assert_eq!(pod.metadata.owner_references, Some(vec![owner]));
        assert_eq!(pod.spec, template.spec);
    }

    #[test]
    fn a_hash_changes_with_the_template_and_with_collisions() {
        let template = |image: &str| -> PodTemplateSpec {
            object(json!({"spec": {"containers": [{"name": "c", "image": image}]}}))
        };
        assert_eq!(hash(&template("a"), None), hash(&template("a"), None));
        assert_ne!(hash(&template("a"), None), hash(&template("b"), None));
        assert_ne!(hash(&template("a"), None), hash(&template("a"), Some(1)));
        assert_eq!(safe("1234567890"), "56789bcdf4");
    }
}
