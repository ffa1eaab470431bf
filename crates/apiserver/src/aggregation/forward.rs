//! Passing a request on, and its answer back, as they come: bodies are streamed, connections taken over.
//!
//! Source: `handler_proxy.go`.

use std::sync::Arc;

use access::UserInfo;
use apimachinery::ApiError;
use http::{HeaderMap, HeaderName, header};

use super::{identity, table::Remote};
use crate::{
    Response,
    body::{self, RequestBody},
    proxy, respond,
    server::{Call, Inner},
};

/// Headers between two ends of one connection (RFC 9110, section 7.6.1).
const HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

/// What tells another server nothing it needs: credentials for this one, and whom the caller acts as, which is settled.
fn is_private(name: &HeaderName) -> bool {
    *name == header::AUTHORIZATION || *name == header::HOST || name.as_str().starts_with("impersonate-")
}

fn without_hops(headers: &mut HeaderMap, upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        if !(upgrade && name == header::UPGRADE) {
            headers.remove(name);
        }
    }
    for name in HOP {
        if !(upgrade && name == "connection") {
            headers.remove(name);
        }
    }
    if !upgrade {
        headers.remove(header::UPGRADE);
    }
}

/// Upstream's outer handlers speak plain text.
fn refusal(code: u16, text: &str) -> Response {
    let mut response = respond::text(code, format!("{text}\n"));
    response.headers_mut().insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}

/// Passes the request on to the server that answers its path.
pub(crate) async fn forward(
    inner: &Arc<Inner>,
    call: &mut Call,
    remote: &Remote,
    body: RequestBody,
) -> Result<Response, ApiError> {
    if !remote.available {
        return Ok(refusal(503, "service unavailable"));
    }
    let upgrade = proxy::upgrades(&call.headers);
    let path = call.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut request = http::Request::builder()
        .method(call.method.clone())
        .uri(path)
        .body(body)
        .map_err(ApiError::internal)?;
    let headers = request.headers_mut();
    for (name, value) in &call.headers {
        if !is_private(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    without_hops(headers, upgrade);
    identity::write(headers, &call.user)?;
    let mut response = match remote.backend.target.send(inner, request).await {
        Ok(response) => response,
        Err(error) => return Ok(refusal(503, &unreached(&error.message))),
    };
    // A server must not send a client, with its credentials, anywhere else.
    if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
        return Ok(refusal(502, "the backend attempted to redirect this request, which is not permitted"));
    }
    let switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    without_hops(response.headers_mut(), switched);
    proxy::relay(response, call.upgrade.take(), call.trail.clone())
}

fn unreached(why: &str) -> String {
    if why.starts_with("error trying to reach service") {
        return why.to_owned();
    }
    format!("error trying to reach service: {why}")
}

/// A document of the other server that this one shows as its own, asked for as the aggregator.
pub(crate) async fn document(
    inner: &Arc<Inner>,
    call: &Call,
    remote: &Remote,
    path: &str,
) -> Result<Response, ApiError> {
    let empty = body::boxed(http_body_util::Empty::<bytes::Bytes>::new());
    let mut request = http::Request::get(path).body(empty).map_err(ApiError::internal)?;
    for name in [header::ACCEPT, header::IF_NONE_MATCH] {
        if let Some(value) = call.headers.get(&name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    identity::write(request.headers_mut(), &aggregator())?;
    match remote.backend.target.send(inner, request).await {
        Ok(mut response) => {
            without_hops(response.headers_mut(), false);
            Ok(response)
        }
        Err(error) => Ok(refusal(503, &unreached(&error.message))),
    }
}

/// Whom other servers know as this one where it asks for itself: one who may see all of them.
pub(super) fn aggregator() -> UserInfo {
    UserInfo {
        name: "system:kube-aggregator".to_owned(),
        groups: vec!["system:masters".to_owned(), access::AUTHENTICATED.to_owned()],
        ..UserInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("close, x-mine"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        without_hops(&mut headers, false);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn an_upgrade_keeps_what_it_is_asked_with() {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        without_hops(&mut headers, true);
        assert_eq!(headers.len(), 2);
    }
}
