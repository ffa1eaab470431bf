//! Requests over TLS.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::fakes::{Identity, Node};

/// Nothing here takes longer.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it takes too long")
}

pub async fn connect(node: &Node, identity: Option<Identity>) -> TlsStream<TcpStream> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(node.authority.roots());
    let config = match identity {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(node.address).await.unwrap();
    let name = node.address.ip().into();
    soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

pub type Answer = http::Response<hyper::body::Incoming>;

pub async fn send(node: &Node, identity: Option<Identity>, request: Request<Empty<Bytes>>) -> Answer {
    let stream = TokioIo::new(connect(node, identity).await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    soon(sender.send_request(request)).await.unwrap()
}

pub fn request(method: Method, path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "node");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Empty::new()).unwrap()
}

pub async fn text(answer: Answer) -> String {
    let bytes = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// As the API server asks.
pub async fn ask(node: &Node, method: Method, path: &str) -> (u16, HeaderMap, String) {
    let identity = node.authority.identity("kube-apiserver", "system:masters");
    let answer = send(node, Some(identity), request(method, path, &[])).await;
    let (status, headers): (StatusCode, _) = (answer.status(), answer.headers().clone());
    (status.as_u16(), headers, text(answer).await)
}

pub async fn get(node: &Node, path: &str) -> (u16, String) {
    let (status, _, text) = ask(node, Method::GET, path).await;
    (status, text)
}
