//! Documents of other servers: asked for by this one itself, within bounds of size and time.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use http_body_util::{BodyExt as _, Limited};

use super::{forward::aggregator, identity, table::Backend};
use crate::{body, server::Inner};

/// What came back.
pub struct Fetched {
    pub status: u16,
    pub content_type: String,
    pub etag: String,
    pub body: Bytes,
}

/// GETs `path` of another server. The answer may have `most` bytes and take `patience`; why there is none is told in the
/// words of the availability condition.
pub async fn get(
    inner: &Inner,
    backend: &Backend,
    path: &str,
    accept: &'static str,
    etag: &str,
    (most, patience): (usize, Duration),
) -> Result<Fetched, String> {
    let url = backend.target.url(path);
    let failing = |why: &dyn std::fmt::Display| format!("failing or missing response from {url}: {why}");
    let empty = body::boxed(http_body_util::Empty::<Bytes>::new());
    let mut request = http::Request::get(path).body(empty).map_err(|e| failing(&e))?;
    let headers = request.headers_mut();
    headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
    if let Ok(tag) = HeaderValue::from_str(etag)
        && !etag.is_empty()
    {
        headers.insert(header::IF_NONE_MATCH, tag);
    }
    identity::write(headers, &aggregator()).map_err(|e| failing(&e.message))?;
    let answer = async {
        let response =
            backend.target.send(inner, request).await.map_err(|e| format!("Get {url:?}: {}", e.message))?;
        let (head, body) = response.into_parts();
        let text = |name: header::HeaderName| {
            head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (content_type, etag) = (text(header::CONTENT_TYPE), text(header::ETAG));
        let status = head.status.as_u16();
        let body = Limited::new(body, most).collect().await.map_err(|e| e.to_string())?;
        Ok(Fetched { status, content_type, etag, body: body.to_bytes() })
    };
    match tokio::time::timeout(patience, answer).await {
        Ok(done) => done.map_err(|why: String| failing(&why)),
        Err(_) => Err(failing(&format!("Get {url:?}: context deadline exceeded"))),
    }
}
