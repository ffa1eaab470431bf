//! Dynamic admission, with webhooks that answer in this process.

mod matching;
mod mutating;
mod notes;
mod requests;
mod validating;
mod versions;

use std::{net::IpAddr, sync::Arc};

use apimachinery::{ApiError, Object};
use apiserver::{Body, NodeConnector, RequestBody, Tls};
use async_trait::async_trait;
use base64::Engine as _;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";

/// What a webhook answers with: code and body.
type Reply = (u16, Value);
type Answers = dyn Fn(String, Value) -> BoxFuture<'static, Reply> + Send + Sync;

/// All webhooks of a test: they are told apart by their paths.
struct Webhooks {
    answers: Box<Answers>,
    /// Path with query, and the question.
    asked: Mutex<Vec<(String, Value)>>,
    /// Where connections went.
    dialled: Mutex<Vec<(IpAddr, u16)>>,
}

#[async_trait]
impl NodeConnector for Webhooks {
    async fn kubelet(
        &self,
        _: &Object,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        Ok(http::Response::new(format!("kubelet {}", request.uri()).into_bytes().into()))
    }

    async fn address(
        &self,
        address: IpAddr,
        port: u16,
        tls: Tls,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<Body>, ApiError> {
        self.dialled.lock().push((address, port));
        match tls {
            Tls::Verified { authorities, .. } if authorities == b"good" => {}
            Tls::Verified { .. } => {
                return Err(ApiError::internal("x509: certificate signed by unknown authority"));
            }
            Tls::Plain | Tls::Unverified | Tls::UnverifiedAs(_) => {
                return Err(ApiError::internal("not verified"));
            }
        }
        let place = request.uri().to_string();
        let path = request.uri().path().to_owned();
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&bytes).unwrap();
        self.asked.lock().push((place, review.clone()));
        let (code, body) = (self.answers)(path, review).await;
        let mut response = http::Response::new(body.to_string().into_bytes().into());
        *response.status_mut() = http::StatusCode::from_u16(code).unwrap();
        Ok(response)
    }
}

impl Webhooks {
    /// Webhooks that answer with `answers(path, request)`: a response without `uid`.
    fn new(answers: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Arc<Self> {
        Self::later(move |path, review| {
            let answer = respond(&review, answers(&path, &review["request"]));
            Box::pin(async move { (200, answer) })
        })
    }

    fn later(
        answers: impl Fn(String, Value) -> BoxFuture<'static, Reply> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { answers: Box::new(answers), asked: Mutex::default(), dialled: Mutex::default() })
    }

    async fn cluster(self: &Arc<Self>) -> Cluster {
        let connector = self.clone();
        Cluster::with(|config| config.nodes = Some(connector)).await
    }

    /// The paths that were asked since the last time, without their queries.
    fn paths(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock());
        asked.into_iter().map(|(path, _)| path.split('?').next().unwrap().to_owned()).collect()
    }

    /// The requests of the questions since the last time.
    fn requests(&self) -> Vec<Value> {
        let asked = std::mem::take(&mut *self.asked.lock());
        asked.into_iter().map(|(_, review)| review["request"].clone()).collect()
    }
}

/// A response as an answer to a question.
fn respond(review: &Value, mut response: Value) -> Value {
    response["uid"] = review["request"]["uid"].clone();
    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
}

fn allow() -> Value {
    json!({"allowed": true})
}

fn deny(message: &str) -> Value {
    json!({"allowed": false, "status": {"message": message}})
}

fn patch(operations: &Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// A rule for some operations on resources of all groups and versions.
fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!({"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources, "scope": "*"})
}

/// A webhook `NAME.example.com` at `/NAME`.
fn webhook(name: &str, rule: Value) -> Value {
    json!({
        "name": format!("{name}.example.com"), "rules": [rule],
        "clientConfig": {"url": format!("https://192.0.2.1:8443/{name}"), "caBundle": "Z29vZA=="},
        "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
        "sideEffects": "None", "timeoutSeconds": 10, "admissionReviewVersions": ["v1", "v1beta1"],
    })
}

/// The same with other fields.
fn with(mut webhook: Value, fields: Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        webhook[field] = value.clone();
    }
    webhook
}

/// Makes a configuration; `sort` is `Mutating` or `Validating`.
async fn configure(cluster: &Cluster, sort: &str, name: &str, webhooks: Value) {
    let path = format!("{CONFIGURATIONS}/{}webhookconfigurations", sort.to_lowercase());
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{sort}WebhookConfiguration"),
        "metadata": {"name": name}, "webhooks": webhooks,
    });
    cluster.create(&path, &configuration).await.ok();
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}
