//! `/healthz`, `/livez`, `/readyz`, `/version`, and the documents of the token issuer.

use std::sync::atomic::Ordering;

use http::{HeaderValue, header};
use serde_json::json;

use crate::{
    Response,
    negotiate::Media,
    respond,
    server::{Call, Inner},
};

/// The version of Kubernetes whose API is served.
pub const KUBERNETES: &str = "v1.37.2";

/// `/version`, which is JSON whatever the client asks for.
pub(crate) fn version() -> Response {
    let platform = format!(
        "{}/{}",
        std::env::consts::OS,
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    );
    let document = json!({
        "major": "1", "minor": "37", "emulationMajor": "1", "emulationMinor": "37",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "36",
        "gitVersion": KUBERNETES, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": platform,
    });
    respond::document(200, Media { pretty: true, ..Media::default() }, &document)
}

/// The checks of a health page, and whether they succeed.
pub(crate) fn list(inner: &Inner, page: &str) -> Vec<(&'static str, bool)> {
    let store = inner.store_failed.load(Ordering::Relaxed) == 0;
    let ready = inner.ready.load(Ordering::Acquire);
    let registered = inner.aggregation.registered.load(Ordering::Acquire);
    // Upstream's names, for what they stand for here: those who probe a cluster ask for them one by one.
    let mut list = vec![("ping", true), ("log", true), ("etcd", store)];
    if page == "readyz" {
        list.push(("etcd-readiness", store));
        list.push(("informer-sync", ready));
    }
    list.extend([
        ("poststarthook/start-system-namespaces-controller", ready),
        ("poststarthook/bootstrap-controller", ready),
        ("poststarthook/rbac/bootstrap-roles", ready),
        ("poststarthook/scheduling/bootstrap-system-priority-classes", ready),
        ("poststarthook/priority-and-fairness-config-producer", ready),
        ("poststarthook/start-cluster-authentication-info-controller", ready),
        ("poststarthook/start-apiextensions-controllers", ready),
        ("poststarthook/crd-informer-synced", ready),
        ("poststarthook/apiservice-registration-controller", registered),
        ("poststarthook/apiservice-status-local-available-controller", registered),
        ("poststarthook/apiservice-status-remote-available-controller", registered),
        ("poststarthook/apiservice-discovery-controller", registered),
        ("poststarthook/kube-apiserver-autoregistration", registered),
        ("autoregister-completion", registered),
        ("poststarthook/apiservice-openapi-controller", registered),
        ("poststarthook/apiservice-openapiv3-controller", registered),
    ]);
    list
}

/// A health page, or the check of it that `one` names.
pub(crate) fn checks(inner: &Inner, call: &Call, page: &str, one: &str) -> Response {
    let list = list(inner, page);
    if !one.is_empty() {
        return match list.iter().find(|(check, _)| *check == one) {
            Some((_, true)) => respond::text(200, "ok"),
            Some(_) => respond::text(500, format!("internal server error: {one} failed: reason withheld\n")),
            None => crate::route::not_found(),
        };
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut text = String::new();
    let mut healthy = true;
    for (name, ok) in &list {
        if excluded.contains(name) {
            text.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if *ok {
            text.push_str(&format!("[+]{name} ok\n"));
        } else {
            healthy = false;
            text.push_str(&format!("[-]{name} failed: reason withheld\n"));
        }
    }
    let strangers: Vec<String> =
        excluded.iter().filter(|e| !list.iter().any(|(n, _)| n == *e)).map(|e| format!("{e:?}")).collect();
    if !strangers.is_empty() {
        text.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            strangers.join(", ")
        ));
    }
    let mut response = match (healthy, call.query.get("verbose").is_some()) {
        (true, false) => respond::text(200, "ok"),
        (true, true) => respond::text(200, format!("{text}{page} check passed\n")),
        (false, _) => respond::text(500, format!("{text}{page} check failed\n")),
    };
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// The documents by which others verify ServiceAccount tokens.
pub(crate) fn issuer(inner: &Inner, keys: bool) -> Response {
    let Some(issuer) = &inner.config.issuer else { return crate::route::not_found() };
    let (kind, document) = if keys {
        ("application/jwk-set+json", issuer.jwks())
    } else {
        ("application/json", issuer.configuration())
    };
    let mut response = respond::plain(200, kind, document.to_string().into_bytes());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
