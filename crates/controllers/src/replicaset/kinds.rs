//! The two kinds, seen as one.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::{Scaled, Status, Wanted};
use crate::{World, ownership, world::controller_uid};

const FAILURE: &str = "ReplicaFailure";

/// Zero is told by leaving the number out.
fn some(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

impl Scaled for ReplicaSet {
    const LOOP: &'static str = "replicaset-controller";

    fn wanted(&self) -> Wanted<'_> {
        let spec = &self.spec;
        Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: ownership::selector(&spec.selector),
            template: spec.template.as_ref(),
        }
    }

    fn told(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.iter().flatten().find(|c| c.type_.as_deref() == Some(FAILURE));
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation,
            failure: failure
                .map(|c| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())),
        }
    }

    fn telling(&self, status: &Status, now: Timestamp) -> Self {
        let before = self.status.clone().unwrap_or_default();
        let had = before.conditions.iter().flatten().any(|c| c.type_.as_deref() == Some(FAILURE));
        let mut conditions = before.conditions.unwrap_or_default();
        if status.failure.is_none() {
            conditions.retain(|c| c.type_.as_deref() != Some(FAILURE));
        } else if let (false, Some((reason, message))) = (had, &status.failure) {
            conditions.push(ReplicaSetCondition {
                type_: Some(FAILURE.to_owned()),
                status: Some("True".to_owned()),
                last_transition_time: Some(Time(now)),
                reason: Some(reason.clone()),
                message: Some(message.clone()),
            });
        }
        let status = ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            terminating_replicas: status.terminating,
            observed_generation: status.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }

    fn related(&self, world: &World) -> Vec<Arc<Self>> {
        match controller_uid(&self.metadata) {
            Some(controller) => world.owned::<Self>(controller),
            None => vec![Arc::new(self.clone())],
        }
    }
}

impl Scaled for ReplicationController {
    const LOOP: &'static str = "replication-controller";

    fn wanted(&self) -> Wanted<'_> {
        let spec = self.spec.as_ref();
        Wanted {
            replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|s| s.min_ready_seconds).unwrap_or(0),
            selector: ownership::map_selector(spec.and_then(|s| s.selector.as_ref())),
            template: spec.and_then(|s| s.template.as_ref()),
        }
    }

    fn told(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        let failure = status.conditions.iter().flatten().find(|c| c.type_ == FAILURE);
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            terminating: None,
            observed_generation: status.observed_generation,
            failure: failure
                .map(|c| (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())),
        }
    }

    fn telling(&self, status: &Status, now: Timestamp) -> Self {
        let before = self.status.clone().unwrap_or_default();
        let had = before.conditions.iter().flatten().any(|c| c.type_ == FAILURE);
        let mut conditions = before.conditions.unwrap_or_default();
        if status.failure.is_none() {
            conditions.retain(|c| c.type_ != FAILURE);
        } else if let (false, Some((reason, message))) = (had, &status.failure) {
            conditions.push(ReplicationControllerCondition {
                type_: FAILURE.to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(now)),
                reason: Some(reason.clone()),
                message: Some(message.clone()),
            });
        }
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: some(status.fully_labeled),
            ready_replicas: some(status.ready),
            available_replicas: some(status.available),
            observed_generation: status.observed_generation,
            conditions: (!conditions.is_empty()).then_some(conditions),
        };
        Self { status: Some(status), ..self.clone() }
    }

    fn related(&self, _: &World) -> Vec<Arc<Self>> {
        vec![Arc::new(self.clone())]
    }
}
