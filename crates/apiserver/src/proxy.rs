//! Requests that a node or a pod answers: logs, exec, attach, port-forward, and the proxy subresource.
//!
//! They are passed on as they came. A connection is taken over only when the other side says 101 (CVE-2018-1002105); the
//! address is the one that was looked up, no redirect is followed (CVE-2020-8559).

mod connect;
mod kubelet;
mod links;
mod socket;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use access::{Attributes, Reader as _};
use apimachinery::{ApiError, Object, meta};
use http::{HeaderMap, HeaderValue, Method, Uri, header, request::Builder};
use hyper_util::rt::TokioIo;
use rand::seq::IndexedRandom as _;
use serde_json::Value;

use crate::{
    Response,
    audit::Trail,
    body::{Body, RequestBody},
    catalogue::Served,
    config::Tls,
    respond, route,
    server::{Call, Inner},
    verbs,
};

/// The kubelet's usual port.
const KUBELET_PORT: u64 = 10250;

/// Headers that belong to one connection or to the caller's identity.
const PRIVATE: [header::HeaderName; 3] = [header::AUTHORIZATION, header::HOST, header::COOKIE];

/// Headers that ask for a WebSocket.
const HANDSHAKE: [header::HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

/// Passes the request on.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    call: &mut Call,
    served: &Arc<Served>,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let info = &call.info;
    let stream = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward");
    let allowed = match info.subresource.as_str() {
        "log" => call.method == Method::GET,
        _ => !stream || matches!(call.method, Method::GET | Method::POST),
    };
    if !allowed {
        return Err(route::not_allowed());
    }
    if stream || info.resource == "nodes" && upgrades(&call.headers) {
        // WebSockets come as GET: leave to read a pod or a node must not be enough to run commands there
        // (kubernetes#133515).
        inner.authorize(&Attributes { verb: "create".to_owned(), ..call.attributes() })?;
    }
    if info.subresource == "proxy" && bare(call) {
        return Ok(with_slash(call));
    }
    if call.info.subresource != "log" {
        connect::admit(inner, call, served).await?;
    }
    let way = way(inner, call, served)?;
    if stream && !upgrades(&call.headers) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    if matches!(way, Way::Nowhere) {
        return Ok(respond::nothing());
    }
    let connector = inner
        .config
        .nodes
        .clone()
        .ok_or_else(|| ApiError::other(503, "ServiceUnavailable", "this server reaches no nodes"))?;
    let response = match &way {
        Way::Nowhere => return Err(ApiError::internal("there is nobody to ask")),
        Way::Kubelet { node, uri } => {
            let request = request(call, uri)?.body(body).map_err(ApiError::internal)?;
            connector.kubelet(node, request).await?
        }
        Way::Address { address, port, tls, uri } => {
            let request = request(call, uri)?.body(body).map_err(ApiError::internal)?;
            let tls = if *tls { Tls::Unverified } else { Tls::Plain };
            connector.address(*address, *port, tls, request).await?
        }
    };
    if call.info.subresource == "log" {
        let response = kubelet::checked(response, &call.info.name).await?;
        if socket::wanted(&call.headers) {
            return socket::send(response, &call.headers, call.upgrade.take(), call.trail.clone());
        }
        return Ok(response);
    }
    let response = relay(response, call.upgrade.take(), call.trail.clone())?;
    match way {
        Way::Address { address, port, .. } => {
            let host = call.headers.get(header::HOST).and_then(|h| h.to_str().ok());
            let hosts = [SocketAddr::new(address, port).to_string(), host.unwrap_or_default().to_owned()];
            Ok(links::Place { prefix: root(call), hosts }.rewrite(response))
        }
        Way::Kubelet { .. } | Way::Nowhere => Ok(response),
    }
}

/// The path before what is proxied.
fn root(call: &Call) -> String {
    let path = call.uri.path();
    let rest = rest(call);
    let rest = rest.split('?').next().unwrap_or_default();
    path.strip_suffix(rest).unwrap_or(path).trim_end_matches('/').to_owned()
}

/// Whether the request wants its connection.
pub(crate) fn upgrades(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case("upgrade"))
}

/// Whether the proxied path is empty, not even `/`, and the method one that can be sent elsewhere.
fn bare(call: &Call) -> bool {
    call.info.rest.is_empty()
        && !call.uri.path().ends_with('/')
        && matches!(call.method, Method::GET | Method::HEAD)
        && !upgrades(&call.headers)
}

/// Sends the client to the same place with a slash, so that relative links in the answer work.
fn with_slash(call: &Call) -> Response {
    let query = call.uri.query().map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = respond::plain(301, "text/plain", Vec::new());
    if let Ok(location) =
        HeaderValue::from_str(&format!("/{}/{query}", call.uri.path().trim_start_matches('/')))
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Who answers.
enum Way {
    Kubelet {
        node: Arc<Object>,
        uri: String,
    },
    Address {
        address: IpAddr,
        port: u16,
        tls: bool,
        uri: String,
    },
    /// A pod that has no node yet has said nothing.
    Nowhere,
}

fn way(inner: &Arc<Inner>, call: &Call, served: &Arc<Served>) -> Result<Way, ApiError> {
    let info = &call.info;
    let stored = |name: &str| -> Result<Object, ApiError> {
        served.object(&*verbs::existing(inner, served, &info.namespace, name)?)
    };
    let uri = rest(call);
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("nodes", _) => {
            let target = Target::parse(&info.name)?;
            let node = stored(&target.name)?;
            let kubelet = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
            match target.number() {
                Some(port) if kubelet.unwrap_or(KUBELET_PORT) != u64::from(port) => {
                    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
                    let internal = addresses.clone().find(|a| a["type"] == "InternalIP");
                    let address = allowed(internal.and_then(|a| a["address"].as_str()))?;
                    Ok(Way::Address { address, port, tls: target.tls, uri })
                }
                _ => Ok(Way::Kubelet { node: Arc::new(node), uri }),
            }
        }
        ("pods", "proxy") => {
            let target = Target::parse(&info.name)?;
            let pod = stored(&target.name)?;
            let address = allowed(pod["status"]["podIP"].as_str())?;
            let first = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
            let port = target
                .number()
                .or(first.and_then(|p| u16::try_from(p).ok()))
                .unwrap_or(if target.tls { 443 } else { 80 });
            Ok(Way::Address { address, port, tls: target.tls, uri })
        }
        ("services", "proxy") => {
            let target = Target::parse(&info.name)?;
            let service = stored(&target.name)?;
            let (address, port) = endpoint(inner, &service, &target)?;
            Ok(Way::Address { address, port, tls: target.tls, uri })
        }
        _ => {
            let pod = stored(&info.name)?;
            let uri = kubelet::location(info, &pod, &call.query)?;
            if info.subresource == "log" && pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
                return Ok(Way::Nowhere);
            }
            Ok(Way::Kubelet { node: node_of(inner, &pod)?, uri })
        }
    }
}

/// Path and query behind the subresource, as they came.
fn rest(call: &Call) -> String {
    let info = &call.info;
    // api, version, [namespaces, namespace,] resource, name, subresource
    let before = 5 + if info.namespace.is_empty() { 0 } else { 2 } + usize::from(!info.group.is_empty());
    let mut path = call.uri.path();
    for _ in 0..before {
        path = path.trim_start_matches('/');
        path = path.find('/').and_then(|end| path.get(end..)).unwrap_or_default();
    }
    let path = path.strip_prefix('/').unwrap_or(path);
    match call.uri.query() {
        Some(query) => format!("/{path}?{query}"),
        None => format!("/{path}"),
    }
}

/// `[https:]name[:port]`
struct Target {
    name: String,
    port: String,
    tls: bool,
}

impl Target {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => ("?", "", ""),
        };
        if !matches!(scheme, "" | "http" | "https") || name.is_empty() {
            return Err(ApiError::bad_request(format!("invalid proxy request {text:?}")));
        }
        Ok(Self { name: name.to_owned(), port: port.to_owned(), tls: scheme == "https" })
    }

    fn number(&self) -> Option<u16> {
        self.port.parse().ok()
    }
}

/// An address that may be dialled: not this machine's own, which a pod's status could be made to say.
fn allowed(address: Option<&str>) -> Result<IpAddr, ApiError> {
    // An IPv4 address in IPv6's clothes is what it is underneath.
    let parsed = address.and_then(|a| a.parse::<IpAddr>().ok()).map(|a| a.to_canonical());
    let Some(address) = parsed else { return Err(ApiError::bad_request("address not allowed")) };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if address.is_loopback() || address.is_unspecified() || address.is_multicast() || link_local {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(address)
}

/// A ready endpoint of the service, chosen at random, and the port that its slice names.
fn endpoint(inner: &Inner, service: &Object, target: &Target) -> Result<(IpAddr, u16), ApiError> {
    let name = meta::name(service);
    let ports = service["spec"]["ports"].as_array();
    let wanted = |p: &&Value| {
        target.port.is_empty()
            || p["name"] == target.port.as_str()
            || p["port"].as_u64() == target.number().map(u64::from)
    };
    let port = ports.into_iter().flatten().find(wanted);
    let none =
        || ApiError::other(503, "ServiceUnavailable", format!("no endpoints available for service {name:?}"));
    let port_name = port.ok_or_else(none)?["name"].as_str().unwrap_or_default().to_owned();
    let mut ready = Vec::new();
    for slice in inner.reader.list("discovery.k8s.io", "endpointslices", meta::namespace(service)) {
        if meta::label(&slice, "kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let number = slice["ports"].as_array().into_iter().flatten();
        let mut number = number.filter(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let Some(number) = number.next().and_then(|p| u16::try_from(p["port"].as_u64()?).ok()) else {
            continue;
        };
        for one in slice["endpoints"].as_array().into_iter().flatten() {
            if one["conditions"]["ready"] != false
                && let Ok(address) = allowed(one["addresses"][0].as_str())
            {
                ready.push((address, number));
            }
        }
    }
    ready.choose(&mut rand::rng()).copied().ok_or_else(none)
}

/// A ready endpoint behind one port of a Service.
pub(crate) fn service_endpoint(
    inner: &Inner,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<(IpAddr, u16), ApiError> {
    let service = inner
        .stored("", "services", namespace, name)
        .ok_or_else(|| ApiError::not_found("", "services", name))?;
    let target = Target { name: name.to_owned(), port: port.to_string(), tls: true };
    endpoint(inner, &service, &target)
}

fn node_of(inner: &Inner, pod: &Object) -> Result<Arc<Object>, ApiError> {
    let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", meta::name(pod))));
    }
    inner.stored("", "nodes", "", name).ok_or_else(|| ApiError::not_found("", "nodes", name))
}

fn request(call: &Call, uri: &str) -> Result<Builder, ApiError> {
    let uri: Uri = uri.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    let mut builder = http::Request::builder().method(call.method.clone()).uri(uri);
    // A log over WebSocket is one on our side alone.
    let plain = call.info.subresource == "log";
    for (name, value) in &call.headers {
        // Pages are read on their way: their links are moved.
        let compressed = call.info.subresource == "proxy" && name == header::ACCEPT_ENCODING;
        if !(PRIVATE.contains(name) || plain && HANDSHAKE.contains(name) || compressed) {
            builder = builder.header(name, value);
        }
    }
    Ok(builder.header(header::HOST, HeaderValue::from_static("kubelet")))
}

/// Gives the answer back, and joins the two connections when the other side switched protocols.
pub(crate) fn relay(
    mut response: http::Response<Body>,
    client: Option<hyper::upgrade::OnUpgrade>,
    trail: Option<Arc<Trail>>,
) -> Result<Response, ApiError> {
    if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let Some(client) = client else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let Some(upstream) = response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>() else {
        return Err(ApiError::internal("the node switched protocols without a connection"));
    };
    tokio::spawn(async move {
        // The request is complete when the connections have parted.
        let _trail = trail;
        // The client's half is there only once the answer below has been sent.
        let joined = async {
            let (client, upstream) = tokio::try_join!(client, upstream)?;
            let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
            // Either side closing ends it; what was in flight has been copied.
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut upstream).await {
                tracing::debug!(%error, "a stream to a node ended");
            }
            Ok::<(), hyper::Error>(())
        };
        if let Err(error) = joined.await {
            tracing::debug!(%error, "a connection could not be taken over");
        }
    });
    let (parts, _) = response.into_parts();
    Ok(http::Response::from_parts(parts, Body::empty()))
}
