//! What comes next for a set: one thing at a time in the order of the ordinals, or all at once if pods are managed in
//! parallel.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Pod, PodTemplateSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};

use super::{Revisions, claims, pods};
use crate::{Note, World, Write, pod_state, revisions};

/// Pods made by one plan at most.
const BURST: usize = 500;

/// What is to be done: claims, then pods.
#[derive(Default)]
pub struct Actions {
    /// Claims to be made or to be given other owners.
    pub claims: Vec<Write>,
    /// Pods to be made, changed or deleted.
    pub pods: Vec<Write>,
    /// What there is to say.
    pub notes: Vec<Note>,
}

/// Whether to look at what comes later in the order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    Stop,
}

struct Walk<'a> {
    set: &'a StatefulSet,
    revisions: &'a Revisions,
    world: &'a World,
    now: Timestamp,
    min_ready: i32,
    /// One at a time.
    ordered: bool,
    actions: Actions,
}

/// What comes next.
pub fn next(
    set: &StatefulSet,
    revisions: &Revisions,
    all: &[Arc<Pod>],
    world: &World,
    now: Timestamp,
) -> Actions {
    let by_ordinal: BTreeMap<i64, &Pod> =
        all.iter().filter_map(|pod| Some((pods::ordinal(set, pod)?, &**pod))).collect();
    let (replicas, condemned): (BTreeMap<i64, &Pod>, BTreeMap<i64, &Pod>) =
        by_ordinal.into_iter().partition(|(ordinal, _)| pods::in_range(set, *ordinal));
    let mut walk = Walk {
        set,
        revisions,
        world,
        now,
        min_ready: set.spec.min_ready_seconds.unwrap_or(0),
        ordered: set.spec.pod_management_policy.as_deref() != Some("Parallel"),
        actions: Actions::default(),
    };
    if walk.keep(&replicas) == Then::GoOn && walk.scale_down(&replicas, &condemned) == Then::GoOn {
        walk.update(&replicas);
    }
    walk.actions
}

impl Walk<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        pod_state::is_available(pod, self.min_ready, self.now) && pod.metadata.deletion_timestamp.is_none()
    }

    /// Sees to it that every ordinal has a pod and that the pods are what they should be.
    fn keep(&mut self, replicas: &BTreeMap<i64, &Pod>) -> Then {
        let start = pods::start(self.set);
        let mut made = 0;
        for ordinal in start..start + pods::replicas(self.set) {
            let then = match replicas.get(&ordinal) {
                Some(pod) => self.keep_one(pod, ordinal),
                None if made == BURST => break,
                None => {
                    made += 1;
                    self.make(ordinal)
                }
            };
            if self.ordered && then == Then::Stop {
                return Then::Stop;
            }
        }
        Then::GoOn
    }

    fn keep_one(&mut self, pod: &Pod, ordinal: i64) -> Then {
        let going = pod.metadata.deletion_timestamp.is_some();
        if pod_state::is_terminal(pod) {
            // Made anew once it is gone.
            if !going {
                self.actions.pods.push(pods::delete(self.set, pod));
            }
            return Then::Stop;
        }
        let pending = pod_state::phase(pod) == "Pending";
        if pending {
            let needed = claims::needed(self.set, ordinal, self.world);
            self.actions.claims.extend(needed.missing);
            self.own_claims(pod);
        }
        let ready = pod_state::phase(pod) == "Running" && pod_state::is_ready(pod);
        if self.ordered && !(ready && self.is_available(pod)) {
            return Then::Stop;
        }
        if !pending {
            self.own_claims(pod);
        }
        self.actions.pods.extend(pods::identified(self.set, pod));
        Then::GoOn
    }

    fn own_claims(&mut self, pod: &Pod) {
        let (writes, notes) = claims::owned(self.set, pod, self.world);
        self.actions.claims.extend(writes);
        self.actions.notes.extend(notes);
    }

    fn make(&mut self, ordinal: i64) -> Then {
        if claims::is_stale(self.set, ordinal, self.world) {
            return Then::Stop;
        }
        let needed = claims::needed(self.set, ordinal, self.world);
        let (template, revision) = self.template_for(ordinal);
        let pod = pods::new(self.set, &template, &revision, ordinal);
        if let Some(claim) = needed.going {
            let (pod, own) = (pods::name(self.set, ordinal), self.set.metadata.name.as_deref());
            let text = format!(
                "Create Pod {pod} in StatefulSet {} failed error: pvc {claim} is being deleted",
                own.unwrap_or_default()
            );
            self.actions.notes.push(Note::warning(self.set, "FailedCreate", text));
            return Then::Stop;
        }
        self.actions.claims.extend(needed.missing);
        self.actions.pods.push(pods::create(self.set, &pod));
        Then::Stop
    }

    /// The template for a new pod: below the partition the one that was complete last.
    fn template_for(&self, ordinal: i64) -> (PodTemplateSpec, String) {
        let strategy = self.set.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate";
        let partition = strategy.and_then(|s| s.rolling_update.as_ref()).map(|r| r.partition.unwrap_or(0));
        let current = self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
        let below = match partition {
            Some(partition) => ordinal < pods::start(self.set) + i64::from(partition),
            None => rolling && ordinal < pods::start(self.set) + i64::from(current),
        };
        let revision = if below { &self.revisions.current } else { &self.revisions.update };
        let template = revisions::template(revision).unwrap_or_else(|| self.set.spec.template.clone());
        (template, revision.metadata.name.clone().unwrap_or_default())
    }

    /// Takes away what is beyond the range, the highest ordinal first.
    fn scale_down(&mut self, replicas: &BTreeMap<i64, &Pod>, condemned: &BTreeMap<i64, &Pod>) -> Then {
        for pod in condemned.values() {
            self.own_claims(pod);
        }
        // An unavailable pod stops the scaling down, unless it is the first such one of all.
        let complete = i64::try_from(replicas.len()) == Ok(pods::replicas(self.set));
        let unavailable = replicas.values().chain(condemned.values()).find(|pod| !self.is_available(pod));
        let first = unavailable.filter(|_| complete).and_then(|pod| pods::ordinal(self.set, pod));
        for (ordinal, pod) in condemned.iter().rev() {
            if pod.metadata.deletion_timestamp.is_some() {
                if self.ordered {
                    return Then::Stop;
                }
                continue;
            }
            if self.ordered && !self.is_available(pod) && first != Some(*ordinal) {
                return Then::Stop;
            }
            self.actions.pods.push(pods::delete(self.set, pod));
            if self.ordered {
                return Then::Stop;
            }
        }
        Then::GoOn
    }

    /// Deletes pods of other revisions, from the highest ordinal down to the partition, as far as they may be missing.
    fn update(&mut self, replicas: &BTreeMap<i64, &Pod>) {
        let strategy = self.set.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") != "RollingUpdate" {
            return;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let lowest = pods::start(self.set) + i64::from(rolling.and_then(|r| r.partition).unwrap_or(0));
        let budget = budget(rolling.and_then(|r| r.max_unavailable.as_ref()), self.set);
        let available = replicas.values().filter(|pod| self.is_available(pod)).count();
        let missing = pods::replicas(self.set) - i64::try_from(available).unwrap_or(i64::MAX);
        let wanted = self.revisions.update.metadata.name.as_deref().unwrap_or_default();
        let old: Vec<&Pod> = replicas
            .range(lowest..)
            .rev()
            .map(|(_, pod)| *pod)
            .filter(|pod| pods::revision(pod) != wanted && pod.metadata.deletion_timestamp.is_none())
            .collect();
        let mut left = budget - missing;
        for pod in &old {
            let useless = !self.is_available(pod);
            if !self.ordered && useless {
                self.actions.pods.push(pods::delete(self.set, pod));
            } else if left > 0 {
                self.actions.pods.push(pods::delete(self.set, pod));
                left -= 1;
            }
        }
    }
}

/// Pods that may be unavailable: at least one, shares rounded down.
fn budget(value: Option<&IntOrString>, set: &StatefulSet) -> i64 {
    use apimachinery::intstr::IntOrString as Scaled;
    let value = match value {
        Some(IntOrString::Int(number)) => Scaled::Int(*number),
        Some(IntOrString::String(text)) => Scaled::Text(text.clone()),
        None => Scaled::Int(1),
    };
    value.scaled(set.spec.replicas.unwrap_or(1), false).unwrap_or(1).max(1).into()
}
