//! An API server alone, as `make oracle`, `bench/api --alone` and debuggers want it: nothing works beside it, its store is gone with it.
//!
//! `serve FOLDER PORT`: FOLDER holds `ca.crt` (signs clients), `server.crt`, `server.key`; it listens on 127.0.0.1. With a
//! policy there, `audit-policy.yaml`, it keeps an audit log, `ours-audit.log`.

use std::{net::Ipv4Addr, path::Path, sync::Arc};

use access::{
    admission,
    node::NodeAuthorizer,
    rbac::{Masters, Rbac},
    token::{Issuer, ServiceAccountTokens},
    x509::ClientCertificate,
};
use apiserver::{Audit, Config, Log, Policy, Rotation, Server};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

type Error = Box<dyn std::error::Error>;

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err("serve FOLDER PORT".into());
    };
    let folder = Path::new(&folder);
    let resources = kinds::all().to_vec();
    let extract = apiserver::extract(&resources);
    let store = store::Embedded::open(&folder.join("store"), store::Options::default(), extract)?;
    let mut config = Config::new(Arc::clone(&store) as Arc<dyn store::Store>, resources);
    let reader: Arc<dyn access::Reader> = Arc::new(config.reader.clone());
    let rbac = Arc::new(Rbac::new(Arc::clone(&reader)));
    let issuer = Arc::new(Issuer::new("https://bench.invalid", &Issuer::generate_key()?)?);
    config.authenticators = vec![
        Arc::new(ClientCertificate),
        Arc::new(ServiceAccountTokens { issuer: Arc::clone(&issuer), reader: Arc::clone(&reader) }),
    ];
    config.authorizers =
        vec![Arc::new(Masters), Arc::new(NodeAuthorizer::new(reader)), Arc::clone(&rbac) as _];
    let authorizer: Arc<dyn access::Authorizer> = Arc::new(access::Union(config.authorizers.clone()));
    config.admission = admission::chain(Arc::clone(&rbac), &authorizer);
    config.anonymous = true;
    config.bootstrap = access::bootstrap::rbac_objects().into_iter().map(|(_, object)| object).collect();
    config.issuer = Some(issuer);
    config.rbac = Some(rbac);
    let policy = folder.join("audit-policy.yaml");
    if policy.exists() {
        let log = Log::to_file(&folder.join("ours-audit.log"), Rotation::default())?;
        config.audit = Some(Audit::new(Policy::parse(&std::fs::read_to_string(policy)?)?, log));
    }
    let server = Server::new(config);
    server.start().await?;
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse::<u16>()?)).await?;
    server.serve(listener, tls(folder)?).await?;
    Ok(())
}

fn tls(folder: &Path) -> Result<Arc<rustls::ServerConfig>, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(folder.join("ca.crt"))? {
        roots.add(certificate?)?;
    }
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
    let chain = CertificateDer::pem_file_iter(folder.join("server.crt"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
    let mut config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(clients.build()?)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
