//! What the metrics APIs tell: `metrics.k8s.io`, `custom.metrics.k8s.io`, `external.metrics.k8s.io`.
//!
//! Source: `pkg/controller/podautoscaler/metrics/client.go`, `k8s.io/metrics/pkg/client`.

use std::collections::BTreeMap;

use apimachinery::{quantity::Quantity, selector::LabelSelector};
use k8s_openapi::{
    api::autoscaling::v2::CrossVersionObjectReference,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::Value;

use crate::{
    ask::{Ask, Refusal, encode},
    plan::Outcome,
    world::{Served, World},
};

/// One pod's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// In thousandths.
    pub value: i64,
    /// When it was taken.
    pub at: Timestamp,
    /// Over how long.
    pub window: SignedDuration,
}

/// By the pods' names.
pub type Samples = BTreeMap<String, Sample>;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// It has to be asked for first.
    Unasked,
    /// In upstream's words.
    Told(String),
}

impl Problem {
    /// The same with words before it.
    #[must_use]
    pub fn within(self, before: &str) -> Self {
        match self {
            Self::Told(message) => Self::Told(format!("{before}: {message}")),
            Self::Unasked => self,
        }
    }
}

impl From<String> for Problem {
    fn from(message: String) -> Self {
        Self::Told(message)
    }
}

/// Reads answers, and gathers what has to be asked.
pub struct Reader<'a> {
    last: &'a Outcome,
    /// What is still to be asked.
    pub asks: Vec<Ask>,
}

/// The window of a sample that does not tell one.
const WINDOW: SignedDuration = SignedDuration::from_secs(60);
const CUSTOM: &str = "custom.metrics.k8s.io";

impl<'a> Reader<'a> {
    /// Of what was answered so far.
    #[must_use]
    pub fn new(last: &'a Outcome) -> Self {
        Self { last, asks: Vec::new() }
    }

    /// The answer of a path. `what` is how client-go calls it in its own words: `pods.metrics.k8s.io`.
    ///
    /// # Errors
    /// What the server said.
    pub fn get(&mut self, ask: Ask, what: &str) -> Result<&'a Value, Problem> {
        match self.last.answer(&ask) {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(refusal)) => Err(Problem::Told(words(refusal, what))),
            None => {
                self.asks.push(ask);
                Err(Problem::Unasked)
            }
        }
    }

    /// The use of a resource by the pods that a selector chooses: of one container, or of all together.
    ///
    /// # Errors
    /// When the API does not tell.
    pub fn resource(
        &mut self,
        resource: &str,
        namespace: &str,
        selector: &LabelSelector,
        container: Option<&str>,
    ) -> Result<Samples, Problem> {
        let path = format!(
            "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods?labelSelector={}",
            encode(namespace),
            encode(&selector.to_string())
        );
        let answer = self
            .get(Ask::get(path), "pods.metrics.k8s.io")
            .map_err(|p| p.within("unable to fetch metrics from resource metrics API"))?;
        let items = items(answer).ok_or_else(|| none("resource"))?;
        let mut samples = Samples::new();
        for pod in items {
            if let Some(value) = usage(pod, resource, container) {
                let sample = Sample {
                    value,
                    at: time(&pod["timestamp"]),
                    window: pod["window"].as_str().and_then(go_duration).unwrap_or_default(),
                };
                samples.insert(name(&pod["metadata"]), sample);
            }
        }
        Ok(samples)
    }

    /// The version in which custom metrics are served, the newest that is understood.
    fn custom_version(&mut self) -> Result<&'static str, Problem> {
        let unregistered = || Problem::Told(format!("no custom metrics API ({CUSTOM}) registered"));
        let group = match self.get(Ask::get(format!("/apis/{CUSTOM}")), CUSTOM) {
            Ok(group) => group,
            Err(Problem::Unasked) => return Err(Problem::Unasked),
            Err(Problem::Told(_)) => return Err(unregistered()),
        };
        let served = |version: &str| {
            group["versions"].as_array().is_some_and(|all| all.iter().any(|v| v["version"] == *version))
        };
        ["v1beta2", "v1beta1"].into_iter().find(|version| served(version)).ok_or_else(unregistered)
    }

    /// A metric of each of the pods that a selector chooses.
    ///
    /// # Errors
    /// When the API does not tell.
    pub fn pods(
        &mut self,
        metric: &str,
        namespace: &str,
        selector: &LabelSelector,
        of_metric: &LabelSelector,
    ) -> Result<Samples, Problem> {
        let path = format!("namespaces/{}/pods/*/{}", encode(namespace), encode(metric));
        let answer = self.custom(&path, Some(selector), of_metric, &format!("pods.{CUSTOM} *"))?;
        let items = items(answer).ok_or_else(|| none("custom"))?;
        let sample = |item: &Value| Sample {
            value: milli(&item["value"]),
            at: time(&item["timestamp"]),
            window: ["windowSeconds", "window"]
                .iter()
                .find_map(|field| item[*field].as_i64())
                .map_or(WINDOW, SignedDuration::from_secs),
        };
        Ok(items.iter().map(|item| (name(&item["describedObject"]), sample(item))).collect())
    }

    /// A metric of one object, in thousandths.
    ///
    /// # Errors
    /// When the API does not tell.
    pub fn object(
        &mut self,
        metric: &str,
        namespace: &str,
        object: &CrossVersionObjectReference,
        of_metric: &LabelSelector,
        world: &World,
    ) -> Result<i64, Problem> {
        let group = object.api_version.as_deref().and_then(|v| v.split_once('/')).map_or("", |(g, _)| g);
        let path = if group.is_empty() && object.kind == "Namespace" {
            // A reference has no namespace, so as not to reach into another one.
            format!("namespaces/{}/metrics/{}", encode(namespace), encode(metric))
        } else {
            let served = mapping(world, group, &object.kind)
                .map_err(|e| Problem::Told(e).within("unable to fetch metrics from custom metrics API"))?;
            let mut resource = served.kind.plural.to_string();
            if !group.is_empty() {
                resource = format!("{resource}.{group}");
            }
            let (name, metric) = (encode(&object.name), encode(metric));
            if served.namespaced {
                format!("namespaces/{}/{resource}/{name}/{metric}", encode(namespace))
            } else {
                format!("{resource}/{name}/{metric}")
            }
        };
        let answer = self.custom(&path, None, of_metric, &format!("{metric}.{CUSTOM}"))?;
        match answer["items"].as_array().map(Vec::as_slice) {
            Some([one]) => Ok(milli(&one["value"])),
            found => Err(Problem::Told(format!(
                "unable to fetch metrics from custom metrics API: the custom metrics API server returned {} results when \
                 we asked for exactly one",
                found.map_or(0, <[Value]>::len)
            ))),
        }
    }

    fn custom(
        &mut self,
        path: &str,
        selector: Option<&LabelSelector>,
        of_metric: &LabelSelector,
        what: &str,
    ) -> Result<&'a Value, Problem> {
        let failed = |p: Problem| p.within("unable to fetch metrics from custom metrics API");
        let version = self.custom_version().map_err(failed)?;
        let mut query = Vec::new();
        if let Some(selector) = selector {
            query.push(format!("labelSelector={}", encode(&selector.to_string())));
        }
        if !of_metric.is_everything() {
            query.push(format!("metricLabelSelector={}", encode(&of_metric.to_string())));
        }
        let mut path = format!("/apis/{CUSTOM}/{version}/{path}");
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        self.get(Ask::get(path), what).map_err(failed)
    }

    /// The values of a metric that has nothing to do with the cluster's objects, in thousandths.
    ///
    /// # Errors
    /// When the API does not tell.
    pub fn external(
        &mut self,
        metric: &str,
        namespace: &str,
        selector: &LabelSelector,
    ) -> Result<Vec<i64>, Problem> {
        let mut path = format!(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}",
            encode(namespace),
            encode(metric)
        );
        if !selector.is_everything() {
            path = format!("{path}?labelSelector={}", encode(&selector.to_string()));
        }
        let answer = self
            .get(Ask::get(path), &format!("{metric}.external.metrics.k8s.io"))
            .map_err(|p| p.within("unable to fetch metrics from external metrics API"))?;
        let items = items(answer).ok_or_else(|| none("external"))?;
        Ok(items.iter().map(|item| milli(&item["value"])).collect())
    }
}

/// The resource of a kind, in whichever version it is served.
///
/// # Errors
/// Upstream's words for a kind that is not served.
pub fn mapping<'a>(world: &'a World, group: &str, kind: &str) -> Result<&'a Served, String> {
    let found = world.served().iter().find(|s| s.kind.group == group && s.kind.kind == kind);
    found.ok_or_else(|| format!("no matches for kind {kind:?} in group {group:?}"))
}

fn none(api: &str) -> Problem {
    Problem::Told(format!("no metrics returned from {api} metrics API"))
}

fn items(list: &Value) -> Option<&[Value]> {
    list["items"].as_array().map(Vec::as_slice).filter(|items| !items.is_empty())
}

fn name(holder: &Value) -> String {
    holder["name"].as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or(Timestamp::MIN)
}

/// A quantity in thousandths; 0 when it is none.
fn milli(value: &Value) -> i64 {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Quantity::parse(&text).map_or(0, |quantity| quantity.milli())
}

/// What a pod uses; nothing when a container does not tell.
fn usage(pod: &Value, resource: &str, container: Option<&str>) -> Option<i64> {
    let containers = pod["containers"].as_array().filter(|all| !all.is_empty())?;
    let of = |container: &Value| container["usage"].get(resource).map(milli);
    match container {
        Some(name) => of(containers.iter().find(|c| c["name"] == *name)?),
        None => containers.iter().try_fold(0_i64, |sum, c| Some(sum.saturating_add(of(c)?))),
    }
}

/// How client-go tells an error: the server's message, or its own words where the answer was not one of the API's.
fn words(refusal: &Refusal, what: &str) -> String {
    let bare = refusal.message.trim();
    let own = match refusal.code {
        404 => "the server could not find the requested resource",
        503 => "the server is currently unable to handle the request",
        _ => return refusal.message.clone(),
    };
    let plain = ["404 page not found", "service unavailable", "not found", ""];
    if bare == own || plain.iter().any(|text| bare.eq_ignore_ascii_case(text)) {
        format!("{own} (get {what})")
    } else {
        refusal.message.clone()
    }
}

/// `1m30s`, `15.3s`, `300ms`: as Go's `time.Duration` prints itself.
fn go_duration(text: &str) -> Option<SignedDuration> {
    let mut total = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    SignedDuration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(go_duration("1m30s"), Some(SignedDuration::from_secs(90)));
        assert_eq!(go_duration("500ms"), Some(SignedDuration::from_millis(500)));
        assert_eq!(go_duration("1w"), None);
    }

    #[test]
    fn a_pod_of_which_one_container_does_not_tell_has_no_value() {
        let pod = json!({"containers": [{"name": "a", "usage": {"cpu": "100m"}}, {"name": "b", "usage": {"memory": "1Mi"}}]});
        assert_eq!(usage(&pod, "cpu", None), None);
        assert_eq!(usage(&pod, "cpu", Some("a")), Some(100));
    }

    #[test]
    fn an_answer_that_is_not_the_apis_is_told_in_client_gos_words() {
        let refusal =
            Refusal { code: 404, reason: String::new(), message: "404 page not found\n".to_owned() };
        assert_eq!(
            words(&refusal, "pods.metrics.k8s.io"),
            "the server could not find the requested resource (get pods.metrics.k8s.io)"
        );
    }
}
