//! `plim up`, `plim server`, `plim down`: what the flags say, and the cluster's life from start to end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Result, bail, ensure};
use clap::Args;
use ipnet::Ipv4Net;

use crate::{
    audit::AuditFlags,
    cluster::{
        control::{Addresses, Control, Part},
        layout::Layout,
        machine::{Machine, Wanted},
        node::{self, Nodes},
    },
    data::Data,
    output,
    progress::Progress,
    serve::{self, Service},
};

/// Shown by `plim up --help`.
pub const UP_EXAMPLES: &str = "Examples:\n  plim up -d                       a cluster on this machine, in the background\n  plim up -d --nodes 3             the same with three nodes, each in a network namespace of its own\n  plim up -d --data /srv/other --port 7443";
/// Shown by `plim server --help`.
pub const SERVER_EXAMPLES: &str =
    "Examples:\n  plim server -d                   the control plane alone: no pods run on this machine";
/// Shown by `plim down --help`.
pub const DOWN_EXAMPLES: &str = "Examples:\n  plim down                        end pods and cluster, keep the state\n  plim down --keep-pods            end the program only; pods run on, the next `plim up` takes them over\n  plim down --delete               leave nothing behind";

/// What both have.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Go on in the background once everything is ready.
    #[arg(short, long)]
    detach: bool,
    /// Port of the API server; 0 takes a free one.
    #[arg(long, default_value_t = 6443)]
    port: u16,
    /// Address of the API server.
    #[arg(long, default_value = "0.0.0.0")]
    listen: IpAddr,
    /// Addresses of services; the first is the API server itself.
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    service_cidr: Ipv4Net,
    /// Addresses of pods.
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pod_cidr: Ipv4Net,
    /// Addresses for services of type LoadBalancer.
    #[arg(long, default_value = "10.97.0.0/24", value_name = "CIDR")]
    load_balancer_pool: Ipv4Net,
    /// Leave a part to another program, such as upstream's kube-scheduler; may be given several times.
    #[arg(long, value_enum, value_name = "PART")]
    disable: Vec<Part>,
    #[command(flatten)]
    audit: AuditFlags,
}

/// Start the control plane alone.
#[derive(Args, Clone, Debug)]
pub struct Server {
    #[command(flatten)]
    common: Common,
}

/// Start a cluster on this machine.
#[derive(Args, Clone, Debug)]
pub struct Up {
    #[command(flatten)]
    common: Common,
    /// How many nodes this machine shall be.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Name of the only node; the machine's own when left out.
    #[arg(long, conflicts_with = "nodes")]
    node_name: Option<String>,
    /// The network between several nodes and this machine.
    #[arg(long, default_value = "10.89.0.0/24", value_name = "CIDR")]
    node_network: Ipv4Net,
}

/// Stop the cluster.
#[derive(Args, Clone, Debug)]
pub struct Down {
    /// Pods run on; the next `plim up` takes them over.
    #[arg(long, conflicts_with = "delete")]
    keep_pods: bool,
    /// Remove the state folder too: objects, images, volumes.
    #[arg(long)]
    delete: bool,
}

impl Common {
    fn check(&self) -> Result<()> {
        self.audit.check()?;
        ensure!(self.service_cidr.prefix_len() <= 24, "--service-cidr needs a range of /24 or larger");
        let ranges = [
            ("--service-cidr", self.service_cidr),
            ("--pod-cidr", self.pod_cidr),
            ("--load-balancer-pool", self.load_balancer_pool),
        ];
        for (i, (name, range)) in ranges.iter().enumerate() {
            for (other, theirs) in &ranges[i + 1..] {
                ensure!(
                    !range.contains(&theirs.network()) && !theirs.contains(&range.network()),
                    "{name} {range} and {other} {theirs} overlap"
                );
            }
        }
        Ok(())
    }

    fn addresses(&self, advertise: IpAddr) -> Addresses {
        Addresses {
            listen: SocketAddr::new(self.listen, self.port),
            advertise,
            services: self.service_cidr,
            pods: self.pod_cidr,
            pool: self.load_balancer_pool,
        }
    }
}

impl Server {
    /// Starts it, in front or in the background.
    pub fn run(self, data: &Data) -> Result<()> {
        self.common.check()?;
        serve::run(data, self.common.detach, ControlPlane { common: self.common, data })
    }
}

/// The control plane alone.
struct ControlPlane<'a> {
    common: Common,
    data: &'a Data,
}

impl Service for ControlPlane<'_> {
    type Running = Control;

    async fn start(&mut self, progress: &Progress) -> Result<Control> {
        let listen = self.common.listen;
        let advertise = if listen.is_unspecified() { own_address() } else { listen };
        let (addresses, audit) = (self.common.addresses(advertise), self.common.audit.open()?);
        Control::start(self.data, &addresses, &self.common.disable, audit, progress).await
    }

    fn tell(&self, control: &Control, progress: &Progress) {
        tell(progress, self.data, &control.url);
    }

    async fn stop(&self, control: Control) {
        control.stop().await;
    }

    /// A process and files: nothing in the kernel.
    async fn undo(&self) -> Result<()> {
        Ok(())
    }
}

impl Up {
    /// Starts it, in front or in the background.
    pub fn run(self, data: &Data) -> Result<()> {
        self.common.check()?;
        ensure!(
            rustix::process::geteuid().is_root(),
            "a node needs root (namespaces, cgroups, nftables): use sudo, or `plim server` for a control plane alone"
        );
        serve::run(data, self.common.detach, Cluster { layout: Layout::new(data), up: self })
    }

    fn wanted(&self) -> Result<Wanted> {
        let IpAddr::V4(address) = own_address() else { bail!("this machine has no IPv4 address") };
        Ok(Wanted {
            nodes: self.nodes,
            name: self.node_name.clone(),
            address,
            pods: self.common.pod_cidr,
            services: self.common.service_cidr,
            pool: self.common.load_balancer_pool,
            between: self.node_network,
        })
    }
}

/// The control plane and the nodes of this machine.
struct Cluster<'a> {
    up: Up,
    layout: Layout<'a>,
}

impl Service for Cluster<'_> {
    type Running = (Control, Nodes);

    async fn start(&mut self, progress: &Progress) -> Result<(Control, Nodes)> {
        let data = self.layout.data();
        let machine = Machine::plan(data, &self.up.wanted()?)?;
        self.layout.take(&machine).await?;
        let step = progress.step(format!("network for {} node(s)", machine.nodes.len()));
        machine.up(data)?;
        step.done();
        let addresses = self.up.common.addresses(machine.gateway()?.into());
        let audit = self.up.common.audit.open()?;
        let control = Control::start(data, &addresses, &self.up.common.disable, audit, progress).await?;
        let nodes = node::start_all(data, &machine, &control, None, progress).await?;
        Ok((control, nodes))
    }

    fn tell(&self, (control, _): &(Control, Nodes), progress: &Progress) {
        let data = self.layout.data();
        tell(progress, data, &control.url);
        if let Some(short) = agent::driver::shortage(data.root()) {
            progress.line(&format!(
                "  warning     the disk of {} has {} left: the nodes take no pods below {}; free some",
                data.root().display(),
                output::bytes(short.available as f64),
                output::bytes(short.needed as f64),
            ));
        }
        progress.line("  next        plim status · plim run --rm IMAGE -- COMMAND · kubectl apply -f FILE");
    }

    async fn stop(&self, (control, nodes): (Control, Nodes)) {
        nodes.stop().await;
        control.stop().await;
    }

    async fn undo(&self) -> Result<()> {
        self.layout.undo().await
    }
}

impl Down {
    /// Ends the program, then what it had on this machine.
    pub fn run(self, data: &Data) -> Result<()> {
        let was_running = serve::end(data)?;
        if !self.keep_pods
            && let Some(machine) = Machine::remembered(data)?
        {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(node::remove_all(data, &machine))?;
        }
        let place = data.root().display();
        if self.delete && data.root().exists() {
            std::fs::remove_dir_all(data.root())?;
            println!("removed {place}");
        } else if was_running {
            println!("stopped; the state stays in {place}");
        } else {
            println!("nothing is running in {place}");
        }
        Ok(())
    }
}

fn tell(progress: &Progress, data: &Data, url: &str) {
    progress.line(&format!("Ready after {:.2} s.", progress.seconds()));
    let folder = if data.root() == std::path::Path::new(crate::data::DEFAULT) {
        String::new()
    } else {
        format!(" --data {}", data.root().display())
    };
    progress.line(&format!("  API server  {url}"));
    progress
        .line(&format!("  kubectl     export KUBECONFIG={}", data.path(crate::kubeconfig::FILE).display()));
    progress.line(&format!("  stop        plim down{folder}"));
}

/// The address that this machine would use towards the outside; no packet is sent.
pub fn own_address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().ok().filter(|a| !a.is_unspecified()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
