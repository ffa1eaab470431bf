//! From resource requests and limits to QoS classes and the kernel's numbers.

use std::collections::BTreeMap;

use k8s_cri::v1 as cri;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{quantity, spec};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// Microseconds in which a CPU quota is given out.
const PERIOD: i64 = 100_000;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let counted = |r: &ResourceRequirements| {
        let list = |l: &Option<BTreeMap<String, Quantity>>| -> BTreeMap<String, i64> {
            let all = l.iter().flatten().filter(|(k, _)| matches!(k.as_str(), "cpu" | "memory"));
            all.filter_map(|(k, q)| Some((k.clone(), quantity::amount(k, q).filter(|a| *a > 0)?))).collect()
        };
        (list(&r.requests), list(&r.limits))
    };
    // pod-level resources, where set, stand for all containers
    if let Some(pod) = &spec.resources {
        let (requests, limits) = counted(pod);
        if !requests.is_empty() || !limits.is_empty() {
            return if limits.len() == 2 && (requests.is_empty() || requests == limits) {
                "Guaranteed"
            } else {
                "Burstable"
            };
        }
    }
    let (mut any, mut guaranteed) = (false, true);
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let (requests, limits) = container.resources.as_ref().map(counted).unwrap_or_default();
        any |= !requests.is_empty() || !limits.is_empty();
        // defaulting has copied limits to requests; if it has not, a missing request equals its limit
        guaranteed &= limits.len() == 2 && requests.iter().all(|(k, v)| limits.get(k) == Some(v));
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// CPU shares of milli-CPU.
pub fn shares(milli: i64) -> i64 {
    (milli.saturating_mul(1024) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CPU quota per period of milli-CPU; 0 for none. At least a millisecond.
pub fn quota(milli: i64) -> i64 {
    if milli <= 0 { 0 } else { (milli.saturating_mul(PERIOD) / 1000).max(1000) }
}

/// A container's request, or its limit where only that is set.
pub fn request(container: &Container, name: &str) -> Option<i64> {
    let r = container.resources.as_ref()?;
    quantity::of(r.requests.as_ref(), name).or_else(|| quantity::of(r.limits.as_ref(), name))
}

/// A container's limit.
pub fn limit(container: &Container, name: &str) -> Option<i64> {
    quantity::of(container.resources.as_ref()?.limits.as_ref(), name).filter(|l| *l > 0)
}

/// What the pod asks for of `name`: containers and sidecars together or the largest step of the init containers, plus
/// overhead; pod-level requests take their place. `pick` chooses requests or limits.
pub fn pod_total(
    spec: &PodSpec,
    name: &str,
    pick: impl Fn(&ResourceRequirements) -> Option<&BTreeMap<String, Quantity>>,
) -> i64 {
    let of = |r: Option<&ResourceRequirements>| r.and_then(|r| quantity::of(pick(r), name)).unwrap_or(0);
    let (mut sidecars, mut init_peak) = (0i64, 0i64);
    for c in spec.init_containers.iter().flatten() {
        let need = of(c.resources.as_ref());
        if spec::is_sidecar(c) {
            sidecars = sidecars.saturating_add(need);
            init_peak = init_peak.max(sidecars);
        } else {
            init_peak = init_peak.max(sidecars.saturating_add(need));
        }
    }
    let main: i64 =
        spec.containers.iter().map(|c| of(c.resources.as_ref())).fold(sidecars, i64::saturating_add);
    let pod_level = spec.resources.as_ref().and_then(|r| quantity::of(pick(r), name));
    let total = pod_level.unwrap_or_else(|| main.max(init_peak));
    total.saturating_add(quantity::of(spec.overhead.as_ref(), name).unwrap_or(0))
}

/// Whether a pod must not be killed for the sake of others: static, mirror or system-critical.
pub fn critical(spec: &PodSpec) -> bool {
    spec.priority.is_some_and(|p| p >= 2_000_000_000)
}

/// How readily the kernel kills the container when memory runs out; `memory` is the node's capacity in bytes.
pub fn oom_score_adj(spec: &PodSpec, container: &Container, memory: i64) -> i64 {
    if critical(spec) {
        return -997;
    }
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let asked = i128::from(request(container, "memory").unwrap_or(0));
            let score = 1000 - 1000 * asked / i128::from(memory.max(1));
            i64::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// What the runtime is told; `memory` is the node's capacity in bytes.
pub fn linux(spec: &PodSpec, container: &Container, memory: i64) -> cri::LinuxContainerResources {
    let cpu_limit = limit(container, "cpu").unwrap_or(0);
    let memory_limit = limit(container, "memory").unwrap_or(0);
    let hugepage_limits = container
        .resources
        .iter()
        .flat_map(|r| r.limits.iter().flatten())
        .filter_map(|(name, q)| {
            let page_size = name.strip_prefix("hugepages-")?.trim_end_matches('i');
            Some(cri::HugepageLimit {
                page_size: format!("{page_size}B"),
                limit: u64::try_from(quantity::units(q)?).ok()?,
            })
        })
        .collect();
    cri::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(request(container, "cpu").unwrap_or(0)),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(spec, container, memory),
        // no swap: memory and swap together may be no more than memory
        memory_swap_limit_in_bytes: memory_limit,
        hugepage_limits,
        ..cri::LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let list = |l: &[(&str, &str)]| {
            Some(l.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect())
        };
        let resources = ResourceRequirements { requests: list(requests), limits: list(limits), claims: None };
        Container { name: "c".into(), resources: Some(resources), ..Container::default() }
    }

    fn pod(containers: Vec<Container>) -> PodSpec {
        PodSpec { containers, ..PodSpec::default() }
    }

    #[test]
    fn the_qos_class_follows_requests_and_limits() {
        let full = || container(&[("cpu", "1"), ("memory", "1Gi")], &[("cpu", "1000m"), ("memory", "1Gi")]);
        assert_eq!(qos_class(&pod(vec![full()])), "Guaranteed");
        assert_eq!(qos_class(&pod(vec![full(), container(&[], &[])])), "Burstable");
        assert_eq!(qos_class(&pod(vec![container(&[], &[])])), "BestEffort");
        assert_eq!(qos_class(&pod(vec![container(&[("cpu", "1")], &[])])), "Burstable");
        assert_eq!(qos_class(&pod(vec![container(&[("nvidia.com/gpu", "1")], &[])])), "BestEffort");
    }

    #[test]
    fn init_containers_count_by_their_largest_step_and_sidecars_stay() {
        let cpu = |c: &str| container(&[("cpu", c)], &[]);
        let mut sidecar = cpu("200m");
        sidecar.restart_policy = Some("Always".into());
        let spec = PodSpec {
            init_containers: Some(vec![sidecar, cpu("900m")]),
            ..pod(vec![cpu("300m"), cpu("100m")])
        };
        assert_eq!(pod_total(&spec, "cpu", |r| r.requests.as_ref()), 1100);
    }

    #[test]
    fn the_kernel_is_told_upstreams_numbers() {
        let c = container(&[("cpu", "250m"), ("memory", "512Mi")], &[("cpu", "500m"), ("memory", "1Gi")]);
        let r = linux(&pod(vec![c.clone()]), &c, 4 << 30);
        assert_eq!((r.cpu_shares, r.cpu_quota, r.memory_limit_in_bytes), (256, 50_000, 1 << 30));
        assert_eq!(r.oom_score_adj, 875);
    }
}
