//! What runs, what it was given, what it used, and what that costs.
//!
//! Every dollar of the machines is booked once: to a workload (the larger of what it requests and uses), to the system,
//! or to idleness. The lines add up to the price of the machines.

use serde::Serialize;

use crate::{
    GIB, HOURS,
    packing::Reserved,
    plan::Saver,
    shapes::{self, Shape},
};

/// The machines that are paid for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// vCPUs of all machines.
    pub cpu: f64,
    /// Bytes of all machines.
    pub memory: f64,
    /// Dollars an hour for all of them.
    pub usd_hour: f64,
}

/// One workload: all replicas together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    /// `namespace/name`
    pub name: String,
    /// Pods.
    pub replicas: u32,
    /// vCPUs requested.
    pub requested_cpu: f64,
    /// Bytes requested.
    pub requested_memory: f64,
    /// vCPUs used.
    pub used_cpu: f64,
    /// Bytes used.
    pub used_memory: f64,
}

/// A workload's line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What it is about.
    pub workload: Workload,
    /// Dollars a month: the larger of request and use, at the fleet's prices.
    pub month: f64,
    /// Dollars of it that nothing used.
    pub unused: f64,
    /// The smallest machine of the catalogue that would carry a replica alone, and what all replicas would cost so.
    pub vm: Option<(String, f64)>,
}

/// The ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    /// Workloads, the dearest first.
    pub lines: Vec<Line>,
    /// Dollars a month for what no workload was given.
    pub idle: f64,
    /// Dollars a month for all machines: lines and idle together, unless more is requested and used than there is.
    pub month: f64,
    /// Dollars a month for one VM a replica.
    pub vm_month: f64,
    /// The three changes that save most.
    pub savers: Vec<Saver>,
}

/// A request is this much above use before it is called too large.
const HEADROOM: f64 = 1.3;

/// Books everything. `os`: what the operating system of a VM of one's own would take.
#[must_use]
pub fn book(fleet: &Fleet, workloads: Vec<Workload>, catalogue: &[Shape], os: Reserved) -> Ledger {
    let (cpu_hour, gib_hour) = shapes::split(fleet.usd_hour, fleet.cpu, fleet.memory / GIB);
    let price = |cpu: f64, memory: f64| (cpu * cpu_hour + memory / GIB * gib_hour) * HOURS;
    let mut given = (0.0, 0.0);
    let mut lines: Vec<Line> = workloads
        .into_iter()
        .map(|w| {
            let (cpu, memory) = (w.requested_cpu.max(w.used_cpu), w.requested_memory.max(w.used_memory));
            given.0 += cpu;
            given.1 += memory;
            let month = price(cpu, memory);
            Line {
                month,
                unused: month - price(w.used_cpu, w.used_memory),
                vm: own_vm(&w, catalogue, os),
                workload: w,
            }
        })
        .collect();
    lines.sort_by(|a, b| b.month.total_cmp(&a.month).then_with(|| a.workload.name.cmp(&b.workload.name)));
    let idle = price((fleet.cpu - given.0).max(0.0), (fleet.memory - given.1).max(0.0));
    let mut savers: Vec<Saver> = lines.iter().filter_map(|line| right_size(line, &price)).collect();
    if idle > 0.0 {
        savers.push(Saver { what: "use smaller or fewer machines for what is idle".to_owned(), month: idle });
    }
    savers.sort_by(|a, b| b.month.total_cmp(&a.month));
    savers.truncate(3);
    Ledger {
        month: fleet.usd_hour * HOURS,
        vm_month: lines.iter().filter_map(|l| l.vm.as_ref()).map(|(_, month)| month).sum(),
        lines,
        idle,
        savers,
    }
}

fn own_vm(workload: &Workload, catalogue: &[Shape], os: Reserved) -> Option<(String, f64)> {
    let replicas = f64::from(workload.replicas.max(1));
    let cpu = workload.requested_cpu.max(workload.used_cpu) / replicas + os.cpu;
    let memory = (workload.requested_memory.max(workload.used_memory) / replicas + os.memory) / GIB;
    let fits = catalogue.iter().filter(|s| s.vcpu >= cpu && s.memory_gib >= memory);
    let shape = fits.min_by(|a, b| a.usd_hour.total_cmp(&b.usd_hour))?;
    Some((shape.name.clone(), shape.month() * replicas))
}

fn right_size(line: &Line, price: &dyn Fn(f64, f64) -> f64) -> Option<Saver> {
    let w = &line.workload;
    let cpu = w.requested_cpu.min(w.used_cpu * HEADROOM);
    let memory = w.requested_memory.min(w.used_memory * HEADROOM);
    let month = price(w.requested_cpu - cpu, w.requested_memory - memory);
    let what = format!(
        "{}: request {:.0}m CPU and {:.0} MiB instead of {:.0}m and {:.0} MiB",
        w.name,
        cpu * 1000.0,
        memory / GIB * 1024.0,
        w.requested_cpu * 1000.0,
        w.requested_memory / GIB * 1024.0
    );
    (month > 0.0).then_some(Saver { what, month })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::built_in;

    fn workload(name: &str, requested: (f64, f64), used: (f64, f64)) -> Workload {
        Workload {
            name: name.to_owned(),
            replicas: 1,
            requested_cpu: requested.0,
            requested_memory: requested.1 * GIB,
            used_cpu: used.0,
            used_memory: used.1 * GIB,
        }
    }

    #[test]
    fn every_dollar_of_the_machines_is_booked_once() {
        let fleet = Fleet { cpu: 4.0, memory: 16.0 * GIB, usd_hour: 0.2 };
        let workloads = vec![workload("a", (1.0, 2.0), (0.1, 3.0)), workload("b", (0.5, 1.0), (0.5, 0.2))];
        let ledger = book(&fleet, workloads, built_in(), Reserved::default());
        let booked: f64 = ledger.lines.iter().map(|l| l.month).sum::<f64>() + ledger.idle;
        assert!((booked - ledger.month).abs() < 1e-9);
        assert_eq!(ledger.lines[0].workload.name, "a");
    }

    #[test]
    fn the_largest_saving_comes_first() {
        let fleet = Fleet { cpu: 4.0, memory: 8.0 * GIB, usd_hour: 0.2 };
        let ledger =
            book(&fleet, vec![workload("fat", (3.5, 7.0), (0.1, 0.5))], built_in(), Reserved::default());
        assert!(ledger.savers[0].what.starts_with("fat: request 130m CPU"));
        assert!(ledger.savers.windows(2).all(|w| w[0].month >= w[1].month));
    }
}
