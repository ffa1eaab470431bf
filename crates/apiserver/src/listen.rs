//! The network side: TLS, HTTP/1.1 and HTTP/2.
//!
//! `connection` serves one connection within its limits, `occupation` knows what it is at, `joined` lets its bytes out.

mod connection;
mod joined;
mod occupation;

use std::{sync::Arc, time::Duration};

use connection::Deadlines;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{
    audit::Remote,
    server::{ClientCertificates, Server},
};

/// So long may a TLS handshake take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

impl Server {
    /// Serves connections until the future is dropped. Errors of one connection end that connection only.
    pub async fn serve(self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) -> std::io::Result<()> {
        let acceptor = TlsAcceptor::from(tls);
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, or the client went away: others may still be served.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let (server, acceptor) = (self.clone(), acceptor.clone());
            connections.spawn(async move {
                let _ = stream.set_nodelay(true);
                let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await
                else {
                    return;
                };
                server.connection(stream).await;
            });
        }
    }

    async fn connection(&self, stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) {
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = ClientCertificates(Arc::new(chain.iter().map(|c| c.to_vec()).collect()));
        let remote = stream.get_ref().0.peer_addr().ok().map(Remote);
        let service = self.service().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(certificates.clone());
            if let Some(remote) = remote {
                request.extensions_mut().insert(remote);
            }
            // Who asks is told by credentials alone, whatever a transport may have put here.
            request.extensions_mut().remove::<access::UserInfo>();
            request.extensions_mut().remove::<Arc<access::UserInfo>>();
            request
        });
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        connection::serve(stream, http2, service, Deadlines::default()).await;
    }
}
