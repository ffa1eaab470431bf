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

#[cfg(test)]
mod tests {
    //! Servers that extend ours, over real handshakes.

    use std::net::Ipv4Addr;

    use http_body_util::{BodyExt, Empty};
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    };
    use rustls::{
        crypto::ring::sign::any_supported_type,
        server::ResolvesServerCert,
        sign::{CertifiedKey, SingleCertAndKey},
    };
    use time::{Duration, OffsetDateTime};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::{data::Data, pki::Subject};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// What is common: a server's certificate for this machine's loopback address that calls itself an authority.
    fn own() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![SanType::IpAddress(HERE)];
        params
    }

    fn certificate(params: &CertificateParams, key: &KeyPair) -> CertificateDer<'static> {
        params.self_signed(key).unwrap().der().clone()
    }

    fn pem(certificates: &[&CertificateDer<'_>]) -> Vec<u8> {
        certificates
            .iter()
            .flat_map(|c| pem::encode(&pem::Pem::new("CERTIFICATE", c.to_vec())).into_bytes())
            .collect()
    }

    /// Calls a server that shows this certificate and signs with this key. Gives the status, or why it was not called.
    async fn call(shown: &CertificateDer<'static>, key: &KeyPair, bundle: &[u8]) -> Result<u16, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(&Data::at(folder.path())).unwrap();
        let identity = authority.identity("x", &Subject::Client { user: "x", groups: &[] }).unwrap();
        let connector = Connector::new(&authority, &identity).unwrap();

        let key = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap();
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![shown.clone()], key));
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown) as Arc<dyn ResolvesServerCert>);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut head = [0; 4096];
            if matches!(stream.read(&mut head).await, Ok(1..)) {
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::post("/").header("host", "127.0.0.1").body(body).unwrap();
        let tls = Tls::Verified { authorities: bundle.to_vec(), name: HERE.to_string(), identity: None };
        let answer = connector.address(HERE, port, tls, request).await;
        let answer = answer.map(|response| response.status().as_u16()).map_err(|error| error.message);
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_bundle_may_hold_the_very_certificate_that_is_shown() {
        let key = KeyPair::generate().unwrap();
        let marked_as_authority = certificate(&own(), &key);
        assert_eq!(call(&marked_as_authority, &key, &pem(&[&marked_as_authority])).await, Ok(204));

        // One of several, issued by somebody whom nobody knows.
        let mut nobody = CertificateParams::default();
        nobody.distinguished_name.push(DnType::CommonName, "nobody");
        let issuer = Issuer::new(nobody, KeyPair::generate().unwrap());
        let mut params = own();
        params.is_ca = IsCa::NoCa;
        let foreign = params.signed_by(&key, &issuer).unwrap().der().clone();
        let other = certificate(&own(), &KeyPair::generate().unwrap());
        assert_eq!(call(&foreign, &key, &pem(&[&other, &foreign])).await, Ok(204));
        assert!(call(&foreign, &key, &pem(&[&other])).await.unwrap_err().contains("UnknownIssuer"));
    }

    #[tokio::test]
    async fn a_certificate_of_the_bundle_has_to_be_valid_for_the_name_now_and_for_servers() {
        type Change = fn(&mut CertificateParams, OffsetDateTime);
        let key = KeyPair::generate().unwrap();
        let now = OffsetDateTime::now_utc();
        let cases: [(&str, Change); 4] = [
            ("certificate not valid for name", |params, _| {
                params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
            }),
            ("Expired", |params, now| params.not_after = now - Duration::hours(1)),
            ("NotValidYet", |params, now| params.not_before = now + Duration::hours(1)),
            ("InvalidPurpose", |params, _| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ];
        for (fault, change) in cases {
            let mut params = own();
            change(&mut params, now);
            let shown = certificate(&params, &key);
            let why = call(&shown, &key, &pem(&[&shown])).await.unwrap_err();
            assert!(why.contains(fault), "{fault}: {why}");
        }
        for purpose in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any] {
            let mut params = own();
            params.extended_key_usages = vec![purpose];
            let shown = certificate(&params, &key);
            assert_eq!(call(&shown, &key, &pem(&[&shown])).await, Ok(204));
        }
    }

    #[tokio::test]
    async fn nothing_but_the_very_certificate_stands_in_for_an_issued_one() {
        let key = KeyPair::generate().unwrap();
        let shown = certificate(&own(), &key);
        // The same names and the same key in another certificate.
        let mut params = own();
        params.serial_number = Some(7.into());
        let again = certificate(&params, &key);
        assert!(call(&again, &key, &pem(&[&shown])).await.unwrap_err().contains("CaUsedAsEndEntity"));
        // Who shows a certificate has to hold its key.
        let thief = KeyPair::generate().unwrap();
        assert!(call(&shown, &thief, &pem(&[&shown])).await.unwrap_err().contains("BadSignature"));
    }
}
