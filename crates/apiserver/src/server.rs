//! The way of a request, top to bottom: info → who → may they → route → verb → answer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use access::{Attributes, Decision, UserInfo};
use apimachinery::ApiError;
use arc_swap::ArcSwap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use http_body::Body as HttpBody;
use kinds::Resource;
use serde_json::Value;
use store::{Extract, Room};

use crate::{
    Response,
    aggregation::{self, Aggregation, FrontProxy},
    audit::{self, Trail},
    body::{self, BoxError, RequestBody},
    catalogue::{Catalogue, Served},
    companions::Turns,
    config::Config,
    containment, custom,
    flow::{self, Flow},
    impersonation,
    metrics::{Labels, Metrics},
    negotiate::{self, Media, Offer},
    openapi::Documents,
    policies::{self, Policies},
    reader::StoreReader,
    request::{Query, RequestInfo},
    respond, route, selection, special,
    webhooks::Webhooks,
};

/// The API server. Cheap to clone.
#[derive(Clone)]
pub struct Server(pub(crate) Arc<Inner>);

/// So many bytes of objects written as protobuf are kept: those of some 30,000 pods.
const PROTOBUF_KEPT: usize = 64 << 20;

/// What all requests share.
pub(crate) struct Inner {
    pub config: Config,
    pub catalogue: ArcSwap<Catalogue>,
    pub reader: StoreReader,
    pub metrics: Metrics,
    pub documents: Documents,
    pub allocator: special::services::Allocator,
    pub turns: Turns,
    pub summaries: special::metrics::Summaries,
    pub webhooks: Webhooks,
    pub policies: Policies,
    pub aggregation: Aggregation,
    pub flow: Flow,
    /// Where objects written as protobuf are kept beside what is stored.
    pub protobuf: Room,
    /// The first revision that could not be written, as long as none has been since; 0: all is well.
    pub store_failed: std::sync::atomic::AtomicU64,
    /// Asked before all other authenticators.
    pub front_proxy: Option<FrontProxy>,
    pub ready: std::sync::atomic::AtomicBool,
}

/// One request on its way.
pub(crate) struct Call {
    pub info: RequestInfo,
    pub query: Query,
    pub method: Method,
    pub headers: HeaderMap,
    pub user: Arc<UserInfo>,
    pub now: DateTime<Utc>,
    pub warnings: Vec<String>,
    /// Lets a connection be taken over (exec, port-forward); only on the network listener.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
    /// What it asks for has a protobuf form.
    pub protobuf: bool,
    /// Path and query as they came, for proxying.
    pub uri: http::Uri,
    /// What the audit log will say of it.
    pub trail: Option<Arc<Trail>>,
}

impl Call {
    /// A call that the server makes itself, as nobody has to be asked.
    pub fn internal(inner: &Inner, served: &Served, namespace: &str) -> Self {
        let resource = &served.resource;
        let user = UserInfo {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned(), access::AUTHENTICATED.to_owned()],
            ..UserInfo::default()
        };
        Self {
            info: RequestInfo {
                is_resource: true,
                verb: "patch",
                group: resource.group.to_string(),
                version: resource.version.to_string(),
                namespace: namespace.to_owned(),
                resource: resource.plural.to_string(),
                ..RequestInfo::default()
            },
            query: Query::default(),
            method: Method::POST,
            headers: HeaderMap::new(),
            user: Arc::new(user),
            now: (inner.config.now)(),
            warnings: Vec::new(),
            upgrade: None,
            protobuf: false,
            uri: http::Uri::default(),
            trail: None,
        }
    }

    /// The trail, if anything is told of the request.
    pub fn trail(&self) -> Option<&Trail> {
        self.trail.as_deref().filter(|trail| trail.is_open())
    }

    /// Notes for the audit log that this object was sent.
    pub fn note_sent(&self, object: &Value) {
        if let Some(trail) = self.trail() {
            trail.sent(object);
        }
    }

    /// Notes for the audit log that the answer is this `Status`.
    pub fn note_status(&self, status: &Value) {
        if let Some(trail) = self.trail() {
            trail.status(status);
        }
    }

    /// Puts the answer on the trail. `whole`: it is an object that may be told.
    fn follow(&self, response: Response, whole: bool) -> Response {
        match &self.trail {
            Some(trail) => trail.answered(response, whole),
            None => response,
        }
    }

    /// The answer to somebody who does not get as far as a handler.
    fn refuse(&self, error: &ApiError) -> Response {
        let pretty = self.query.flag("pretty");
        let response = respond::refusal(error, Media { pretty, ..Media::default() });
        match &self.trail {
            Some(trail) => trail.failed(error, response),
            None => response,
        }
    }

    /// The form of the answer.
    pub fn media(&self, offer: Offer) -> Result<Media, ApiError> {
        negotiate::answer(&self.headers, &self.query, offer, self.protobuf)
    }

    /// What authorizers and admission plugins see.
    pub fn attributes(&self) -> Attributes {
        let info = &self.info;
        Attributes {
            user: self.user.clone(),
            verb: info.verb.to_owned(),
            resource_request: info.is_resource,
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            path: info.path.clone(),
            label_selector: self.query.text("labelSelector").to_owned(),
            field_selector: self.query.text("fieldSelector").to_owned(),
        }
    }
}

/// The certificate chain that a TLS client showed and that was verified, leaf first, DER. A request extension.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificates(pub Arc<Vec<Vec<u8>>>);

/// An extension of answers to nobody in particular: an anonymous user, or credentials that are not good.
#[derive(Clone, Copy)]
pub(crate) struct Unauthenticated;

/// The function that a store of this server is opened with: it takes labels and selectable fields out of values.
#[must_use]
pub fn extract(resources: &[Arc<Resource>]) -> Extract {
    let catalogue = Catalogue::of(resources.iter().map(|r| Arc::new(Served::new(r.clone()))), 0);
    Arc::new(move |key, value| selection::attributes(&catalogue, key, value))
}

impl Server {
    /// A server of this configuration. Nothing runs yet but requests can be served; call [`Server::start`] to make the
    /// objects that have to exist and to follow CustomResourceDefinitions.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let measured = if config.nodes.is_some() { special::metrics::resources() } else { Vec::new() };
        let resources = config.resources.iter().chain(&measured);
        let catalogue = Arc::new(Catalogue::of(resources.map(|r| Arc::new(Served::new(r.clone()))), 0));
        let inner = Inner {
            reader: config.reader.clone(),
            allocator: special::services::Allocator::new(&config),
            catalogue: ArcSwap::new(catalogue),
            metrics: Metrics::default(),
            documents: Documents::default(),
            turns: Turns::default(),
            summaries: special::metrics::Summaries::default(),
            webhooks: Webhooks::default(),
            policies: Policies::default(),
            aggregation: Aggregation::default(),
            flow: Flow::new(config.seats),
            protobuf: Room::new(PROTOBUF_KEPT),
            store_failed: 0.into(),
            front_proxy: config.front_proxy_authority.as_deref().and_then(front_proxy),
            ready: false.into(),
            config,
        };
        Self(Arc::new(inner))
    }

    /// The server as an HTTP service, for the listener and for clients in this process.
    #[must_use]
    pub fn service(&self) -> ApiService {
        ApiService { inner: self.0.clone(), user: None }
    }

    /// The server as an HTTP service whose every request is made by `user`: clients in this process.
    #[must_use]
    pub fn service_as(&self, user: UserInfo) -> ApiService {
        ApiService { inner: self.0.clone(), user: Some(Arc::new(user)) }
    }

    /// Makes the objects that have to exist, and begins to follow CustomResourceDefinitions and lifetimes. Resolves when
    /// the server is ready; what it began ends when the server is dropped.
    pub async fn start(&self) -> Result<(), ApiError> {
        special::bootstrap::run(&self.0).await?;
        custom::start(&self.0).await?;
        policies::checking::start(&self.0);
        flow::start(&self.0)?;
        aggregation::start(&self.0).await?;
        tokio::spawn(special::expiry::run(Arc::downgrade(&self.0)));
        self.0.ready.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Resolves when all that the audit log was told is written.
    pub async fn flush(&self) {
        if let Some(audit) = &self.0.config.audit {
            audit.flush().await;
        }
    }

    /// How the access room sees what is stored.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn access::Reader> {
        Arc::new(self.0.reader.clone())
    }
}

/// See [`Server::service`].
#[derive(Clone)]
pub struct ApiService {
    inner: Arc<Inner>,
    user: Option<Arc<UserInfo>>,
}

impl<B> tower::Service<http::Request<B>> for ApiService
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if let Some(user) = &self.user {
            parts.extensions.insert(user.clone());
        }
        let inner = self.inner.clone();
        Box::pin(async move { Ok(serve(inner, parts, body::boxed(body)).await) })
    }
}

/// `None` without an authority that can be read: nobody then speaks for others.
fn front_proxy(authority: &str) -> Option<FrontProxy> {
    FrontProxy::new(authority)
        .inspect_err(|why| tracing::error!(why, "the front proxy's authority cannot be read"))
        .ok()
}

/// Reads are cut after this time unless the client asks for less.
const DEADLINE: Duration = Duration::from_secs(60);
/// Writes are cut after this time.
pub(crate) const WRITE_DEADLINE: Duration = Duration::from_secs(34);

/// One request, from its head to the head of its answer. Never fails: what goes wrong becomes a `Status`.
async fn serve(inner: Arc<Inner>, mut parts: Parts, body: RequestBody) -> Response {
    let begun = Instant::now();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let info = RequestInfo::parse(&parts.method, parts.uri.path(), &query);
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let id = audit::id(&parts.headers);
    let trail = inner.config.audit.as_ref().map(|audit| {
        let remote = parts.extensions.get::<audit::Remote>().map(|remote| remote.0.ip());
        let id = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        Trail::new(audit.clone(), id, remote, inner.config.now)
    });
    let mut call = Call {
        info,
        query,
        method: parts.method.clone(),
        user: Arc::default(),
        now: (inner.config.now)(),
        warnings: Vec::new(),
        upgrade,
        protobuf: false,
        uri: parts.uri.clone(),
        headers: HeaderMap::new(),
        trail: trail.clone(),
    };
    let pretty = call.query.flag("pretty");
    let identity = parts.extensions.get::<Arc<UserInfo>>().cloned();
    let identity = identity.or_else(|| parts.extensions.get::<UserInfo>().cloned().map(Arc::new));
    let certificates = parts.extensions.get::<ClientCertificates>().cloned().unwrap_or_default();
    call.headers = std::mem::take(&mut parts.headers);

    let apply = call.headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "application/apply-patch+yaml");
    let info = &call.info;
    let known = inner.served(&info.group, &info.version, &info.resource).is_some_and(|served| {
        info.subresource.is_empty() || served.resource.subresource(&info.subresource).is_some()
    });
    let labels = Labels::of(info, known, apply, call.query.get("dryRun").is_some());
    let series = inner.metrics.series(labels);
    let metered = inner.clone();
    let inflight = (!info.is_long_running()).then(|| metered.metrics.begin(is_write(&call.method)));
    let mut response = match guarded(inner, call, body, identity, certificates).await {
        Ok(response) => response,
        Err(error) => {
            let response = respond::error(&error, Media { pretty, ..Media::default() });
            match &trail {
                Some(trail) => trail.failed(&error, response),
                None => response,
            }
        }
    };
    if response.status() == http::StatusCode::UNAUTHORIZED {
        response.extensions_mut().insert(Unauthenticated);
    }
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    if let Some(id) = id {
        headers.insert(audit::ID, id);
    }
    drop(inflight);
    series.observe(response.status().as_u16(), begun.elapsed());
    response
}

fn is_write(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// The request under its deadline. A write goes on when its client hangs up, so that nothing is half done.
async fn guarded(
    inner: Arc<Inner>,
    call: Call,
    body: RequestBody,
    identity: Option<Arc<UserInfo>>,
    certificates: ClientCertificates,
) -> Result<Response, ApiError> {
    let write = is_write(&call.method) && !call.info.is_long_running();
    let asked = match call.query.text("timeout") {
        "" => None,
        text => match duration(text) {
            Some(asked) => Some(asked),
            None => {
                if let Some(trail) = &call.trail {
                    trail.refused(&call).await;
                }
                return Err(ApiError::bad_request(format!(
                    "invalid timeout specified in the request URL - time: invalid duration {text:?}"
                )));
            }
        },
    };
    let limit =
        if write { WRITE_DEADLINE } else { DEADLINE }.min(asked.filter(|d| !d.is_zero()).unwrap_or(DEADLINE));
    let unlimited = call.info.is_long_running() || call.info.verb == "deletecollection";
    let patience = (!unlimited).then_some(limit);
    let trail = call.trail.clone();
    let work = Box::pin(pipeline(inner, call, body, identity, certificates, patience));
    let work = containment::contain(work).map(|done| {
        done.unwrap_or_else(|panic| {
            let what = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            tracing::error!(what, "a request handler panicked");
            if let Some(trail) = trail {
                trail.panicked(&what);
            }
            Err(ApiError::other(
                500,
                "InternalError",
                "This request caused apiserver to panic. Look in the logs for details.",
            ))
        })
    });
    let work = async move {
        if write {
            match tokio::spawn(work).await {
                Ok(done) => done,
                Err(error) => Err(ApiError::internal(error)),
            }
        } else {
            work.await
        }
    };
    if unlimited {
        return work.await;
    }
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Ok(timed_out()),
    }
}

/// A `Status` without its kind, and without a content type of its own: upstream writes it below everything that
/// encodes answers.
fn timed_out() -> Response {
    let why = "Timeout: request did not complete within the allotted timeout";
    respond::text(
        504,
        format!(
            r#"{{"metadata":{{}},"status":"Failure","message":"{why}","reason":"Timeout","details":{{}},"code":504}}"#
        ) + "\n",
    )
}

/// Go's duration text as far as clients use it: `30s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if text == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &rest[end..];
    }
    Some(total)
}

/// Authenticate → impersonate → wait for a seat → authorize → route. `patience`: how long all of it may take.
async fn pipeline(
    inner: Arc<Inner>,
    mut call: Call,
    body: RequestBody,
    identity: Option<Arc<UserInfo>>,
    certificates: ClientCertificates,
    patience: Option<Duration>,
) -> Result<Response, ApiError> {
    call.user = match identity {
        Some(user) => user,
        None => match authenticate(&inner, &call, &certificates).await {
            Ok(user) => Arc::new(user),
            Err(error) => {
                if let Some(trail) = &call.trail {
                    trail.refused(&call).await;
                }
                return Err(error);
            }
        },
    };
    if let Some(trail) = &call.trail {
        trail.begin(&call).await;
    }
    let nameless = call.user.groups.iter().any(|group| group == access::UNAUTHENTICATED);
    match impersonation::effective(&inner, &call) {
        Ok(Some(user)) => {
            if let Some(trail) = call.trail() {
                trail.impersonated(&user);
            }
            call.user = Arc::new(user);
        }
        Ok(None) => {}
        Err(error) => return Ok(call.refuse(&error)),
    }
    let place = match flow::admit(&inner, &call, patience).await {
        Ok(place) => place,
        Err(mut refused) => {
            if nameless {
                refused.extensions_mut().insert(Unauthenticated);
            }
            return Ok(call.follow(refused, false));
        }
    };
    let pretty = call.query.flag("pretty");
    let mut response = match answer(&inner, &mut call, body).await {
        Ok(response) => response,
        Err(error) => {
            let response = respond::error(&error, Media { pretty, ..Media::default() });
            match &call.trail {
                Some(trail) => trail.failed(&error, response),
                None => response,
            }
        }
    };
    if nameless {
        response.extensions_mut().insert(Unauthenticated);
    }
    Ok(place.leave(response))
}

/// What this server, or the one that serves the path behind it, says. Warnings are added to whatever comes back.
async fn answer(inner: &Arc<Inner>, call: &mut Call, body: RequestBody) -> Result<Response, ApiError> {
    let attributes = call.attributes();
    let decision = inner.decide(&attributes);
    if let Some(trail) = call.trail() {
        trail.decided(&decision);
    }
    if let Err(error) = allowed(&attributes, decision) {
        return Ok(call.refuse(&error));
    }
    let remote = inner.aggregation.table.load().of_path(&call.info.path).cloned();
    if let Some(remote) = remote {
        let response = Box::pin(aggregation::forward(inner, call, &remote, body)).await?;
        return Ok(call.follow(response, false));
    }
    let result = route::dispatch(inner, call, body).await;
    if result.as_ref().is_err_and(route::is_routers) {
        call.warnings.clear();
    }
    // An error is always an object.
    let whole = result.is_err() || call.info.is_resource && !call.info.is_long_running();
    let pretty = call.query.flag("pretty");
    let mut response = result.unwrap_or_else(|error| {
        if let Some(trail) = call.trail() {
            trail.status(&error.to_status());
        }
        respond::error(&error, Media { pretty, ..error_media(call) })
    });
    respond::warn(&mut response, &call.warnings);
    Ok(call.follow(response, whole))
}

/// Errors are documents of the asked encoding, else indented JSON.
fn error_media(call: &Call) -> Media {
    // Errors have a protobuf form whatever the kind has.
    negotiate::answer(&call.headers, &call.query, Offer::Plain, true)
        .unwrap_or(Media { pretty: true, ..Media::default() })
}

async fn authenticate(
    inner: &Inner,
    call: &Call,
    certificates: &ClientCertificates,
) -> Result<UserInfo, ApiError> {
    let front = inner.front_proxy.iter().map(|front| front as &dyn access::Authenticator);
    for authenticator in front.chain(inner.config.authenticators.iter().map(|one| &**one)) {
        match authenticator.authenticate(&call.headers, &certificates.0, call.now).await {
            Ok(Some(user)) => return Ok(user),
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%error, "authentication failed");
                return Err(ApiError::unauthorized());
            }
        }
    }
    if inner.config.anonymous {
        return Ok(UserInfo::anonymous());
    }
    Err(ApiError::unauthorized())
}

impl Inner {
    /// What the authorizers say together.
    pub fn decide(&self, attributes: &Attributes) -> Decision {
        access::decide(&self.config.authorizers, attributes)
    }

    /// 403 unless allowed.
    pub fn authorize(&self, attributes: &Attributes) -> Result<(), ApiError> {
        allowed(attributes, self.decide(attributes))
    }

    /// The resource now served under this name.
    pub fn served(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Served>> {
        self.catalogue.load().find(group, version, plural).cloned()
    }

    /// The resource at its preferred version.
    pub fn preferred(&self, group: &str, plural: &str) -> Option<Arc<Served>> {
        self.catalogue.load().preferred(group, plural).cloned()
    }

    /// A stored object of a built-in kind, decoded; shared, not copied.
    pub fn stored(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        access::Reader::get(&self.reader, group, plural, namespace, name)
    }
}

fn allowed(attributes: &Attributes, decision: Decision) -> Result<(), ApiError> {
    match decision {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
    }
}

/// Upstream's sentence about who may not do what.
fn forbidden(a: &Attributes, reason: &str) -> ApiError {
    let user = &a.user.name;
    let tail = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    if !a.resource_request {
        let why = format!("User {user:?} cannot {} path {:?}", a.verb, a.path);
        return ApiError::forbidden("", "", "", &(escape(&why) + &tail));
    }
    let resource = if a.subresource.is_empty() {
        a.resource.clone()
    } else {
        format!("{}/{}", a.resource, a.subresource)
    };
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", a.namespace)
    };
    let why =
        format!("User {user:?} cannot {} resource {resource:?} in API group {:?} {place}", a.verb, a.group);
    ApiError::forbidden(&a.group, &a.resource, &a.name, &(escape(&why) + &tail))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is moved to where it runs, and every byte of it with it.
    #[test]
    fn the_future_of_a_request_is_small() {
        fn size<A, F: Future>(_: impl FnOnce(Arc<Inner>, Parts, A) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(serve);
        assert!(size < 6 << 10, "{size} bytes");
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("5"), None);
        assert_eq!(duration("x"), None);
        assert_eq!(duration("18446744073709551000s18446744073709551000s"), None);
    }
}
