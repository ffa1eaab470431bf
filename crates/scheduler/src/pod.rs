//! A pod, with everything the scheduler asks about it worked out once.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, PodSpec, Toleration, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
    jiff::Timestamp,
};
use kube::core::{Selector, SelectorExt};

use crate::resources::{self, Resources};

/// Label keys and values.
pub type Labels = BTreeMap<String, String>;

/// A pod as the scheduler sees it.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// The object.
    pub pod: Arc<Pod>,
    /// `namespace/name`
    pub key: String,
    /// What it requests.
    pub requests: Resources,
    /// Required terms of its pod affinity.
    pub affinity: Vec<Term>,
    /// Required terms of its pod anti-affinity.
    pub anti_affinity: Vec<Term>,
    /// Preferred terms of both, anti-affinity with negative weight.
    pub preferred: Vec<(i32, Term)>,
    /// Its spread constraints.
    pub spread: Vec<Spread>,
    /// `hostIP, protocol, hostPort` of its containers.
    pub ports: Vec<(String, String, i32)>,
}

/// A pod affinity term with its selectors ready.
#[derive(Clone, Debug)]
pub struct Term {
    /// Which pods; `None` matches none.
    pub selector: Option<Selector>,
    /// Namespaces by name; with `namespace_selector` the union.
    pub namespaces: Vec<String>,
    /// Namespaces by label.
    pub namespace_selector: Option<Selector>,
    /// The label that makes nodes one place.
    pub topology_key: String,
}

/// A topology spread constraint with its selector ready.
#[derive(Clone, Debug)]
pub struct Spread {
    /// Largest allowed difference between domains.
    pub max_skew: i64,
    /// The label that makes nodes one domain.
    pub topology_key: String,
    /// `DoNotSchedule`; otherwise it only scores.
    pub hard: bool,
    /// Which pods are counted.
    pub selector: Option<Selector>,
    /// Fewer domains than this count as an empty one.
    pub min_domains: i64,
    /// Only nodes that match the pod's node selector and affinity count.
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates count.
    pub honor_taints: bool,
}

impl PodInfo {
    /// Works everything out. Selectors that do not parse match nothing.
    #[must_use]
    pub fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let labels = pod.metadata.labels.as_ref();
        let affinity = spec.affinity.as_ref();
        let terms = |terms: Option<&Vec<PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|t| Term::new(t, namespace, labels)).collect::<Vec<_>>()
        };
        let together = affinity.and_then(|a| a.pod_affinity.as_ref());
        let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let weighted = |sign: i32, list: Option<&Vec<_>>| -> Vec<(i32, Term)> {
            let list: &Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm> = match list {
                Some(list) => list,
                None => return Vec::new(),
            };
            list.iter()
                .map(|w| (sign * w.weight, Term::new(&w.pod_affinity_term, namespace, labels)))
                .collect()
        };
        let mut preferred = weighted(
            1,
            together.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        );
        preferred.extend(weighted(
            -1,
            apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        ));
        Self {
            key: format!("{namespace}/{}", pod.metadata.name.as_deref().unwrap_or_default()),
            requests: resources::of_pod(spec, resources::Side::Requests),
            affinity: terms(
                together.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            anti_affinity: terms(
                apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred,
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|c| Spread::new(c, labels))
                .collect(),
            ports: host_ports(spec),
            pod,
        }
    }

    /// The same of a pod that nobody else holds: what has been worked out, and what nobody asks about, is not kept. The
    /// spec is left without containers.
    #[must_use]
    pub fn alone(pod: Pod) -> Self {
        let mut info = Self::new(Arc::new(pod));
        if let Some(pod) = Arc::get_mut(&mut info.pod) {
            pod.metadata.managed_fields = None;
            pod.metadata.annotations = None;
            if let Some(spec) = &mut pod.spec {
                spec.containers = Vec::new();
                (spec.init_containers, spec.ephemeral_containers) = (None, None);
                if let Some(volumes) = &mut spec.volumes {
                    volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
                    volumes.shrink_to_fit();
                }
            }
            if let Some(status) = &mut pod.status {
                status.container_statuses = None;
                (status.init_container_statuses, status.ephemeral_container_statuses) = (None, None);
            }
        }
        info
    }

    /// The same pod, bound to `node`.
    #[must_use]
    pub fn on(&self, node: &str) -> Self {
        let mut pod = (*self.pod).clone();
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        Self { pod: Arc::new(pod), ..self.clone() }
    }

    /// The spec; an empty one if there is none.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its labels.
    #[must_use]
    pub fn labels(&self) -> &Labels {
        static EMPTY: Labels = Labels::new();
        self.pod.metadata.labels.as_ref().unwrap_or(&EMPTY)
    }

    /// `spec.priority`, 0 if absent.
    #[must_use]
    pub fn priority(&self) -> i32 {
        self.spec().priority.unwrap_or(0)
    }

    /// The node it runs on, empty if none.
    #[must_use]
    pub fn node_name(&self) -> &str {
        self.spec().node_name.as_deref().unwrap_or_default()
    }

    /// When it started, else when it was made; `now` if neither is known.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        let status = self.pod.status.as_ref().and_then(|s| s.start_time.as_ref());
        status.or(self.pod.metadata.creation_timestamp.as_ref()).map_or(Timestamp::MAX, |t| t.0)
    }

    /// Whether it is under deletion.
    #[must_use]
    pub fn deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Succeeded or Failed: it uses nothing any more.
    #[must_use]
    pub fn finished(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    /// Its tolerations.
    #[must_use]
    pub fn tolerations(&self) -> &[Toleration] {
        self.spec().tolerations.as_deref().unwrap_or_default()
    }
}

impl Term {
    fn new(term: &PodAffinityTerm, namespace: &str, labels: Option<&Labels>) -> Self {
        let mut selector = term.label_selector.clone();
        // matchLabelKeys are merged into the selector by the API server at create; older objects may lack that.
        if let Some(selector) = selector.as_mut() {
            merge_keys(selector, term.match_label_keys.as_deref(), labels);
        }
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_owned());
        }
        Self {
            selector: selector.and_then(|s| Selector::try_from(s).ok()),
            namespaces,
            namespace_selector: term.namespace_selector.clone().and_then(|s| Selector::try_from(s).ok()),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether `pod` is one this term is about. `namespace_labels` gives the labels of the pod's namespace.
    #[must_use]
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &Labels) -> bool {
        let here = self.namespaces.iter().any(|n| n == pod.namespace())
            || self.namespace_selector.as_ref().is_some_and(|s| s.matches(namespace_labels));
        here && self.selector.as_ref().is_some_and(|s| s.matches(pod.labels()))
    }
}

impl Spread {
    fn new(constraint: &TopologySpreadConstraint, labels: Option<&Labels>) -> Self {
        let mut selector = constraint.label_selector.clone().unwrap_or_default();
        merge_keys(&mut selector, constraint.match_label_keys.as_deref(), labels);
        let none = selector.match_labels.is_none() && selector.match_expressions.is_none();
        Self {
            max_skew: i64::from(constraint.max_skew),
            topology_key: constraint.topology_key.clone(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector: if none && constraint.label_selector.is_none() {
                None
            } else {
                Selector::try_from(selector).ok()
            },
            min_domains: i64::from(constraint.min_domains.unwrap_or(1)),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

fn merge_keys(selector: &mut LabelSelector, keys: Option<&[String]>, labels: Option<&Labels>) {
    for key in keys.into_iter().flatten() {
        if let Some(value) = labels.and_then(|l| l.get(key)) {
            let own = selector.match_labels.get_or_insert_with(BTreeMap::new);
            own.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn host_ports(spec: &PodSpec) -> Vec<(String, String, i32)> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|port| *port > 0)?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((ip, p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port))
        })
        .collect()
}
