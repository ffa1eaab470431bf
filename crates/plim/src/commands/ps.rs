//! `plim ps`: what runs, for those who know Docker.

use anyhow::Result;
use clap::Args;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Api, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    client,
    data::Data,
    output::{Output, Table, age},
};

/// Shown by `plim ps --help`.
pub const EXAMPLES: &str = "Examples:\n  plim ps\n  plim ps -a -o wide";

/// What runs.
#[derive(Args, Debug)]
pub struct Ps {
    /// Ended ones too.
    #[arg(short, long)]
    all: bool,
    /// Only this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// A container as it is listed.
#[derive(Serialize)]
struct Row {
    namespace: String,
    pod: String,
    container: String,
    image: String,
    state: String,
    restarts: i32,
    node: String,
    address: String,
    age_seconds: i64,
}

impl Ps {
    /// Lists containers.
    pub fn run(self, data: &Data) -> Result<()> {
        let rows = client::with(data, async |client| {
            let api: Api<Pod> = match &self.namespace {
                Some(namespace) => Api::namespaced(client, namespace),
                None => Api::all(client),
            };
            let pods = api.list(&ListParams::default()).await.map_err(|e| client::explain(e, data))?;
            let now = Timestamp::now();
            Ok(pods
                .items
                .iter()
                .flat_map(|p| rows(p, now))
                .filter(|r| self.all || r.state == "running")
                .collect::<Vec<_>>())
        })?;
        self.output.print(
            &rows,
            |rows| rows.iter().map(|r| format!("{}/{}", r.namespace, r.pod)).collect(),
            |rows, wide| text(rows, wide),
        )
    }
}

fn text(rows: &[Row], wide: bool) -> String {
    let mut headings = vec!["NAMESPACE", "POD", "CONTAINER", "IMAGE", "STATE", "RESTARTS", "AGE"];
    if wide {
        headings.extend(["ADDRESS", "NODE"]);
    }
    let mut table = Table::new(&headings);
    for row in rows {
        let mut cells = vec![
            row.namespace.clone(),
            row.pod.clone(),
            row.container.clone(),
            row.image.clone(),
            row.state.clone(),
            row.restarts.to_string(),
            age(row.age_seconds),
        ];
        if wide {
            cells.extend([row.address.clone(), row.node.clone()]);
        }
        table.row(cells);
    }
    table.to_string()
}

fn rows(pod: &Pod, now: Timestamp) -> Vec<Row> {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let started = status.start_time.map_or(now, |t| t.0);
    let of = |name: &str| status.container_statuses.iter().flatten().find(|s| s.name == name);
    spec.containers
        .iter()
        .map(|container| {
            let seen = of(&container.name);
            let state = seen.and_then(|s| s.state.as_ref());
            let state = match state {
                Some(s) if s.running.is_some() => "running".to_owned(),
                Some(s) if s.terminated.is_some() => {
                    s.terminated.as_ref().map(|t| format!("exited ({})", t.exit_code)).unwrap_or_default()
                }
                Some(s) => s.waiting.as_ref().and_then(|w| w.reason.clone()).unwrap_or("waiting".to_owned()),
                None => status.phase.clone().unwrap_or_default().to_lowercase(),
            };
            Row {
                namespace: pod.namespace().unwrap_or_default(),
                pod: pod.name_any(),
                container: container.name.clone(),
                image: container.image.clone().unwrap_or_default(),
                state,
                restarts: seen.map_or(0, |s| s.restart_count),
                node: spec.node_name.clone().unwrap_or_default(),
                address: status.pod_ip.clone().unwrap_or_default(),
                age_seconds: now.duration_since(started).as_secs(),
            }
        })
        .collect()
}
