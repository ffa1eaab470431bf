//! Links in pages that come through a proxy: what points to the root of the proxied server points to the proxy instead.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body_util::BodyExt as _;
use lol_html::{Settings, element, errors::RewritingError, send};
use parking_lot::Mutex;

use crate::{
    Response,
    body::{Body, BoxError},
};

/// Attributes that hold a URL, whatever element they belong to.
const ATTRIBUTES: [&str; 12] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "longdesc",
    "poster",
    "src",
    "usemap",
];

/// Where the proxied server lies in the URLs of this one.
#[derive(Clone)]
pub(super) struct Place {
    /// Path of the proxied server's root, without a slash at its end.
    pub prefix: String,
    /// `address:port` of the proxied server, and the host that the client asked.
    pub hosts: [String; 2],
}

impl Place {
    /// The same place as seen from the client; `None` for one that is right as it is.
    fn moved(&self, link: &str) -> Option<String> {
        let path = match link.split_once("://") {
            Some((scheme, rest))
                if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
            {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                self.hosts.iter().any(|host| host == &rest[..end]).then_some(&rest[end..])?
            }
            _ if link.starts_with("//") => {
                let rest = &link[2..];
                let end = rest.find('/').unwrap_or(rest.len());
                self.hosts.iter().any(|host| host == &rest[..end]).then_some(&rest[end..])?
            }
            _ => link,
        };
        let is_prefixed =
            path.strip_prefix(self.prefix.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        (path.starts_with('/') && !is_prefixed).then(|| format!("{}{path}", self.prefix))
    }

    /// Moves the links of an answer: where it redirects to, and those of an HTML page.
    pub fn rewrite(self, mut response: Response) -> Response {
        let location = response.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        if let Some(location) = location {
            if let Some(moved) = self.moved(location).and_then(|l| HeaderValue::from_str(&l).ok()) {
                response.headers_mut().insert(header::LOCATION, moved);
            }
            return response;
        }
        if !is_page(response.headers()) {
            return response;
        }
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.map(|body| self.page(body))
    }

    /// The page, piece by piece.
    fn page(self, body: Body) -> Body {
        let made = Arc::new(Mutex::new(Vec::new()));
        let sink = made.clone();
        let handler = element!("*", move |element| {
            for name in ATTRIBUTES {
                let moved = element.get_attribute(name).and_then(|link| self.moved(&link));
                if let Some(moved) = moved {
                    element.set_attribute(name, &moved)?;
                }
            }
            Ok(())
        });
        let settings = Settings { element_content_handlers: vec![handler], ..Settings::new_send() };
        let rewriter =
            send::HtmlRewriter::new(settings, move |piece: &[u8]| sink.lock().extend_from_slice(piece));
        let pieces = stream::unfold((body, Some(rewriter)), move |(mut body, rewriter)| {
            let made = made.clone();
            async move {
                let mut rewriter = rewriter?;
                let step = match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => rewriter.write(&data).map(|()| Some(rewriter)).map_err(failed),
                        Err(_) => Ok(Some(rewriter)),
                    },
                    Some(Err(error)) => Err(error),
                    None => rewriter.end().map(|()| None).map_err(failed),
                };
                let out = Bytes::from(std::mem::take(&mut *made.lock()));
                Some(match step {
                    Ok(rewriter) => (Ok(out), (body, rewriter)),
                    Err(error) => (Err(error), (body, None)),
                })
            }
        });
        Body::Stream(Box::pin(pieces.filter(|piece| {
            let empty = piece.as_ref().is_ok_and(Bytes::is_empty);
            std::future::ready(!empty)
        })))
    }
}

fn failed(error: RewritingError) -> BoxError {
    io::Error::other(error.to_string()).into()
}

/// Whether it is HTML that can be read: what a server compressed goes as it is.
fn is_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("text/html") && text(header::CONTENT_ENCODING).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            prefix: "/api/v1/pods/p/proxy".to_owned(),
            hosts: ["10.0.0.1:80".to_owned(), "api:6443".to_owned()],
        }
    }

    #[test]
    fn links_to_the_servers_root_are_moved_and_no_others() {
        let moved = |link: &str| place().moved(link);
        let wanted = Some("/api/v1/pods/p/proxy/a?b".to_owned());
        for link in ["/a?b", "http://10.0.0.1:80/a?b", "//10.0.0.1:80/a?b", "https://api:6443/a?b"] {
            assert_eq!(moved(link), wanted, "{link}");
        }
        for link in
            ["a", "#a", "", "http://elsewhere/a", "//elsewhere/a", "/api/v1/pods/p/proxy/a", "mailto:x"]
        {
            assert_eq!(moved(link), None, "{link}");
        }
    }

    #[tokio::test]
    async fn a_page_in_pieces_is_rewritten_and_else_left_alone() {
        let page = "<!doctype html>\n<a  href=\"/x\">x</a><script>if (a < \"/b\") {}</script><img src='/y'><p title=/z>é</p>";
        let pieces: Vec<Bytes> = page.as_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
        let mut response = http::Response::new(Body::chunks(stream::iter(pieces)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(page.len()));
        let response = place().rewrite(response);
        assert!(response.headers().get(header::CONTENT_LENGTH).is_none());
        let got = response.into_body().collect().await.unwrap().to_bytes();
        let got = String::from_utf8(got.to_vec()).unwrap();
        assert!(got.contains("href=\"/api/v1/pods/p/proxy/x\""), "{got}");
        assert!(got.contains("src=\"/api/v1/pods/p/proxy/y\""), "{got}");
        assert!(
            got.contains("<script>if (a < \"/b\") {}</script>") && got.contains("<p title=/z>é</p>"),
            "{got}"
        );
    }
}
