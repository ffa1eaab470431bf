//! `plim status`: the cluster on one screen.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::Serialize;

use crate::{
    client,
    data::Data,
    output::{Output, Table, bytes},
    serve,
};

/// Shown by `plim status --help`.
pub const EXAMPLES: &str = "Examples:\n  plim status\n  plim status -o json";

/// The cluster on one screen.
#[derive(Args, Debug)]
pub struct StatusCommand {
    #[command(flatten)]
    output: Output,
}

/// What is told.
#[derive(Debug, Default, Serialize)]
struct Status {
    running: bool,
    data: String,
    processes: Vec<Process>,
    version: Option<String>,
    nodes: Vec<NodeRow>,
    pods: BTreeMap<String, usize>,
    unwell: Vec<String>,
    addresses: Vec<Address>,
    store_bytes: u64,
    images_bytes: u64,
}

/// A process of Plimsoll's own.
#[derive(Debug, Serialize)]
struct Process {
    name: String,
    pid: i32,
    memory: u64,
    cpu_seconds: f64,
}

/// A node in a line.
#[derive(Debug, Serialize)]
struct NodeRow {
    name: String,
    ready: bool,
    address: String,
    pods: usize,
}

/// Where a service is reached from outside.
#[derive(Debug, Serialize)]
struct Address {
    service: String,
    url: String,
}

impl StatusCommand {
    /// Prints it.
    pub fn run(self, data: &Data) -> Result<()> {
        let mut status = Status { data: data.root().display().to_string(), ..Status::default() };
        status.store_bytes = folder_size(&data.path("store"));
        status.images_bytes = folder_size(&data.path("images/blobs"));
        if let Some(pid) = serve::running(data)? {
            status.running = true;
            status.processes = processes(pid, data.root());
            client::with(data, async |client| read(&client, &mut status).await)?;
        }
        self.output.print(&status, |s| s.nodes.iter().map(|n| n.name.clone()).collect(), |s, _| text(s))
    }
}

async fn read(client: &Client, status: &mut Status) -> Result<()> {
    status.version = Some(client.apiserver_version().await?.git_version);
    let all = ListParams::default();
    let pods = Api::<Pod>::all(client.clone()).list(&all).await?.items;
    for pod in &pods {
        let phase = pod.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or("Pending".to_owned());
        *status.pods.entry(phase.clone()).or_default() += 1;
        let ready = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = ready.filter(|c| c.type_ == "Ready").any(|c| c.status == "True");
        if phase != "Succeeded" && !ready {
            status.unwell.push(format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()));
        }
    }
    for node in Api::<Node>::all(client.clone()).list(&all).await?.items {
        let name = node.name_any();
        let state = node.status.unwrap_or_default();
        let on_it = |p: &&Pod| p.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&name);
        let address = state.addresses.iter().flatten().find(|a| a.type_ == "InternalIP");
        status.nodes.push(NodeRow {
            ready: state.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"),
            address: address.map(|a| a.address.clone()).unwrap_or_default(),
            pods: pods.iter().filter(on_it).count(),
            name,
        });
    }
    for service in Api::<Service>::all(client.clone()).list(&all).await?.items {
        status.addresses.extend(addresses(&service));
    }
    Ok(())
}

fn addresses(service: &Service) -> Vec<Address> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten()).map(|p| p.port);
    let ingress = service
        .status
        .iter()
        .filter_map(|s| s.load_balancer.as_ref())
        .flat_map(|l| l.ingress.iter().flatten());
    let ips: Vec<String> = ingress.filter_map(|i| i.ip.clone()).collect();
    let name = format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any());
    let of = |port: i32| {
        let name = name.clone();
        ips.iter().map(move |ip| {
            let url = match port {
                80 => format!("http://{ip}/"),
                443 => format!("https://{ip}/"),
                port => format!("{ip}:{port}"),
            };
            Address { service: name.clone(), url }
        })
    };
    ports.flat_map(of).collect()
}

/// The server and the holders that it started: processes of this program.
fn processes(server: i32, root: &std::path::Path) -> Vec<Process> {
    let mut list: Vec<Process> = process(server, "server").into_iter().collect();
    let root = std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in numbers.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()) {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = command.split(|b| *b == 0).skip_while(|word| *word != b"__holder").skip(1);
        let own = |word: &[u8]| word.starts_with(std::os::unix::ffi::OsStrExt::as_bytes(root.as_os_str()));
        if words.next().is_some_and(own) {
            list.extend(process(pid, "holder"));
        }
    }
    list
}

fn process(pid: i32, name: &str) -> Option<Process> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = rss.split_whitespace().next()?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): utime and stime are the 14th and 15th field; the second, in parentheses, may contain blanks
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Some(Process {
        name: name.to_owned(),
        pid,
        memory: kib << 10,
        cpu_seconds: (ticks(11) + ticks(12)) / per_second,
    })
}

fn folder_size(path: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .map(|e| match e.metadata() {
            Ok(m) if m.is_dir() => folder_size(&e.path()),
            Ok(m) => m.len(),
            Err(_) => 0,
        })
        .sum()
}

fn text(status: &Status) -> String {
    if !status.running {
        return format!("nothing runs in {}: `plim up -d` starts a cluster\n", status.data);
    }
    let mut lines = Vec::new();
    let memory: u64 = status.processes.iter().map(|p| p.memory).sum();
    lines.push(format!(
        "up          Kubernetes API {}, {} of memory in {} process(es)",
        status.version.as_deref().unwrap_or("?"),
        bytes(memory as f64),
        status.processes.len()
    ));
    let pods: Vec<String> = status.pods.iter().map(|(phase, n)| format!("{n} {phase}")).collect();
    lines.push(format!("pods        {}", if pods.is_empty() { "none".to_owned() } else { pods.join(", ") }));
    for pod in status.unwell.iter().take(5) {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        lines.push(format!("  not ready {pod}: plim why {name} -n {namespace}"));
    }
    lines.push(format!("store       {}", bytes(status.store_bytes as f64)));
    lines.push(format!("images      {}", bytes(status.images_bytes as f64)));
    for address in &status.addresses {
        lines.push(format!("reach       {}  {}", address.url, address.service));
    }
    let mut nodes = Table::new(&["NODE", "READY", "ADDRESS", "PODS"]);
    for node in &status.nodes {
        let ready = if node.ready { "yes" } else { "no" };
        nodes.row([node.name.clone(), ready.to_owned(), node.address.clone(), node.pods.to_string()]);
    }
    format!("{}\n\n{nodes}", lines.join("\n"))
}
