//! Where a request comes from: the way that proxies say it came, and the other end of the connection.
//!
//! Source: `k8s.io/apimachinery/pkg/util/net/http.go`, `SourceIPs`.

use std::net::{IpAddr, SocketAddr};

use apimachinery::names;
use http::HeaderMap;

/// The other end of the connection that a request came by. A request extension.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub SocketAddr);

/// Zeros before a number are no sign of base eight here.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().or_else(|_| names::without_zeros(text).parse());
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

/// The addresses in the order of the way. All but the last are what the client says.
pub(super) fn of(headers: &HeaderMap, remote: Option<IpAddr>) -> Vec<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut way: Vec<IpAddr> =
        header("x-forwarded-for").split(',').filter_map(|part| address(part.trim())).collect();
    way.extend(address(header("x-real-ip")).filter(|real| !way.contains(real)));
    let remote = remote.map(|remote| remote.to_canonical());
    way.extend(remote.filter(|remote| way.last() != Some(remote)));
    way.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn way(forwarded: &'static str, real: &'static str, remote: &str) -> Vec<String> {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
        headers.insert("x-real-ip", HeaderValue::from_static(real));
        of(&headers, remote.parse().ok())
    }

    #[test]
    fn the_way_is_told_as_the_proxies_tell_it() {
        assert_eq!(way("", "", "10.0.0.1"), ["10.0.0.1"]);
        assert_eq!(way("1.1.1.1, 2.2.2.2", "", "10.0.0.1"), ["1.1.1.1", "2.2.2.2", "10.0.0.1"]);
        assert_eq!(way("1.1.1.1", "1.1.1.1", "1.1.1.1"), ["1.1.1.1"]);
        assert_eq!(way("nonsense,,1.1.1.1", "2.2.2.2", "::1"), ["1.1.1.1", "2.2.2.2", "::1"]);
        assert_eq!(way("010.1.1.1", "", "::ffff:10.1.1.1"), ["10.1.1.1"]);
        assert_eq!(of(&HeaderMap::new(), None), Vec::<String>::new());
    }
}
