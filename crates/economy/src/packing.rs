//! Fewest and cheapest machines for a load, placed by the scheduler's core.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{Container, Node, NodeStatus, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use scheduler::{Decision, NodeInfo, PodInfo, Policy, Snapshot, schedule};
use serde::Serialize;

use crate::{Error, GIB, shapes::Shape};

/// Something that runs and what it is given.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Load {
    /// What it is called.
    pub name: String,
    /// vCPUs.
    pub cpu: f64,
    /// Bytes of memory.
    pub memory: f64,
}

/// What a machine keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reserved {
    /// vCPUs.
    pub cpu: f64,
    /// Bytes.
    pub memory: f64,
}

impl Default for Reserved {
    /// The operating system and the node agent: a tenth of a vCPU and 512 MiB.
    fn default() -> Self {
        Self { cpu: 0.1, memory: GIB / 2.0 }
    }
}

/// A machine of the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// What it is.
    pub shape: Shape,
    /// Names of what lies on it.
    pub loads: Vec<String>,
    /// vCPUs given out.
    pub cpu: f64,
    /// Bytes given out.
    pub memory: f64,
}

/// Machines that carry all loads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Packing {
    /// The machines.
    pub machines: Vec<Machine>,
    /// Dollars a month for all of them.
    pub month: f64,
}

/// Packs `loads` on machines of each one shape, and takes the cheapest answer; then the last machine is replaced by the
/// cheapest shape that still holds what lies on it. `least`: at least so many machines.
pub fn cheapest(
    loads: &[Load],
    shapes: &[Shape],
    reserved: Reserved,
    least: usize,
) -> Result<Packing, Error> {
    let answers = shapes.iter().filter_map(|shape| pack(loads, shape, reserved, least));
    let best =
        answers.min_by(|a, b| a.month.total_cmp(&b.month).then(a.machines.len().cmp(&b.machines.len())));
    let Some(mut best) = best else {
        let largest =
            loads.iter().max_by(|a, b| (a.cpu + a.memory / GIB).total_cmp(&(b.cpu + b.memory / GIB)));
        let (name, cpu, memory) =
            largest.map_or((String::new(), 0.0, 0.0), |l| (l.name.clone(), l.cpu, l.memory / GIB));
        return Err(Error::TooLarge { name, cpu, memory });
    };
    for machine in &mut best.machines {
        let mine = (machine.cpu + reserved.cpu, (machine.memory + reserved.memory) / GIB);
        // Machines of one provider and architecture only: a team does not want three clouds to save a dollar.
        let fits = shapes.iter().filter(|s| {
            s.provider == machine.shape.provider
                && s.arch == machine.shape.arch
                && s.vcpu >= mine.0
                && s.memory_gib >= mine.1
        });
        if let Some(smaller) = fits.min_by(|a, b| a.usd_hour.total_cmp(&b.usd_hour))
            && smaller.usd_hour < machine.shape.usd_hour
        {
            machine.shape = smaller.clone();
        }
    }
    best.month = best.machines.iter().map(|m| m.shape.month()).sum();
    Ok(best)
}

/// Machines of one shape, one more whenever a load finds no room, the largest load first. `None`: one load is larger than
/// the shape.
fn pack(loads: &[Load], shape: &Shape, reserved: Reserved, least: usize) -> Option<Packing> {
    let mut order: Vec<&Load> = loads.iter().collect();
    let share = |l: &Load| (l.cpu / shape.vcpu).max(l.memory / GIB / shape.memory_gib);
    order.sort_by(|a, b| share(b).total_cmp(&share(a)).then_with(|| a.name.cmp(&b.name)));
    let mut snapshot = Snapshot::default();
    let mut placed: BTreeMap<String, Vec<&Load>> = BTreeMap::new();
    for _ in 0..least.max(1) {
        add_machine(&mut snapshot, shape, reserved);
    }
    for load in order {
        let pod = pod_of(load);
        let mut decision = schedule(&snapshot, &pod, Policy::Pack);
        if !matches!(decision, Decision::Bind { .. }) {
            add_machine(&mut snapshot, shape, reserved);
            decision = schedule(&snapshot, &pod, Policy::Pack);
        }
        let Decision::Bind { node, .. } = decision else { return None };
        snapshot.nodes.get_mut(&node)?.add(pod);
        placed.entry(node).or_default().push(load);
    }
    let machines: Vec<Machine> = snapshot
        .nodes
        .keys()
        .map(|name| {
            let loads = placed.remove(name).unwrap_or_default();
            Machine {
                shape: shape.clone(),
                cpu: loads.iter().map(|l| l.cpu).sum(),
                memory: loads.iter().map(|l| l.memory).sum(),
                loads: loads.iter().map(|l| l.name.clone()).collect(),
            }
        })
        .collect();
    Some(Packing { month: shape.month() * machines.len() as f64, machines })
}

fn add_machine(snapshot: &mut Snapshot, shape: &Shape, reserved: Reserved) {
    let name = format!("machine-{:04}", snapshot.nodes.len() + 1);
    let milli = ((shape.vcpu - reserved.cpu) * 1000.0).floor().max(0.0);
    let bytes = (shape.memory_gib * GIB - reserved.memory).floor().max(0.0);
    let amount = |text: String| Quantity(text);
    let allocatable = BTreeMap::from([
        ("cpu".to_owned(), amount(format!("{milli:.0}m"))),
        ("memory".to_owned(), amount(format!("{bytes:.0}"))),
        ("pods".to_owned(), amount("110".to_owned())),
    ]);
    let mut node = Node::default();
    node.metadata.name = Some(name.clone());
    node.status = Some(NodeStatus { allocatable: Some(allocatable), ..NodeStatus::default() });
    snapshot.nodes.insert(name, NodeInfo::new(Arc::new(node)));
}

fn pod_of(load: &Load) -> Arc<PodInfo> {
    let requests = BTreeMap::from([
        ("cpu".to_owned(), Quantity(format!("{:.0}m", (load.cpu * 1000.0).ceil()))),
        ("memory".to_owned(), Quantity(format!("{:.0}", load.memory.ceil()))),
    ]);
    let resources = ResourceRequirements { requests: Some(requests), ..ResourceRequirements::default() };
    let container = Container { name: "load".to_owned(), resources: Some(resources), ..Container::default() };
    let mut pod = Pod::default();
    pod.metadata.name = Some(load.name.clone());
    pod.metadata.namespace = Some("plan".to_owned());
    pod.spec = Some(PodSpec { containers: vec![container], ..PodSpec::default() });
    Arc::new(PodInfo::new(Arc::new(pod)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shapes::built_in;

    fn load(name: &str, cpu: f64, gib: f64) -> Load {
        Load { name: name.to_owned(), cpu, memory: gib * GIB }
    }

    #[test]
    fn small_loads_share_one_machine() {
        let loads: Vec<Load> = (0..10).map(|i| load(&format!("l{i}"), 0.1, 0.5)).collect();
        let packing = cheapest(&loads, built_in(), Reserved::default(), 1).unwrap();
        assert_eq!(packing.machines.len(), 1);
    }

    #[test]
    fn a_load_that_fits_nowhere_is_named() {
        let error = cheapest(&[load("huge", 999.0, 1.0)], built_in(), Reserved::default(), 1).unwrap_err();
        assert!(error.to_string().starts_with("huge needs 999.0 vCPU"));
    }

    #[test]
    fn a_least_number_of_machines_is_kept() {
        let packing = cheapest(&[load("a", 0.1, 0.5)], built_in(), Reserved::default(), 2).unwrap();
        assert_eq!(packing.machines.len(), 2);
    }

    proptest! {
        #[test]
        fn every_load_lies_on_one_machine_that_holds_it(sizes in prop::collection::vec((0.05..3.0f64, 0.1..6.0f64), 1..30)) {
            let loads: Vec<Load> = sizes.iter().enumerate().map(|(i, (c, m))| load(&format!("l{i}"), *c, *m)).collect();
            let packing = cheapest(&loads, built_in(), Reserved::default(), 1).unwrap();
            let mut names: Vec<&String> = packing.machines.iter().flat_map(|m| &m.loads).collect();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), loads.len());
            for machine in &packing.machines {
                prop_assert!(machine.cpu <= machine.shape.vcpu);
                prop_assert!(machine.memory <= machine.shape.memory_gib * GIB);
            }
        }
    }
}
