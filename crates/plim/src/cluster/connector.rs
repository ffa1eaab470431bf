//! How the API server reaches kubelets, pods and services: HTTP/1.1 over one connection a request.
//!
//! The address is taken from the Node object once, validated, and dialled as it was validated (CVE-2020-8562). Redirects
//! are never followed: the answer goes back as it is.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use apimachinery::{ApiError, Object};
use apiserver::{Body, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::configs::{Configs, Wanted};
use crate::pki::{Authority, Identity};

/// The kubelet's usual port.
const KUBELET_PORT: u16 = 10250;

/// Connections from the API server to the nodes of its cluster.
pub struct Connector {
    kubelet: TlsConnector,
    extensions: Configs,
}

impl Connector {
    /// `identity`: whom the kubelets know as the API server.
    pub fn new(authority: &Authority, identity: &Identity) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.certificate.as_bytes()) {
            roots.add(certificate?)?;
        }
        let chain =
            CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self { kubelet: Arc::new(config).into(), extensions: Configs::default() })
    }
}

#[async_trait]
impl NodeConnector for Connector {
    async fn kubelet(
        &self,
        node: &Object,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        let name = node["metadata"]["name"].as_str().unwrap_or_default();
        let address = node["status"]["addresses"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|a| a["type"] == "InternalIP")
            .and_then(|a| a["address"].as_str()?.parse::<IpAddr>().ok())
            .ok_or_else(|| unreachable(&format!("node {name:?} has no InternalIP")))?;
        let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = port.and_then(|p| u16::try_from(p).ok()).unwrap_or(KUBELET_PORT);
        let stream = dial(address, port).await?;
        let tls =
            self.kubelet.connect(ServerName::from(address), stream).await.map_err(|e| unreachable(&e))?;
        send(TokioIo::new(tls), request).await
    }

    async fn address(
        &self,
        address: IpAddr,
        port: u16,
        tls: Tls,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        let (bundle, identity, name) = match tls {
            Tls::Plain => return send(TokioIo::new(dial(address, port).await?), request).await,
            Tls::Unverified => (None, None, ServerName::from(address)),
            Tls::UnverifiedAs(identity) => (None, Some(identity), ServerName::from(address)),
            Tls::Verified { authorities, name, identity } => {
                let name = ServerName::try_from(name).map_err(|e| unreachable(&e))?;
                (Some(authorities), identity, name)
            }
        };
        let connector = self.extensions.get(Wanted { bundle, identity }).map_err(|e| unreachable(&e))?;
        let stream = dial(address, port).await?;
        let stream = connector.connect(name, stream).await.map_err(|e| unreachable(&e))?;
        send(TokioIo::new(stream), request).await
    }
}

async fn dial(address: IpAddr, port: u16) -> Result<TcpStream, ApiError> {
    let stream = TcpStream::connect(SocketAddr::new(address, port)).await.map_err(|e| unreachable(&e))?;
    // Keystrokes of an exec must not wait for more of them.
    stream.set_nodelay(true).map_err(|e| unreachable(&e))?;
    Ok(stream)
}

fn unreachable(why: &dyn std::fmt::Display) -> ApiError {
    ApiError::other(503, "ServiceUnavailable", format!("error trying to reach service: {why}"))
}

async fn send<S>(
    stream: TokioIo<S>,
    request: http::Request<RequestBody>,
) -> Result<http::Response<Body>, ApiError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|e| unreachable(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a node ended");
        }
    });
    let response = sender.send_request(request).await.map_err(|e| unreachable(&e))?;
    Ok(response.map(Body::relay))
}
