//! What fuzz targets call of this crate; only there when they are built.

use crate::{
    negotiate, options,
    request::{Query, RequestInfo},
};

/// Reads a URL's path and query as the server does for every method, and what lists and watches read of it.
pub fn request(url: &str) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let query = Query::parse(query);
    for method in [http::Method::GET, http::Method::POST, http::Method::DELETE] {
        let info = RequestInfo::parse(&method, path, &query);
        assert!(!info.named_by_path || !info.name.is_empty());
    }
    for watch in [false, true] {
        if let Ok(list) = options::List::parse(&query, watch)
            && let Some(token) = list.token
        {
            // What a page gave out is what the next one gets.
            assert_eq!(options::Continue::decode(&token.encode()).ok(), Some(token));
        }
    }
    let _ = options::revision(query.text("resourceVersion"));
    if let Ok(accept) = http::HeaderValue::from_str(query.text("accept")) {
        let headers = http::HeaderMap::from_iter([(http::header::ACCEPT, accept)]);
        let _ = negotiate::answer(&headers, &query, negotiate::Offer::Plain, true);
    }
}
