//! What a request is about: the URL path and method read as upstream's `RequestInfo`.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use apimachinery::{ApiError, selector::FieldSelector};
use http::Method;

/// The query part of a URL, decoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text behind the `?`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first value of `name`, empty when it is not there.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A switch: given, and neither empty-by-absence, `false` nor `0`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v != "false" && v != "0")
    }

    /// A whole number; absent or empty is `None`.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// The decoded URL path.
    pub path: String,
    /// Whether the path names a resource.
    pub is_resource: bool,
    /// `get list watch create update patch delete deletecollection proxy`, or the lower-case method.
    pub verb: &'static str,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Empty when the path names none.
    pub namespace: String,
    /// Plural.
    pub resource: String,
    /// Empty, `status`, …
    pub subresource: String,
    /// Object name; for list, watch and deletecollection the name a field selector asks for.
    pub name: String,
    /// The name comes from the path, not from a selector.
    pub named_by_path: bool,
    /// What follows the subresource, for `proxy`.
    pub rest: String,
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}

impl RequestInfo {
    /// Reads a request line. `path` is still percent-encoded.
    #[must_use]
    pub fn parse(method: &Method, path: &str, query: &Query) -> Self {
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
        let plain = || Self { path: path.clone(), verb: lower(method), ..Self::default() };
        let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return plain();
        }
        let grouped = parts.remove(0) == "apis";
        let mut info =
            Self { path: path.clone(), is_resource: true, verb: method_verb(method), ..Self::default() };
        if grouped {
            if parts.len() < 3 {
                return plain();
            }
            info.group = parts.remove(0).to_owned();
        }
        info.version = parts.remove(0).to_owned();
        if matches!(parts[0], "watch" | "proxy") && parts.len() > 1 {
            info.verb = if parts[0] == "watch" { "watch" } else { "proxy" };
            parts.remove(0);
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            info.namespace = parts[1].to_owned();
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts.drain(..2);
            }
        }
        info.resource = parts[0].to_owned();
        info.name = parts.get(1).copied().unwrap_or_default().to_owned();
        info.subresource = parts.get(2).copied().unwrap_or_default().to_owned();
        if let Some(rest) = parts.get(3..) {
            info.rest = rest.join("/");
        }
        info.named_by_path = !info.name.is_empty();
        if !info.named_by_path {
            info.verb = match info.verb {
                "get" if query.flag("watch") => "watch",
                "get" => "list",
                "delete" => "deletecollection",
                verb => verb,
            };
            if matches!(info.verb, "list" | "watch" | "deletecollection")
                && let Ok(selector) = FieldSelector::parse(query.text("fieldSelector"))
                && let Some(name) = exact_name(&selector)
            {
                info.name = name;
            }
        }
        info
    }

    /// Requests that stay open: no deadline, no limit in number.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb, "watch" | "proxy")
            || matches!(self.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward")
    }
}

/// The name that a selector pins with `metadata.name=x`.
#[must_use]
pub fn exact_name(selector: &FieldSelector) -> Option<String> {
    selector.exact("metadata.name").filter(|n| !n.is_empty() && !n.contains(['/', '%'])).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &Method, url: &str) -> RequestInfo {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        RequestInfo::parse(method, path, &Query::parse(query))
    }

    #[test]
    fn a_core_object_path_names_namespace_resource_name_and_subresource() {
        let got = info(&Method::GET, "/api/v1/namespaces/shop/pods/web/log");
        assert_eq!(
            (got.verb, &*got.version, &*got.namespace, &*got.resource, &*got.name, &*got.subresource),
            ("get", "v1", "shop", "pods", "web", "log")
        );
    }

    #[test]
    fn namespaces_are_a_resource_of_their_own_with_two_subresources() {
        let got = info(&Method::PUT, "/api/v1/namespaces/shop/finalize");
        assert_eq!((&*got.resource, &*got.name, &*got.subresource), ("namespaces", "shop", "finalize"));
        let got = info(&Method::GET, "/api/v1/namespaces/shop/foo");
        assert_eq!((&*got.resource, &*got.namespace, got.verb), ("foo", "shop", "list"));
    }

    #[test]
    fn get_without_a_name_is_list_or_watch() {
        assert_eq!(info(&Method::GET, "/apis/apps/v1/deployments").verb, "list");
        assert_eq!(info(&Method::GET, "/apis/apps/v1/deployments?watch=1").verb, "watch");
        assert_eq!(info(&Method::GET, "/apis/apps/v1/deployments?watch=0").verb, "list");
        assert_eq!(info(&Method::GET, "/api/v1/watch/pods").verb, "watch");
        assert_eq!(info(&Method::DELETE, "/api/v1/namespaces/a/pods").verb, "deletecollection");
    }

    #[test]
    fn short_and_foreign_paths_are_not_resources() {
        for path in ["/", "/api", "/api/v1", "/apis/apps/v1", "/healthz", "/openapi/v3/api/v1"] {
            assert!(!info(&Method::GET, path).is_resource, "{path}");
        }
    }

    #[test]
    fn a_field_selector_on_the_name_names_the_object() {
        let got = info(&Method::GET, "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dx");
        assert_eq!((&*got.name, got.named_by_path), ("x", false));
    }
}
