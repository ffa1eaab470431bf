//! One node: pod network, container runtime, DNS, services and the agent, put together.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use agent::Agent;
use anyhow::{Context, Result, bail};
use images::Images;
use k8s_cri::v1::{self as cri, runtime_service_server::RuntimeService};
use k8s_openapi::api::core::v1::{Node, NodeAddress};
use kube::{Api, runtime::wait::await_condition};
use network::{
    PodNet,
    dns::{self, Upstream, Zone},
};
use runtime::{ImageService, Runtime, RuntimeConfig, StreamUrls, streaming};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    control,
    machine::{Machine, Place},
    pods::Pods,
};
use crate::{
    commands::image,
    data::Data,
    pki::{Identity, Subject},
    progress::Progress,
};

/// The argument that makes this program a holder; see [`runtime::holder`].
pub const HOLDER: &str = "__holder";
/// Domain of the cluster's names.
const DOMAIN: &str = "cluster.local";
/// The host's resolvers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Port of the kubelet's HTTPS API, as everywhere.
const KUBELET_PORT: u16 = 10250;
/// A container's log is rotated at so many bytes (kubelet: containerLogMaxSize).
const LOG_SIZE: u64 = 10 << 20;

/// The running nodes of this machine.
pub struct Nodes {
    shutdown: CancellationToken,
    agents: JoinSet<()>,
    _dns: Vec<dns::Server>,
    _streams: Vec<Arc<streaming::Server>>,
}

/// The control plane as a node sees it: in the same process, or somewhere else.
pub trait Plane {
    /// A client that acts as `user`, if whose client it is can be chosen here.
    fn client(&self, user: &str, groups: &[&str]) -> kube::Client;
    /// What a node shows to those who call it, kept under `name`.
    fn serving(&self, name: &str, subject: &Subject<'_>) -> Result<Identity>;
    /// The authority, PEM, of those who may show a certificate to a node: the API server above all.
    fn callers(&self) -> &str;
}

/// What the nodes of a machine share.
struct Shared<'a> {
    data: &'a Data,
    machine: &'a Machine,
    control: &'a dyn Plane,
    /// The socket of a container runtime that takes the place of our own.
    runtime: Option<&'a Path>,
    images: Images,
    zone: Arc<Zone>,
    upstream: Arc<Upstream>,
}

/// Starts every node of the machine, and waits until each is Ready. `runtime` is the socket of another CRI runtime, which
/// then gives pods their network as well.
pub async fn start_all(
    data: &Data,
    machine: &Machine,
    control: &dyn Plane,
    runtime: Option<&Path>,
    progress: &Progress,
) -> Result<Nodes> {
    let shared = Shared {
        data,
        machine,
        control,
        runtime,
        images: image::open(data)?,
        zone: Arc::new(Zone::new(DOMAIN).context("the cluster's domain is not a name")?),
        upstream: Arc::new(Upstream::from_resolv_conf(Path::new(RESOLV_CONF), None)),
    };
    let mut nodes = Nodes {
        shutdown: CancellationToken::new(),
        agents: JoinSet::new(),
        _dns: Vec::new(),
        _streams: Vec::new(),
    };
    for (i, place) in machine.nodes.iter().enumerate() {
        let step = progress.step(format!("node {}", place.name));
        // One node brings the zone up to date for all: it is the same everywhere.
        shared.start(place, i == 0, &mut nodes).await?;
        step.done();
    }
    let step = progress.step("nodes ready");
    let api = Api::<Node>::all(control.client("system:apiserver", &["system:masters"]));
    for place in &machine.nodes {
        tokio::select! {
            ready = await_condition(api.clone(), &place.name, is_ready) => { ready?; }
            Some(_) = nodes.agents.join_next() => bail!("a node has ended: see the log"),
        }
    }
    step.done();
    Ok(nodes)
}

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Where a node keeps its things.
fn folder(data: &Data, place: &Place) -> Result<PathBuf> {
    let folder = data.folder(&format!("nodes/{}", place.name))?;
    // Mounts and cgroup paths are told to the kernel, which knows no relative ones.
    Ok(std::path::absolute(folder)?)
}

fn pod_net(folder: &Path, machine: &Machine, place: &Place) -> Result<PodNet> {
    Ok(PodNet::new(network::pods::Config {
        node: place.name.clone(),
        pod_cidr: place.pods,
        cluster_cidr: machine.pods,
        node_address: place.address,
        state_dir: folder.join("network"),
        netns: place.netns.clone(),
        mtu: 1500,
    })?)
}

fn service_config(machine: &Machine, place: &Place) -> network::watch::Config {
    network::watch::Config {
        node: place.name.clone(),
        node_address: place.address,
        pod_cidr: place.pods,
        cluster_cidr: machine.pods,
        service_cidr: machine.services,
        load_balancer_cidr: Some(machine.pool),
        dns: Some(machine.dns()),
        netns: place.netns.clone(),
    }
}

async fn open_runtime(
    folder: &Path,
    machine: &Machine,
    place: &Place,
    images: Images,
    pods: Arc<Pods>,
) -> Result<Arc<Runtime>> {
    let holder: Vec<OsString> = vec!["/proc/self/exe".into(), HOLDER.into()];
    let config = RuntimeConfig {
        netns: place.netns.clone(),
        cgroup_parent: machine.cgroup(place),
        seccomp_dir: folder.join("seccomp"),
        log_max_size: LOG_SIZE,
        ..RuntimeConfig::new(folder.join("runtime"), images, pods, holder)
    };
    Ok(Runtime::open(config).await?)
}

/// Sandbox ids, each with the namespace of its pod.
async fn sandboxes(runtime: &Runtime) -> Result<Vec<(String, String)>> {
    let list = runtime.list_pod_sandbox(tonic::Request::new(cri::ListPodSandboxRequest::default())).await?;
    let one = |s: cri::PodSandbox| (s.id, s.metadata.map(|m| m.namespace).unwrap_or_default());
    Ok(list.into_inner().items.into_iter().map(one).collect())
}

impl Shared<'_> {
    async fn start(&self, place: &Place, first: bool, nodes: &mut Nodes) -> Result<()> {
        let folder = folder(self.data, place)?;
        let parts = match self.runtime {
            Some(socket) => another_runtime(socket),
            None => self.own_runtime(place, &folder).await?,
        };
        let name = dns::Config {
            address: self.machine.dns(),
            port: 53,
            netns: place.netns.clone(),
            assign: true,
            namespace_of: parts.namespace_of,
        };
        nodes._streams.extend(parts.streams);
        nodes._dns.push(dns::Server::start(name, Arc::clone(&self.zone), Arc::clone(&self.upstream))?);
        let proxy = self.control.client("system:kube-proxy", &[]);
        let zone = first.then(|| Arc::clone(&self.zone));
        let config = service_config(self.machine, place);
        nodes.agents.spawn(async move {
            if let Err(error) = network::watch::run(proxy, config, zone).await {
                tracing::error!(%error, "the node's services are no longer brought up to date");
            }
        });
        self.start_agent(place, &folder, (parts.runtime, parts.images), nodes).await
    }

    async fn own_runtime(&self, place: &Place, folder: &Path) -> Result<RuntimeParts> {
        let pods = Pods::new(pod_net(folder, self.machine, place)?);
        let runtime =
            open_runtime(folder, self.machine, place, self.images.clone(), Arc::clone(&pods)).await?;
        pods.take_over(&sandboxes(&runtime).await?)?;
        let backend = Arc::clone(&runtime) as Arc<dyn streaming::Backend>;
        let streams = streaming::Server::start(backend, SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let streams = Arc::new(streams);
        runtime.set_stream_urls(Arc::new(Urls(Arc::downgrade(&streams))));
        let images = Arc::new(ImageService::new(self.images.clone()));
        Ok(RuntimeParts { runtime, images, namespace_of: pods.namespace_of(), streams: Some(streams) })
    }

    async fn start_agent(
        &self,
        place: &Place,
        folder: &Path,
        (runtime, images): (agent::cri::Runtime, agent::cri::Images),
        nodes: &mut Nodes,
    ) -> Result<()> {
        let user = format!("system:node:{}", place.name);
        let client = self.control.client(&user, &["system:nodes"]);
        let address = |kind: &str, text: String| NodeAddress { type_: kind.to_owned(), address: text };
        let subject = Subject::Server {
            name: &user,
            groups: &["system:nodes"],
            names: vec![place.name.clone()],
            addresses: vec![place.address.into()],
        };
        let identity = self.control.serving(&format!("kubelet-{}", place.name), &subject)?;
        let tls = control::tls(&[self.control.callers()], &identity)?;
        let at = SocketAddr::new(place.address.into(), KUBELET_PORT);
        let listener = network::netns::within(place.netns.as_deref(), || std::net::TcpListener::bind(at))?
            .with_context(|| format!("cannot listen on {at}: is another node of this machine's there?"))?;
        let config = agent::Config {
            node_name: place.name.clone(),
            client,
            images,
            runtime,
            root: folder.join("agent"),
            log_root: folder.join("logs"),
            cgroup_parent: self.machine.cgroup(place),
            addresses: vec![
                address("InternalIP", place.address.to_string()),
                address("Hostname", place.name.clone()),
            ],
            cluster_dns: vec![self.machine.dns().into()],
            cluster_domain: DOMAIN.to_owned(),
            resolv_conf: RESOLV_CONF.into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            capacity: BTreeMap::new(),
            reserved: BTreeMap::new(),
            max_pods: 110,
            policy: agent::machine::Policy::default(),
            pod_cidr: Some(place.pods.to_string()),
            server: Some(agent::config::ServerConfig { listener: Arc::new(listener), tls }),
        };
        let shutdown = nodes.shutdown.clone();
        let mut agent = Agent::new(config.clone());
        let api = agent::server::run(config, agent.pods(), shutdown.clone()).await?;
        nodes.agents.spawn(async move {
            // Ends with the shutdown; a panic in it was told by its own hook.
            let _ = api.task.await;
        });
        if let Some(netns) = &place.netns {
            agent = agent.within(netns.clone());
        }
        nodes.agents.spawn(async move {
            if let Err(error) = agent.run(shutdown).await {
                tracing::error!(%error, "a node's agent has ended");
            }
        });
        Ok(())
    }
}

/// What runs a node's containers.
struct RuntimeParts {
    runtime: agent::cri::Runtime,
    images: agent::cri::Images,
    namespace_of: dns::server::NamespaceOf,
    /// The streaming server of our own runtime.
    streams: Option<Arc<streaming::Server>>,
}

/// A runtime behind a socket. Whose address is whose is not known of it, so that names are not completed by namespace.
fn another_runtime(socket: &Path) -> RuntimeParts {
    let (runtime, images) = agent::cri::connect(socket.to_owned());
    RuntimeParts { runtime, images, namespace_of: Arc::new(|_| None), streams: None }
}

/// The streaming server as the runtime asks it for URLs. It has the runtime, so that the runtime cannot have it, too:
/// neither would ever end.
struct Urls(Weak<streaming::Server>);

impl Urls {
    fn server(&self) -> Result<Arc<streaming::Server>, tonic::Status> {
        self.0.upgrade().ok_or_else(|| tonic::Status::unavailable("the node is ending"))
    }
}

impl StreamUrls for Urls {
    fn exec(&self, request: &cri::ExecRequest) -> Result<String, tonic::Status> {
        self.server()?.exec_url(request)
    }
    fn attach(&self, request: &cri::AttachRequest) -> Result<String, tonic::Status> {
        self.server()?.attach_url(request)
    }
    fn port_forward(&self, request: &cri::PortForwardRequest) -> Result<String, tonic::Status> {
        self.server()?.port_forward_url(request)
    }
}

impl Nodes {
    /// Ends the agents; pods run on.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.agents.shutdown().await;
    }
}

/// Ends every pod of the machine's nodes and removes what they had in the kernel.
pub async fn remove_all(data: &Data, machine: &Machine) -> Result<()> {
    for place in &machine.nodes {
        // A namespace of a machine that was started anew is gone, and everything in it.
        if place.netns.as_deref().is_some_and(|netns| !network::netns::is_bound(netns)) {
            continue;
        }
        let folder = folder(data, place)?;
        let pods = Pods::new(pod_net(&folder, machine, place)?);
        let runtime = open_runtime(&folder, machine, place, image::open(data)?, Arc::clone(&pods)).await?;
        runtime.end().await?;
        for pod in std::fs::read_dir(folder.join("agent/pods")).into_iter().flatten().flatten() {
            agent::volumes::unmount_all(&pod.path())?;
        }
        pods.cleanup()?;
        network::watch::cleanup(&service_config(machine, place))?;
    }
    runtime::remove_cgroup(&machine.cgroup_root())?;
    machine.down(data)
}
