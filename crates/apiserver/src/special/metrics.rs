//! `metrics.k8s.io/v1beta1`: what nodes and pods use now, asked of the kubelets when it is asked for.
//!
//! Nothing is stored and nothing polls. The answers of kubelets are shared for two seconds, so that many requests at once
//! ask each kubelet once. A node that does not answer in time is left out, as upstream's metrics-server leaves it out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use access::Reader as _;
use apimachinery::{
    ApiError, Object, Schema, meta, openapi,
    quantity::{Quantity, Style},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use kinds::{Behaviour, Resource, Strategy, apiextensions::object_metadata};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{sync::OnceCell, time::Instant};

use crate::{
    Response, body,
    catalogue::Served,
    negotiate::Offer,
    options::List,
    route,
    server::{Call, Inner},
    special::unstored,
};

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// How long one answer of a kubelet is good for.
const FRESH: Duration = Duration::from_secs(2);
/// How long a kubelet may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many kubelets are asked at once.
const AT_ONCE: usize = 32;
/// The largest answer of a kubelet.
const LARGEST: usize = 16 << 20;
/// What the kubelet measures the use of CPU over, about.
const WINDOW: &str = "10s";

/// The two resources of the group.
#[must_use]
pub fn resources() -> Vec<Arc<Resource>> {
    let usage = json!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}});
    let container = json!({"type": "object", "properties": {"name": {"type": "string"}, "usage": usage}});
    let containers = json!({"type": "array", "items": container});
    vec![
        resource("nodes", "NodeMetrics", false, &json!({"usage": usage})),
        resource("pods", "PodMetrics", true, &json!({"containers": containers})),
    ]
}

fn resource(plural: &str, kind: &str, namespaced: bool, fields: &Value) -> Arc<Resource> {
    let mut properties = json!({
        "timestamp": {"type": "string", "format": "date-time", "description": "When it was measured."},
        "window": {"type": "string", "description": "The time over which the use of CPU was measured."},
    });
    for (name, schema) in fields.as_object().into_iter().flatten() {
        properties[name] = schema.clone();
    }
    let schema = openapi::from_json_schema(&json!({"type": "object", "properties": properties}));
    let mut schema: Schema = schema.unwrap_or_default();
    schema.properties.insert("metadata".into(), object_metadata());
    let column = |name: &str, format: &str| kinds::Column {
        name: name.into(),
        kind: "string".into(),
        format: format.into(),
        description: "".into(),
        priority: 0,
        json_path: "".into(),
    };
    Arc::new(Resource {
        group: GROUP.into(),
        version: "v1beta1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        plural: plural.into(),
        singular: "".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: ["get", "list"].map(Arc::from).to_vec(),
        schema: Arc::new(schema),
        subresources: Vec::new(),
        columns: vec![column("Name", "name"), column("cpu", ""), column("memory", ""), column("Window", "")],
        selectable: Vec::new(),
        behaviour: Behaviour::default(),
        strategy: Arc::new(Shown),
        builtin: true,
    })
}

struct Shown;
impl Strategy for Shown {
    fn row(&self, object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        let sum = |name: &str| {
            let own = object["usage"].get(name);
            let containers = object["containers"].as_array().into_iter().flatten();
            let all = own.into_iter().chain(containers.filter_map(|c| c["usage"].get(name)));
            let amounts = all.filter_map(|v| Quantity::parse(v.as_str()?).ok());
            amounts.fold(Quantity::ZERO, |sum, q| sum.plus(&q)).to_string()
        };
        Some(vec![
            object["metadata"]["name"].clone(),
            sum("cpu").into(),
            sum("memory").into(),
            object["window"].clone(),
        ])
    }
}

/// The role that lets those who may view a namespace see what its pods use. It exists where the group is served.
#[must_use]
pub fn role() -> Object {
    let label = |role: &str| format!("rbac.authorization.k8s.io/aggregate-to-{role}");
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": "system:aggregated-metrics-reader",
            "labels": {label("view"): "true", label("edit"): "true", label("admin"): "true"},
        },
        "rules": [{"apiGroups": [GROUP], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]}],
    })
}

/// What a kubelet answered, once for all who ask at the same time.
type Answer = Arc<OnceCell<Option<Arc<Value>>>>;

/// The last answers of kubelets, by node.
#[derive(Default)]
pub struct Summaries(Mutex<HashMap<String, (Instant, Answer)>>);

impl Summaries {
    async fn of(&self, inner: &Inner, node: &Object) -> Option<Arc<Value>> {
        let answer = {
            let mut kept = self.0.lock();
            kept.retain(|_, (since, _)| since.elapsed() < FRESH.max(PATIENCE));
            match kept.get(meta::name(node)) {
                Some((since, answer)) if since.elapsed() < FRESH => answer.clone(),
                _ => {
                    let answer = Answer::default();
                    kept.insert(meta::name(node).to_owned(), (Instant::now(), answer.clone()));
                    answer
                }
            }
        };
        answer.get_or_init(|| async { ask(inner, node).await.map(Arc::new) }).await.clone()
    }
}

/// The kubelet's summary; `None`, with a line in the log, if there is none.
async fn ask(inner: &Inner, node: &Object) -> Option<Value> {
    let connector = inner.config.nodes.clone()?;
    let fetch = async {
        let uri = "/stats/summary?only_cpu_and_memory=true";
        let empty = body::boxed(http_body_util::Empty::<Bytes>::new());
        let request = http::Request::get(uri).body(empty).map_err(ApiError::internal)?;
        let response = connector.kubelet(node, request).await?;
        if response.status() != http::StatusCode::OK {
            return Err(ApiError::internal(format!("the kubelet answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(ApiError::internal)?;
        serde_json::from_slice(&body.to_bytes()).map_err(ApiError::internal)
    };
    let name = meta::name(node);
    match tokio::time::timeout(PATIENCE, fetch).await {
        Ok(Ok(summary)) => Some(summary),
        Ok(Err(error)) => {
            tracing::debug!(%error, node = name, "a kubelet has no metrics");
            None
        }
        Err(_) => {
            tracing::debug!(node = name, "a kubelet took too long for its metrics");
            None
        }
    }
}

/// GET of one object's or of many objects' metrics.
pub(crate) async fn serve(inner: &Arc<Inner>, call: &Call, served: &Served) -> Result<Response, ApiError> {
    if !matches!(call.info.verb, "get" | "list") || !call.info.subresource.is_empty() {
        return Err(route::not_allowed());
    }
    let one = call.info.named_by_path;
    let media = call.media(if one { Offer::Object } else { Offer::List })?;
    let options = List::parse(&call.query, false)?;
    let nodes = &*served.resource.plural == "nodes";
    let mut found: Vec<Arc<Object>> = if one {
        inner.stored("", &served.resource.plural, &call.info.namespace, &call.info.name).into_iter().collect()
    } else {
        inner.reader.list("", &served.resource.plural, &call.info.namespace)
    };
    for term in &options.fields.terms {
        if !matches!(term.field.as_str(), "metadata.name" | "metadata.namespace") {
            return Err(ApiError::bad_request(format!("field label not supported: {}", term.field)));
        }
    }
    found.retain(|object| {
        let field = |name: &str| match name {
            "metadata.name" => meta::name(object),
            _ => meta::namespace(object),
        };
        let fields = options.fields.terms.iter().all(|t| (field(&t.field) == t.value) == t.equal);
        (one || options.labels.matches_object(object)) && fields
    });
    found.sort_by(|a, b| (meta::namespace(a), meta::name(a)).cmp(&(meta::namespace(b), meta::name(b))));
    let items =
        if nodes { of_nodes(inner, &found, call.now).await } else { of_pods(inner, &found, call.now).await };
    unstored::answer(call, served, media, items)
}

/// `usage` of an entry of a summary, and when it was measured.
fn usage(entry: &Value) -> Option<(Value, Option<&str>)> {
    let cpu = entry["cpu"]["usageNanoCores"].as_i64()?;
    let memory = entry["memory"]["workingSetBytes"].as_i64()?;
    let memory = Quantity::from_units(memory, Style::Binary).to_string();
    Some((json!({"cpu": nanos(cpu), "memory": memory}), entry["cpu"]["time"].as_str()))
}

/// Nano cores, in the unit in which metrics-server tells them.
fn nanos(cores: i64) -> String {
    if cores == 0 { "0".to_owned() } else { format!("{cores}n") }
}

fn metrics(kind: &str, object: &Object, now: DateTime<Utc>, measured: Option<&str>) -> Object {
    let stamp = apimachinery::time::format_time(now);
    let mut metadata = json!({"name": meta::name(object), "creationTimestamp": stamp});
    if !meta::namespace(object).is_empty() {
        metadata["namespace"] = meta::namespace(object).into();
    }
    if let Some(labels) = object["metadata"].get("labels").filter(|l| l.is_object()) {
        metadata["labels"] = labels.clone();
    }
    json!({
        "kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata,
        "timestamp": measured.unwrap_or(&stamp), "window": WINDOW,
    })
}

/// What the kubelets of these nodes say, in the same order.
async fn summaries(inner: &Arc<Inner>, nodes: Vec<Arc<Object>>) -> Vec<Option<Arc<Value>>> {
    let inner = Arc::clone(inner);
    let asked = stream::iter(nodes).map(move |node| {
        let inner = Arc::clone(&inner);
        async move { inner.summaries.of(&inner, &node).await }
    });
    asked.buffered(AT_ONCE).collect().await
}

async fn of_nodes(inner: &Arc<Inner>, nodes: &[Arc<Object>], now: DateTime<Utc>) -> Vec<Object> {
    let summaries = summaries(inner, nodes.to_vec()).await;
    let one = |(node, summary): (&Arc<Object>, Option<Arc<Value>>)| {
        let summary = summary?;
        let (usage, measured) = usage(&summary["node"])?;
        let mut item = metrics("NodeMetrics", node, now, measured);
        item["usage"] = usage;
        Some(item)
    };
    nodes.iter().zip(summaries).filter_map(one).collect()
}

async fn of_pods(inner: &Arc<Inner>, pods: &[Arc<Object>], now: DateTime<Utc>) -> Vec<Object> {
    let node_of = |pod: &Arc<Object>| pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    let mut nodes: Vec<String> = pods.iter().map(node_of).filter(|n| !n.is_empty()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let nodes = nodes.iter().filter_map(|name| inner.stored("", "nodes", "", name)).collect();
    let summaries = summaries(inner, nodes).await;
    let mut by_uid: HashMap<&str, &Value> = HashMap::new();
    for entry in summaries.iter().flatten().flat_map(|s| s["pods"].as_array()).flatten() {
        by_uid.insert(entry["podRef"]["uid"].as_str().unwrap_or_default(), entry);
    }
    pods.iter().filter_map(|pod| of_pod(pod, by_uid.get(meta::uid(pod))?, now)).collect()
}

fn of_pod(pod: &Object, entry: &Value, now: DateTime<Utc>) -> Option<Object> {
    let mut containers = Vec::new();
    let mut measured = None;
    for container in entry["containers"].as_array().into_iter().flatten() {
        let Some((usage, time)) = usage(container) else { continue };
        measured = measured.max(time);
        containers.push(json!({"name": container["name"], "usage": usage}));
    }
    if containers.is_empty() {
        return None;
    }
    let mut item = metrics("PodMetrics", pod, now, measured);
    item["containers"] = containers.into();
    Some(item)
}
