//! Amounts of resources, and what a pod asks for.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

/// Amounts by resource. CPU in millicores, memory and ephemeral storage in bytes, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `cpu`, in millicores.
    pub milli_cpu: i64,
    /// `memory`, in bytes.
    pub memory: i64,
    /// `ephemeral-storage`, in bytes.
    pub storage: i64,
    /// `pods` of a node; 1 for a pod.
    pub pods: i64,
    /// Extended resources and huge pages, in whole units or bytes.
    pub extended: BTreeMap<String, i64>,
}

type List = BTreeMap<String, Quantity>;

impl Resources {
    /// Reads a resource list. A quantity that does not parse counts as nothing (the API server lets none in).
    #[must_use]
    pub fn from_list(list: Option<&List>) -> Self {
        let mut out = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            match name.as_str() {
                "cpu" => out.milli_cpu = milli(quantity),
                "memory" => out.memory = whole(quantity),
                "ephemeral-storage" => out.storage = whole(quantity),
                "pods" => out.pods = whole(quantity),
                _ => {
                    out.extended.insert(name.clone(), whole(quantity));
                }
            }
        }
        out
    }

    /// Adds `other`, resource by resource.
    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    /// Takes `other` away again.
    pub fn sub(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
    }

    /// The larger amount of each resource.
    pub fn max(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Self, op: fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.storage = op(self.storage, other.storage);
        self.pods = op(self.pods, other.pods);
        for (name, amount) in &other.extended {
            let mine = self.extended.entry(name.clone()).or_default();
            *mine = op(*mine, *amount);
        }
    }

    /// What `request` lacks beside `used` out of `self`, in upstream's words without the count: `Insufficient cpu`.
    #[must_use]
    pub fn lacking(&self, used: &Self, request: &Self) -> Vec<String> {
        let mut out = Vec::new();
        if used.pods + 1 > self.pods {
            out.push("Too many pods".to_owned());
        }
        let short = |have: i64, used: i64, want: i64| want > 0 && want > have - used;
        let basic = [
            ("cpu", self.milli_cpu, used.milli_cpu, request.milli_cpu),
            ("memory", self.memory, used.memory, request.memory),
            ("ephemeral-storage", self.storage, used.storage, request.storage),
        ];
        for (name, have, used, want) in basic {
            if short(have, used, want) {
                out.push(format!("Insufficient {name}"));
            }
        }
        for (name, want) in &request.extended {
            let have = self.extended.get(name).copied().unwrap_or(0);
            if short(have, used.extended.get(name).copied().unwrap_or(0), *want) {
                out.push(format!("Insufficient {name}"));
            }
        }
        out
    }
}

/// Which list of a container counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `resources.requests`
    Requests,
    /// `resources.limits`
    Limits,
}

fn of_container(container: &Container, side: Side) -> Resources {
    let resources = container.resources.as_ref();
    Resources::from_list(resources.and_then(|r| match side {
        Side::Requests => r.requests.as_ref(),
        Side::Limits => r.limits.as_ref(),
    }))
}

/// What a pod asks for: the larger of (containers and sidecars together) and (the worst init container with the sidecars
/// started before it); pod-level resources replace cpu, memory and huge pages; the overhead is added. KEP-753, KEP-2837.
#[must_use]
pub fn of_pod(spec: &PodSpec, side: Side) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&of_container(container, side));
    }
    let mut sidecars = Resources::default();
    let mut worst = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut own = of_container(container, side);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&own);
            sidecars.add(&own);
            worst.max(&sidecars);
        } else {
            own.add(&sidecars);
            worst.max(&own);
        }
    }
    running.max(&worst);
    let pod_level = spec.resources.as_ref().and_then(|r| match side {
        Side::Requests => r.requests.as_ref(),
        Side::Limits => r.limits.as_ref(),
    });
    for (name, quantity) in pod_level.into_iter().flatten() {
        match name.as_str() {
            "cpu" => running.milli_cpu = milli(quantity),
            "memory" => running.memory = whole(quantity),
            huge if huge.starts_with("hugepages-") => {
                running.extended.insert(huge.to_owned(), whole(quantity));
            }
            _ => {}
        }
    }
    running.add(&Resources::from_list(spec.overhead.as_ref()));
    running.pods = 1;
    running
}

/// What a pod requests, for the whole pod.
#[must_use]
pub fn requests(pod: &Pod) -> Resources {
    pod.spec.as_ref().map(|spec| of_pod(spec, Side::Requests)).unwrap_or_default()
}

/// A quantity in thousandths, rounded up.
#[must_use]
pub fn milli(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 1000)
}

/// A quantity in whole units, rounded up.
#[must_use]
pub fn whole(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 1)
}

/// `text` times `by`, rounded up; 0 when it does not parse, saturating when it is too large.
fn scaled(text: &str, by: i64) -> i64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic() && !is_exponent(text, c)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (numerator, denominator): (f64, f64) = match suffix {
        "" => (1.0, 1.0),
        "n" => (1.0, 1e9),
        "u" => (1.0, 1e6),
        "m" => (1.0, 1e3),
        "k" => (1e3, 1.0),
        "M" => (1e6, 1.0),
        "G" => (1e9, 1.0),
        "T" => (1e12, 1.0),
        "P" => (1e15, 1.0),
        "E" => (1e18, 1.0),
        "Ki" => (1024.0, 1.0),
        "Mi" => (1024.0 * 1024.0, 1.0),
        "Gi" => (1024f64.powi(3), 1.0),
        "Ti" => (1024f64.powi(4), 1.0),
        "Pi" => (1024f64.powi(5), 1.0),
        "Ei" => (1024f64.powi(6), 1.0),
        _ => return 0,
    };
    if let (Ok(int), true) = (number.parse::<i64>(), numerator * (by as f64) < 9e18 && denominator == 1.0) {
        return int.saturating_mul(numerator as i64).saturating_mul(by);
    }
    // Below 2^53 the product of decimals is exact enough that a rounding hair must not become a whole unit.
    let value = number.parse::<f64>().unwrap_or(0.0) * numerator * by as f64 / denominator;
    (value - 1e-9).ceil() as i64
}

/// `e` and `E` are exponents when a digit or sign follows.
fn is_exponent(text: &str, c: char) -> bool {
    (c == 'e' || c == 'E')
        && text
            .split_once(c)
            .is_some_and(|(_, rest)| rest.starts_with(|d: char| d.is_ascii_digit() || d == '-' || d == '+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.to_owned())
    }

    fn container(name: &str, cpu: &str, always: bool) -> Container {
        let mut c = Container { name: name.to_owned(), ..Container::default() };
        c.restart_policy = always.then(|| "Always".to_owned());
        let requests = BTreeMap::from([("cpu".to_owned(), q(cpu))]);
        c.resources = Some(k8s_openapi::api::core::v1::ResourceRequirements {
            requests: Some(requests),
            ..Default::default()
        });
        c
    }

    #[test]
    fn quantities_are_read_in_every_notation() {
        assert_eq!(milli(&q("250m")), 250);
        assert_eq!(milli(&q("0.1")), 100);
        assert_eq!(milli(&q("2")), 2000);
        assert_eq!(whole(&q("1Gi")), 1 << 30);
        assert_eq!(whole(&q("1.5Gi")), 3 << 29);
        assert_eq!(whole(&q("1e3")), 1000);
        assert_eq!(whole(&q("2E")), 2_000_000_000_000_000_000);
        assert_eq!(milli(&q("1n")), 1);
        assert_eq!(whole(&q("nonsense")), 0);
    }

    #[test]
    fn an_init_container_counts_when_it_needs_more_than_the_rest() {
        let spec = PodSpec {
            containers: vec![container("a", "100m", false), container("b", "100m", false)],
            init_containers: Some(vec![container("i", "500m", false)]),
            ..PodSpec::default()
        };
        assert_eq!(of_pod(&spec, Side::Requests).milli_cpu, 500);
    }

    #[test]
    fn a_sidecar_counts_beside_containers_and_beside_later_init_containers() {
        let spec = PodSpec {
            containers: vec![container("a", "100m", false)],
            init_containers: Some(vec![container("s", "200m", true), container("i", "500m", false)]),
            ..PodSpec::default()
        };
        assert_eq!(of_pod(&spec, Side::Requests).milli_cpu, 700);
    }

    #[test]
    fn an_init_container_before_a_sidecar_does_not_pay_for_it() {
        let spec = PodSpec {
            containers: vec![container("a", "100m", false)],
            init_containers: Some(vec![container("i", "250m", false), container("s", "200m", true)]),
            ..PodSpec::default()
        };
        assert_eq!(of_pod(&spec, Side::Requests).milli_cpu, 300);
    }

    #[test]
    fn what_is_lacking_is_named_as_upstream_names_it() {
        let node = Resources { milli_cpu: 1000, memory: 100, pods: 1, ..Resources::default() };
        let used = Resources { milli_cpu: 900, pods: 1, ..Resources::default() };
        let want = Resources {
            milli_cpu: 200,
            extended: BTreeMap::from([("x.io/gpu".to_owned(), 1)]),
            ..Resources::default()
        };
        assert_eq!(
            node.lacking(&used, &want),
            ["Too many pods", "Insufficient cpu", "Insufficient x.io/gpu"]
        );
    }
}
