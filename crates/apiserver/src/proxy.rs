//! Requests that a node or a pod answers: logs, exec, attach, port-forward, and the proxy subresource.
//!
//! They are passed on as they came. A connection is taken over only when the other side says 101 (CVE-2018-1002105); the
//! address is the one that was looked up, no redirect is followed (CVE-2020-8559).

use std::{net::IpAddr, sync::Arc};

use access::Reader as _;
use apimachinery::{ApiError, Object, meta};
use http::{HeaderValue, Uri, header, request::Builder};
use hyper_util::rt::TokioIo;
use rand::seq::IndexedRandom as _;
use serde_json::Value;

use crate::{
    Response,
    body::{Body, RequestBody},
    catalogue::Served,
    request::RequestInfo,
    server::{Call, Inner},
    verbs,
};

/// Headers that belong to one connection or to the caller's identity.
const PRIVATE: [header::HeaderName; 3] = [header::AUTHORIZATION, header::HOST, header::COOKIE];

/// Passes the request on.
pub(crate) async fn serve(
    inner: &Arc<Inner>,
    call: &mut Call,
    served: &Arc<Served>,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let connector = inner
        .config
        .nodes
        .clone()
        .ok_or_else(|| ApiError::other(503, "ServiceUnavailable", "this server reaches no nodes"))?;
    let way = way(inner, call, served)?;
    let (Way::Kubelet { path, .. } | Way::Address { path, .. }) = &way;
    let uri = match query(call) {
        Some(query) => format!("{path}?{query}"),
        None => path.clone(),
    };
    let request = request(call, &uri)?.body(body).map_err(ApiError::internal)?;
    let response = match &way {
        Way::Kubelet { node, .. } => connector.kubelet(node, request).await?,
        Way::Address { address, port, tls, .. } => connector.address(*address, *port, *tls, request).await?,
    };
    relay(response, call.upgrade.take())
}

/// The query as the other side reads it: the kubelet has names of its own for the streams of a process.
fn query(call: &Call) -> Option<String> {
    let given = call.uri.query()?;
    if !matches!(call.info.subresource.as_str(), "exec" | "attach") {
        return Some(given.to_owned());
    }
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(given.as_bytes()) {
        let is_on = matches!(&*value, "1" | "t" | "T" | "true" | "TRUE" | "True");
        match &*name {
            "command" => query.append_pair("command", &value),
            "stdin" if is_on => query.append_pair("input", "1"),
            "stdout" if is_on => query.append_pair("output", "1"),
            "stderr" if is_on => query.append_pair("error", "1"),
            "tty" if is_on => query.append_pair("tty", "1"),
            _ => &mut query,
        };
    }
    Some(query.finish())
}

/// Who answers.
enum Way {
    Kubelet { node: Arc<Object>, path: String },
    Address { address: IpAddr, port: u16, tls: bool, path: String },
}

fn way(inner: &Arc<Inner>, call: &Call, served: &Arc<Served>) -> Result<Way, ApiError> {
    let info = &call.info;
    let stored = |name: &str| -> Result<Object, ApiError> {
        served.object(&*verbs::existing(inner, served, &info.namespace, name)?)
    };
    let path = format!("/{}", info.rest);
    match (info.resource.as_str(), info.subresource.as_str()) {
        ("nodes", _) => Ok(Way::Kubelet { node: Arc::new(stored(&info.name)?), path }),
        ("pods", "proxy") => {
            let target = Target::parse(&info.name)?;
            let pod = stored(&target.name)?;
            let address = allowed(pod["status"]["podIP"].as_str())?;
            let first = pod["spec"]["containers"][0]["ports"][0]["containerPort"].as_u64();
            let port = target
                .number()
                .or(first.and_then(|p| u16::try_from(p).ok()))
                .unwrap_or(if target.tls { 443 } else { 80 });
            Ok(Way::Address { address, port, tls: target.tls, path })
        }
        ("services", "proxy") => {
            let target = Target::parse(&info.name)?;
            let service = stored(&target.name)?;
            let (address, port) = endpoint(inner, &service, &target)?;
            Ok(Way::Address { address, port, tls: target.tls, path })
        }
        _ => {
            let pod = stored(&info.name)?;
            Ok(Way::Kubelet { node: node_of(inner, &pod)?, path: kubelet_path(info, &pod, &call.query)? })
        }
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
    let parsed = address.and_then(|a| a.parse::<IpAddr>().ok());
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

fn node_of(inner: &Inner, pod: &Object) -> Result<Arc<Object>, ApiError> {
    let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", meta::name(pod))));
    }
    inner.stored("", "nodes", "", name).ok_or_else(|| ApiError::not_found("", "nodes", name))
}

/// `/containerLogs/NS/POD/CONTAINER`, `/exec/NS/POD/CONTAINER`, `/portForward/NS/POD`
fn kubelet_path(info: &RequestInfo, pod: &Object, query: &crate::request::Query) -> Result<String, ApiError> {
    let (namespace, name) = (&info.namespace, &info.name);
    if info.subresource == "portforward" {
        return Ok(format!("/portForward/{namespace}/{name}"));
    }
    let container = container(pod, query.text("container"), name)?;
    let verb = match info.subresource.as_str() {
        "log" => "containerLogs",
        other => other,
    };
    Ok(format!("/{verb}/{namespace}/{name}/{container}"))
}

fn container(pod: &Object, asked: &str, name: &str) -> Result<String, ApiError> {
    let names = |field: &str| {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect::<Vec<_>>()
    };
    let main = names("containers");
    let init = names("initContainers");
    if asked.is_empty() {
        return match main.as_slice() {
            [one] => Ok(one.clone()),
            _ => {
                let mut text = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    main.join(" ")
                );
                if !init.is_empty() {
                    text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(ApiError::bad_request(text))
            }
        };
    }
    let known = main.iter().chain(&init).chain(&names("ephemeralContainers")).any(|c| c == asked);
    if known {
        Ok(asked.to_owned())
    } else {
        Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")))
    }
}

fn request(call: &Call, uri: &str) -> Result<Builder, ApiError> {
    let uri: Uri = uri.parse().map_err(|e| ApiError::bad_request(format!("{e}")))?;
    let mut builder = http::Request::builder().method(call.method.clone()).uri(uri);
    for (name, value) in &call.headers {
        if !PRIVATE.contains(name) {
            builder = builder.header(name, value);
        }
    }
    Ok(builder.header(header::HOST, HeaderValue::from_static("kubelet")))
}

/// Gives the answer back, and joins the two connections when the other side switched protocols.
fn relay(
    mut response: http::Response<Body>,
    client: Option<hyper::upgrade::OnUpgrade>,
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
