//! The control plane of one process: store, API server, and the loops that work beside it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use access::{
    UserInfo, admission,
    node::NodeAuthorizer,
    rbac::{Masters, Rbac},
    token::{Issuer, ServiceAccountTokens},
    x509::ClientCertificate,
};
use anyhow::{Context, Result};
use apiserver::{Audit, ClientIdentity, Server};
use controllers::{local_path::OnThisMachine, node_ipam::Range};
use ipnet::{IpNet, Ipv4Net};
use serde_json::json;
use tokio::net::TcpListener;

use super::{connector::Connector, node::Plane};
use crate::{
    data::Data,
    kubeconfig,
    pki::{Authority, Identity, Subject},
    progress::Progress,
};

/// Addresses of the cluster.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Where the API server listens.
    pub listen: SocketAddr,
    /// Where pods and nodes reach it.
    pub advertise: IpAddr,
    /// Service addresses.
    pub services: Ipv4Net,
    /// Pod addresses.
    pub pods: Ipv4Net,
    /// LoadBalancer addresses.
    pub pool: Ipv4Net,
}

impl Addresses {
    /// The first service address: the API server itself.
    pub fn kubernetes(&self) -> IpAddr {
        IpAddr::V4(nth(self.services, 1))
    }

    /// The cluster DNS address.
    pub fn dns(&self) -> Ipv4Addr {
        nth(self.services, 10)
    }
}

fn nth(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()) + n)
}

/// A part of the control plane that another program can take over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The control loops.
    Controllers,
    /// The scheduler.
    Scheduler,
}

/// A running control plane.
pub struct Control {
    server: Server,
    /// Where it is reached.
    pub url: String,
    /// Signs what nodes show each other and the server.
    pub authority: Authority,
    store: Arc<store::Embedded>,
    tasks: tokio::task::JoinSet<()>,
}

/// Bits of the prefix of a node's part of the pod addresses.
pub const NODE_MASK: u8 = 24;
/// The issuer of service account tokens, as upstream names it by default.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Control {
    /// Opens the store, makes what has to exist, listens.
    pub async fn start(
        data: &Data,
        addresses: &Addresses,
        without: &[Part],
        audit: Option<Arc<Audit>>,
        progress: &Progress,
    ) -> Result<Self> {
        let step = progress.step("certificates");
        let authority = Authority::open(data)?;
        let serving = authority.identity("apiserver", &server_subject(addresses))?;
        let admin = authority
            .identity("admin", &Subject::Client { user: "kubernetes-admin", groups: &["system:masters"] })?;
        let front_proxy = Authority::open_front_proxy(data)?;
        // The one name that other servers believe.
        let proxy_client = Subject::Client { user: "front-proxy-client", groups: &[] };
        let proxy_client = front_proxy.identity("front-proxy-client", &proxy_client)?;
        let issuer = Arc::new(Issuer::new(ISSUER, &signing_key(data)?)?);
        step.done();

        let step = progress.step("store");
        let resources: Vec<_> = kinds::all().to_vec();
        let folder = data.folder("store")?;
        let extract = apiserver::extract(&resources);
        let store = store::Embedded::open(&folder, store::Options::default(), extract)?;
        step.done();

        let step = progress.step("API server");
        let listener = TcpListener::bind(addresses.listen).await.with_context(|| {
            format!(
                "cannot listen on {}: is another server there? Choose another port with --port",
                addresses.listen
            )
        })?;
        let listener_port = listener.local_addr()?.port();
        let mut config = apiserver::Config::new(Arc::clone(&store) as Arc<dyn store::Store>, resources);
        let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
        let rbac = Arc::new(Rbac::new(Arc::clone(&reader)));
        config.authenticators = vec![
            Arc::new(ClientCertificate),
            Arc::new(ServiceAccountTokens { issuer: Arc::clone(&issuer), reader: Arc::clone(&reader) }),
        ];
        config.authorizers = vec![
            Arc::new(Masters),
            Arc::new(NodeAuthorizer::new(Arc::clone(&reader))),
            Arc::clone(&rbac) as _,
        ];
        let authorizer: Arc<dyn access::Authorizer> = Arc::new(access::Union(config.authorizers.clone()));
        config.admission = admission::chain(Arc::clone(&rbac), &authorizer);
        config.anonymous = true;
        config.audit = audit;
        config.service_cidrs = vec![IpNet::V4(addresses.services)];
        // Nobody else reaches a loopback address: the Service `kubernetes` has no endpoints then.
        config.advertise = Some((addresses.advertise, listener_port)).filter(|(ip, _)| !ip.is_loopback());
        config.bootstrap = access::bootstrap::rbac_objects().into_iter().map(|(_, object)| object).collect();
        config.bootstrap.extend(own_objects(addresses));
        config.issuer = Some(issuer);
        config.client_authority = Some(authority.certificate.clone());
        config.front_proxy_authority = Some(front_proxy.certificate.clone());
        config.front_proxy =
            Some(ClientIdentity { certificate: proxy_client.certificate, key: proxy_client.key });
        let kubelet_client =
            Subject::Client { user: "kube-apiserver-kubelet-client", groups: &["system:masters"] };
        let kubelet_client = authority.identity("apiserver-kubelet-client", &kubelet_client)?;
        config.nodes = Some(Arc::new(Connector::new(&authority, &kubelet_client)?));
        config.rbac = Some(Arc::clone(&rbac));
        for (name, component) in &mut config.components {
            let part = if name == "scheduler" { Part::Scheduler } else { Part::Controllers };
            if !without.contains(&part) {
                *component = apiserver::Component::Here;
            }
        }
        let server = Server::new(config);
        server.start().await?;
        let tls = tls(&[&authority.certificate, &front_proxy.certificate], &serving)?;
        let mut tasks = tokio::task::JoinSet::new();
        let serving = server.clone();
        tasks.spawn(async move {
            if let Err(error) = serving.serve(listener, tls).await {
                tracing::error!(%error, "the API server stopped listening");
            }
        });
        let url = format!("https://{}:{}", reachable(addresses), listener_port);
        data.write(kubeconfig::FILE, &kubeconfig::text(&url, &authority.certificate, &admin))?;
        step.done();
        let mut control = Self { server, url, authority, store, tasks };
        control.run_loops(data, addresses, without)?;
        Ok(control)
    }

    /// Starts what works beside the server, each as a client of it.
    fn run_loops(&mut self, data: &Data, addresses: &Addresses, without: &[Part]) -> Result<()> {
        if !without.contains(&Part::Scheduler) {
            let client = self.client("system:kube-scheduler", &[]);
            self.tasks.spawn(scheduler::shell::run(client, scheduler::Policy::Pack));
        }
        if !without.contains(&Part::Controllers) {
            self.run_controllers(data, addresses)?;
        }
        Ok(())
    }

    fn run_controllers(&mut self, data: &Data, addresses: &Addresses) -> Result<()> {
        let client = self.client(
            "system:serviceaccount:kube-system:service-controller",
            &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
        );
        let pool = addresses.pool;
        self.tasks.spawn(async move {
            if let Err(error) = network::loadbalancer::run(client, pool).await {
                tracing::error!(%error, "LoadBalancer addresses are no longer given out");
            }
        });
        let volumes = std::path::absolute(data.folder("volumes")?)?;
        let key = data.read("pki/ca.key")?.context("pki/ca.key is missing: restore it from a backup")?;
        let authority =
            controllers::certificates::authority::Authority::from_pem(&self.authority.certificate, &key)
                .map_err(anyhow::Error::msg)?;
        let settings = controllers::cluster_loops::Settings {
            ca: self.authority.certificate.clone(),
            authority: Some(authority),
            // Tokens without end are what bound tokens have replaced.
            sign: None,
            pod_networks: vec![Range::new(IpNet::V4(addresses.pods), NODE_MASK)?],
            volumes: Some(volumes.clone()),
            disks: None,
        };
        let loops = controllers::all(&controllers::Options { cluster: Some(settings) });
        // Upstream gives every loop an account of its own; one process that has the store needs no such walls.
        let client = self.client("system:kube-controller-manager", &["system:masters"]);
        let disks = Arc::new(OnThisMachine { root: volumes });
        self.tasks.spawn(controllers::driver::run_with_disks(client, loops, Some(disks)));
        Ok(())
    }

    /// Stops listening and closes the store.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.server.flush().await;
        self.store.close();
    }
}

impl Plane for Control {
    fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push(access::AUTHENTICATED.to_owned());
        let user = UserInfo { name: user.to_owned(), groups, ..UserInfo::default() };
        kube::Client::new(self.server.service_as(user), "default")
    }

    fn serving(&self, name: &str, subject: &Subject<'_>) -> Result<Identity> {
        self.authority.identity(name, subject)
    }

    fn callers(&self) -> &str {
        &self.authority.certificate
    }
}

fn reachable(addresses: &Addresses) -> IpAddr {
    if addresses.listen.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        addresses.listen.ip()
    }
}

fn server_subject(addresses: &Addresses) -> Subject<'static> {
    let mut names = vec!["localhost".to_owned()];
    for suffix in ["", ".default", ".default.svc", ".default.svc.cluster.local"] {
        names.push(format!("kubernetes{suffix}"));
    }
    let ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), addresses.advertise, addresses.kubernetes()];
    Subject::Server { name: "kube-apiserver", groups: &[], names, addresses: ips }
}

fn signing_key(data: &Data) -> Result<String> {
    if let Some(key) = data.read("pki/sa.key")? {
        return Ok(key);
    }
    let key = Issuer::generate_key()?;
    data.write("pki/sa.key", &key)?;
    Ok(key)
}

/// What exists in every cluster of ours beside what exists in every cluster.
fn own_objects(addresses: &Addresses) -> Vec<apimachinery::Object> {
    // Nodes answer the address themselves: the Service reserves it, and is where tools look for it.
    let dns = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system",
            "labels": { "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true" } },
        "spec": { "clusterIP": addresses.dns().to_string(), "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP" },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP" } ] }
    });
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "standard",
            "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": "plimsoll.dev/local-path", "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer"
    });
    vec![dns, class]
}

/// TLS 1.2 and 1.3; a client may show a certificate of one of these authorities.
pub fn tls(authorities: &[&str], identity: &Identity) -> Result<Arc<rustls::ServerConfig>> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let mut roots = rustls::RootCertStore::empty();
    for authority in authorities {
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate?)?;
        }
    }
    let clients =
        rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated().build()?;
    let chain =
        CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    let mut config =
        rustls::ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
