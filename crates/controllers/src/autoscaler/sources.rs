//! One metric of an autoscaler: what it reads, what it asks for, and what the status tells of it.

use apimachinery::{
    quantity::{Quantity, Style},
    selector::LabelSelector,
};
use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus,
        MetricTarget, MetricValueStatus, ObjectMetricStatus, PodsMetricStatus, ResourceMetricStatus,
    },
    apimachinery::pkg::{api::resource::Quantity as Text, apis::meta::v1 as meta},
};

use super::{
    metrics::{Problem, Reader},
    replicas::{self, Proposal, Scene},
};
use crate::World;

/// Where an autoscaler's metrics are read.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The autoscaler's.
    pub namespace: &'a str,
    /// Of the target's pods.
    pub selector: &'a LabelSelector,
    /// Those pods.
    pub scene: Scene<'a>,
    /// How many the target says there are.
    pub there: i32,
    /// Which kinds there are.
    pub world: &'a World,
}

/// What a metric comes to.
#[derive(Clone, Debug)]
pub struct Measured {
    /// So many pods.
    pub replicas: i32,
    /// `cpu resource utilization (percentage of request)`
    pub name: String,
    /// For `status.currentMetrics`.
    pub status: MetricStatus,
}

/// Why a metric comes to nothing.
#[derive(Clone, Debug)]
pub struct Unmeasured {
    /// Of the condition and of the event.
    pub reason: &'static str,
    /// Of the condition and of the event; nothing when it has to be asked for first.
    pub problem: Problem,
    /// What is put before the message where all metrics are told of together.
    pub before: String,
}

/// Reads a metric.
///
/// # Errors
/// When it is not told, or makes no sense.
pub fn measure(
    metric: &MetricSpec,
    place: Place<'_>,
    reader: &mut Reader<'_>,
) -> Result<Measured, Unmeasured> {
    let (found, reason, before) = match metric.type_.as_str() {
        "Object" => {
            let before = "failed to get object metric value".to_owned();
            (object(metric, place, reader), "FailedGetObjectMetric", before)
        }
        "Pods" => {
            let before = "failed to get pods metric value".to_owned();
            (pods(metric, place, reader), "FailedGetPodsMetric", before)
        }
        "Resource" => {
            let name = metric.resource.as_ref().map_or("", |r| &r.name);
            let before = format!("failed to get {name} resource metric value");
            (resource(metric, place, reader), "FailedGetResourceMetric", before)
        }
        "ContainerResource" => {
            let container = metric.container_resource.as_ref().map_or("", |r| &r.container);
            let before = format!("failed to get {container} container metric value");
            (container_resource(metric, place, reader), "FailedGetContainerResourceMetric", before)
        }
        "External" => {
            let name = metric.external.as_ref().map_or("", |e| &e.metric.name);
            let before = format!("failed to get {name} external metric value");
            (external(metric, place, reader), "FailedGetExternalMetric", before)
        }
        other => {
            let problem = Problem::Told(format!("unknown metric source type {other:?}"));
            (Err(problem), "InvalidMetricSourceType", String::new())
        }
    };
    found.map_err(|problem| Unmeasured { reason, problem, before })
}

fn milli(quantity: &Text) -> i64 {
    Quantity::parse(&quantity.0).map_or(0, |quantity| quantity.milli())
}

fn text(milli: i64, style: Style) -> Option<Text> {
    Some(Text(Quantity::from_milli(milli, style).to_string()))
}

fn average(usage: i64) -> MetricValueStatus {
    MetricValueStatus { average_value: text(usage, Style::Decimal), ..MetricValueStatus::default() }
}

fn value(usage: i64) -> MetricValueStatus {
    MetricValueStatus { value: text(usage, Style::Decimal), ..MetricValueStatus::default() }
}

fn missing(kind: &str) -> Problem {
    Problem::Told(format!("the metric says nothing of its {kind}"))
}

/// Which series of a metric; all of them where nothing is said of it.
fn series(metric: &MetricIdentifier) -> Result<LabelSelector, Problem> {
    let Some(selector) = &metric.selector else { return Ok(LabelSelector::everything()) };
    let value = serde_json::to_value(selector).unwrap_or_default();
    Ok(LabelSelector::from_object(&value)?)
}

/// A selector as upstream prints it in the names of metrics.
fn printed(selector: Option<&meta::LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels = selector.match_labels.iter().flatten();
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions = selector.match_expressions.iter().flatten().map(|e| {
        let values = e.values.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}",
        labels.join("")
    )
}

struct Resourced {
    proposal: Proposal,
    name: String,
    current: MetricValueStatus,
}

/// A resource of pods or of one container of each.
fn of_resource(
    resource: &str,
    target: &MetricTarget,
    container: Option<&str>,
    place: Place<'_>,
    reader: &mut Reader<'_>,
) -> Result<Resourced, Problem> {
    let style = if resource == "memory" { Style::Binary } else { Style::Decimal };
    let read = |reader: &mut Reader<'_>| {
        let samples = reader.resource(resource, place.namespace, place.selector, container);
        samples.map_err(|p| p.within(&format!("unable to get metrics for resource {resource}")))
    };
    if let Some(wanted) = &target.average_value {
        let failed = |p: Problem| p.within(&format!("failed to get {resource} usage"));
        let samples = read(reader).map_err(failed)?;
        let proposal = replicas::by_average(place.scene, samples, resource, milli(wanted));
        let proposal = proposal.map_err(|e| failed(e.into()))?;
        let current =
            MetricValueStatus { average_value: text(proposal.usage, style), ..MetricValueStatus::default() };
        return Ok(Resourced { proposal, name: format!("{resource} resource"), current });
    }
    let Some(wanted) = target.average_utilization else {
        let words = "invalid resource metric source: neither an average utilization target nor an average value (usage) \
                     target was set";
        return Err(Problem::Told(words.to_owned()));
    };
    let failed = |p: Problem| p.within(&format!("failed to get {resource} utilization"));
    let samples = read(reader).map_err(failed)?;
    let proposal = replicas::by_utilization(place.scene, samples, resource, container, wanted);
    let proposal = proposal.map_err(|e| failed(e.into()))?;
    let of = if container.is_some() { "container resource" } else { "resource" };
    Ok(Resourced {
        proposal,
        name: format!("{resource} {of} utilization (percentage of request)"),
        current: MetricValueStatus {
            average_utilization: Some(proposal.utilization),
            average_value: text(proposal.usage, style),
            value: None,
        },
    })
}

fn resource(metric: &MetricSpec, place: Place<'_>, reader: &mut Reader<'_>) -> Result<Measured, Problem> {
    let source = metric.resource.as_ref().ok_or_else(|| missing("resource"))?;
    let found = of_resource(&source.name, &source.target, None, place, reader)?;
    let resource = Some(ResourceMetricStatus { name: source.name.clone(), current: found.current });
    Ok(Measured {
        replicas: found.proposal.replicas,
        name: found.name,
        status: MetricStatus { type_: metric.type_.clone(), resource, ..MetricStatus::default() },
    })
}

fn container_resource(
    metric: &MetricSpec,
    place: Place<'_>,
    reader: &mut Reader<'_>,
) -> Result<Measured, Problem> {
    let source = metric.container_resource.as_ref().ok_or_else(|| missing("container resource"))?;
    let found = of_resource(&source.name, &source.target, Some(&source.container), place, reader)?;
    let container_resource = Some(ContainerResourceMetricStatus {
        name: source.name.clone(),
        container: source.container.clone(),
        current: found.current,
    });
    Ok(Measured {
        replicas: found.proposal.replicas,
        name: found.name,
        status: MetricStatus { type_: metric.type_.clone(), container_resource, ..MetricStatus::default() },
    })
}

fn pods(metric: &MetricSpec, place: Place<'_>, reader: &mut Reader<'_>) -> Result<Measured, Problem> {
    let source = metric.pods.as_ref().ok_or_else(|| missing("pods"))?;
    let series = series(&source.metric)?;
    let name = &source.metric.name;
    let samples = reader
        .pods(name, place.namespace, place.selector, &series)
        .map_err(|p| p.within(&format!("unable to get metric {name}")))?;
    let wanted = source.target.average_value.as_ref().map_or(0, milli);
    let proposal = replicas::by_average(place.scene, samples, "", wanted)?;
    let pods = Some(PodsMetricStatus { metric: source.metric.clone(), current: average(proposal.usage) });
    Ok(Measured {
        replicas: proposal.replicas,
        name: format!("pods metric {name}"),
        status: MetricStatus { type_: metric.type_.clone(), pods, ..MetricStatus::default() },
    })
}

fn object(metric: &MetricSpec, place: Place<'_>, reader: &mut Reader<'_>) -> Result<Measured, Problem> {
    let source = metric.object.as_ref().ok_or_else(|| missing("object"))?;
    let series = series(&source.metric)?;
    let (name, target, described) = (&source.metric.name, &source.target, &source.described_object);
    let told = |current| MetricStatus {
        type_: metric.type_.clone(),
        object: Some(ObjectMetricStatus {
            current,
            described_object: described.clone(),
            metric: source.metric.clone(),
        }),
        ..MetricStatus::default()
    };
    let mut read = || {
        let usage = reader.object(name, place.namespace, described, &series, place.world);
        usage.map_err(|p| {
            p.within(&format!(
                "unable to get metric {name} on {} {}/{}",
                described.kind, place.namespace, described.name
            ))
        })
    };
    match (&*target.type_, &target.value, &target.average_value) {
        ("Value", Some(wanted), _) => {
            let proposal = replicas::by_value(place.scene, read()?, milli(wanted))?;
            Ok(Measured {
                replicas: proposal.replicas,
                name: format!("{} metric {name}", described.kind),
                status: told(value(proposal.usage)),
            })
        }
        ("AverageValue", _, Some(wanted)) => {
            let usage = read().map_err(|p| p.within(&format!("failed to get {name} object metric")))?;
            let proposal = replicas::by_share(place.scene.tolerances, place.there, usage, milli(wanted));
            Ok(Measured {
                replicas: proposal.replicas,
                name: format!("external metric {name}({})", printed(source.metric.selector.as_ref())),
                status: told(average(proposal.usage)),
            })
        }
        _ => Err(Problem::Told(
            "invalid object metric source: neither a value target nor an average value target was set"
                .to_owned(),
        )),
    }
}

fn external(metric: &MetricSpec, place: Place<'_>, reader: &mut Reader<'_>) -> Result<Measured, Problem> {
    let source = metric.external.as_ref().ok_or_else(|| missing("external metric"))?;
    let (name, target) = (&source.metric.name, &source.target);
    let selector = printed(source.metric.selector.as_ref());
    let mut read = || {
        let series = series(&source.metric)?;
        let values = reader.external(name, place.namespace, &series).map_err(|p| {
            p.within(&format!("unable to get external metric {}/{name}/{selector}", place.namespace))
        })?;
        Ok::<i64, Problem>(values.into_iter().fold(0, i64::saturating_add))
    };
    let (replicas, current) = if let Some(wanted) = &target.average_value {
        let usage = read().map_err(|p| p.within(&format!("failed to get {name} external metric")))?;
        let proposal = replicas::by_share(place.scene.tolerances, place.there, usage, milli(wanted));
        (proposal.replicas, average(proposal.usage))
    } else if let Some(wanted) = &target.value {
        let failed = |p: Problem| p.within(&format!("failed to get external metric {name}"));
        let usage = read().map_err(failed)?;
        let proposal = replicas::by_value(place.scene, usage, milli(wanted));
        let proposal = proposal.map_err(|e| failed(e.into()))?;
        (proposal.replicas, value(proposal.usage))
    } else {
        return Err(Problem::Told(
            "invalid external metric source: neither a value target nor an average value target was set"
                .to_owned(),
        ));
    };
    let external = Some(ExternalMetricStatus { metric: source.metric.clone(), current });
    Ok(Measured {
        replicas,
        name: format!("external metric {name}({selector})"),
        status: MetricStatus { type_: metric.type_.clone(), external, ..MetricStatus::default() },
    })
}
