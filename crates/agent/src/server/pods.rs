//! `/pods` and `/runningpods`.

use std::collections::BTreeMap;

use k8s_cri::v1 as cri;
use serde_json::{Value, json};
use tonic::Request;

use super::{
    Kubelet,
    reply::{Refused, Reply, json},
};

fn list(items: Vec<Value>) -> Result<Reply, Refused> {
    let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    serde_json::to_vec(&list).map(json).map_err(Refused::internal)
}

/// The pods that are meant to be here, each with its status.
pub(super) fn all(kubelet: &Kubelet) -> Result<Reply, Refused> {
    let pods = kubelet.pods.list();
    let items = pods.iter().map(|pod| {
        let mut pod = serde_json::to_value(&**pod).map_err(Refused::internal)?;
        if let Some(object) = pod.as_object_mut() {
            // items of a list do not repeat its kind
            object.retain(|field, _| field != "kind" && field != "apiVersion");
        }
        Ok(pod)
    });
    list(items.collect::<Result<_, _>>()?)
}

/// What the runtime runs, as pods.
pub(super) async fn running(kubelet: &Kubelet) -> Result<Reply, Refused> {
    let runtime = &kubelet.config.runtime;
    let failed = |status: tonic::Status| Refused::internal(status.message());
    let sandboxes = runtime
        .list_pod_sandbox(Request::new(cri::ListPodSandboxRequest::default()))
        .await
        .map_err(failed)?;
    let state = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning.into() };
    let filter = cri::ContainerFilter { state: Some(state), ..Default::default() };
    let containers = runtime
        .list_containers(Request::new(cri::ListContainersRequest { filter: Some(filter) }))
        .await
        .map_err(failed)?;
    let mut by_sandbox: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for container in containers.into_inner().containers {
        let name = container.metadata.map(|m| m.name).unwrap_or_default();
        let image = container.image.map(|i| i.image).unwrap_or_default();
        let one = json!({"name": name, "image": image, "resources": {}});
        by_sandbox.entry(container.pod_sandbox_id).or_default().push(one);
    }
    let items = sandboxes.into_inner().items.into_iter().filter_map(|sandbox| {
        let containers = by_sandbox.remove(&sandbox.id)?;
        let metadata = sandbox.metadata.unwrap_or_default();
        Some(json!({
            "metadata": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
            "spec": {"containers": containers},
            "status": {},
        }))
    });
    list(items.collect())
}
