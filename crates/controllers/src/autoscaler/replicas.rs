//! How many pods a metric asks for. Values are in thousandths.
//!
//! Source: `pkg/controller/podautoscaler/replica_calculator.go`, `metrics/utilization.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    jiff::{SignedDuration, Timestamp},
};

use super::{
    metrics::{Sample, Samples},
    requests,
};
use crate::pod_state;

/// A pod that has started less than so long ago may use more CPU than it will.
const CPU_INITIALIZATION: SignedDuration = SignedDuration::from_mins(5);
/// A pod that turned unready within so long after its start has never been ready.
const INITIAL_READINESS: SignedDuration = SignedDuration::from_secs(30);

/// How far use may be off the target before anything is done, as fractions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Below.
    pub down: f64,
    /// Above.
    pub up: f64,
}

impl Tolerances {
    fn contain(self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What a metric comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// So many pods.
    pub replicas: i32,
    /// Percent of what is requested, where that is the measure.
    pub utilization: i32,
    /// The average, or the whole where the metric is about one thing.
    pub usage: i64,
}

/// What the pods of a target are and do.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// Those that the target selects.
    pub pods: &'a [Arc<Pod>],
    /// How many are wanted now.
    pub current: i32,
    /// Of the autoscaler.
    pub tolerances: Tolerances,
    /// The time.
    pub now: Timestamp,
}

/// The use of one or several pods over its target, and what is told about it.
struct Ratio {
    over_target: f64,
    utilization: i32,
    usage: i64,
}

#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// Rounded up, held at the limits of the type.
#[allow(clippy::cast_possible_truncation)]
fn ceil(number: f64) -> i32 {
    number.ceil() as i32
}

#[allow(clippy::cast_precision_loss)]
fn float(number: i64) -> f64 {
    number as f64
}

fn held(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// No CPU is counted of a pod that is still starting or has never been ready.
fn is_warming_up(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    let (Some(ready), Some(started)) = (pod_state::condition(pod, "Ready"), started) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |t| t.0);
    let after = |at: Timestamp, wait| at.saturating_add(wait).unwrap_or(Timestamp::MAX);
    let unready = ready.status == "False";
    if after(started.0, CPU_INITIALIZATION) > now {
        unready || sample.at < after(changed, sample.window)
    } else {
        unready && after(started.0, INITIAL_READINESS) > changed
    }
}

fn group<'a>(pods: &'a [Arc<Pod>], samples: &Samples, resource: &str, now: Timestamp) -> Groups<'a> {
    let mut groups = Groups::default();
    for pod in pods {
        let name = name(pod);
        if pod.metadata.deletion_timestamp.is_some() || pod_state::phase(pod) == "Failed" {
            groups.ignored.insert(name);
        } else if pod_state::phase(pod) == "Pending" {
            groups.unready.insert(name);
        } else if let Some(sample) = samples.get(name) {
            if resource == "cpu" && is_warming_up(pod, sample, now) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        } else {
            groups.missing.insert(name);
        }
    }
    groups
}

/// `fallback` is what a pod without a sample is taken to use when fewer pods are thought of.
fn settle(
    scene: Scene<'_>,
    mut samples: Samples,
    resource: &str,
    ratio: impl Fn(&Samples) -> Result<Ratio, String>,
    fallback: impl Fn(&str) -> i64,
) -> Result<Proposal, String> {
    if scene.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(scene.pods, &samples, resource, scene.now);
    samples.retain(|pod, _| !groups.ignored.contains(&**pod) && !groups.unready.contains(&**pod));
    if samples.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let first = ratio(&samples)?;
    let proposal = |replicas| Proposal { replicas, utilization: first.utilization, usage: first.usage };
    let up = first.over_target > 1.0;
    let down = first.over_target < 1.0;
    let up_with_unready = up && !groups.unready.is_empty();
    if !up_with_unready && groups.missing.is_empty() {
        if scene.tolerances.contain(first.over_target) {
            return Ok(proposal(scene.current));
        }
        let ready = i64::try_from(groups.ready).unwrap_or(i64::MAX);
        return Ok(proposal(ceil(first.over_target * float(ready))));
    }
    let mut assume = |pod: &str, value| {
        samples.insert(pod.to_owned(), Sample { value, at: Timestamp::MIN, window: SignedDuration::ZERO });
    };
    for pod in &groups.missing {
        if down {
            assume(pod, fallback(pod));
        } else if up {
            assume(pod, 0);
        }
    }
    if up_with_unready {
        groups.unready.iter().for_each(|pod| assume(pod, 0));
    }
    let second = ratio(&samples)?.over_target;
    if scene.tolerances.contain(second) || (down && second > 1.0) || (up && second < 1.0) {
        return Ok(proposal(scene.current));
    }
    let replicas = ceil(second * float(i64::try_from(samples.len()).unwrap_or(i64::MAX)));
    if (second < 1.0 && replicas > scene.current) || (second > 1.0 && replicas < scene.current) {
        return Ok(proposal(scene.current));
    }
    Ok(proposal(replicas))
}

/// So that pods use `target` percent of what they request, one container or all of them.
///
/// # Errors
/// When the samples do not suffice or something is requested nowhere.
pub fn by_utilization(
    scene: Scene<'_>,
    samples: Samples,
    resource: &str,
    container: Option<&str>,
    target: i32,
) -> Result<Proposal, String> {
    let requested = requests::of(scene.pods, container, resource);
    let ratio = |samples: &Samples| {
        let requested: &BTreeMap<String, i64> = requested.as_ref().map_err(String::clone)?;
        let (mut used, mut wanted, mut count) = (0_i128, 0_i128, 0_i128);
        for (pod, sample) in samples {
            let Some(request) = requested.get(pod) else { continue };
            used += i128::from(sample.value);
            wanted += i128::from(*request);
            count += 1;
        }
        if wanted == 0 {
            return Err("no metrics returned matched known pods".to_owned());
        }
        let utilization = i32::try_from(used * 100 / wanted).unwrap_or(i32::MAX);
        Ok(Ratio {
            over_target: f64::from(utilization) / f64::from(target),
            utilization,
            usage: held(used / count),
        })
    };
    let fallback = |pod: &str| {
        let request = requested.as_ref().ok().and_then(|r| r.get(pod)).copied().unwrap_or(0);
        held(i128::from(request) * i128::from(target.max(100)) / 100)
    };
    settle(scene, samples, resource, ratio, fallback)
}

/// So that pods use `target` each. `resource` is empty for what is no resource.
///
/// # Errors
/// When the samples do not suffice.
pub fn by_average(
    scene: Scene<'_>,
    samples: Samples,
    resource: &str,
    target: i64,
) -> Result<Proposal, String> {
    let ratio = |samples: &Samples| {
        let used: i128 = samples.values().map(|s| i128::from(s.value)).sum();
        let count = i128::try_from(samples.len()).unwrap_or(i128::MAX);
        let usage = held(used / count.max(1));
        Ok(Ratio { over_target: float(usage) / float(target), utilization: 0, usage })
    };
    settle(scene, samples, resource, ratio, |_| target)
}

/// So that one value over the number of ready pods comes to `target` over theirs. From zero pods, the ratio alone counts.
///
/// # Errors
/// When there are no pods where there should be some.
pub fn by_value(scene: Scene<'_>, usage: i64, target: i64) -> Result<Proposal, String> {
    let ratio = float(usage) / float(target);
    let replicas = if scene.current == 0 {
        ceil(ratio)
    } else if scene.tolerances.contain(ratio) {
        scene.current
    } else {
        if scene.pods.is_empty() {
            let why = "no pods returned by selector while calculating replica count";
            return Err(format!("unable to calculate ready pods: {why}"));
        }
        let ready = |pod: &&Arc<Pod>| pod_state::phase(pod) == "Running" && pod_state::is_ready(pod);
        let ready = scene.pods.iter().filter(ready).count();
        ceil(ratio * float(i64::try_from(ready).unwrap_or(i64::MAX)))
    };
    Ok(Proposal { replicas, utilization: 0, usage })
}

/// So that one value, shared among the pods there are, comes to `target` each.
#[must_use]
#[allow(clippy::cast_possible_truncation)]
pub fn by_share(tolerances: Tolerances, there: i32, usage: i64, target: i64) -> Proposal {
    let ratio = float(usage) / (float(target) * f64::from(there));
    let replicas = if tolerances.contain(ratio) { there } else { ceil(float(usage) / float(target)) };
    Proposal { replicas, utilization: 0, usage: (float(usage) / f64::from(there)).ceil() as i64 }
}

/// The containers that run for as long as the pod does.
pub fn lasting(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    let sidecars = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    spec.into_iter().flat_map(|s| s.containers.iter()).chain(sidecars)
}
