//! How the API server reaches kubelets, pods and services: HTTP/1.1 over one connection a request.
//!
//! The address is taken from the Node object once, validated, and dialled as it was validated (CVE-2020-8562). Redirects
//! are never followed: the answer goes back as it is.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, LazyLock},
};

use anyhow::Result;
use apimachinery::{ApiError, Object};
use apiserver::{Body, ClientIdentity, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pki::{Authority, Identity};

/// The kubelet's usual port.
const KUBELET_PORT: u16 = 10250;

/// Connections from the API server to the nodes of its cluster.
pub struct Connector {
    kubelet: TlsConnector,
    unverified: TlsConnector,
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
        let unverified = rustls::ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified))
            .with_no_client_auth();
        Ok(Self { kubelet: Arc::new(config).into(), unverified: Arc::new(unverified).into() })
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
        let (connector, name) = match tls {
            Tls::Plain => return send(TokioIo::new(dial(address, port).await?), request).await,
            Tls::Unverified => (self.unverified.clone(), ServerName::from(address)),
            Tls::UnverifiedAs(identity) => {
                let config = rustls::ClientConfig::builder()
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(Unverified));
                let config = shown(config, &identity).map_err(|e| unreachable(&e))?;
                (Arc::new(config).into(), ServerName::from(address))
            }
            Tls::Verified { authorities, name, identity } => {
                let config = verified(&authorities, identity.as_ref()).map_err(|e| unreachable(&e))?;
                let name = ServerName::try_from(name).map_err(|e| unreachable(&e))?;
                (Arc::new(config).into(), name)
            }
        };
        let stream = dial(address, port).await?;
        let stream = connector.connect(name, stream).await.map_err(|e| unreachable(&e))?;
        send(TokioIo::new(stream), request).await
    }
}

/// The authorities of the machine: reading them takes hundreds of files.
static MACHINE: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// Trusts `authorities` (PEM), or those of the machine if there are none.
fn verified(authorities: &[u8], identity: Option<&ClientIdentity>) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    if authorities.is_empty() {
        roots.add_parsable_certificates(MACHINE.iter().cloned());
    }
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate?)?;
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Ok(match identity {
        None => config.with_no_client_auth(),
        Some(identity) => shown(config, identity)?,
    })
}

/// The configuration with a certificate that servers are shown.
fn shown(
    config: rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>,
    identity: &ClientIdentity,
) -> Result<rustls::ClientConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;
    Ok(config.with_client_auth_cert(chain.collect::<Result<Vec<_>, _>>()?, key)?)
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

/// Accepts any certificate: `https:` targets of the pod and service proxy have certificates of their own, as upstream
/// treats them.
#[derive(Debug)]
struct Unverified;

impl rustls::client::danger::ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
