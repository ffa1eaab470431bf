//! What an autoscaler tells of itself.

use k8s_openapi::{
    api::autoscaling::v2::{
        HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus,
        MetricStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

/// A status that is being written.
pub struct Telling<'a> {
    /// The status.
    pub status: &'a mut HorizontalPodAutoscalerStatus,
    generation: Option<i64>,
    now: Timestamp,
}

/// As times are written in objects.
#[must_use]
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

impl<'a> Telling<'a> {
    /// Of this autoscaler, in place.
    pub fn of(autoscaler: &'a mut HorizontalPodAutoscaler, now: Timestamp) -> Self {
        let generation = autoscaler.metadata.generation;
        Self { status: autoscaler.status.get_or_insert_default(), generation, now }
    }

    /// Sets a condition; its time moves only when its status changes.
    pub fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let conditions = self.status.conditions.get_or_insert_default();
        let at = match conditions.iter().position(|c| c.type_ == kind) {
            Some(at) => at,
            None => {
                let type_ = kind.to_owned();
                conditions.push(HorizontalPodAutoscalerCondition {
                    type_,
                    ..HorizontalPodAutoscalerCondition::default()
                });
                conditions.len() - 1
            }
        };
        let Some(condition) = conditions.get_mut(at) else { return };
        let status = if holds { "True" } else { "False" };
        if condition.status != status {
            condition.last_transition_time = Some(Time(whole_seconds(self.now)));
        }
        status.clone_into(&mut condition.status);
        condition.reason = Some(reason.to_owned());
        condition.message = Some(message.into());
    }

    /// Whether a condition is True.
    #[must_use]
    pub fn is_true(&self, kind: &str) -> bool {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.any(|c| c.type_ == kind && c.status == "True")
    }

    /// Sets what is no condition. `desired` stays where it is not told, and so does the time of the last change.
    pub fn numbers(
        &mut self,
        current: i32,
        desired: Option<i32>,
        metrics: Option<Vec<MetricStatus>>,
        scaled_at: Option<Time>,
    ) {
        numbers(self.status, self.generation, current, desired, metrics, scaled_at);
    }

    /// The same status with these numbers, apart.
    #[must_use]
    pub fn with_numbers(
        &self,
        current: i32,
        metrics: Option<Vec<MetricStatus>>,
    ) -> HorizontalPodAutoscalerStatus {
        let mut status = self.status.clone();
        numbers(&mut status, self.generation, current, None, metrics, None);
        status
    }
}

fn numbers(
    status: &mut HorizontalPodAutoscalerStatus,
    generation: Option<i64>,
    current: i32,
    desired: Option<i32>,
    metrics: Option<Vec<MetricStatus>>,
    scaled_at: Option<Time>,
) {
    status.current_replicas = Some(current);
    status.desired_replicas = desired.unwrap_or(status.desired_replicas);
    status.current_metrics = metrics;
    status.observed_generation = generation;
    if scaled_at.is_some() {
        status.last_scale_time = scaled_at;
    }
}
