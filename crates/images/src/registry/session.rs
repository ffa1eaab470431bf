//! Requests to one repository of one registry: authenticated, redirected and repeated as the protocol wants.

use std::{error::Error as _, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{
        AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
    },
};
use serde_json::Value;

use super::{
    Credentials,
    auth::{Challenge, Token, token_url},
    endpoint::{Client, is_loopback},
};
use crate::{Error, Result};

/// Attempts for a request that fails on the way or on the server's side.
const ATTEMPTS: u32 = 4;
const REDIRECTS: usize = 5;
/// Longest error body or token that is read.
const MAX_ANSWER: usize = 1024 * 1024;

/// What a request carries.
#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Bytes(Bytes),
    /// A file's content from an offset, this many bytes.
    File {
        path: PathBuf,
        from: u64,
        length: u64,
    },
}

/// A request that can be sent again.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Request {
        Request { method, url, headers: HeaderMap::new(), body: Body::Empty }
    }
}

/// Talks to one repository.
pub(crate) struct Session<'a> {
    pub(crate) client: &'a Client,
    /// The registry's name for messages.
    pub(crate) registry: String,
    pub(crate) base: Url,
    pub(crate) path: String,
    pub(crate) credentials: Option<Credentials>,
    /// What a token is asked for.
    pub(crate) scopes: Vec<String>,
}

impl Session<'_> {
    /// `v2/REPOSITORY/REST` at this registry.
    pub(crate) fn url(&self, rest: &str) -> Result<Url> {
        let base = self.base.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/v2/{}/{rest}", self.path))
            .map_err(|e| self.fail(format!("the address is wrong: {e}")))
    }

    pub(crate) fn fail(&self, why: impl Into<String>) -> Error {
        Error::registry(&self.registry, why)
    }

    /// Sends a request; the answer is a success, or 404, 416 or another refusal of the content that the caller reads.
    pub(crate) async fn send(&self, request: Request) -> Result<Response> {
        let mut authenticated = false;
        let mut attempt = 1;
        loop {
            let answer = self.follow(&request).await;
            let (why, wait) = match answer {
                Ok(response) => match response.status() {
                    StatusCode::UNAUTHORIZED if !authenticated => {
                        authenticated = true;
                        self.authenticate(&response).await?;
                        continue;
                    }
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        let why = self.words(response).await;
                        return Err(Error::Denied {
                            registry: self.registry.clone(),
                            repository: self.path.clone(),
                            why,
                        });
                    }
                    status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                        let wait = response
                            .headers()
                            .get(RETRY_AFTER)
                            .and_then(|v| v.to_str().ok()?.parse().ok())
                            .map(|s: u64| Duration::from_secs(s.min(30)));
                        let hint = if status == StatusCode::TOO_MANY_REQUESTS {
                            " (log in, or set a mirror)"
                        } else {
                            ""
                        };
                        (format!("{}{hint}", self.words(response).await), wait)
                    }
                    _ => return Ok(response),
                },
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Way(why)) => (why, None),
            };
            if attempt == ATTEMPTS {
                return Err(self.fail(why));
            }
            tracing::debug!(registry = self.registry, why, attempt, "the request is repeated");
            tokio::time::sleep(wait.unwrap_or(Duration::from_millis(100 << attempt))).await;
            attempt += 1;
        }
    }

    async fn follow(&self, request: &Request) -> Result<Response, Failure> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS {
            let mut headers = request.headers.clone();
            // Credentials go to the registry, and to nobody it points at.
            if same_origin(&url, &self.base)
                && let Some(authorization) = self.authorization()
            {
                let value = authorization.parse().map_err(|_| {
                    Failure::Final(self.fail("the credentials have characters that HTTP forbids"))
                })?;
                headers.insert(AUTHORIZATION, value);
            }
            let mut builder = self
                .client
                .http(&url)
                .map_err(Failure::Final)?
                .request(request.method.clone(), url.clone())
                .headers(headers);
            builder = match &request.body {
                Body::Empty => builder,
                Body::Bytes(bytes) => builder.body(bytes.clone()),
                Body::File { path, from, length } => {
                    let stream = file_stream(path, *from, *length)
                        .await
                        .map_err(|e| Failure::Final(self.fail(format!("{}: {e}", path.display()))))?;
                    builder.header(CONTENT_LENGTH, *length).body(reqwest::Body::wrap_stream(stream))
                }
            };
            let response = builder.send().await.map_err(|e| Failure::Way(way(&e)))?;
            let status = response.status();
            let redirected = status.is_redirection()
                && status != StatusCode::NOT_MODIFIED
                && matches!(request.method, Method::GET | Method::HEAD);
            if !redirected {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|l| url.join(l.to_str().ok()?).ok());
            let next =
                next.ok_or_else(|| Failure::Final(self.fail("a redirect without a usable Location")))?;
            let local = |u: &Url| u.host_str().is_some_and(is_loopback);
            if !matches!(next.scheme(), "https" | "http")
                || (next.scheme() == "http" && url.scheme() == "https")
                || (local(&next) && !local(&self.base))
            {
                return Err(Failure::Final(self.fail(format!(
                    "it redirects to {next}, which is refused (plain HTTP or this machine)"
                ))));
            }
            url = next;
        }
        Err(Failure::Final(self.fail(format!("more than {REDIRECTS} redirects"))))
    }

    fn token_key(&self) -> String {
        let user =
            self.credentials.as_ref().map(|c| c.basic().or(c.identity_token.clone()).unwrap_or_default());
        format!("{} {:?} {}", self.base, user, self.scopes.join(" "))
    }

    fn authorization(&self) -> Option<String> {
        if let Some(token) = self.credentials.as_ref().and_then(|c| c.registry_token.as_ref()) {
            return Some(format!("Bearer {token}"));
        }
        let tokens = self.client.tokens.lock();
        tokens
            .get(&self.token_key())
            .filter(|t| t.until > std::time::Instant::now())
            .map(|t| t.header.clone())
    }

    /// Answers a 401: remembers a header for the next requests.
    async fn authenticate(&self, response: &Response) -> Result<()> {
        let denied = |why: &str| Error::Denied {
            registry: self.registry.clone(),
            repository: self.path.clone(),
            why: why.to_owned(),
        };
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::parse(headers.iter().filter_map(|h| h.to_str().ok()));
        let token = match challenge {
            None => return Err(denied("it answers 401 without saying how to authenticate")),
            Some(Challenge::Basic) => {
                let basic = self.credentials.as_ref().and_then(Credentials::basic);
                let header = basic.ok_or_else(|| denied("it wants a user name and a password"))?;
                Token { header, until: std::time::Instant::now() + Duration::from_secs(3600) }
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                let mut scopes = self.scopes.clone();
                scopes.extend(scope.filter(|s| !self.scopes.contains(s)));
                self.fetch_token(&realm, service.as_deref(), &scopes).await?
            }
        };
        let mut tokens = self.client.tokens.lock();
        tokens.retain(|_, t| t.until > std::time::Instant::now());
        tokens.insert(self.token_key(), token);
        Ok(())
    }

    async fn fetch_token(&self, realm: &str, service: Option<&str>, scopes: &[String]) -> Result<Token> {
        let url = token_url(realm, service, scopes)
            .ok_or_else(|| self.fail(format!("its token service \"{realm}\" is no address")))?;
        if url.scheme() != "https" && self.base.scheme() == "https" {
            return Err(self.fail(format!("its token service {url} is not encrypted, which is refused")));
        }
        let http = self.client.http(&url)?;
        let request = match self.credentials.as_ref() {
            Some(Credentials { identity_token: Some(token), .. }) => {
                let scope = scopes.join(" ");
                let mut form = Url::parse("form:").map_err(|e| self.fail(e.to_string()))?;
                form.query_pairs_mut()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", "plimsoll")
                    .append_pair("service", service.unwrap_or_default())
                    .append_pair("scope", &scope)
                    .append_pair("refresh_token", token);
                let body = form.query().unwrap_or_default().to_owned();
                let mut to = url.clone();
                to.set_query(None);
                http.post(to).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
            credentials => match credentials.and_then(Credentials::basic) {
                Some(basic) => http.get(url.clone()).header(AUTHORIZATION, basic),
                None => http.get(url.clone()),
            },
        };
        let response =
            request.send().await.map_err(|e| self.fail(format!("its token service: {}", way(&e))))?;
        if !response.status().is_success() {
            let why = self.words(response).await;
            return Err(Error::Denied {
                registry: self.registry.clone(),
                repository: self.path.clone(),
                why,
            });
        }
        let body = self.body(response, MAX_ANSWER).await?;
        Token::parse(&body).ok_or_else(|| self.fail("its token service answers without a token"))
    }

    /// Reads an answer into memory, up to a limit.
    pub(crate) async fn body(&self, response: Response, most: usize) -> Result<Vec<u8>> {
        let too_long = || self.fail(format!("an answer is longer than {most} bytes, which is refused"));
        if response.content_length().is_some_and(|n| n > most as u64) {
            return Err(too_long());
        }
        let mut stream = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(chunk) = stream.try_next().await.map_err(|e| self.fail(way(&e)))? {
            if body.len() + chunk.len() > most {
                return Err(too_long());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// An error answer in words: the registry's own if it has some.
    pub(crate) async fn words(&self, response: Response) -> String {
        let status = response.status();
        let body = self.body(response, MAX_ANSWER).await.unwrap_or_default();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let first = &value["errors"][0];
        let own = [first["message"].as_str(), first["code"].as_str(), value["details"].as_str()];
        match own.into_iter().flatten().find(|w| !w.is_empty()) {
            Some(words) => format!("{words} ({status})"),
            None => status.to_string(),
        }
    }
}

enum Failure {
    /// The way failed: another attempt may do.
    Way(String),
    Final(Error),
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// A failure on the way with its innermost cause and the next step.
pub(crate) fn way(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    let cause = causes.last().cloned().unwrap_or_else(|| error.to_string());
    let lower = causes.join(" ").to_lowercase();
    let hint = if lower.contains("certificate") || lower.contains("unknownissuer") {
        "; if it has its own CA, add that to this machine's bundle or point SSL_CERT_FILE at it"
    } else if lower.contains("dns") || lower.contains("lookup") {
        "; check the name and this machine's DNS, or set HTTPS_PROXY"
    } else if error.is_connect() {
        "; check that it runs and can be reached from here, or set HTTPS_PROXY"
    } else if error.is_timeout() {
        "; it did not answer in time"
    } else {
        ""
    };
    let doing = if error.is_connect() { "cannot connect" } else { "the transfer broke" };
    format!("{doing}: {cause}{hint}")
}

async fn file_stream(
    path: &std::path::Path,
    from: u64,
    length: u64,
) -> std::io::Result<tokio_util::io::ReaderStream<impl tokio::io::AsyncRead + use<>>> {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(from)).await?;
    Ok(tokio_util::io::ReaderStream::with_capacity(file.take(length), 256 * 1024))
}
