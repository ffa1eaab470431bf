//! Calls to servers that extend this one: admission and conversion webhooks, aggregated API servers.
//!
//! A service is reached at one of its ready endpoints, chosen anew for each call; the address is dialled as it was looked
//! up, and no redirect is followed.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use apimachinery::ApiError;
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::Value;

use crate::{
    body::{self, Body, RequestBody},
    config::{ClientIdentity, Tls},
    proxy,
    server::Inner,
};

/// Where an extension is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `https://host[:port]/path`
    Url(http::Uri),
    /// Behind a Service.
    Service { namespace: String, name: String, port: u16, path: String },
}

/// An extension, and how it proves to be the right one.
#[derive(Clone)]
pub(crate) struct Target {
    pub place: Place,
    /// PEM; empty: the authorities of the machine.
    pub authorities: Vec<u8>,
    /// Whom it is shown.
    pub identity: Option<ClientIdentity>,
    /// Any certificate will do (`insecureSkipTLSVerify` of an APIService).
    pub unverified: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// `context deadline exceeded`, as Go's client words it.
    #[error("Post \"{url}\": context deadline exceeded")]
    Deadline { url: String },
    /// Nobody could be reached.
    #[error("Post \"{url}\": {why}")]
    Unreachable { url: String, why: String },
    /// It answered with something else than 200.
    #[error("{0}")]
    Refused(String),
    /// What it answered is no JSON.
    #[error("{0}")]
    Malformed(String),
}

/// Answers of webhooks are cut here.
const MOST: usize = 3 * 1024 * 1024;

impl Target {
    /// A `clientConfig` of a webhook: `{url}` or `{service: {namespace, name, path, port}, caBundle (base64)}`.
    pub fn of_client_config(config: &Value) -> Result<Self, String> {
        use base64::Engine as _;
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let authorities =
            base64::engine::general_purpose::STANDARD.decode(bundle).map_err(|e| e.to_string())?;
        let place = match config["url"].as_str() {
            Some(url) => Place::Url(url.parse().map_err(|e: http::uri::InvalidUri| e.to_string())?),
            None => {
                let service = &config["service"];
                let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
                let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
                Place::Service { namespace: text("namespace"), name: text("name"), port, path: text("path") }
            }
        };
        Ok(Self { place, authorities, identity: None, unverified: false })
    }

    /// The URL of a request to `path_and_query`, as messages name it.
    pub fn url(&self, path_and_query: &str) -> String {
        match &self.place {
            Place::Url(url) => {
                let authority = url.authority().map_or("", |a| a.as_str());
                format!("https://{authority}{path_and_query}")
            }
            Place::Service { namespace, name, port, .. } => {
                format!("https://{name}.{namespace}.svc:{port}{path_and_query}")
            }
        }
    }

    /// The path of the extension itself; `/` if none is given.
    pub fn path(&self) -> &str {
        let path = match &self.place {
            Place::Url(url) => url.path(),
            Place::Service { path, .. } => path,
        };
        if path.is_empty() { "/" } else { path }
    }

    fn server_name(&self) -> String {
        match &self.place {
            Place::Url(url) => url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned(),
            Place::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    async fn dial(&self, inner: &Inner) -> Result<(IpAddr, u16), ApiError> {
        match &self.place {
            Place::Url(url) => {
                let (host, port) = (self.server_name(), url.port_u16().unwrap_or(443));
                let mut found = tokio::net::lookup_host((host.as_str(), port))
                    .await
                    .map_err(|e| unavailable(&format!("dial tcp: lookup {host}: {e}")))?;
                let first =
                    found.next().ok_or_else(|| unavailable(&format!("lookup {host}: no such host")))?;
                Ok((first.ip(), port))
            }
            // This server itself, which has no pods behind its Service.
            Place::Service { namespace, name, .. } if namespace == "default" && name == "kubernetes" => inner
                .config
                .advertise
                .map(|(_, port)| (IpAddr::V4(Ipv4Addr::LOCALHOST), port))
                .ok_or_else(|| unavailable(&"this server is not reached over the network")),
            Place::Service { namespace, name, port, .. } => {
                proxy::service_endpoint(inner, namespace, name, *port)
            }
        }
    }

    /// Sends a request; its URI has path and query only. The host header is set here.
    pub async fn send(
        &self,
        inner: &Inner,
        mut request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        let connector =
            inner.config.nodes.clone().ok_or_else(|| unavailable(&"this server reaches no services"))?;
        let (address, port) = self.dial(inner).await?;
        let name = self.server_name();
        let host = HeaderValue::from_str(&name).map_err(|e| unavailable(&e))?;
        request.headers_mut().insert(header::HOST, host);
        let tls = match (self.unverified, self.identity.clone()) {
            (true, None) => Tls::Unverified,
            (true, Some(identity)) => Tls::UnverifiedAs(identity),
            (false, identity) => Tls::Verified { authorities: self.authorities.clone(), name, identity },
        };
        connector.address(address, port, tls, request).await
    }

    /// POSTs JSON to the extension's own path with `?query` and reads JSON, within `limit`.
    pub async fn post(
        &self,
        inner: &Inner,
        query: &str,
        document: &Value,
        limit: Duration,
    ) -> Result<Value, CallError> {
        let path = if query.is_empty() { self.path().to_owned() } else { format!("{}?{query}", self.path()) };
        let url = self.url(&path);
        let body = body::boxed(Full::new(Bytes::from(document.to_string())));
        let request = http::Request::post(&path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(body)
            .map_err(|e| CallError::Malformed(e.to_string()))?;
        // Most writes ask nobody and should not carry the room that a connection needs.
        let answer = Box::pin(async {
            let response = self
                .send(inner, request)
                .await
                .map_err(|e| CallError::Unreachable { url: url.clone(), why: e.message })?;
            let status = response.status();
            let bytes = Limited::new(response.into_body(), MOST)
                .collect()
                .await
                .map_err(|e| CallError::Malformed(e.to_string()))?
                .to_bytes();
            if !status.is_success() {
                return Err(CallError::Refused(refusal(status.as_u16(), &bytes)));
            }
            serde_json::from_slice(&bytes).map_err(|e| CallError::Malformed(e.to_string()))
        });
        match tokio::time::timeout(limit, answer).await {
            Ok(done) => done,
            Err(_) => Err(CallError::Deadline { url: self.url(&path) }),
        }
    }
}

/// What Go's client makes of an answer that is none: the server's words only where they may be shown.
fn refusal(code: u16, body: &[u8]) -> String {
    // As much as upstream reads of an error.
    const WORDS: usize = 2048;
    let words = String::from_utf8_lossy(body.get(..WORDS).unwrap_or(body));
    let words = words.trim();
    match code {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 | 415 if !words.is_empty() => words.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request"
            .to_owned(),
        500.. => format!("an error on the server ({words:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    }
}

fn unavailable(why: &dyn std::fmt::Display) -> ApiError {
    ApiError::other(503, "ServiceUnavailable", why.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_client_config_names_a_url_or_a_service() {
        let service = json!({"service": {"namespace": "n", "name": "s", "path": "/x"}, "caBundle": "aGk="});
        let target = Target::of_client_config(&service).unwrap();
        assert_eq!(target.url("/x?timeout=1s"), "https://s.n.svc:443/x?timeout=1s");
        assert_eq!((target.path(), target.server_name().as_str()), ("/x", "s.n.svc"));
        assert_eq!(target.authorities, b"hi");
        let url = Target::of_client_config(&json!({"url": "https://[::1]:8443/y"})).unwrap();
        assert_eq!((url.path(), url.server_name().as_str()), ("/y", "::1"));
        assert_eq!(url.url("/y"), "https://[::1]:8443/y");
        assert!(Target::of_client_config(&json!({"url": "https://x", "caBundle": "%"})).is_err());
    }
}
