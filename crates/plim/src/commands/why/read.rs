//! What the cluster knows about a name.

use anyhow::{Result, bail};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Event, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};

use super::Evidence;
use crate::commands::logs::pods_of;

/// Lines of a log that are shown.
const LOG_LINES: i64 = 8;

/// Gathers it.
pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Evidence> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let deployment = Api::<Deployment>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let service = Api::<Service>::namespaced(client.clone(), namespace).get_opt(name).await?;
    let mut pods = pods_of(client, namespace, name).await?;
    let api = Api::<Pod>::namespaced(client.clone(), namespace);
    if pods.is_empty()
        && let Some(selector) = service.as_ref().and_then(|s| s.spec.as_ref()?.selector.clone())
        && !selector.is_empty()
    {
        let labels: Vec<String> = selector.iter().map(|(k, v)| format!("{k}={v}")).collect();
        pods = api.list(&ListParams::default().labels(&labels.join(","))).await?.items;
    }
    if deployment.is_none() && service.is_none() && pods.is_empty() {
        bail!("nothing is named {name:?} in namespace {namespace:?}: `plim ps -a` lists what there is");
    }
    let label = format!("kubernetes.io/service-name={name}");
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace)
        .list(&ListParams::default().labels(&label))
        .await?
        .items;
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).chain([name.to_owned()]).collect();
    let mut events =
        Api::<Event>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?.items;
    events.retain(|e| e.involved_object.name.as_ref().is_some_and(|n| names.contains(n)));
    let mut logs = Vec::new();
    for pod in &pods {
        for status in pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()) {
            if status.ready {
                continue;
            }
            // A container that has said nothing yet, or whose node is away, has no log: that is no reason to stop.
            let params = LogParams {
                container: Some(status.name.clone()),
                tail_lines: Some(LOG_LINES),
                previous: status.restart_count > 0
                    && status.state.as_ref().is_some_and(|s| s.waiting.is_some()),
                ..LogParams::default()
            };
            if let Ok(text) = api.logs(&pod.name_any(), &params).await {
                let lines = text.lines().map(str::to_owned).collect();
                logs.push((pod.name_any(), status.name.clone(), lines));
            }
        }
    }
    Ok(Evidence {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        deployment,
        service,
        slices,
        pods,
        events,
        logs,
    })
}
