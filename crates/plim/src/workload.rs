//! Which workload a pod belongs to: what a person would name, not the ReplicaSet in between.

use std::collections::HashMap;

use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        batch::v1::Job,
        core::v1::{Pod, ResourceRequirements},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, ResourceExt, api::ListParams};

/// `deployment/web`, in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Workload {
    /// Namespace.
    pub namespace: String,
    /// `deployment`, `statefulset`, …; `pod` for a pod of its own.
    pub kind: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// Owners of owners, by UID.
#[derive(Default)]
pub struct Owners {
    above: HashMap<String, (String, String)>,
}

fn controller(meta: &ObjectMeta) -> Option<(String, String, String)> {
    let owner = meta.owner_references.as_ref()?.iter().find(|o| o.controller == Some(true))?;
    Some((owner.kind.to_lowercase(), owner.name.clone(), owner.uid.clone()))
}

impl Owners {
    /// Reads ReplicaSets and Jobs: the two kinds that stand between a workload and its pods.
    pub async fn read(client: &Client) -> Result<Self, kube::Error> {
        let sets = Api::<ReplicaSet>::all(client.clone()).list(&ListParams::default()).await?;
        let jobs = Api::<Job>::all(client.clone()).list(&ListParams::default()).await?;
        let metas = sets.items.iter().map(|s| &s.metadata).chain(jobs.items.iter().map(|j| &j.metadata));
        let above = metas.filter_map(|m| {
            let (kind, name, _) = controller(m)?;
            Some((m.uid.clone()?, (kind, name)))
        });
        Ok(Self { above: above.collect() })
    }

    /// The workload of a pod.
    pub fn of(&self, pod: &Pod) -> Workload {
        let (kind, name) = match controller(&pod.metadata) {
            None => ("pod".to_owned(), pod.name_any()),
            Some((kind, name, uid)) => self.above.get(&uid).cloned().unwrap_or((kind, name)),
        };
        Workload { namespace: pod.namespace().unwrap_or_default(), kind, name }
    }
}

/// What containers ask for together: cores and bytes.
pub fn requests(pod: &Pod) -> (f64, f64) {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    containers
        .map(|c| asked(c.resources.as_ref()))
        .fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn asked(resources: Option<&ResourceRequirements>) -> (f64, f64) {
    let of = |name: &str| {
        let quantity = resources?.requests.as_ref()?.get(name)?;
        Some(amount(&quantity.0))
    };
    (of("cpu").unwrap_or(0.0), of("memory").unwrap_or(0.0))
}

/// A quantity as a number; 0 if it is none.
pub fn amount(text: &str) -> f64 {
    text.parse::<apimachinery::quantity::Quantity>().map_or(0.0, |q| q.to_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_numbers() {
        assert!((amount("250m") - 0.25).abs() < 1e-9);
        assert!((amount("64Mi") - 67_108_864.0).abs() < 1e-9);
        assert!((amount("bad") - 0.0).abs() < 1e-9);
    }

    #[test]
    fn a_pod_of_its_own_is_its_own_workload() {
        let mut pod = Pod::default();
        pod.metadata.name = Some("one".to_owned());
        pod.metadata.namespace = Some("default".to_owned());
        assert_eq!(Owners::default().of(&pod).to_string(), "pod/one");
    }
}
