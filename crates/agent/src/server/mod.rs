//! The kubelet's HTTPS API: pods, logs, commands in containers, statistics.
//!
//! In reading order: here requests are admitted ([`auth`]) and led to what answers them: [`pods`], [`logs`], [`streams`]
//! (exec, attach, port-forward: passed on to the runtime's streaming server), [`stats`] and [`metrics`].

mod auth;
mod configz;
mod logs;
mod metrics;
mod pods;
mod reply;
mod stats;
mod streams;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use percent_encoding::percent_decode_str;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{Config, view::Pods};
use auth::{Auth, Refusal, Wish};
use reply::{Refused, Reply, text};

/// Connections served at once.
const CONNECTIONS: usize = 4096;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(32);
/// Bytes of a request's head; a command of an exec is part of it.
const MAX_HEAD: usize = 1 << 20;
/// HTTP/2 requests at a time on one connection.
const HTTP2_STREAMS: u32 = 100;

/// A server that listens.
#[derive(Debug)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// Ends after the shutdown, once all connections have been let go.
    pub task: JoinHandle<()>,
}

/// Serves `config.server` until the shutdown. Returns as soon as the address is bound.
///
/// # Errors
/// When the configuration has no server, or its address cannot be bound.
pub async fn run(config: Config, pods: Arc<dyn Pods>, shutdown: CancellationToken) -> io::Result<Listening> {
    let Some(server) = config.server.clone() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the agent is not told to serve"));
    };
    let listener = server.listener.try_clone()?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let kubelet = Arc::new(Kubelet {
        auth: Auth::new(config.client.clone(), config.node_name.clone()),
        stats: stats::Stats::default(),
        requests: metrics::Requests::default(),
        shutdown: shutdown.clone(),
        config,
        pods,
    });
    let acceptor = TlsAcceptor::from(server.tls);
    let task = tokio::spawn(async move {
        let tracker = tokio_util::task::TaskTracker::new();
        let accept = accept(listener, acceptor, kubelet, &tracker, &shutdown);
        shutdown.run_until_cancelled(accept).await;
        tracker.close();
        tracker.wait().await;
    });
    Ok(Listening { address, task })
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    kubelet: Arc<Kubelet>,
    tracker: &tokio_util::task::TaskTracker,
    shutdown: &CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, kubelet, shutdown) = (acceptor.clone(), kubelet.clone(), shutdown.clone());
                tracker.spawn(async move {
                    shutdown.run_until_cancelled(connection(stream, acceptor, kubelet)).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors: one has to be closed first.
                tracing::warn!(%error, "the kubelet's API cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, kubelet: Arc<Kubelet>) {
    // Keystrokes of an exec must not wait for more of them.
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return,
    };
    let certificate: Option<Arc<[u8]>> =
        stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(|c| c.as_ref().into());
    let service = service_fn(move |request| {
        let (kubelet, certificate) = (kubelet.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(kubelet.serve(request, certificate.as_deref()).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS);
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error, "a connection ended");
    }
}

struct Kubelet {
    config: Config,
    pods: Arc<dyn Pods>,
    auth: Auth,
    stats: stats::Stats,
    requests: metrics::Requests,
    shutdown: CancellationToken,
}

impl Kubelet {
    async fn serve(self: Arc<Self>, request: Request<Incoming>, certificate: Option<&[u8]>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let _counted = self.requests.begin(&method, &path);
        let wish = Wish::of(&method, &path);
        match self.auth.admit(certificate, request.headers(), &wish).await {
            Ok(user) => tracing::debug!(user = user.name, %method, path, "a request to the kubelet"),
            Err(refusal) => {
                let refused = match refusal {
                    Refusal::Unauthorized => Refused(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
                    Refusal::Forbidden(why) => Refused(StatusCode::FORBIDDEN, why),
                    Refusal::Unknown(why) => Refused::internal(why),
                };
                return refused.reply();
            }
        }
        match self.route(request, &path).await {
            Ok(reply) => reply,
            Err(refused) => refused.reply(),
        }
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Result<Reply, Refused> {
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(|t| t.into_owned());
        let parts: Vec<String> = path
            .split('/')
            .filter(|p| !p.is_empty())
            .map(decoded)
            .collect::<Result<_, _>>()
            .map_err(|_| Refused::bad_request("the path is not UTF-8"))?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let method = request.method().clone();
        let stream = matches!(parts.first(), Some(&("exec" | "attach" | "portForward")));
        let allowed: &[Method] = match parts.first() {
            Some(&"run" | &"checkpoint") => &[Method::POST],
            _ if stream => &[Method::GET, Method::POST],
            _ => &[Method::GET],
        };
        if !allowed.contains(&method) {
            return Ok(method_not_allowed(allowed));
        }
        match *parts.as_slice() {
            ["pods"] => pods::all(self),
            ["runningpods"] => pods::running(self).await,
            ["containerLogs", namespace, pod, container] => {
                logs::serve(self, [namespace, pod, container], request.uri().query().unwrap_or_default())
                    .await
            }
            [kind @ ("exec" | "attach"), namespace, pod, container] => {
                streams::command(self, kind, (namespace, pod, None, container), request).await
            }
            [kind @ ("exec" | "attach"), namespace, pod, uid, container] => {
                streams::command(self, kind, (namespace, pod, Some(uid), container), request).await
            }
            ["portForward", namespace, pod] => {
                streams::port_forward(self, (namespace, pod, None), request).await
            }
            ["portForward", namespace, pod, uid] => {
                streams::port_forward(self, (namespace, pod, Some(uid)), request).await
            }
            ["run", namespace, pod, container] => {
                streams::run(self, (namespace, pod, None, container), request.uri().query()).await
            }
            ["run", namespace, pod, uid, container] => {
                streams::run(self, (namespace, pod, Some(uid), container), request.uri().query()).await
            }
            ["stats", "summary"] => {
                let query = request.uri().query().unwrap_or_default();
                let brief = streams::values(query, "only_cpu_and_memory").iter().any(|v| v == "true");
                let summary = self.stats.summary(&self.config, &*self.pods, brief).await?;
                serde_json::to_vec(&summary).map(reply::json).map_err(Refused::internal)
            }
            ["metrics"] => Ok(metrics::own(self)),
            ["metrics", "resource"] => Ok(metrics::resource(self).await),
            ["metrics", "cadvisor"] => metrics::cadvisor(self).await,
            ["healthz" | "livez" | "readyz"] | ["healthz", "ping" | "log" | "syncloop"] => Ok(text("ok")),
            ["configz"] => Ok(configz::serve(self)),
            _ => Err(Refused::not_found("404: Page Not Found")),
        }
    }
}

fn method_not_allowed(allowed: &[Method]) -> Reply {
    let mut reply = Refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".to_owned()).reply();
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    if let Ok(allowed) = allowed.join(", ").parse() {
        reply.headers_mut().insert(header::ALLOW, allowed);
    }
    reply
}
