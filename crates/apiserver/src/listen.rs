//! The network side: TLS, HTTP/1.1 and HTTP/2.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::server::{ClientCertificates, Server};

/// A client that sends its request head slower than this is let go.
const HEAD_DEADLINE: Duration = Duration::from_secs(32);
/// So long may a TLS handshake take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Largest head, in bytes.
const HEAD_LIMIT: usize = 1 << 20;
/// HTTP/2 requests at a time on one connection.
const STREAMS: u32 = 250;

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
        let service = self.service().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(certificates.clone());
            // Who asks is told by credentials alone, whatever a transport may have put here.
            request.extensions_mut().remove::<access::UserInfo>();
            request.extensions_mut().remove::<Arc<access::UserInfo>>();
            request
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE).max_buf_size(HEAD_LIMIT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_LIMIT as u32);
        let served =
            builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
        if let Err(error) = served.await {
            tracing::debug!(error, "a connection ended");
        }
    }
}
