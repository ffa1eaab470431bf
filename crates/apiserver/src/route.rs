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
    special::{binding, eviction, finalize, metrics, reviews, scale, token},
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
    let Some(served) = found else { return Box::pin(unknown(inner, call, body)).await };
    call.protobuf = served.resource.builtin;
    if let Some(warning) = &served.deprecation {
        call.warnings.push(warning.clone());
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
    if !place_fits {
        return if served.resource.builtin { Err(unknown_resource()) } else { Ok(not_found()) };
    }
    // The old prefixes make a verb of their own of whatever method: nothing but a watch may be had by them, or leave to
    // watch would be leave to write.
    let old_way = match call.info.verb {
        "watch" => call.method != Method::GET || !call.info.subresource.is_empty(),
        verb => verb == "proxy",
    };
    if old_way {
        return Ok(not_found());
    }
    if !call.info.subresource.is_empty() {
        return Box::pin(subresource(inner, call, &served, body)).await;
    }
    if namespaced && call.info.namespace.is_empty() && !matches!(call.info.verb, "list" | "watch") {
        if !served.resource.builtin && call.info.verb == "deletecollection" {
            return Ok(not_found());
        }
        if !reviews::is_review(&call.info.group, &call.info.resource) {
            return Err(not_allowed());
        }
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
    if !served.resource.verbs.iter().any(|v| **v == *call.info.verb) {
        return Err(not_allowed());
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

/// A resource that is not in the catalogue.
async fn unknown(inner: &Arc<Inner>, call: &mut Call, body: RequestBody) -> Result<Response, ApiError> {
    let info = &call.info;
    // The old way to bind a pod: a virtual collection of its own.
    if info.group.is_empty() && info.resource == "bindings" && info.version == "v1" && info.verb == "create" {
        let Some(pods) = inner.served("", "v1", "pods") else { return Err(unknown_resource()) };
        let body = body::read(body).await?;
        return Box::pin(binding::bind(inner, call, &pods, &body)).await;
    }
    if inner.catalogue.load().is_builtin(&info.group) { Err(unknown_resource()) } else { Ok(not_found()) }
}

async fn documents(inner: &Arc<Inner>, call: &Call) -> Result<Response, ApiError> {
    let path = call.info.path.trim_end_matches('/');
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let reads = matches!(call.method, Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["api" | "apis" | "version" | "openapi", ..] if !reads => Err(not_allowed()),
        _ if !reads => Ok(not_found()),
        ["api"] | ["apis"] | ["api", _] | ["apis", _] | ["apis", _, _] => {
            discovery::answer(inner, call, &parts)
        }
        ["version"] => Ok(health::version()),
        ["healthz" | "livez" | "readyz", ..] => {
            Ok(health::checks(inner, call, parts[0], &parts[1..].join("/")))
        }
        ["metrics"] => Ok(respond::plain(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            crate::metrics::page(inner).into_bytes(),
        )),
        ["openapi", "v2"] => openapi::v2(inner, call),
        ["openapi", "v3", rest @ ..] => openapi::v3(inner, call, &rest.join("/")).await,
        [".well-known", "openid-configuration"] if inner.config.issuer.is_some() => {
            Ok(health::issuer(inner, false))
        }
        ["openid", "v1", "jwks"] if inner.config.issuer.is_some() => Ok(health::issuer(inner, true)),
        [] | [""] => Ok(discovery::root(inner, call)),
        _ => Ok(not_found()),
    }
}

/// What upstream's outer router says: no `Status`.
pub(crate) fn not_found() -> Response {
    let mut response = respond::text(404, "404 page not found\n");
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
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
