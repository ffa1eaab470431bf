//! HTTP requests of probes and hooks: one connection each, no proxy, certificates unverified, bodies cut.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, dial::Dialer, port_number};

/// Bytes of a body that are read.
const BODY_LIMIT: usize = 10 << 10;
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Release in the User-Agent, as upstream's kubelet of the same API says it.
const RELEASE: &str = "1.37";

/// A GET as a probe or hook asks for it.
#[derive(Debug)]
pub(crate) struct Get {
    secure: bool,
    host: String,
    port: u16,
    path: String,
    headers: HeaderMap,
}

impl Get {
    /// From the action; `purpose` stands in the User-Agent.
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        purpose: &str,
    ) -> Result<Self, String> {
        let host = action.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(pod_ip).to_owned();
        let mut headers = HeaderMap::new();
        for own in action.http_headers.iter().flatten() {
            let name = HeaderName::from_bytes(own.name.as_bytes());
            let value = HeaderValue::from_str(&own.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(format!("invalid header {:?}", own.name));
            };
            headers.append(name, value);
        }
        if !headers.contains_key(header::USER_AGENT) {
            let agent = format!("kube-{purpose}/{RELEASE}");
            headers.insert(header::USER_AGENT, HeaderValue::from_str(&agent).map_err(|e| e.to_string())?);
        }
        match headers.get(header::ACCEPT).map(HeaderValue::is_empty) {
            None => drop(headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"))),
            // an empty one takes the header away
            Some(true) => drop(headers.remove(header::ACCEPT)),
            Some(false) => {}
        }
        Ok(Self {
            secure: action.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host,
            port: port_number(&action.port, container)?,
            path: escaped(action.path.as_deref().unwrap_or_default()),
            headers,
        })
    }

    fn authority(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.secure { "https" } else { "http" }, self.authority(), self.path)
    }

    /// Where a redirect leads, if it stays on this host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let same = |secure, port, path: &str| Self {
            secure,
            port,
            path: escaped(path),
            host: self.host.clone(),
            headers: self.headers.clone(),
        };
        let absolute = location.starts_with("http://") || location.starts_with("https://");
        if absolute || location.starts_with("//") {
            let text = if absolute {
                location.to_owned()
            } else {
                format!("{}:{location}", if self.secure { "https" } else { "http" })
            };
            let uri: Uri = text.parse().ok()?;
            if uri.host()?.trim_matches(['[', ']']) != self.host.trim_matches(['[', ']']) {
                return None;
            }
            let secure = uri.scheme_str() == Some("https");
            let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
            return Some(same(secure, port, uri.path_and_query().map_or("/", |p| p.as_str())));
        }
        if location.starts_with('/') {
            return Some(same(self.secure, self.port, location));
        }
        let base = self.path.split('?').next().unwrap_or_default();
        let folder = base.rsplit_once('/').map_or("", |(folder, _)| folder);
        Some(same(self.secure, self.port, &format!("{folder}/{location}")))
    }
}

/// A path that can stand in a request line: absolute, and what may not stand there escaped.
fn escaped(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "" } else { "/" });
    for byte in path.bytes() {
        match byte {
            b'#' => break,
            b'!'..=b'~' if !b"\"<>\\^`{|}".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Asks, and judges by the status code: 2xx and 3xx are fine, a redirect to elsewhere is fine with a warning.
pub(crate) async fn answer(dialer: &Dialer, get: &Get, timeout: Duration) -> Answer {
    match fetch(dialer, get, timeout).await {
        Err(why) => Answer::Failure(why),
        Ok((status, body)) => match status {
            200..300 => Answer::Success,
            300..400 => Answer::Warning(format!("Probe terminated redirects, Response body: {body}")),
            status => Answer::Failure(format!("HTTP probe failed with statuscode: {status}")),
        },
    }
}

/// Asks as a hook does: any answer will do. An HTTPS request that meets an HTTP server is made again over HTTP.
pub(crate) async fn hook(dialer: &Dialer, mut get: Get, timeout: Duration) -> Result<(), String> {
    match fetch(dialer, &get, timeout).await {
        Err(why) if get.secure && why.contains("received corrupt message") => {
            get.secure = false;
            get.headers.remove(header::AUTHORIZATION);
            fetch(dialer, &get, timeout).await.map(drop)
        }
        result => result.map(drop),
    }
}

/// Status and the beginning of the body, or why there is none, in Go's words.
async fn fetch(dialer: &Dialer, get: &Get, timeout: Duration) -> Result<(u16, String), String> {
    let url = get.url();
    match tokio::time::timeout(timeout, follow(dialer, get, timeout)).await {
        Err(_) => Err(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(result) => result.map_err(|why| format!("Get {url:?}: {why}")),
    }
}

/// Asks and follows redirects on the same host: status and the beginning of the body.
async fn follow(dialer: &Dialer, get: &Get, timeout: Duration) -> Result<(u16, String), String> {
    let mut next: Option<Get> = None;
    for _ in 0..REDIRECTS {
        let here = next.as_ref().unwrap_or(get);
        let (response, connection) = send(dialer, here, timeout).await?;
        let status = response.status().as_u16();
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let onward = location.filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308));
        if let Some(target) = onward.and_then(|l| here.redirected(l)) {
            next = Some(target);
            continue;
        }
        let body = read(response.into_body()).await;
        drop(connection);
        return Ok((status, body));
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

async fn read(mut body: Incoming) -> String {
    let mut bytes = vec![];
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            bytes.extend_from_slice(&data[..data.len().min(BODY_LIMIT - bytes.len())]);
        }
        if bytes.len() >= BODY_LIMIT {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A connection's driver, ended when this is dropped.
struct Connection(tokio::task::AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(
    dialer: &Dialer,
    get: &Get,
    timeout: Duration,
) -> Result<(Response<Incoming>, Connection), String> {
    let stream = dialer.connect(&get.host, get.port, timeout).await?;
    if !get.secure {
        return exchange(get, stream, false).await;
    }
    let connector = tokio_rustls::TlsConnector::from(unverified());
    let name =
        ServerName::try_from(get.host.trim_matches(['[', ']']).to_owned()).map_err(|e| e.to_string())?;
    let stream = connector.connect(name, stream).await.map_err(|e| e.to_string())?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    exchange(get, stream, h2).await
}

async fn exchange(
    get: &Get,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    h2: bool,
) -> Result<(Response<Incoming>, Connection), String> {
    let target = if h2 { get.url() } else { get.path.clone() };
    let mut request = Request::get(target).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    *request.headers_mut() = get.headers.clone();
    let io = TokioIo::new(stream);
    if h2 {
        request.headers_mut().remove(header::HOST);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .map_err(|e| e.to_string())?;
        let connection = Connection(tokio::spawn(async move { drop(connection.await) }).abort_handle());
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        return Ok((response, connection));
    }
    if !request.headers().contains_key(header::HOST) {
        let host = HeaderValue::from_str(&get.authority()).map_err(|e| e.to_string())?;
        request.headers_mut().insert(header::HOST, host);
    }
    request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|e| e.to_string())?;
    let connection = Connection(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
    Ok((response, connection))
}

/// A client that takes any certificate: a probe asks whether the pod answers, not who it is.
fn unverified() -> Arc<rustls::ClientConfig> {
    static CONFIG: std::sync::OnceLock<Arc<rustls::ClientConfig>> = std::sync::OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)
            // ring supports all of rustls' versions
            .unwrap_or_else(|_| rustls::ClientConfig::builder())
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }))
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls::pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// A server that answers each connection with what `reply` makes of the request.
    async fn server(reply: fn(&str, u16) -> String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let n = stream.read(&mut bytes).await.unwrap();
                let text = reply(&String::from_utf8_lossy(&bytes[..n]), port);
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        port
    }

    async fn ask(port: u16, action: serde_json::Value) -> Answer {
        let mut action = action;
        action["port"] = json!(port);
        let action: HTTPGetAction = serde_json::from_value(action).unwrap();
        let get = Get::of(&action, &Container::default(), "127.0.0.1", "probe").unwrap();
        answer(&Dialer::default(), &get, Duration::from_secs(5)).await
    }

    fn plain(status: &str, more: &str) -> String {
        format!("HTTP/1.1 {status}\r\n{more}content-length: 2\r\n\r\nok")
    }

    #[tokio::test]
    async fn codes_decide_and_failures_do_not_show_the_body() {
        let port = server(|request, _| {
            plain(if request.starts_with("GET /good?x=1 ") { "204 No Content" } else { "500 Oh" }, "")
        })
        .await;
        assert_eq!(ask(port, json!({"path": "/good?x=1"})).await, Answer::Success);
        assert_eq!(
            ask(port, json!({"path": "bad"})).await,
            Answer::Failure("HTTP probe failed with statuscode: 500".into())
        );
    }

    #[tokio::test]
    async fn redirects_on_the_same_host_are_followed_and_others_are_fine_with_a_warning() {
        let port = server(|request, port| {
            let path = request.split(' ').nth(1).unwrap_or_default();
            match path {
                "/a" => plain("302 F", &format!("location: http://127.0.0.1:{port}/b/c\r\n")),
                "/b/c" => plain("302 F", "location: d\r\n"),
                "/b/d" => plain("200 OK", ""),
                "/loop" => plain("302 F", "location: /loop\r\n"),
                _ => plain("302 F", "location: http://example.invalid/\r\n"),
            }
        })
        .await;
        assert_eq!(ask(port, json!({"path": "/a"})).await, Answer::Success);
        assert_eq!(
            ask(port, json!({"path": "/away"})).await,
            Answer::Warning("Probe terminated redirects, Response body: ok".into())
        );
        let Answer::Failure(why) = ask(port, json!({"path": "/loop"})).await else { panic!("not a failure") };
        assert!(why.ends_with("stopped after 10 redirects"), "{why}");
    }

    #[tokio::test]
    async fn headers_are_upstreams_unless_the_probe_says_otherwise() {
        let port = server(|request, _| {
            let lower = request.to_lowercase();
            let good = lower.contains("user-agent: kube-probe/1.37") && lower.contains("accept: */*");
            plain(if good { "200 OK" } else { "400 Bad" }, "")
        })
        .await;
        assert_eq!(ask(port, json!({})).await, Answer::Success);
        let own = json!({"httpHeaders": [{"name": "User-Agent", "value": "me"}]});
        assert!(matches!(ask(port, own).await, Answer::Failure(_)));
        let none = json!({"httpHeaders": [{"name": "Accept", "value": ""}]});
        assert!(matches!(ask(port, none).await, Answer::Failure(_)));
    }

    #[tokio::test]
    async fn nobody_there_is_a_failure_in_gos_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(
            ask(port, json!({"path": "/x"})).await,
            Answer::Failure(format!(
                "Get \"http://127.0.0.1:{port}/x\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            ))
        );
    }

    #[test]
    fn paths_are_made_fit_for_a_request_line() {
        for (path, want) in
            [("", "/"), ("x y", "/x%20y"), ("/a?b=c#d", "/a?b=c"), ("/\r\nX: y", "/%0D%0AX:%20y")]
        {
            assert_eq!(escaped(path), want);
        }
    }
}
