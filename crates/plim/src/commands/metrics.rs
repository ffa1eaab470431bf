//! What pods and nodes use right now: `metrics.k8s.io`.

use std::collections::HashMap;

use anyhow::Result;
use kube::Client;
use serde::Deserialize;

use crate::workload::amount;

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Meta,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    usage: Usage,
}

#[derive(Deserialize)]
struct NodeMetrics {
    metadata: Meta,
    usage: Usage,
}

#[derive(Deserialize)]
struct Usage {
    cpu: String,
    memory: String,
}

/// Cores and bytes.
pub type Used = (f64, f64);

async fn get<T: serde::de::DeserializeOwned>(client: &Client, what: &str) -> Result<Vec<T>> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/{what}");
    let request = http::Request::get(path).body(Vec::new())?;
    Ok(client.request::<List<T>>(request).await?.items)
}

/// By namespace and name of the pod.
pub async fn pods(client: &Client) -> Result<HashMap<(String, String), Used>> {
    let list = get::<PodMetrics>(client, "pods").await?;
    Ok(list
        .into_iter()
        .map(|p| {
            let used = p
                .containers
                .iter()
                .fold((0.0, 0.0), |sum, c| (sum.0 + amount(&c.usage.cpu), sum.1 + amount(&c.usage.memory)));
            ((p.metadata.namespace, p.metadata.name), used)
        })
        .collect())
}

/// By name of the node.
pub async fn nodes(client: &Client) -> Result<HashMap<String, Used>> {
    let list = get::<NodeMetrics>(client, "nodes").await?;
    Ok(list.into_iter().map(|n| (n.metadata.name, (amount(&n.usage.cpu), amount(&n.usage.memory)))).collect())
}
