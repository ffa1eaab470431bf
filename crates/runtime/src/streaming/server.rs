//! The HTTP server: a token is taken, the protocol agreed on, the connection handed over.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, header::HeaderName};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use k8s_cri::v1 as cri;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::{
    Backend, Wanted,
    port_forward::{self, Forward},
    process::Purpose,
    remote_command::{self, Command},
    tokens::{LIFETIME, Tokens},
    websocket,
};

/// Connections served at once.
const CONNECTIONS: usize = 4096;
/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Protocols of SPDY's streams for exec and attach, newest first.
const SPDY_COMMAND: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const SPDY_FORWARD: [&str; 1] = ["portforward.k8s.io"];
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_VERSIONS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

type Reply = Response<Full<Bytes>>;

/// A handle on the server; clones share it, and it stops when the last is dropped.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

struct Inner {
    address: SocketAddr,
    tokens: Mutex<Tokens<Target>>,
    backend: Arc<dyn Backend>,
    stop: CancellationToken,
}

/// What a token stands for.
#[derive(Clone, Debug)]
enum Target {
    Exec(Command),
    Attach(Command),
    PortForward(Forward),
}

impl Target {
    fn path(&self) -> &'static str {
        match self {
            Target::Exec(_) => "exec",
            Target::Attach(_) => "attach",
            Target::PortForward(_) => "portforward",
        }
    }
}

impl Server {
    /// Listens on `address` (a loopback address; port 0 takes a free one) and serves until the last handle is dropped.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(backend: Arc<dyn Backend>, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            address: listener.local_addr()?,
            tokens: Mutex::new(Tokens::new()),
            backend,
            stop: stop.clone(),
        });
        tokio::spawn(listen(listener, inner.clone()));
        Ok(Self { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// The URL for CRI's `Exec`.
    ///
    /// # Errors
    /// `InvalidArgument` for a request that contradicts itself, `ResourceExhausted` while too many URLs wait.
    pub fn exec_url(&self, request: &cri::ExecRequest) -> Result<String, Status> {
        let wanted =
            Wanted { tty: request.tty, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        let purpose = Purpose::Exec { command: request.cmd.clone() };
        self.url(Target::Exec(command(&request.container_id, purpose, wanted)?))
    }

    /// The URL for CRI's `Attach`.
    ///
    /// # Errors
    /// As [`Server::exec_url`].
    pub fn attach_url(&self, request: &cri::AttachRequest) -> Result<String, Status> {
        let wanted =
            Wanted { tty: request.tty, stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        self.url(Target::Attach(command(&request.container_id, Purpose::Attach, wanted)?))
    }

    /// The URL for CRI's `PortForward`.
    ///
    /// # Errors
    /// As [`Server::exec_url`].
    pub fn port_forward_url(&self, request: &cri::PortForwardRequest) -> Result<String, Status> {
        if request.pod_sandbox_id.is_empty() {
            return Err(Status::invalid_argument("missing required pod_sandbox_id"));
        }
        let port = |p: &i32| {
            u16::try_from(*p)
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(|| Status::invalid_argument(format!("invalid port {p}")))
        };
        let ports = request.port.iter().map(port).collect::<Result<_, _>>()?;
        self.url(Target::PortForward(Forward { sandbox: request.pod_sandbox_id.clone(), ports }))
    }

    fn url(&self, target: Target) -> Result<String, Status> {
        let path = target.path();
        let token = self
            .inner
            .tokens
            .lock()
            .insert(target, std::time::Instant::now())
            .map_err(|_| Status::resource_exhausted("maximum number of in-flight requests exceeded"))?;
        Ok(format!("http://{}/{path}/{token}", self.inner.address))
    }
}

fn command(container: &str, purpose: Purpose, wanted: Wanted) -> Result<Command, Status> {
    if container.is_empty() {
        return Err(Status::invalid_argument("missing required container_id"));
    }
    if wanted.tty && wanted.stderr {
        return Err(Status::invalid_argument("tty and stderr cannot both be true"));
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
    }
    Ok(Command { container: container.to_owned(), purpose, wanted })
}

async fn listen(listener: TcpListener, inner: Arc<Inner>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stop = inner.stop.clone();
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let inner = inner.clone();
                    tokio::spawn(async move {
                        let stop = inner.stop.clone();
                        stop.run_until_cancelled(serve(stream, inner)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors: one has to be closed first.
                    tracing::warn!(%error, "the streaming server cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    // Keystrokes must not wait for more of them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection has gone");
        return;
    }
    let service = service_fn(move |request| {
        let reply = answer(&inner, request);
        async move { Ok::<_, Infallible>(reply) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a request for a stream failed");
    }
}

fn answer(inner: &Arc<Inner>, request: Request<Incoming>) -> Reply {
    let target = match request.uri().path().split('/').collect::<Vec<_>>().as_slice() {
        ["", kind @ ("exec" | "attach" | "portforward"), token] => {
            if ![Method::GET, Method::POST].contains(request.method()) {
                return text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
            }
            let now = std::time::Instant::now();
            inner.tokens.lock().take(token, now).filter(|t| t.path() == *kind)
        }
        _ => None,
    };
    let Some(target) = target else {
        let seconds = LIFETIME.as_secs();
        let why = format!("no such stream; its URL is good for one request within {seconds} s");
        return text(StatusCode::NOT_FOUND, &why);
    };
    let reply = if websocket::is_upgrade(request.headers()) {
        over_websocket(inner, target, request)
    } else {
        over_spdy(inner, target, request)
    };
    reply.unwrap_or_else(|refusal| *refusal)
}

fn over_websocket(
    inner: &Arc<Inner>,
    target: Target,
    mut request: Request<Incoming>,
) -> Result<Reply, Box<Reply>> {
    let headers = request.headers();
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
        let mut reply = text(StatusCode::BAD_REQUEST, "the version of the WebSocket protocol must be 13");
        reply.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(reply.into());
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Box::new(text(StatusCode::BAD_REQUEST, "missing Sec-WebSocket-Key")))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(internal)?;
    let unknown = || Box::new(text(StatusCode::FORBIDDEN, "none of the WebSocket subprotocols is known"));
    let backend = inner.backend.clone();
    let on = hyper::upgrade::on(&mut request);
    let headers = request.headers();
    let name = match target {
        Target::Exec(command) | Target::Attach(command) => {
            let (name, protocol) =
                websocket::negotiate(headers, websocket::Protocol::named).ok_or_else(unknown)?;
            hand_over(inner, on, move |io| remote_command::over_websocket(command, backend, protocol, io));
            name
        }
        Target::PortForward(forward) => {
            let (name, protocol) =
                websocket::negotiate(headers, port_forward::Protocol::named).ok_or_else(unknown)?;
            hand_over(inner, on, move |io| port_forward::over_websocket(forward, backend, protocol, io));
            name
        }
    };
    let mut reply = switching("websocket");
    reply.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if !name.is_empty() {
        let name = HeaderValue::from_str(&name).map_err(internal)?;
        reply.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok(reply)
}

fn over_spdy(
    inner: &Arc<Inner>,
    target: Target,
    mut request: Request<Incoming>,
) -> Result<Reply, Box<Reply>> {
    let headers = request.headers();
    let known: &[&str] = match target {
        Target::PortForward(_) => &SPDY_FORWARD,
        _ => &SPDY_COMMAND,
    };
    let mut offered = headers
        .get_all(PROTOCOL_VERSION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        let why = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(text(StatusCode::BAD_REQUEST, why).into());
    }
    let Some(protocol) = offered.find_map(|o| known.iter().copied().find(|k| *k == o)) else {
        let why =
            format!("unable to upgrade: unable to negotiate protocol: server accepts [{}]", known.join(" "));
        let mut reply = text(StatusCode::FORBIDDEN, &why);
        for one in known {
            reply.headers_mut().append(ACCEPTED_VERSIONS, HeaderValue::from_static(one));
        }
        return Err(reply.into());
    };
    if !names(headers, header::CONNECTION, "upgrade") || !names(headers, header::UPGRADE, "spdy/3.1") {
        return Err(
            text(StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request").into()
        );
    }
    let backend = inner.backend.clone();
    let on = hyper::upgrade::on(&mut request);
    match target {
        Target::Exec(command) | Target::Attach(command) => {
            let version = SPDY_COMMAND.len() - SPDY_COMMAND.iter().position(|p| *p == protocol).unwrap_or(0);
            hand_over(inner, on, move |io| remote_command::over_spdy(command, backend, version, io));
        }
        Target::PortForward(forward) => {
            hand_over(inner, on, move |io| port_forward::over_spdy(forward, backend, tokio::io::split(io)));
        }
    }
    let mut reply = switching("SPDY/3.1");
    reply.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(protocol));
    Ok(reply)
}

/// Serves the connection once the answer below has been sent.
fn hand_over<F>(
    inner: &Arc<Inner>,
    on: hyper::upgrade::OnUpgrade,
    serve: impl FnOnce(websocket::Upgraded) -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let stop = inner.stop.clone();
    tokio::spawn(async move {
        match on.await {
            Ok(io) => _ = stop.run_until_cancelled(serve(TokioIo::new(io))).await,
            Err(error) => tracing::debug!(%error, "a client went before its stream began"),
        }
    });
}

/// Whether a header's list has this word.
pub(super) fn names(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name);
    values
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case(word))
}

fn switching(protocol: &'static str) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    reply.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    reply
}

fn text(status: StatusCode, words: &str) -> Reply {
    let mut reply = Response::new(Full::from(format!("{words}\n")));
    *reply.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, plain);
    reply
}

fn internal(error: impl std::fmt::Display) -> Box<Reply> {
    Box::new(text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))
}
