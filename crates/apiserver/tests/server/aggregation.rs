//! Other API servers behind this one. The other one is a server of the same code with a CustomResourceDefinition, which
//! knows its callers by the front proxy's certificate and headers.

use std::{net::IpAddr, sync::Arc};

use access::UserInfo;
use apimachinery::{ApiError, Object};
use apiserver::{Body, ClientCertificates, ClientIdentity, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tower::Service as _;

use crate::cluster::{Answer, Cluster};

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WARDLE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A front proxy: its authority and one client of it.
struct FrontProxy {
    authority: String,
    issuer: Issuer<'static, KeyPair>,
}

impl FrontProxy {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "front-proxy-ca");
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        Self { authority, issuer: Issuer::new(params, key) }
    }

    fn client(&self, name: &str) -> ClientIdentity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages.push(rcgen::ExtendedKeyUsagePurpose::ClientAuth);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        ClientIdentity { certificate, key: key.serialize_pem() }
    }
}

fn shown(identity: &ClientIdentity) -> ClientCertificates {
    let der = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    ClientCertificates(Arc::new(der.map(|c| c.unwrap().to_vec()).collect()))
}

/// Reaches the other server, wherever it is asked to go.
#[derive(Default)]
struct Wire {
    other: Mutex<Option<apiserver::Server>>,
    /// Heads of requests, in order.
    seen: Mutex<Vec<http::request::Parts>>,
    /// The other server sends everybody elsewhere.
    redirects: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl NodeConnector for Wire {
    async fn kubelet(
        &self,
        _: &Object,
        _: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        Err(ApiError::internal("not here"))
    }

    async fn address(
        &self,
        address: IpAddr,
        port: u16,
        tls: Tls,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        assert_eq!((address.to_string().as_str(), port), ("10.0.0.9", 6443));
        let Tls::Verified { authorities, name, identity: Some(identity) } = tls else {
            panic!("nobody is shown")
        };
        assert_eq!((authorities.as_slice(), name.as_str()), (&b"authority"[..], "api.wardle.svc"));
        let (mut parts, body) = request.into_parts();
        self.seen.lock().push(parts.clone());
        if self.redirects.load(std::sync::atomic::Ordering::Relaxed) {
            let response =
                http::Response::builder().status(302).header("location", "https://evil.example.com/");
            return Ok(response.body(Body::empty()).unwrap());
        }
        parts.extensions.insert(shown(&identity));
        let other = self.other.lock().clone().ok_or_else(|| {
            ApiError::other(503, "ServiceUnavailable", "error trying to reach service: connection refused")
        })?;
        Ok(other.service().call(http::Request::from_parts(parts, body)).await.unwrap())
    }
}

struct Both {
    here: Cluster,
    /// Kept, because its server lives with it.
    other: Cluster,
    wire: Arc<Wire>,
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "flunders.wardle.example.com"},
        "spec": {
            "group": "wardle.example.com", "scope": "Namespaced",
            "names": {"plural": "flunders", "singular": "flunder", "kind": "Flunder"},
            "versions": [{
                "name": "v1alpha1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

fn api_service() -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1alpha1.wardle.example.com"},
        "spec": {
            "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 17650, "versionPriority": 200,
            "service": {"namespace": "wardle", "name": "api", "port": 7443},
            "caBundle": base64::engine::general_purpose::STANDARD.encode("authority"),
        },
    })
}

fn slice(ready: bool) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "api", "labels": {"kubernetes.io/service-name": "api"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": ready}}],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    })
}

fn condition(status: &'static str, reason: &'static str) -> impl Fn(&Answer) -> bool {
    move |answer| {
        let condition = answer.json()["status"]["conditions"][0].clone();
        condition["type"] == "Available" && condition["status"] == status && condition["reason"] == reason
    }
}

/// Two servers; the first has an APIService for the second, but no Service yet.
async fn both() -> Both {
    let proxy = FrontProxy::new();
    let authority = proxy.authority.clone();
    let other = Cluster::with(|config| config.front_proxy_authority = Some(authority)).await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    other.create(definitions, &definition()).await.ok();
    other.until("/apis/wardle.example.com/v1alpha1", |answer| answer.code == 200).await;
    let wire = Arc::new(Wire::default());
    *wire.other.lock() = Some(other.server.clone());
    let connector = wire.clone();
    let here = Cluster::with(|config| {
        config.nodes = Some(connector);
        config.front_proxy = Some(proxy.client("front-proxy-client"));
    })
    .await;
    here.create(SERVICES, &api_service()).await.ok();
    Both { here, other, wire }
}

async fn serve(here: &Cluster) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wardle"}});
    here.create("/api/v1/namespaces", &namespace).await.ok();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"},
        "spec": {"ports": [{"name": "https", "port": 7443, "targetPort": 6443}]},
    });
    here.create("/api/v1/namespaces/wardle/services", &service).await.ok();
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/wardle/endpointslices";

async fn available(here: &Cluster) {
    serve(here).await;
    here.create(SLICES, &slice(true)).await.ok();
    here.until(WARDLE, condition("True", "Passed")).await;
    here.until("/apis/wardle.example.com/v1alpha1", |answer| answer.code == 200).await;
}

#[tokio::test]
async fn an_api_service_says_what_it_lacks_until_all_checks_pass() {
    let Both { here, other, wire } = both().await;
    let gone = here.until(WARDLE, condition("False", "ServiceNotFound")).await.json();
    let message = "service/api in \"wardle\" is not present";
    assert_eq!(gone["status"]["conditions"][0]["message"], message);
    let refused = here.get(FLUNDERS).await;
    assert_eq!((refused.code, &*refused.body), (503, &b"service unavailable\n"[..]));
    serve(&here).await;
    here.until(WARDLE, condition("False", "EndpointsNotFound")).await;
    here.create(SLICES, &slice(false)).await.ok();
    here.until(WARDLE, condition("False", "MissingEndpoints")).await;
    *wire.other.lock() = None;
    here.update(&format!("{SLICES}/api"), &slice(true)).await.ok();
    here.until(WARDLE, condition("False", "FailedDiscoveryCheck")).await;
    // Nothing tells that the network is whole again: the check is tried again by itself.
    *wire.other.lock() = Some(other.server.clone());
    let passed = here.until(WARDLE, condition("True", "Passed")).await.json();
    assert_eq!(passed["status"]["conditions"][0]["message"], "all checks passed");
    here.merge(WARDLE, &json!({"spec": {"service": {"port": 1}}})).await.ok();
    here.until(WARDLE, condition("False", "ServicePortError")).await;
    here.until(FLUNDERS, |answer| answer.code == 503).await;
}

#[tokio::test]
async fn requests_are_passed_on_in_the_callers_name_and_nobody_elses() {
    let Both { here, other, wire } = both().await;
    available(&here).await;
    let flunder = json!({"apiVersion": "wardle.example.com/v1alpha1", "kind": "Flunder", "metadata": {"name": "a"}, "x": 0});
    let headers = [
        ("authorization", "Bearer secret"),
        ("x-remote-user", "somebody"),
        ("x-remote-extra-scopes", "all"),
        ("impersonate-user", "admin"),
        ("impersonate-group", "system:masters"),
        ("x-other", "kept"),
        ("content-type", "application/json"),
    ];
    let made = here.send("POST", &format!("{FLUNDERS}?fieldManager=me"), &headers, flunder.to_string()).await;
    assert_eq!(made.status(), 201);
    let seen = wire.seen.lock().iter().rfind(|parts| parts.method == "POST").unwrap().clone();
    let header = |name: &str| {
        let all = seen.headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned());
        all.collect::<Vec<_>>()
    };
    assert_eq!(seen.uri.to_string(), format!("{FLUNDERS}?fieldManager=me"));
    assert_eq!(header("x-remote-user"), ["admin"]);
    assert_eq!(header("x-other"), ["kept"]);
    for name in ["authorization", "x-remote-extra-scopes", "impersonate-user"] {
        assert!(header(name).is_empty(), "{name}");
    }
    assert_eq!(other.get(FLUNDERS).await.ok()["items"][0]["metadata"]["managedFields"][0]["manager"], "me");

    // All verbs, watches, tables: whatever the other server can do.
    let path = format!("{FLUNDERS}?watch=1&resourceVersion=0");
    let mut watch = here.send("GET", &path, &[], "").await;
    let event = watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(b"{\"type\":\"ADDED\""), "{event:?}");
    here.merge(&format!("{FLUNDERS}/a"), &json!({"x": 1})).await.ok();
    let event = watch.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(event.starts_with(b"{\"type\":\"MODIFIED\""), "{event:?}");
    let table = here.get_as(FLUNDERS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["kind"], "Table");
    assert_eq!(here.get(&format!("{FLUNDERS}/b")).await.refused().0, 404);
    here.delete(FLUNDERS).await.ok();
    assert_eq!(other.get(FLUNDERS).await.ok()["items"], json!([]));

    // Who may not ask this server does not get to the other one.
    let nobody = UserInfo { name: "nobody".to_owned(), ..UserInfo::default() };
    let before = wire.seen.lock().len();
    let request = http::Request::get(FLUNDERS).body(Full::new(bytes::Bytes::new())).unwrap();
    assert_eq!(here.server.service_as(nobody).call(request).await.unwrap().status(), 403);
    assert_eq!(wire.seen.lock().len(), before);

    wire.redirects.store(true, std::sync::atomic::Ordering::Relaxed);
    let answer = here.get(FLUNDERS).await;
    assert_eq!((answer.code, answer.headers.get("location")), (502, None));
    *wire.other.lock() = None;
    wire.redirects.store(false, std::sync::atomic::Ordering::Relaxed);
    let answer = here.get(FLUNDERS).await;
    assert_eq!(answer.code, 503);
    assert!(answer.body.starts_with(b"error trying to reach service: "), "{:?}", answer.body);
}

#[tokio::test]
async fn the_documents_show_what_other_servers_serve_at_its_place() {
    let Both { here, other: _other, wire: _ } = both().await;
    let of_wardle = |answer: &Answer| {
        let json = answer.json();
        let items = json["items"].as_array().cloned().unwrap_or_default();
        let group = items.iter().find(|g| g["metadata"]["name"] == "wardle.example.com").cloned();
        group.unwrap_or_default()["versions"][0].clone()
    };
    here.until("/apis/wardle.example.com", |answer| answer.code == 200).await;
    let before = here.get_as("/apis", AGGREGATED).await;
    assert_eq!(of_wardle(&before), json!({"version": "v1alpha1", "freshness": "Stale"}));
    available(&here).await;
    let current = async {
        loop {
            let version = of_wardle(&here.get_as("/apis", AGGREGATED).await);
            if version["freshness"] == "Current" {
                return version;
            }
            tokio::task::yield_now().await;
        }
    };
    let after =
        tokio::time::timeout(std::time::Duration::from_secs(30), current).await.expect("it stays stale");
    assert_eq!(after["resources"][0]["resource"], "flunders");
    let groups = here.get("/apis").await.ok();
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names[..4], ["apiregistration.k8s.io", "apps", "events.k8s.io", "authentication.k8s.io"]);
    let wardle = names.iter().position(|name| *name == "wardle.example.com").unwrap();
    assert_eq!(
        names[wardle - 1..=wardle + 1],
        ["authentication.k8s.io", "wardle.example.com", "authorization.k8s.io"]
    );
    let group = here.get("/apis/wardle.example.com").await.ok();
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let list = here.get("/apis/wardle.example.com/v1alpha1").await.ok();
    assert_eq!(list["resources"][0]["name"], "flunders");

    let place = "apis/wardle.example.com/v1alpha1";
    let root = here.until("/openapi/v3", |answer| answer.json()["paths"][place].is_object()).await.json();
    let url = root["paths"][place]["serverRelativeURL"].as_str().unwrap();
    let document = here.get(url).await.ok();
    assert!(
        document["paths"]["/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders"].is_object()
    );
    let path = "/apis/wardle.example.com/v1alpha1/namespaces/{namespace}/flunders";
    let swagger = here.until("/openapi/v2", |answer| answer.json()["paths"][path].is_object()).await.json();
    assert!(swagger["definitions"]["com.example.wardle.v1alpha1.Flunder"].is_object());

    // Another place is taken at once; without the APIService all of it is gone.
    here.merge(WARDLE, &json!({"spec": {"groupPriorityMinimum": 2}})).await.ok();
    let last = |answer: &Answer| {
        let json = answer.json();
        json["groups"].as_array().and_then(|g| g.last()).is_some_and(|g| g["name"] == "wardle.example.com")
    };
    here.until("/apis", last).await;
    here.delete(WARDLE).await.ok();
    here.until("/apis/wardle.example.com", |answer| answer.code == 404).await;
    here.until("/openapi/v2", |answer| answer.json()["paths"][path].is_null()).await;
    assert_eq!(here.get(FLUNDERS).await.code, 404);
}

#[tokio::test]
async fn what_is_served_here_has_api_services_that_come_and_go() {
    let cluster = Cluster::new().await;
    let managed =
        |object: &Value| object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"].clone();
    let apps = cluster.get(&format!("{SERVICES}/v1.apps")).await.ok();
    assert_eq!(managed(&apps), "onstart");
    let spec =
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15});
    assert_eq!(apps["spec"], spec);
    let condition = &apps["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"], &condition["reason"]),
        (&json!("Available"), &json!("True"), &json!("Local"))
    );
    assert_eq!(condition["message"], "Local APIServices are always available");
    cluster.get(&format!("{SERVICES}/v1.")).await.ok();
    assert_eq!(cluster.get(&format!("{SERVICES}/v1.apiregistration.k8s.io")).await.code, 404);

    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    cluster.create(definitions, &definition()).await.ok();
    let made = cluster.until(WARDLE, |answer| answer.code == 200).await.json();
    assert_eq!(managed(&made), "true");
    assert_eq!(made["spec"]["groupPriorityMinimum"], 1000);
    // It is kept up to date, and comes again.
    cluster.merge(WARDLE, &json!({"spec": {"versionPriority": 7}})).await.ok();
    cluster.until(WARDLE, |answer| answer.json()["spec"]["versionPriority"] == 100).await;
    let uid = made["metadata"]["uid"].clone();
    cluster.delete(WARDLE).await.ok();
    cluster.until(WARDLE, |answer| answer.code == 200 && answer.json()["metadata"]["uid"] != uid).await;
    cluster.delete(&format!("{definitions}/flunders.wardle.example.com")).await.ok();
    cluster.until(WARDLE, |answer| answer.code == 404).await;
}

#[tokio::test]
async fn others_may_write_conditions_beside_the_first() {
    let Both { here, other: _other, wire: _ } = both().await;
    available(&here).await;
    let mut object = here.get(&format!("{WARDLE}/status")).await.ok();
    let more =
        json!({"type": "StatusUpdated", "status": "True", "reason": "E2E", "message": "Set from e2e test"});
    object["status"]["conditions"].as_array_mut().unwrap().push(more.clone());
    here.update(&format!("{WARDLE}/status"), &object).await.ok();
    here.delete(&format!("{SLICES}/api")).await.ok();
    let object = here.until(WARDLE, condition("False", "EndpointsNotFound")).await.json();
    assert_eq!(object["status"]["conditions"][1]["reason"], "E2E");
    // Whoever takes the condition away is corrected.
    here.merge(&format!("{WARDLE}/status"), &json!({"status": {"conditions": [more]}})).await.ok();
    let again = |answer: &Answer| {
        let json = answer.json();
        let all = json["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.iter().any(|c| c["reason"] == "EndpointsNotFound")
    };
    here.until(WARDLE, again).await;
}

#[tokio::test]
async fn only_the_front_proxy_speaks_for_others() {
    let (proxy, stranger) = (FrontProxy::new(), FrontProxy::new());
    let authority = proxy.authority.clone();
    let cluster = Cluster::with(|config| {
        config.front_proxy_authority = Some(authority);
        config.authenticators = vec![Arc::new(access::x509::ClientCertificate)];
    })
    .await;
    let ask = async |identity: &ClientIdentity, user: Option<&str>| {
        let mut request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews");
        if let Some(user) = user {
            request = request.header("x-remote-user", user).header("x-remote-group", "system:masters");
            request = request.header("x-remote-extra-example.com%2fa", "b").header("x-remote-uid", "7");
        }
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let mut request = request.body(Full::new(bytes::Bytes::from(review.to_string()))).unwrap();
        request.extensions_mut().insert(shown(identity));
        let answer = cluster.server.service().call(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice::<Value>(&body).unwrap_or_default()["status"]["userInfo"].clone())
    };
    let (code, user) = ask(&proxy.client("front-proxy-client"), Some("jane")).await;
    let jane = json!({
        "username": "jane", "uid": "7", "groups": ["system:masters", "system:authenticated"],
        "extra": {"example.com/a": ["b"]},
    });
    assert_eq!((code, user), (201, jane));
    assert_eq!(ask(&proxy.client("front-proxy-client"), None).await.0, 401);
    assert_eq!(ask(&proxy.client("somebody"), Some("jane")).await.0, 401);
    // A certificate of another authority is for whom it names, whatever the headers say.
    let (code, _) = ask(&stranger.client("system:nobody"), Some("jane")).await;
    assert_eq!(code, 403);
}

#[tokio::test]
async fn servers_are_told_whom_to_believe() {
    let (proxy, clients) = (FrontProxy::new(), FrontProxy::new());
    let (front, client) = (proxy.authority.clone(), clients.authority.clone());
    let cluster = Cluster::with(|config| {
        config.front_proxy_authority = Some(front);
        config.client_authority = Some(client);
    })
    .await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = cluster.get(path).await.ok()["data"].clone();
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
    assert_eq!(pem(data["client-ca-file"].as_str().unwrap()), pem(&clients.authority));
    assert_eq!(pem(data["requestheader-client-ca-file"].as_str().unwrap()), pem(&proxy.authority));
    for (key, value) in [
        ("requestheader-username-headers", r#"["X-Remote-User"]"#),
        ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
        ("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
        ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
    ] {
        assert_eq!(data[key], value);
    }
}
