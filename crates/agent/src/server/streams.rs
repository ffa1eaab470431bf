//! Commands in containers and connections to pods: the runtime names the URL of its streaming server, and the connection
//! is joined with it as it is, whatever protocol it speaks.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpStream;

use super::{
    Kubelet,
    reply::{self, Refused, Reply},
};
use crate::spec;

/// A container: namespace, pod, UID if it matters, name.
type Place<'a> = (&'a str, &'a str, Option<&'a str>, &'a str);

/// The values of a parameter of a query.
pub(super) fn values(query: &str, name: &str) -> Vec<String> {
    form_urlencoded::parse(query.as_bytes()).filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect()
}

/// `/exec/…` and `/attach/…`
pub(super) async fn command(
    kubelet: &Kubelet,
    kind: &str,
    place: Place<'_>,
    request: Request<Incoming>,
) -> Result<Reply, Refused> {
    let query = request.uri().query().unwrap_or_default();
    let on = |name: &str| values(query, name).first().is_some_and(|v| v == "1");
    let (stdin, stdout, tty) = (on("input"), on("output"), on("tty"));
    // a terminal has one output
    let stderr = on("error") && !tty;
    if !stdin && !stdout && !stderr {
        return Err(Refused::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let (pod, id) = running(kubelet, place)?;
    let runtime = &kubelet.config.runtime;
    let failed = |status: tonic::Status| Refused::runtime(&status);
    let url = if kind == "exec" {
        let cmd = values(query, "command");
        let ask = cri::ExecRequest { container_id: id, cmd, tty, stdin, stdout, stderr };
        runtime.exec(tonic::Request::new(ask)).await.map_err(failed)?.into_inner().url
    } else {
        // A process cannot be given a terminal once it runs.
        let spec = spec::spec(&pod);
        let tty = spec::part(&spec, place.3).is_some_and(|p| p.container.tty == Some(true));
        let ask = cri::AttachRequest { container_id: id, tty, stdin, stdout, stderr: stderr && !tty };
        runtime.attach(tonic::Request::new(ask)).await.map_err(failed)?.into_inner().url
    };
    splice(kubelet, request, &url).await
}

/// `/portForward/…`
pub(super) async fn port_forward(
    kubelet: &Kubelet,
    (namespace, name, uid): (&str, &str, Option<&str>),
    request: Request<Incoming>,
) -> Result<Reply, Refused> {
    let port = ports(&request)?;
    let pod = kubelet.pods.get(namespace, name, None);
    let pod = pod.ok_or_else(|| Refused::not_found("pod does not exist"))?;
    if uid.is_some_and(|uid| pod.metadata.uid.as_deref() != Some(uid)) {
        return Err(Refused::not_found("pod not found"));
    }
    let full = format!("{name}_{namespace}");
    let pod_sandbox_id = kubelet
        .pods
        .sandbox(namespace, name)
        .ok_or_else(|| Refused::internal(format!("pod not found ({full:?})")))?;
    let ask = cri::PortForwardRequest { pod_sandbox_id, port };
    let url = kubelet.config.runtime.port_forward(tonic::Request::new(ask)).await;
    splice(kubelet, request, &url.map_err(|status| Refused::runtime(&status))?.into_inner().url).await
}

/// The ports that WebSockets with channels have to name; other protocols name them later.
fn ports<B>(request: &Request<B>) -> Result<Vec<i32>, Refused> {
    let has = |name, word: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|v: &HeaderValue| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    let tunnel = has(header::SEC_WEBSOCKET_PROTOCOL, "SPDY/3.1+portforward.k8s.io");
    if !has(header::UPGRADE, "websocket") || tunnel {
        return Ok(Vec::new());
    }
    let named = values(request.uri().query().unwrap_or_default(), "port");
    if named.is_empty() {
        return Err(Refused::bad_request("query parameter \"port\" is required"));
    }
    let mut ports = Vec::new();
    for port in named.iter().flat_map(|list| list.split(',')) {
        match port.parse::<u16>() {
            _ if port.is_empty() => {
                return Err(Refused::bad_request("query parameter \"port\" cannot be empty"));
            }
            Ok(0) => return Err(Refused::bad_request(format!("port {port:?} must be > 0"))),
            Ok(port) => ports.push(port.into()),
            Err(error) => {
                return Err(Refused::bad_request(format!("unable to parse {port:?} as a port: {error}")));
            }
        }
    }
    Ok(ports)
}

/// `/run/…`: a command to its end, its outputs in one.
pub(super) async fn run(kubelet: &Kubelet, place: Place<'_>, query: Option<&str>) -> Result<Reply, Refused> {
    let (_, container_id) = running(kubelet, place)?;
    let line = values(query.unwrap_or_default(), "cmd").into_iter().next().unwrap_or_default();
    let cmd = line.split(' ').map(str::to_owned).collect();
    let ask = cri::ExecSyncRequest { container_id, cmd, timeout: 0 };
    let ran = kubelet.config.runtime.exec_sync(tonic::Request::new(ask)).await;
    let ran = ran.map_err(|status| Refused::internal(status.message()))?.into_inner();
    let output = [ran.stdout, ran.stderr].concat();
    if ran.exit_code != 0 {
        let output = String::from_utf8_lossy(&output);
        return Err(Refused::internal(format!("command '{line}' exited with {}: {output}", ran.exit_code)));
    }
    Ok(reply::json(output))
}

/// The pod, and the runtime's id of the container, which runs.
fn running(
    kubelet: &Kubelet,
    (namespace, name, uid, container): Place<'_>,
) -> Result<(Arc<Pod>, String), Refused> {
    let pod = kubelet.pods.get(namespace, name, None);
    let pod = pod.ok_or_else(|| Refused::not_found("pod does not exist"))?;
    let same = uid.is_none_or(|uid| pod.metadata.uid.as_deref() == Some(uid));
    let view = kubelet.pods.container(namespace, name, container).filter(|view| view.running && same);
    match view.and_then(|view| view.id) {
        Some(id) => Ok((pod, id)),
        None => Err(Refused::internal(format!("container not found ({container:?})"))),
    }
}

/// Passes the request on to the URL, and joins the two connections when the other side switches protocols.
async fn splice(kubelet: &Kubelet, mut request: Request<Incoming>, url: &str) -> Result<Reply, Refused> {
    let upgrades = request.headers().get(header::CONNECTION).is_some_and(|v| {
        v.to_str().is_ok_and(|v| v.split(',').any(|v| v.trim().eq_ignore_ascii_case("upgrade")))
    });
    if !upgrades || request.version() != http::Version::HTTP_11 {
        return Err(Refused::bad_request("Upgrade request required"));
    }
    let failed = |why: &dyn std::fmt::Display| Refused::internal(format!("error dialing the runtime: {why}"));
    let uri: Uri = url.parse().map_err(|e| failed(&e))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| failed(&"its streaming URL is not one of http"))?;
    let stream =
        TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80)))
            .await
            .map_err(|e| failed(&e))?;
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to the runtime ended");
        }
    });
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let mut onward = Request::builder().method(request.method()).uri(path);
    for (name, value) in request.headers() {
        // Whoever asked has been let in here; their credentials stay here. A body is none of an upgrade's.
        let private = [header::AUTHORIZATION, header::COOKIE, header::HOST, header::CONTENT_LENGTH];
        if !private.contains(name) && name != header::TRANSFER_ENCODING {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.header(header::HOST, authority.as_str());
    let onward = onward.body(Empty::<bytes::Bytes>::new()).map_err(|e| failed(&e))?;
    let mut response = sender.send_request(onward).await.map_err(|e| failed(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()));
    }
    let shutdown = kubelet.shutdown.clone();
    let (client, runtime) = (hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut response));
    tokio::spawn(async move {
        // The client's half is there only once the answer below has been sent.
        let (client, runtime) = match tokio::try_join!(client, runtime) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a connection could not be taken over"),
        };
        let (mut client, mut runtime) = (TokioIo::new(client), TokioIo::new(runtime));
        let joined = tokio::io::copy_bidirectional(&mut client, &mut runtime);
        if let Some(Err(error)) = shutdown.run_until_cancelled(joined).await {
            tracing::debug!(%error, "a stream ended");
        }
    });
    let (parts, _) = response.into_parts();
    Ok(Response::from_parts(parts, reply::full("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports_of(query: &str, protocol: Option<&str>) -> Result<Vec<i32>, String> {
        let mut request = Request::builder().uri(format!("/portForward/a/b?{query}"));
        if let Some(protocol) = protocol {
            request = request.header("Upgrade", "websocket").header("Sec-WebSocket-Protocol", protocol);
        }
        ports(&request.body(()).unwrap()).map_err(|refused| refused.1)
    }

    #[test]
    fn only_websockets_with_channels_name_their_ports_at_once() {
        assert_eq!(ports_of("", None), Ok(vec![]));
        assert_eq!(ports_of("port=x", Some("SPDY/3.1+portforward.k8s.io")), Ok(vec![]));
        assert_eq!(ports_of("port=80,443&port=8080", Some("v4.channel.k8s.io")), Ok(vec![80, 443, 8080]));
        for bad in ["", "port=", "port=0", "port=65536", "port=80,,81"] {
            assert!(ports_of(bad, Some("v4.channel.k8s.io")).is_err(), "{bad}");
        }
    }
}
