//! horizontal-pod-autoscaler-controller: sets the scale of a workload by what its pods, or anything else, measure.
//!
//! Every fifteen seconds, and at once after a change of the spec. One look is a conversation ([`crate::ask`]): the target's
//! scale, then all metrics together, then the plan.
//!
//! Source: `pkg/controller/podautoscaler/horizontal.go`.

mod limits;
mod memory;
mod metrics;
mod replicas;
mod requests;
mod sources;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::{quantity::Quantity, selector::LabelSelector};
use k8s_openapi::{
    api::{
        autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscaler, MetricStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use serde_json::{Value, json};

use self::{
    limits::Wish,
    memory::{Attempt, Memory},
    metrics::{Problem, Reader, mapping},
    replicas::{Scene, Tolerances},
    sources::{Place, Unmeasured},
    status::Telling,
};
use crate::{
    Backoff, Change, Controller, Key, Kind, Note, Outcome, Plan, Target, World, Write, ask::Ask, ownership,
};

/// Between two looks, `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);
/// `--horizontal-pod-autoscaler-tolerance`
const TOLERANCE: f64 = 0.1;
/// How often in a row a scale that somebody else changed in between is read anew before it is told as a failure.
const CONFLICTS: u32 = 5;
/// How many others of the namespace are asked whether they scale the same pods.
const MOST_OTHERS: usize = 100;

/// The loop; its keys are autoscalers.
pub struct Autoscaler;

impl Controller for Autoscaler {
    fn name(&self) -> &'static str {
        "horizontal-pod-autoscaler"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<HorizontalPodAutoscaler>(), Kind::of::<Pod>()]
    }

    /// For the kinds of targets: anything that has a scale.
    fn watches_everything(&self) -> bool {
        true
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        let autoscaler = change.object::<HorizontalPodAutoscaler>();
        autoscaler.map(|a| Key::of(&a.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, last: &Outcome, now: Timestamp) -> Plan {
        let Some(found) = world.get::<HorizontalPodAutoscaler>(&key.namespace, &key.name) else {
            return Plan { memory: Some(Value::Null), ..Plan::none() };
        };
        let mut memory = Memory::read(&last.memory, found.metadata.uid.as_deref().unwrap_or_default());
        let mut plan = Plan::none();
        if last.answers.is_empty() {
            if let Some(plan) = settle_attempt(&found, &mut memory, last, now, &mut plan.notes) {
                return plan;
            }
            let generation = found.metadata.generation.unwrap_or(0);
            let due = Timestamp::from_millisecond(memory.due).unwrap_or(Timestamp::MIN);
            if last.failures.is_empty() && memory.generation == generation && now < due {
                plan.memory = Some(memory.written());
                plan.wake(due);
                return plan;
            }
            memory.generation = generation;
        }
        let notes = std::mem::take(&mut plan.notes);
        let mut plan = Look { world, last, now, before: &found, memory }.plan();
        plan.notes.splice(0..0, notes);
        plan
    }

    /// A scale that changed in between is read anew soon; all else waits for the next look.
    fn backoff(&self) -> Backoff {
        Backoff { first: SignedDuration::from_millis(10), most: PERIOD }
    }
}

/// What became of the change that the previous plan made; the plan that tells of its failure, if it is to be told.
fn settle_attempt(
    found: &Arc<HorizontalPodAutoscaler>,
    memory: &mut Memory,
    last: &Outcome,
    now: Timestamp,
    notes: &mut Vec<Note>,
) -> Option<Plan> {
    let of_scale = |write: &Write| matches!(write, Write::Post { subresource: "scale", .. });
    let failure = last.failures.iter().find(|f| of_scale(&f.write));
    if let Some(told) = last.failures.iter().find(|f| !of_scale(&f.write)) {
        notes.push(Note::warning(&**found, "FailedUpdateStatus", told.message.clone()));
    }
    let attempt = memory.attempt.take()?;
    let Some(failure) = failure else {
        let size = format!("New size: {}; reason: {}", attempt.to, attempt.reason);
        notes.push(Note::normal(&**found, "SuccessfulRescale", size));
        let behavior = found.spec.behavior.as_ref();
        if let Some(behavior) = behavior {
            let at = Timestamp::from_millisecond(attempt.milliseconds).unwrap_or(now);
            limits::note_change(behavior, memory, attempt.to.saturating_sub(attempt.from), at);
        }
        return None;
    };
    if failure.reason == "Conflict" && last.tries <= CONFLICTS {
        return None;
    }
    let mut new = HorizontalPodAutoscaler::clone(found);
    new.status = serde_json::from_value(attempt.status).ok();
    let mut telling = Telling::of(&mut new, now);
    let message = format!("the HPA controller was unable to update the target scale: {}", failure.message);
    telling.condition("AbleToScale", false, "FailedUpdateScale", message);
    let message = format!("New size: {}; reason: {}; error: {}", attempt.to, attempt.reason, failure.message);
    notes.push(Note::warning(&**found, "FailedRescale", message));
    let mut plan = Plan { notes: std::mem::take(notes), ..Plan::none() };
    finish(&mut plan, found, &new, memory, now);
    Some(plan)
}

/// Writes the status if it says something new, and looks again in time.
fn finish(
    plan: &mut Plan,
    before: &HorizontalPodAutoscaler,
    after: &HorizontalPodAutoscaler,
    memory: &mut Memory,
    now: Timestamp,
) {
    if after.status != before.status {
        plan.then(Write::status(after));
    }
    let due = now.saturating_add(PERIOD).unwrap_or(Timestamp::MAX);
    memory.due = due.as_millisecond();
    plan.wake(due);
    plan.memory = Some(memory.written());
}

/// The scale of the target, as its subresource tells it.
struct Scale<'a> {
    kind: &'a Kind,
    object: &'a Value,
    wanted: i32,
    there: i32,
    selector: &'a str,
}

/// One look at one autoscaler.
struct Look<'a> {
    world: &'a World,
    last: &'a Outcome,
    now: Timestamp,
    before: &'a Arc<HorizontalPodAutoscaler>,
    memory: Memory,
}

/// What all metrics together ask for.
struct Measures {
    /// The most that one of them asks for, and which; nothing when they do not suffice to tell.
    proposal: Option<(i32, String)>,
    statuses: Option<Vec<MetricStatus>>,
    /// Told in the end if there is no proposal.
    error: String,
}

impl<'a> Look<'a> {
    fn plan(mut self) -> Plan {
        let mut reader = Reader::new(self.last);
        let mut plan = Plan::none();
        let mut new = HorizontalPodAutoscaler::clone(self.before);
        match self.decide(&mut reader, &mut new, &mut plan) {
            Err(Problem::Unasked) => {
                return Plan { memory: Some(self.memory.written()), ..Plan::asking(reader.asks) };
            }
            Err(Problem::Told(message)) => {
                plan.notes.push(Note::warning(&**self.before, "FailedGetScale", message.clone()));
                let message =
                    format!("the HPA controller was unable to get the target's current scale: {message}");
                Telling::of(&mut new, self.now).condition("AbleToScale", false, "FailedGetScale", message);
            }
            Ok(()) => {}
        }
        finish(&mut plan, self.before, &new, &mut self.memory, self.now);
        plan
    }

    /// # Errors
    /// When the scale cannot be read, or something has to be asked first; then nothing has come of it yet.
    fn decide(
        &mut self,
        reader: &mut Reader<'a>,
        new: &mut HorizontalPodAutoscaler,
        plan: &mut Plan,
    ) -> Result<(), Problem> {
        let scale = scale(self.before, self.world, reader)?;
        let spec = self.before.spec.clone();
        let (least, most) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let current = scale.wanted;
        let mut memory = self.memory.clone();
        if memory.recommendations.is_empty() {
            memory.recommendations.push(memory::Dated::new(current, self.now));
        }
        let mut telling = Telling::of(new, self.now);
        let words = "the HPA controller was able to get the target's current scale";
        telling.condition("AbleToScale", true, "SucceededGetScale", words);
        let can_sleep = spec.metrics.iter().flatten().any(|m| matches!(&*m.type_, "Object" | "External"));
        let slept = telling.is_true("ScaledToZero");
        let mut statuses = None;
        let (mut desired, mut reason, mut rescale) = (0, String::new(), true);
        if current == 0 && !(slept && (least != 0 || can_sleep)) {
            rescale = false;
            let words = "scaling is disabled since the replica count of the target is zero";
            telling.condition("ScalingActive", false, "ScalingDisabled", words);
        } else if current > most {
            (desired, reason) = (most, "Current number of replicas above Spec.MaxReplicas".to_owned());
        } else if current != 0 && current < least {
            (desired, reason) = (least, "Current number of replicas below Spec.MinReplicas".to_owned());
        } else {
            let measures = self.measures(&scale, reader, &mut telling, &mut plan.notes)?;
            statuses = measures.statuses;
            let Some((proposed, metric)) = measures.proposal else {
                telling.numbers(current, None, statuses, None);
                plan.notes.push(Note::warning(
                    &**self.before,
                    "FailedComputeMetricsReplicas",
                    measures.error,
                ));
                self.memory = memory;
                return Ok(());
            };
            desired = proposed.max(0);
            if desired > current {
                let metric = if proposed > 0 { &*metric } else { "" };
                reason = format!("{metric} above target");
            } else if desired < current {
                reason = "All metrics below target".to_owned();
            }
            let wish = Wish { current, desired, least, most };
            let granted = limits::grant(wish, spec.behavior.as_ref(), &mut memory, self.now);
            telling.condition("AbleToScale", true, granted.able.0, granted.able.1);
            let (limited, words) = granted.limited;
            telling.condition("ScalingLimited", limited, words.0, words.1);
            desired = granted.replicas;
            if current == 0 && least != 0 && slept && desired < least {
                desired = least;
                if reason.is_empty() {
                    reason = "Current number of replicas below Spec.MinReplicas".to_owned();
                }
            }
            rescale = desired != current;
        }
        if rescale {
            memory.attempt = Some(Attempt {
                from: current,
                to: desired,
                reason,
                milliseconds: self.now.as_millisecond(),
                status: json!(telling.with_numbers(current, statuses.clone())),
            });
            let words = format!("the HPA controller was able to update the target scale to {desired}");
            telling.condition("AbleToScale", true, "SucceededRescale", words);
            if current > 0 && desired == 0 && least == 0 && can_sleep {
                let words = "the HPA controller scaled the workload to zero";
                telling.condition("ScaledToZero", true, "ScaledToZero", words);
            } else {
                let words = "the HPA controller did not scale the workload to zero";
                telling.condition("ScaledToZero", false, "NotScaledToZero", words);
            }
            plan.then(rescaled(self.before, &scale, desired));
        } else {
            desired = current;
        }
        let scaled_at = rescale.then(|| Time(status::whole_seconds(self.now)));
        telling.numbers(current, Some(desired), statuses, scaled_at);
        self.memory = memory;
        Ok(())
    }

    /// Reads all metrics.
    fn measures(
        &self,
        scale: &Scale<'_>,
        reader: &mut Reader<'a>,
        telling: &mut Telling<'_>,
        notes: &mut Vec<Note>,
    ) -> Result<Measures, Problem> {
        let namespace = self.before.metadata.namespace.as_deref().unwrap_or_default();
        let (selector, pods) = match self.selected(scale, namespace, reader, telling, notes) {
            Ok(selected) => selected,
            Err(Problem::Told(error)) => return Ok(Measures { proposal: None, statuses: None, error }),
            Err(problem) => return Err(problem),
        };
        let spec = self.before.spec.clone();
        let rules = |rules: Option<&HPAScalingRules>| {
            let tolerance = rules.and_then(|r| r.tolerance.as_ref());
            tolerance.and_then(|t| Quantity::parse(&t.0).ok()).map_or(TOLERANCE, |t| t.to_f64())
        };
        let behavior = spec.behavior.as_ref();
        let scene = Scene {
            pods: &pods,
            current: scale.wanted,
            tolerances: Tolerances {
                down: rules(behavior.and_then(|b| b.scale_down.as_ref())),
                up: rules(behavior.and_then(|b| b.scale_up.as_ref())),
            },
            now: self.now,
        };
        let place = Place { namespace, selector: &selector, scene, there: scale.there, world: self.world };
        let metrics = spec.metrics.unwrap_or_default();
        let mut statuses = Vec::with_capacity(metrics.len());
        let mut best: Option<(i32, String)> = None;
        let mut failed: Vec<Unmeasured> = Vec::new();
        for metric in &metrics {
            match sources::measure(metric, place, reader) {
                Ok(measured) => {
                    if best.as_ref().is_none_or(|(most, _)| *most == 0 || measured.replicas > *most) {
                        best = Some((measured.replicas, measured.name));
                    }
                    statuses.push(measured.status);
                }
                Err(unmeasured) => {
                    statuses.push(MetricStatus::default());
                    failed.push(unmeasured);
                }
            }
        }
        if !reader.asks.is_empty() {
            return Err(Problem::Unasked);
        }
        let told = |unmeasured: &Unmeasured| match &unmeasured.problem {
            Problem::Told(message) => message.clone(),
            Problem::Unasked => String::new(),
        };
        for unmeasured in &failed {
            notes.push(Note::warning(&**self.before, unmeasured.reason, told(unmeasured)));
        }
        let mut error = String::new();
        if let Some(first) = failed.first() {
            let before = if first.before.is_empty() { String::new() } else { format!("{}: ", first.before) };
            error = format!(
                "invalid metrics ({} invalid out of {}), first error is: {before}{}",
                failed.len(),
                metrics.len(),
                told(first)
            );
            if best.as_ref().is_none_or(|(most, _)| *most < scale.wanted) {
                let message = format!("the HPA was unable to compute the replica count: {}", told(first));
                telling.condition("ScalingActive", false, first.reason, message);
                return Ok(Measures { proposal: None, statuses: Some(statuses), error });
            }
        }
        let name = best.as_ref().map_or("", |(_, name)| name);
        let words = format!("the HPA was able to successfully calculate a replica count from {name}");
        telling.condition("ScalingActive", true, "ValidMetricFound", words);
        Ok(Measures { proposal: best, statuses: Some(statuses), error })
    }

    /// The pods that the target selects, which no other autoscaler may scale.
    fn selected(
        &self,
        scale: &Scale<'_>,
        namespace: &str,
        reader: &mut Reader<'a>,
        telling: &mut Telling<'_>,
        notes: &mut Vec<Note>,
    ) -> Result<(LabelSelector, Vec<Arc<Pod>>), Problem> {
        if scale.selector.is_empty() {
            let words = "the HPA target's scale is missing a selector";
            telling.condition("ScalingActive", false, "InvalidSelector", words);
            let required = "selector is required";
            notes.push(Note::warning(&**self.before, "SelectorRequired", required));
            return Err(Problem::Told(required.to_owned()));
        }
        let mut wrong = |reason: &'static str, message: String| {
            telling.condition("ScalingActive", false, reason, message.clone());
            notes.push(Note::warning(&**self.before, reason, message.clone()));
            Problem::Told(message)
        };
        let selector = LabelSelector::parse(scale.selector).map_err(|error| {
            let words = "couldn't convert selector into a corresponding internal selector object";
            wrong("InvalidSelector", format!("{words}: {error}"))
        })?;
        let mut pods = self.world.list::<Pod>(namespace);
        pods.retain(|pod| ownership::matches(&selector, &pod.metadata));
        if let Some(other) = self.rival(&pods, namespace, reader)? {
            let own = self.before.metadata.name.as_deref().unwrap_or_default();
            return Err(wrong(
                "AmbiguousSelector",
                format!(
                    "pods by selector {} are controlled by more than one HPA (e.g. [{namespace}/{own} {namespace}/{other}])",
                    scale.selector
                ),
            ));
        }
        Ok((selector, pods))
    }

    /// Another autoscaler of the namespace whose target selects one of these pods.
    fn rival(
        &self,
        pods: &[Arc<Pod>],
        namespace: &str,
        reader: &mut Reader<'a>,
    ) -> Result<Option<String>, Problem> {
        let others = self.world.list::<HorizontalPodAutoscaler>(namespace);
        let others = others.iter().filter(|other| other.metadata.uid != self.before.metadata.uid);
        let mut unasked = false;
        let mut found = None;
        for other in others.take(MOST_OTHERS) {
            let selector = match scale(other, self.world, reader) {
                Ok(scale) if !scale.selector.is_empty() => LabelSelector::parse(scale.selector),
                Err(Problem::Unasked) => {
                    unasked = true;
                    continue;
                }
                _ => continue,
            };
            let Ok(selector) = selector else { continue };
            if found.is_none() && pods.iter().any(|pod| ownership::matches(&selector, &pod.metadata)) {
                found.clone_from(&other.metadata.name);
            }
        }
        if unasked { Err(Problem::Unasked) } else { Ok(found) }
    }
}

/// The scale of an autoscaler's target.
fn scale<'a>(
    autoscaler: &HorizontalPodAutoscaler,
    world: &'a World,
    reader: &mut Reader<'a>,
) -> Result<Scale<'a>, Problem> {
    let target = autoscaler.spec.scale_target_ref.clone();
    let version = target.api_version.unwrap_or_default();
    let group = match version.split_once('/') {
        Some((_, rest)) if rest.contains('/') => {
            return Err(Problem::Told(format!("unexpected GroupVersion string: {version}")));
        }
        Some((group, _)) => group,
        None => "",
    };
    let kind = &mapping(world, group, &target.kind)?.kind;
    let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
    let what = if group.is_empty() { kind.plural.to_string() } else { format!("{}.{group}", kind.plural) };
    let object = reader
        .get(Ask::object(kind, namespace, &target.name, "scale"), &format!("{what} {}", target.name))?;
    let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0);
    Ok(Scale {
        kind,
        object,
        wanted: number(&object["spec"]["replicas"]),
        there: number(&object["status"]["replicas"]),
        selector: object["status"]["selector"].as_str().unwrap_or_default(),
    })
}

/// The same scale with another number, on the version that was read.
fn rescaled(autoscaler: &HorizontalPodAutoscaler, scale: &Scale<'_>, desired: i32) -> Write {
    let mut object = scale.object.clone();
    object["spec"]["replicas"] = desired.into();
    Write::Post {
        target: Target {
            kind: scale.kind.clone(),
            namespace: autoscaler.metadata.namespace.clone().unwrap_or_default(),
            name: autoscaler.spec.scale_target_ref.name.clone(),
            uid: String::new(),
        },
        subresource: "scale",
        object: Box::new(object),
    }
}
