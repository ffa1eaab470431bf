//! From a request's info to the code that answers it.
//!
//! What a verb keeps while it waits lies in a box of its own: the future of a request, which is moved several times on its
//! way, is then not as large as the largest of them.

use std::sync::Arc;

use apimachinery::ApiError;
use http::{HeaderValue, Method};

use crate::{
    Response,
    body::{self, RequestBody},
    catalogue::Served,
    discovery, health, openapi, proxy, respond,
    server::{Call, Inner},
    special::{binding, components, eviction, finalize, metrics, reviews, scale, token},
    verbs::{self, create, delete, list, patch, update, watch},
};

/// Answers an authorized request.
pub(crate) async fn dispatch(
    inner: &Arc<Inner>,
    call: &mut Call,
    body: RequestBody,
) -> Result<Response, ApiError> {
    if !call.info.is_resource {
        return Box::pin(documents(inner, call)).await;
    }
    let found = inner.served(&call.info.group, &call.info.version, &call.info.resource);
    let Some(served) = found else {
        let builtin = inner.catalogue.load().is_builtin(&call.info.group);
        return if builtin { Err(unknown_resource()) } else { Ok(not_found()) };
    };
    call.protobuf = served.resource.builtin;
    // Whoever finds no handler below is not warned: see [`is_routers`].
    if let Some(warning) = &served.deprecation {
        call.warnings.push(warning.clone());
        if let Some(trail) = call.trail() {
            trail.deprecated(warning);
        }
    }
    let named = call.info.named_by_path;
    let namespaced = served.resource.namespaced;
    // A namespaced object lives below a namespace, a cluster-scoped one never does; a namespace is its own.
    let place_fits = match (namespaced, call.info.namespace.is_empty()) {
        (true, true) => !named,
        (true, false) => true,
        // Who may do something in one namespace is asked about that one, and must not get at another, or at all of them.
        (false, true) => true,
        (false, false) => &*served.resource.plural == "namespaces" && call.info.name == call.info.namespace,
    };
    let nowhere = || if served.resource.builtin { Err(unknown_resource()) } else { Ok(not_found()) };
    if !place_fits {
        return nowhere();
    }
    let serves = |verbs: &[&str]| served.resource.verbs.iter().any(|verb| verbs.contains(&&**verb));
    // The old prefixes make a verb of their own of whatever method: nothing but a watch may be had by them, or leave to
    // watch would be leave to write.
    match call.info.verb {
        "watch" if !call.info.subresource.is_empty() => return nowhere(),
        "watch" if !serves(&["watch"]) && !call.query.flag("watch") => return nowhere(),
        "watch" if call.method != Method::GET => {
            return if served.resource.builtin { Err(not_allowed()) } else { Ok(not_found()) };
        }
        "proxy" => return nowhere(),
        _ => {}
    }
    if !call.info.subresource.is_empty() {
        return Box::pin(subresource(inner, call, &served, body)).await;
    }
    let everywhere = namespaced && call.info.namespace.is_empty();
    // What methods there are at this path.
    let there = match (named, everywhere) {
        (true, _) => serves(&["get", "update", "patch", "delete"]),
        (false, true) => serves(&["list"]),
        (false, false) => serves(&["list", "create", "deletecollection"]),
    };
    if !there {
        return nowhere();
    }
    if everywhere && !matches!(call.info.verb, "list" | "watch") {
        if !served.resource.builtin && call.info.verb == "deletecollection" {
            return Ok(not_found());
        }
        return Err(not_allowed());
    }
    if !matches!(call.method, Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
        return Err(not_allowed());
    }
    let (group, resource) = (call.info.group.as_str(), call.info.resource.as_str());
    if group == metrics::GROUP && served.resource.builtin {
        return Box::pin(metrics::serve(inner, call, &served)).await;
    }
    if reviews::is_review(group, resource) {
        if call.method != Method::POST || named {
            return Err(not_allowed());
        }
        let body = body::read(body).await?;
        return Box::pin(reviews::review(inner, call, &served, &body)).await;
    }
    if group.is_empty() && resource == "componentstatuses" {
        return Box::pin(components::serve(inner, call, &served)).await;
    }
    if !serves(&[call.info.verb]) {
        return Err(not_allowed());
    }
    if group.is_empty() && resource == "bindings" {
        // The old way to bind a pod: a collection that nothing is in.
        let Some(pods) = inner.served("", "v1", "pods") else { return Err(unknown_resource()) };
        let body = body::read(body).await?;
        return Box::pin(binding::bind(inner, call, &pods, &body)).await;
    }
    match (call.info.verb, named) {
        ("get", true) => Box::pin(verbs::get(inner, call, &served)).await,
        ("list", false) => Box::pin(list::list(inner, call, &served)).await,
        ("watch", _) => Box::pin(watch::watch(inner, call, &served)).await,
        ("create", false) => {
            let body = body::read(body).await?;
            Box::pin(create::create(inner, call, &served, &body)).await
        }
        ("update", true) => {
            let body = body::read(body).await?;
            Box::pin(update::update(inner, call, &served, &body)).await
        }
        ("patch", true) => {
            let body = body::read(body).await?;
            Box::pin(patch::patch(inner, call, &served, &body)).await
        }
        ("delete", true) => {
            let body = body::read(body).await?;
            Box::pin(delete::delete(inner, call, &served, &body)).await
        }
        ("deletecollection", false) => {
            let body = body::read(body).await?;
            Box::pin(delete::delete_collection(inner, call, &served, &body)).await
        }
        _ => Err(not_allowed()),
    }
}

async fn subresource(
    inner: &Arc<Inner>,
    call: &mut Call,
    served: &Arc<Served>,
    body: RequestBody,
) -> Result<Response, ApiError> {
    let name = call.info.subresource.clone();
    let Some(declared) = served.resource.subresource(&name) else { return Err(unknown_resource()) };
    if matches!(name.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy") {
        return Box::pin(proxy::serve(inner, call, served, body)).await;
    }
    let needed = match call.method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return Err(not_allowed()),
    };
    if !declared.verbs.iter().any(|v| **v == *needed) {
        return Err(not_allowed());
    }
    if needed == "get" {
        return match name.as_str() {
            "scale" => Box::pin(scale::get(inner, call, served)).await,
            _ => Box::pin(verbs::get(inner, call, served)).await,
        };
    }
    let body = body::read(body).await?;
    match (name.as_str(), needed) {
        ("scale", _) => Box::pin(scale::write(inner, call, served, &body)).await,
        ("binding", _) => Box::pin(binding::bind(inner, call, served, &body)).await,
        ("eviction", _) => Box::pin(eviction::evict(inner, call, served, &body)).await,
        ("token", _) => Box::pin(token::request(inner, call, served, &body)).await,
        ("finalize", _) => Box::pin(finalize::finalize(inner, call, served, &body)).await,
        (_, "update") => Box::pin(update::update(inner, call, served, &body)).await,
        (_, "patch") => Box::pin(patch::patch(inner, call, served, &body)).await,
        _ => Err(not_allowed()),
    }
}

async fn documents(inner: &Arc<Inner>, call: &Call) -> Result<Response, ApiError> {
    let path = call.info.path.trim_end_matches('/');
    let slash = path.len() < call.info.path.len();
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    // Pages take any method, and no slash behind them; routes take GET.
    match parts.as_slice() {
        [] | [""] => return Ok(discovery::root(inner, call)),
        ["apis"] => return discovery::answer(inner, call, &parts),
        ["healthz" | "livez" | "readyz", ..] if !slash => {
            return Ok(health::checks(inner, call, parts[0], &parts[1..].join("/")));
        }
        ["metrics"] if !slash => {
            let page = crate::metrics::page(inner).into_bytes();
            return Ok(respond::plain(200, "text/plain; version=0.0.4; charset=utf-8", page));
        }
        ["openapi", "v2"] if !slash => return openapi::v2(inner, call),
        ["openapi", "v3"] if slash => return Ok(openapi::no_document()),
        ["openapi", "v3", rest @ ..] => {
            let rest = format!("{}{}", rest.join("/"), if slash { "/" } else { "" });
            return openapi::v3(inner, call, &rest).await;
        }
        _ => {}
    }
    let issues = inner.config.issuer.is_some();
    let routed = match parts.as_slice() {
        ["api" | "version"] | ["api" | "apis", _] | ["apis", _, _] => true,
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => issues,
        _ => false,
    };
    match parts.as_slice() {
        _ if !routed => Ok(not_found()),
        _ if call.method != Method::GET => Err(not_allowed()),
        ["version"] => Ok(health::version()),
        [".well-known", ..] => Ok(health::issuer(inner, false)),
        ["openid", ..] => Ok(health::issuer(inner, true)),
        _ => discovery::answer(inner, call, &parts),
    }
}

/// What upstream's outer router says: no `Status`.
pub(crate) fn not_found() -> Response {
    let mut response = respond::text(404, "404 page not found\n");
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Whether it is the router's own error: no handler has seen the request.
pub(crate) fn is_routers(error: &ApiError) -> bool {
    matches!(error.code, 404..=406 | 415)
        && error
            .details
            .as_ref()
            .is_some_and(|details| details.as_object().is_some_and(serde_json::Map::is_empty))
}

/// A resource or version that a group of built-in kinds does not have.
pub(crate) fn unknown_resource() -> ApiError {
    let mut error = ApiError::other(404, "NotFound", "the server could not find the requested resource");
    error.details = Some(serde_json::json!({}));
    error
}

pub(crate) fn not_allowed() -> ApiError {
    let mut error = ApiError::other(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    );
    error.details = Some(serde_json::json!({}));
    error
}
