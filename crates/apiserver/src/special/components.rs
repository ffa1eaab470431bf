//! `componentstatuses`: how the scheduler, the controllers and the store are, found out when it is asked for.
//!
//! Deprecated upstream and still read by `kubectl get componentstatuses` and some dashboards. Parts that run within this
//! process are well as long as it lives; others are asked over HTTPS at upstream's ports of this machine, whoever they
//! are, as upstream asks them.
//!
//! Source: `k8s.io/kubernetes/pkg/registry/core/componentstatus`.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use apimachinery::{ApiError, Object};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use serde_json::json;

use super::unstored;
use crate::{
    Response, body,
    catalogue::Served,
    config::{Component, Tls},
    negotiate::Offer,
    options::List,
    route,
    selection::Selection,
    server::{Call, Inner},
};

/// How long a component may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest answer that is shown.
const LONGEST: usize = 10 << 10;
/// The first, and here the only, server of the store.
const STORE: &str = "etcd-0";

/// What a check has found: `True`, `False` or `Unknown`, what the component says, and why it could not be asked.
#[derive(Debug, PartialEq)]
struct Health(&'static str, String, String);

/// GET of one or of all.
pub(crate) async fn serve(inner: &Arc<Inner>, call: &Call, served: &Served) -> Result<Response, ApiError> {
    let one = call.info.named_by_path;
    match call.info.verb {
        "get" | "list" => {}
        "watch" => {
            let why = "watch is not supported on resources of kind \"componentstatuses\"";
            let mut error = ApiError::other(405, "MethodNotAllowed", why);
            error.details = Some(json!({"kind": "componentstatuses"}));
            return Err(error);
        }
        _ => return Err(route::not_allowed()),
    }
    let media = call.media(if one { Offer::Object } else { Offer::List })?;
    let options = List::parse(&call.query, false)?;
    let selection = Selection::new(options.labels, options.fields, &served.resource)?;
    let mut names: Vec<&str> = inner.config.components.iter().map(|(name, _)| &**name).collect();
    names.push(STORE);
    names.retain(|name| if one { *name == call.info.name } else { selection.matches_name(name) });
    if one && names.is_empty() {
        return Err(ApiError::not_found("", "componentstatus", &call.info.name));
    }
    let found = futures::future::join_all(names.into_iter().map(|name| status(inner, name))).await;
    unstored::answer(call, served, media, found)
}

async fn status(inner: &Inner, name: &str) -> Object {
    let component = inner.config.components.iter().find(|(known, _)| known == name);
    let Health(status, message, error) = match component {
        Some((_, Component::Here)) => Health("True", "ok".to_owned(), String::new()),
        Some((_, Component::Port(port))) => match tokio::time::timeout(PATIENCE, ask(inner, *port)).await {
            Ok(health) => health,
            Err(_) => Health("False", format!("{}: deadline exceeded", asking(*port)), String::new()),
        },
        None if inner.store_failed.load(Ordering::Relaxed) == 0 => {
            Health("True", "ok".to_owned(), String::new())
        }
        None => Health("False", "the store cannot be written".to_owned(), String::new()),
    };
    let mut condition = json!({"type": "Healthy", "status": status});
    for (field, text) in [("message", message), ("error", error)] {
        if !text.is_empty() {
            condition[field] = text.into();
        }
    }
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition]})
}

fn asking(port: u16) -> String {
    format!("Get \"https://127.0.0.1:{port}/healthz\"")
}

/// Asks whoever listens at the port how it is.
async fn ask(inner: &Inner, port: u16) -> Health {
    let refused = |why: String| Health("False", format!("{}: {why}", asking(port)), String::new());
    if let Err(error) = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        let why = match error.kind() {
            ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            _ => error.to_string(),
        };
        return refused(format!("dial tcp 127.0.0.1:{port}: connect: {why}"));
    }
    let Some(connector) = &inner.config.nodes else {
        return Health("Unknown", String::new(), "this server has nothing to ask others with".to_owned());
    };
    let empty = body::boxed(http_body_util::Empty::<Bytes>::new());
    let Ok(request) = http::Request::get("/healthz").body(empty) else {
        return refused("no request".to_owned());
    };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let response = match connector.address(address, port, Tls::Unverified, request).await {
        Ok(response) => response,
        Err(error) => return refused(error.message),
    };
    let code = response.status().as_u16();
    if !(200..400).contains(&code) {
        return Health("False", format!("HTTP probe failed with statuscode: {code}"), String::new());
    }
    match Limited::new(response.into_body(), LONGEST).collect().await {
        Ok(body) => Health("True", String::from_utf8_lossy(&body.to_bytes()).into_owned(), String::new()),
        Err(error) => refused(error.to_string()),
    }
}
