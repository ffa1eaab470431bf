//! What a server is made of, and the seams to what lies outside it.

use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

use access::{Admission, Authenticator, Authorizer, rbac::Rbac, token::Issuer};
use apimachinery::{ApiError, Object};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use kinds::Resource;
use store::Store;

use crate::{
    audit::Audit,
    body::{Body, RequestBody},
    catalogue::{Catalogue, Served},
    reader::StoreReader,
};

/// A certificate with its key, both PEM: whom this server says it is where it is the client.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The chain, leaf first.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// How a connection to an address is protected.
#[derive(Clone)]
pub enum Tls {
    /// Not at all.
    Plain,
    /// Encrypted, to anybody: `https:` targets of the pod and service proxy, as upstream treats them.
    Unverified,
    /// The same, but this server says who it is: an APIService with `insecureSkipTLSVerify`.
    UnverifiedAs(ClientIdentity),
    /// Encrypted, to a server that shows a certificate for `name`.
    Verified {
        /// The authorities that are trusted, PEM; empty: those of the machine.
        authorities: Vec<u8>,
        /// A DNS name or an address.
        name: String,
        /// What the server is shown, if it asks.
        identity: Option<ClientIdentity>,
    },
}

/// Reaches nodes, and addresses on the pod and service network.
#[async_trait]
pub trait NodeConnector: Send + Sync {
    /// Sends a request to the kubelet of `node` (its decoded object) over authenticated TLS; the URI has path and query
    /// only. An answer of 101 carries [`hyper::upgrade::OnUpgrade`] in its extensions.
    async fn kubelet(
        &self,
        node: &Object,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError>;
    /// Sends a request to an address: of a pod, of a service, or of a server outside that extends this one. An answer of
    /// 101 carries [`hyper::upgrade::OnUpgrade`] in its extensions.
    async fn address(
        &self,
        address: IpAddr,
        port: u16,
        tls: Tls,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError>;
}

/// A part of the control plane beside this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// It runs within this process, which ends when the part does.
    Here,
    /// If it runs, it answers at `https://127.0.0.1:PORT/healthz`.
    Port(u16),
}

/// Everything a server needs.
pub struct Config {
    /// Where objects lie.
    pub store: Arc<dyn Store>,
    /// The built-in kinds.
    pub resources: Vec<Arc<Resource>>,
    /// Asked in order; the first that knows the caller answers.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// Asked in order; the first that has an opinion decides.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Run in order.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Callers without credentials are `system:anonymous` instead of being refused.
    pub anonymous: bool,
    /// Service addresses, the primary family first.
    pub service_cidrs: Vec<IpNet>,
    /// Node ports: 30000–32767 upstream.
    pub node_ports: RangeInclusive<u16>,
    /// Where this server is reached: endpoints of `default/kubernetes`.
    pub advertise: Option<(IpAddr, u16)>,
    /// Objects that have to exist: RBAC bootstrap and the like, made at start when they are missing.
    pub bootstrap: Vec<Object>,
    /// Sees `store` decoded; authorizers and admission plugins are made with it.
    pub reader: StoreReader,
    /// Answers SelfSubjectRulesReviews; the same as in `authorizers`.
    pub rbac: Option<Arc<Rbac>>,
    /// Signs and checks ServiceAccount tokens; without it `serviceaccounts/token` is not served.
    pub issuer: Option<Arc<Issuer>>,
    /// Reaches kubelets; without it log, exec, attach, port-forward and proxy answer 503.
    pub nodes: Option<Arc<dyn NodeConnector>>,
    /// Whom aggregated servers know as this server: a certificate of the front proxy's authority, its common name
    /// `front-proxy-client`.
    pub front_proxy: Option<ClientIdentity>,
    /// The front proxy's authority, PEM: clients with its certificates may say in headers for whom they ask, here and at
    /// aggregated servers. The listener has to accept its certificates too.
    pub front_proxy_authority: Option<String>,
    /// The authority of client certificates, PEM, for aggregated servers that accept them.
    pub client_authority: Option<String>,
    /// Whose state `componentstatuses` tells, by name; what is not told of otherwise is looked for at upstream's ports.
    pub components: Vec<(String, Component)>,
    /// Requests that are worked at at a time, shared out to priority levels: 600 upstream.
    pub seats: u32,
    /// The audit log, if one is kept.
    pub audit: Option<Arc<Audit>>,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
}

impl Config {
    /// A server over `store` that serves `resources` to nobody yet.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, resources: Vec<Arc<Resource>>) -> Self {
        let catalogue = Catalogue::of(resources.iter().map(|r| Arc::new(Served::new(r.clone()))), 0);
        Self {
            reader: StoreReader::new(store.clone(), Arc::new(catalogue)),
            store,
            resources,
            authenticators: Vec::new(),
            authorizers: Vec::new(),
            admission: Vec::new(),
            anonymous: false,
            service_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert(
                std::net::Ipv4Addr::new(10, 96, 0, 0),
                16,
            ))],
            node_ports: 30000..=32767,
            advertise: None,
            bootstrap: Vec::new(),
            rbac: None,
            issuer: None,
            nodes: None,
            front_proxy: None,
            front_proxy_authority: None,
            client_authority: None,
            components: vec![
                ("controller-manager".to_owned(), Component::Port(10257)),
                ("scheduler".to_owned(), Component::Port(10259)),
            ],
            seats: 600,
            audit: None,
            now: Utc::now,
        }
    }
}
