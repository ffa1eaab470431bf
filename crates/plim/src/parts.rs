//! `plim controllers`, `plim scheduler`, `plim agent`: one part of a cluster, for an API server somewhere else.
//!
//! The server may be another `plim server` or upstream's kube-apiserver. Only one of each of the first two may work for a
//! server at a time: they hold no lease.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use controllers::{certificates::authority, cluster_loops::Settings, node_ipam::Range};
use ipnet::{IpNet, Ipv4Net};
use kube::Client;

use crate::{
    client,
    cluster::{
        control::NODE_MASK,
        layout::Layout,
        machine::{Machine, Wanted},
        node::{self, Nodes, Plane},
    },
    data::Data,
    pki::{Authority, Identity, Subject},
    progress::Progress,
    serve::{self, Service},
    up,
};

/// Shown by `plim controllers --help`.
pub const CONTROLLERS_EXAMPLES: &str = "Examples:\n  plim controllers --kubeconfig admin.conf --pod-cidr 10.244.0.0/16\n  plim controllers --kubeconfig admin.conf --cluster-signing-cert-file ca.crt --cluster-signing-key-file ca.key";
/// Shown by `plim scheduler --help`.
pub const SCHEDULER_EXAMPLES: &str = "Example:\n  plim scheduler --kubeconfig scheduler.conf";
/// Shown by `plim agent --help`.
pub const AGENT_EXAMPLES: &str = "Examples:\n  plim agent -d --kubeconfig kubelet.conf\n  plim agent -d --kubeconfig kubelet.conf --container-runtime-endpoint unix:///run/containerd/containerd.sock\n  plim down                        ends the node and its pods";

/// Which API server, and as whom.
#[derive(Args, Clone, Debug)]
struct Server {
    /// How the API server is reached, and as whom.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: PathBuf,
}

/// Run the control loops.
#[derive(Args, Clone, Debug)]
pub struct Controllers {
    #[command(flatten)]
    server: Server,
    /// Addresses of pods, of which each node gets a part; left out when something else gives them out.
    #[arg(long, value_name = "CIDR")]
    pod_cidr: Option<Ipv4Net>,
    /// Addresses for services of type LoadBalancer; left out when something else gives them out.
    #[arg(long, value_name = "CIDR")]
    load_balancer_pool: Option<Ipv4Net>,
    /// The certificate of the authority that signs what is asked of the signers of kubernetes.io; nothing is signed
    /// without it.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    cluster_signing_key_file: Option<PathBuf>,
}

impl Controllers {
    /// Runs them until this process is told to end.
    pub fn run(self) -> Result<()> {
        serve::until_told(async || {
            let (client, ca) = client::of_file(&self.server.kubeconfig).await?;
            let settings = Settings {
                ca,
                authority: self.authority()?,
                sign: None,
                pod_networks: match self.pod_cidr {
                    Some(range) => vec![Range::new(IpNet::V4(range), NODE_MASK)?],
                    None => Vec::new(),
                },
                // Volumes of a node are made by who is on that node.
                volumes: None,
                disks: None,
            };
            let loops = controllers::all(&controllers::Options { cluster: Some(settings) });
            let run = controllers::driver::run(client.clone(), loops);
            match self.load_balancer_pool {
                Some(pool) => tokio::join!(run, network::loadbalancer::run(client, pool)).1?,
                None => run.await,
            }
            bail!("the loops have ended")
        })
    }

    fn authority(&self) -> Result<Option<authority::Authority>> {
        let (Some(certificate), Some(key)) =
            (&self.cluster_signing_cert_file, &self.cluster_signing_key_file)
        else {
            return Ok(None);
        };
        let authority = authority::Authority::from_pem(&read(certificate)?, &read(key)?);
        Ok(Some(authority.map_err(anyhow::Error::msg)?))
    }
}

/// Run the scheduler.
#[derive(Args, Clone, Debug)]
pub struct Scheduler {
    #[command(flatten)]
    server: Server,
}

impl Scheduler {
    /// Runs it until this process is told to end.
    pub fn run(self) -> Result<()> {
        serve::until_told(async || {
            let (client, _) = client::of_file(&self.server.kubeconfig).await?;
            scheduler::shell::run(client, scheduler::Policy::Pack).await;
            bail!("the scheduler has ended")
        })
    }
}

/// Make this machine a node.
#[derive(Args, Clone, Debug)]
pub struct Agent {
    #[command(flatten)]
    server: Server,
    /// Go on in the background once the node is ready.
    #[arg(short, long)]
    detach: bool,
    /// Name of the node; the machine's own when left out.
    #[arg(long)]
    node_name: Option<String>,
    /// Address of the node; the machine's own when left out.
    #[arg(long, value_name = "IP")]
    node_ip: Option<IpAddr>,
    /// Addresses of services.
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    service_cidr: Ipv4Net,
    /// Addresses of pods of all nodes.
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pod_cidr: Ipv4Net,
    /// Addresses of this node's pods, a /24 of the former; the first one when left out.
    #[arg(long, value_name = "CIDR")]
    node_cidr: Option<Ipv4Net>,
    /// Addresses for services of type LoadBalancer.
    #[arg(long, default_value = "10.97.0.0/24", value_name = "CIDR")]
    load_balancer_pool: Ipv4Net,
    /// Another container runtime, such as containerd, by its socket; our own when left out.
    #[arg(long, value_name = "SOCKET")]
    container_runtime_endpoint: Option<String>,
    /// The certificate that the node shows to the API server, signed by whom that believes; the node signs one itself when
    /// left out, which a `plim server` does not believe.
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
}

impl Agent {
    /// Starts the node, in front or in the background.
    pub fn run(self, data: &Data) -> Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "a node needs root (namespaces, cgroups, nftables): use sudo"
        );
        let machine = self.machine(data)?;
        let socket = self.container_runtime_endpoint.as_deref().map(socket).transpose()?;
        let node = Node { agent: &self, layout: Layout::new(data), machine, socket };
        serve::run(data, self.detach, node)
    }

    fn serving(&self) -> Result<Option<Identity>> {
        let (Some(certificate), Some(key)) = (&self.tls_cert_file, &self.tls_private_key_file) else {
            return Ok(None);
        };
        Ok(Some(Identity { certificate: read(certificate)?, key: read(key)? }))
    }

    fn machine(&self, data: &Data) -> Result<Machine> {
        let IpAddr::V4(address) = self.node_ip.unwrap_or_else(up::own_address) else {
            bail!("a node needs an IPv4 address: choose one with --node-ip");
        };
        let wanted = Wanted {
            nodes: 1,
            name: self.node_name.clone(),
            address,
            pods: self.pod_cidr,
            services: self.service_cidr,
            pool: self.load_balancer_pool,
            // One node needs no network between nodes.
            between: Ipv4Net::new_assert(address, 32),
        };
        let mut machine = Machine::plan(data, &wanted)?;
        if let Some(range) = self.node_cidr {
            ensure!(
                range.prefix_len() == NODE_MASK && self.pod_cidr.contains(&range),
                "--node-cidr has to be a /{NODE_MASK} of --pod-cidr {}",
                self.pod_cidr
            );
            machine.nodes[0].pods = range;
        }
        Ok(machine)
    }
}

/// One node of a cluster whose API server is somewhere else.
struct Node<'a> {
    agent: &'a Agent,
    layout: Layout<'a>,
    machine: Machine,
    /// Of a container runtime that takes the place of our own.
    socket: Option<&'a Path>,
}

impl Service for Node<'_> {
    type Running = Nodes;

    async fn start(&mut self, progress: &Progress) -> Result<Nodes> {
        let data = self.layout.data();
        let (client, callers) = client::of_file(&self.agent.server.kubeconfig).await?;
        let control = Elsewhere { client, callers, serving: self.agent.serving()?, data };
        self.layout.take(&self.machine).await?;
        self.machine.up(data)?;
        node::start_all(data, &self.machine, &control, self.socket, progress).await
    }

    fn tell(&self, _: &Nodes, progress: &Progress) {
        progress.line(&format!("Ready after {:.2} s.", progress.seconds()));
    }

    async fn stop(&self, nodes: Nodes) {
        nodes.stop().await;
    }

    async fn undo(&self) -> Result<()> {
        self.layout.undo().await
    }
}

/// An API server that is not in this process.
struct Elsewhere<'a> {
    client: Client,
    callers: String,
    /// What the node shows; without it, what an authority of its own signs.
    serving: Option<Identity>,
    data: &'a Data,
}

impl Plane for Elsewhere<'_> {
    /// Whoever the kubeconfig says.
    fn client(&self, _user: &str, _groups: &[&str]) -> Client {
        self.client.clone()
    }

    fn serving(&self, name: &str, subject: &Subject<'_>) -> Result<Identity> {
        match &self.serving {
            Some(identity) => Ok(identity.clone()),
            None => Authority::open(self.data)?.identity(name, subject),
        }
    }

    fn callers(&self) -> &str {
        &self.callers
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The path of a unix socket, with or without its scheme.
fn socket(endpoint: &str) -> Result<&Path> {
    let path = Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint));
    ensure!(
        path.is_absolute(),
        "{endpoint} is no unix socket, such as unix:///run/containerd/containerd.sock"
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_named_by_its_socket() {
        assert_eq!(socket("unix:///run/c.sock").unwrap(), Path::new("/run/c.sock"));
        assert_eq!(socket("/run/c.sock").unwrap(), Path::new("/run/c.sock"));
        assert!(socket("tcp://127.0.0.1:1").is_err());
    }

    #[test]
    fn a_node_may_have_a_part_of_the_pod_addresses_of_its_own() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            agent: Agent,
        }
        let agent = |cidr: &str| {
            let words = ["agent", "--kubeconfig", "f", "--node-ip", "192.0.2.7", "--node-cidr", cidr];
            <Line as clap::Parser>::try_parse_from(words).unwrap().agent
        };
        let machine = agent("10.244.7.0/24").machine(&Data::at("/tmp/a")).unwrap();
        assert_eq!(machine.nodes[0].pods.to_string(), "10.244.7.0/24");
        assert!(agent("10.9.7.0/24").machine(&Data::at("/tmp/a")).is_err());
        assert!(agent("10.244.0.0/20").machine(&Data::at("/tmp/a")).is_err());
    }
}
