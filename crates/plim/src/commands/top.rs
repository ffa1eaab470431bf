//! `plim top`: what was asked for against what is used, per workload and node.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    client,
    commands::metrics,
    data::Data,
    output::{Output, Table, bytes},
    workload::{Owners, Workload, amount, requests},
};

/// Shown by `plim top --help`.
pub const EXAMPLES: &str = "Examples:\n  plim top\n  plim top -n shop -o json";

/// What was asked for against what is used.
#[derive(Args, Debug)]
pub struct Top {
    /// Only this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// What a workload asks for and uses.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// Which.
    #[serde(flatten)]
    pub workload: Workload,
    /// Pods of it that run.
    pub pods: u32,
    /// Cores asked for.
    pub requested_cpu: f64,
    /// Bytes asked for.
    pub requested_memory: f64,
    /// Cores used.
    pub used_cpu: f64,
    /// Bytes used.
    pub used_memory: f64,
}

/// What a node has, gave away, and uses.
#[derive(Clone, Debug, Serialize)]
pub struct NodeLoad {
    /// Its name.
    pub name: String,
    /// Cores.
    pub cpu: f64,
    /// Bytes.
    pub memory: f64,
    /// Cores asked for on it.
    pub requested_cpu: f64,
    /// Bytes asked for on it.
    pub requested_memory: f64,
    /// Cores used.
    pub used_cpu: f64,
    /// Bytes used.
    pub used_memory: f64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Loads {
    /// Workloads, by namespace, kind and name.
    pub workloads: Vec<Load>,
    /// Nodes, by name.
    pub nodes: Vec<NodeLoad>,
}

/// Reads what there is.
pub async fn read(client: &Client) -> Result<Loads> {
    let owners = Owners::read(client).await?;
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?.items;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    let used = metrics::pods(client).await?;
    let used_nodes = metrics::nodes(client).await?;
    let running: Vec<&Pod> = pods
        .iter()
        .filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"))
        .collect();
    let mut workloads: BTreeMap<Workload, Load> = BTreeMap::new();
    for pod in &running {
        let workload = owners.of(pod);
        let load = workloads.entry(workload.clone()).or_insert(Load {
            workload,
            pods: 0,
            requested_cpu: 0.0,
            requested_memory: 0.0,
            used_cpu: 0.0,
            used_memory: 0.0,
        });
        let asked = requests(pod);
        let place = (pod.namespace().unwrap_or_default(), pod.name_any());
        let uses = used.get(&place).copied().unwrap_or_default();
        load.pods += 1;
        load.requested_cpu += asked.0;
        load.requested_memory += asked.1;
        load.used_cpu += uses.0;
        load.used_memory += uses.1;
    }
    let nodes = nodes.iter().map(|node| {
        let name = node.name_any();
        let capacity = node.status.as_ref().and_then(|s| s.capacity.clone()).unwrap_or_default();
        let of = |resource: &str| capacity.get(resource).map_or(0.0, |q| amount(&q.0));
        let mine =
            running.iter().filter(|p| p.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&name));
        let asked = mine.map(|p| requests(p)).fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let uses = used_nodes.get(&name).copied().unwrap_or_default();
        NodeLoad {
            cpu: of("cpu"),
            memory: of("memory"),
            requested_cpu: asked.0,
            requested_memory: asked.1,
            used_cpu: uses.0,
            used_memory: uses.1,
            name,
        }
    });
    Ok(Loads { nodes: nodes.collect(), workloads: workloads.into_values().collect() })
}

impl Top {
    /// Prints it.
    pub fn run(self, data: &Data) -> Result<()> {
        let mut loads = client::with(data, async |client| read(&client).await)?;
        if let Some(namespace) = &self.namespace {
            loads.workloads.retain(|l| l.workload.namespace == *namespace);
        }
        self.output.print(
            &loads,
            |loads| {
                loads
                    .workloads
                    .iter()
                    .map(|l| format!("{}/{}", l.workload.namespace, l.workload.name))
                    .collect()
            },
            |loads, _| text(loads),
        )
    }
}

/// Cores as Kubernetes writes them: `250m`.
pub fn cores(amount: f64) -> String {
    format!("{:.0}m", amount * 1000.0)
}

fn share(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.0}%", part / whole * 100.0) } else { "-".to_owned() }
}

fn text(loads: &Loads) -> String {
    let mut table =
        Table::new(&["NAMESPACE", "WORKLOAD", "PODS", "CPU ASKED", "USED", "", "MEMORY ASKED", "USED", ""]);
    for load in &loads.workloads {
        table.row([
            load.workload.namespace.clone(),
            load.workload.to_string(),
            load.pods.to_string(),
            cores(load.requested_cpu),
            cores(load.used_cpu),
            share(load.used_cpu, load.requested_cpu),
            bytes(load.requested_memory),
            bytes(load.used_memory),
            share(load.used_memory, load.requested_memory),
        ]);
    }
    let mut nodes = Table::new(&["NODE", "CPU", "ASKED", "USED", "MEMORY", "ASKED", "USED"]);
    for node in &loads.nodes {
        nodes.row([
            node.name.clone(),
            cores(node.cpu),
            share(node.requested_cpu, node.cpu),
            share(node.used_cpu, node.cpu),
            bytes(node.memory),
            share(node.requested_memory, node.memory),
            share(node.used_memory, node.memory),
        ]);
    }
    format!("{table}\n{nodes}")
}
