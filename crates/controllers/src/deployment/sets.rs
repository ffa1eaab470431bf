//! The ReplicaSets of a Deployment: which one is new, what their annotations say, what shall become of them.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::json;

use super::numbers;
use crate::{
    Note, PatchKind, Write, ownership,
    pod_template::{self, TEMPLATE_HASH},
};

/// On ReplicaSets and Deployments: which rollout it is.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// On a ReplicaSet that was rolled back to: the revisions it was before, with commas between.
pub const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// On a ReplicaSet: the Deployment's replicas when it was scaled last.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// On a ReplicaSet: the same with the surge.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// On a Deployment: the revision to go back to.
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Longest [`HISTORY`]; the oldest revisions are forgotten.
const HISTORY_LIMIT: usize = 2000;
/// Longest name.
const NAME_LIMIT: usize = 253;

/// Annotations that a Deployment and its ReplicaSets have for themselves.
pub fn is_own_annotation(key: &str) -> bool {
    [REVISION, HISTORY, DESIRED, MAX, ROLLBACK_TO, LAST_APPLIED].contains(&key)
}

/// A ReplicaSet and what shall become of it.
pub struct Set {
    /// As it was seen.
    pub seen: Arc<ReplicaSet>,
    /// How many pods it shall have.
    pub replicas: i32,
    annotations: BTreeMap<String, String>,
    min_ready_seconds: i32,
    deleted: bool,
}

impl Set {
    fn new(seen: Arc<ReplicaSet>) -> Self {
        Self {
            replicas: seen.spec.replicas.unwrap_or(1),
            annotations: seen.metadata.annotations.clone().unwrap_or_default(),
            min_ready_seconds: seen.spec.min_ready_seconds.unwrap_or(0),
            deleted: false,
            seen,
        }
    }

    pub fn name(&self) -> &str {
        self.seen.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its pods that are available.
    pub fn available(&self) -> i32 {
        self.seen.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    /// Its pods.
    pub fn actual(&self) -> i32 {
        self.seen.status.as_ref().map_or(0, |s| s.replicas)
    }

    pub fn revision_text(&self) -> Option<String> {
        self.annotations.get(REVISION).cloned()
    }

    /// Which rollout it belongs to; 0 when it does not say.
    pub fn revision(&self) -> i64 {
        self.number(REVISION).unwrap_or(0)
    }

    /// An annotation that is a number.
    pub fn number(&self, key: &str) -> Option<i64> {
        self.annotations.get(key)?.parse().ok()
    }

    fn annotate(&mut self, key: &str, value: String) {
        self.annotations.insert(key.to_owned(), value);
    }

    fn write(&self) -> Option<Write> {
        if self.deleted {
            return Some(Write::delete(&*self.seen));
        }
        let mut body = json!({});
        if self.seen.spec.replicas.unwrap_or(1) != self.replicas {
            body["spec"]["replicas"] = self.replicas.into();
        }
        if self.seen.spec.min_ready_seconds.unwrap_or(0) != self.min_ready_seconds {
            body["spec"]["minReadySeconds"] = self.min_ready_seconds.into();
        }
        let had = self.seen.metadata.annotations.as_ref();
        for (key, value) in &self.annotations {
            if had.and_then(|a| a.get(key)) != Some(value) {
                body["metadata"]["annotations"][key] = value.as_str().into();
            }
        }
        let changed = body.as_object().is_some_and(|b| !b.is_empty());
        // A patch, because the ReplicaSet's own loop writes its status all the time and nobody else writes these fields.
        changed.then(|| Write::patch(&*self.seen, PatchKind::Merge, body))
    }
}

/// The ReplicaSets of a Deployment.
pub struct Sets {
    /// Those of other templates, the oldest first.
    pub old: Vec<Set>,
    /// The one of the wanted template.
    pub new: Option<Set>,
    /// What was decided, in words.
    pub notes: Vec<Note>,
}

/// Oldest first, then by name.
fn age(set: &ReplicaSet) -> (Option<k8s_openapi::jiff::Timestamp>, Option<&str>) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.as_deref())
}

/// The template without the label that tells ReplicaSets apart.
fn plain(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(TEMPLATE_HASH);
            if labels.is_empty() {
                metadata.labels = None;
            }
        }
        metadata.creation_timestamp = None;
        if *metadata == ObjectMeta::default() {
            template.metadata = None;
        }
    }
    template
}

/// Both templates make the same pods.
pub fn is_same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    plain(a) == plain(b)
}

impl Sets {
    /// Tells the new from the old, and brings the new one's annotations up to date.
    pub fn new(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by(|a, b| age(a).cmp(&age(b)));
        let same = |set: &ReplicaSet| {
            set.spec.template.as_ref().is_some_and(|t| is_same_template(t, &deployment.spec.template))
        };
        let place = sets.iter().position(|set| same(set));
        let new = place.map(|place| Set::new(sets.remove(place)));
        let old = sets.into_iter().map(Set::new).collect();
        let mut sets = Self { old, new, notes: Vec::new() };
        let revision = sets.next_revision();
        if let Some(new) = &mut sets.new {
            annotate(deployment, new, &revision);
            new.min_ready_seconds = deployment.spec.min_ready_seconds.unwrap_or(0);
        }
        sets
    }

    /// The revision that a new ReplicaSet has, or gets when it is used again.
    pub fn next_revision(&self) -> String {
        let newest = self.old.iter().map(Set::revision).max().unwrap_or(0).max(0);
        newest.saturating_add(1).to_string()
    }

    /// All, the oldest first, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    /// The sum of the pods they shall have.
    pub fn total(&self) -> i32 {
        self.all().map(|s| s.replicas).fold(0, i32::saturating_add)
    }

    /// The sum of the available pods.
    pub fn available(&self) -> i32 {
        self.all().map(Set::available).fold(0, i32::saturating_add)
    }

    /// One that has pods was scaled when the Deployment wanted another number of them.
    pub fn are_of_another_scale(&self, deployment: &Deployment) -> bool {
        let replicas = i64::from(numbers::replicas(deployment));
        self.all().filter(|s| s.replicas > 0).any(|s| s.number(DESIRED).is_some_and(|d| d != replicas))
    }

    /// The ReplicaSet of the wanted template, to be made.
    pub fn wanted(&self, deployment: &Deployment) -> ReplicaSet {
        let collisions = deployment.status.as_ref().and_then(|s| s.collision_count);
        let hash = pod_template::hash(&plain(&deployment.spec.template), collisions);
        let mut template = deployment.spec.template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector = deployment.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let mut end = name.len().min(NAME_LIMIT.saturating_sub(hash.len() + 1));
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let base = &name[..end];
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{base}-{hash}")),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![ownership::controller_reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: deployment.spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        };
        let mut new = Set::new(Arc::new(set));
        new.replicas = self.room_for(deployment, 0);
        annotate(deployment, &mut new, &self.next_revision());
        annotate_scale(deployment, &mut new);
        let mut set = ReplicaSet::clone(&new.seen);
        set.spec.replicas = Some(new.replicas);
        set.metadata.annotations = Some(new.annotations);
        set
    }

    /// How many pods the new ReplicaSet may have, if it has `now`.
    pub fn room_for(&self, deployment: &Deployment, now: i32) -> i32 {
        let replicas = numbers::replicas(deployment);
        if !numbers::is_rolling(deployment) {
            return replicas;
        }
        let most = replicas.saturating_add(numbers::max_surge(deployment));
        let room = most.saturating_sub(self.total()).max(0);
        now.saturating_add(room.min(replicas.saturating_sub(now).max(0)))
    }

    /// Removes old ReplicaSets beyond the limit of the history, if they have no pods left.
    pub fn clean_up(&mut self, deployment: &Deployment) {
        let Some(limit) = deployment.spec.revision_history_limit.filter(|l| *l != i32::MAX) else { return };
        let alive = |set: &&mut Set| !ownership::deleting(&set.seen.metadata);
        let mut old: Vec<&mut Set> = self.old.iter_mut().filter(alive).collect();
        let spare = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|set| set.revision());
        for set in old.into_iter().take(spare) {
            let observed = set.seen.status.as_ref().and_then(|s| s.observed_generation);
            let settled = observed.unwrap_or(0) >= set.seen.metadata.generation.unwrap_or(0);
            set.deleted = set.actual() == 0 && set.replicas == 0 && settled;
        }
    }

    /// The writes that make the ReplicaSets what they shall be.
    pub fn writes(&self) -> Vec<Write> {
        self.all().filter_map(Set::write).collect()
    }
}

/// Gives a ReplicaSet so many pods, and says so.
pub fn resize(deployment: &Deployment, set: &mut Set, replicas: i32, notes: &mut Vec<Note>) {
    annotate_scale(deployment, set);
    let before = std::mem::replace(&mut set.replicas, replicas);
    if before != replicas {
        let way = if before < replicas { "up" } else { "down" };
        let text = format!("Scaled {way} replica set {} from {before} to {replicas}", set.name());
        notes.push(Note::normal(deployment, "ScalingReplicaSet", text));
    }
}

fn annotate_scale(deployment: &Deployment, set: &mut Set) {
    let replicas = numbers::replicas(deployment);
    set.annotate(DESIRED, replicas.to_string());
    set.annotate(MAX, replicas.saturating_add(numbers::max_surge(deployment)).to_string());
}

/// Copies the Deployment's annotations to its new ReplicaSet and gives it its revision, if that is newer than the one it has.
fn annotate(deployment: &Deployment, set: &mut Set, revision: &str) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !is_own_annotation(key) {
            set.annotate(key, value.clone());
        }
    }
    let before = set.revision_text();
    if before.as_deref().is_some_and(|b| !b.is_empty() && b.parse::<i64>().is_err()) {
        return;
    }
    if set.revision() >= revision.parse().unwrap_or(0) {
        return;
    }
    set.annotate(REVISION, revision.to_owned());
    if let Some(before) = before {
        let history = set.annotations.get(HISTORY).cloned().unwrap_or_default();
        set.annotate(HISTORY, longer(&history, &before));
    }
}

/// A history with one more revision, the oldest left out if it gets too long.
fn longer(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|r| !r.is_empty()).collect();
    revisions.push(revision);
    while revisions.len() > 1 && revisions.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_LIMIT + 1 {
        revisions.remove(0);
    }
    revisions.join(",")
}
