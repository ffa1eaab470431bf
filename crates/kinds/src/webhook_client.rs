//! What is wrong with the place of a webhook: an address, or a service of the cluster.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook`; addresses are read as Go's `net/url` reads them.

use apimachinery::{FieldPath, names};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, has, number, text},
};

const FORM: &str = "; desired format: https://host[/path]";

/// A client configuration: exactly one of `url` and `service`.
pub fn check_client(checks: &mut Checks, client: &Value, path: &FieldPath) {
    match (has(client, "url"), has(client, "service")) {
        (true, false) => check_url(checks, text(client, "url"), &path.child("url")),
        (false, true) => check_service(checks, at(client, "service"), &path.child("service")),
        _ => checks.required(path, "exactly one of url or service is required"),
    }
}

fn check_url(checks: &mut Checks, url: &str, path: &FieldPath) {
    let parts = match Parts::of(url) {
        Ok(parts) => parts,
        Err(why) => {
            let detail = format!("url must be a valid URL: parse {url:?}: {why}{FORM}");
            return checks.required(path, &detail);
        }
    };
    if parts.scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        checks.invalid(path, parts.scheme.as_str(), &detail);
    }
    if parts.host.is_empty() {
        checks.invalid(path, "", &format!("host must be specified{FORM}"));
    }
    if let Some(user) = parts.user {
        checks.invalid(path, user, "user information is not permitted in the URL");
    }
    if !parts.fragment.is_empty() {
        checks.invalid(path, parts.fragment, "fragments are not permitted in the URL");
    }
    if !parts.query.is_empty() {
        checks.invalid(path, parts.query, "query parameters are not permitted in the URL");
    }
}

fn check_service(checks: &mut Checks, service: &Value, path: &FieldPath) {
    // Upstream looks at the two in each other's place.
    for (field, named) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, field).is_empty() {
            checks.required(&path.child(named), "");
        }
    }
    checks.reachable_port(&path.child("port"), number(service, "port"));
    let (url, path) = (text(service, "path"), path.child("path"));
    if url.is_empty() || url == "/" {
        return;
    }
    if url == "//" {
        return checks.invalid(&path, url, "segment[0] may not be empty");
    }
    if !url.starts_with('/') {
        checks.invalid(&path, url, "must start with a '/'");
    }
    // The first character is passed over, whatever it is.
    let rest: &str = url.char_indices().nth(1).map_or("", |(from, _)| &url[from..]);
    for (index, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            checks.invalid(&path, url, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for fault in names::is_dns1123_subdomain(segment) {
            checks.invalid(&path, url, &format!("segment[{index}]: {fault}"));
        }
    }
}

/// The parts of an address.
struct Parts<'u> {
    scheme: String,
    user: Option<&'u str>,
    host: &'u str,
    query: &'u str,
    fragment: &'u str,
}

impl<'u> Parts<'u> {
    fn of(url: &'u str) -> Result<Self, String> {
        if url.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (scheme, rest) = scheme(rest)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        if scheme.is_empty() && authority.is_empty() {
            let first = path.split('/').next().unwrap_or_default();
            if first.contains(':') {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
        }
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        check_host(host)?;
        for part in [host, path, fragment] {
            check_escapes(part)?;
        }
        Ok(Self { scheme: scheme.to_lowercase(), user, host, query, fragment })
    }
}

/// The scheme, empty without one, and what follows it.
fn scheme(url: &str) -> Result<(&str, &str), String> {
    let end = url.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(url.len());
    let starts = url.starts_with(|c: char| c.is_ascii_alphabetic());
    match (&url[..end], url[end..].strip_prefix(':')) {
        ("", Some(_)) => Err("missing protocol scheme".to_owned()),
        (scheme, Some(rest)) if starts => Ok((scheme, rest)),
        _ => Ok(("", url)),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_alphanumeric() || !c.is_ascii() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    if let Some(bad) = host.chars().find(|c| !allowed(*c)) {
        return Err(format!("invalid character \"{bad}\" in host name"));
    }
    let from = host.rfind(']').unwrap_or(0);
    let port = host[from..].find(':').map(|colon| &host[from + colon..]);
    match port {
        Some(port) if !port[1..].bytes().all(|b| b.is_ascii_digit()) => {
            Err(format!("invalid port {port:?} after host"))
        }
        _ => Ok(()),
    }
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape = text.get(at..at + 3).unwrap_or(&text[at..]);
        if escape.len() < 3 || !escape[1..].bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("invalid URL escape {escape:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_fall_into_the_parts_that_go_sees() {
        let parts = Parts::of("HTTPS://u:p@h.x:8443/a/b?q=1#f").unwrap();
        assert_eq!((parts.scheme.as_str(), parts.user, parts.host), ("https", Some("u:p"), "h.x:8443"));
        assert_eq!((parts.query, parts.fragment), ("q=1", "f"));
        assert_eq!(Parts::of("h.x/a").unwrap().host, "");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["https://a b", "https://a:b", "https://a/%zz", "https://a/%é", "https://a\n", ":a", "1:a"]
        {
            assert!(Parts::of(url).is_err(), "{url}");
        }
    }
}
