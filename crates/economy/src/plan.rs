//! The receipt before moving: what a list of VMs costs, and what carries the same load.

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    Error, GIB,
    packing::{self, Load, Packing, Reserved},
    shapes::Shape,
};

/// The columns of the list.
pub const COLUMNS: &str = "name, vcpu, memory_gib, used_cpu, used_memory_gib, usd_month";

/// One VM as it is today.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// vCPUs paid for.
    pub vcpu: f64,
    /// Bytes of memory paid for.
    pub memory: f64,
    /// vCPUs used (at the busy hour: what has to be carried).
    pub used_cpu: f64,
    /// Bytes of memory used, the operating system's included.
    pub used_memory: f64,
    /// Dollars a month.
    pub month: f64,
}

/// What is assumed. Every number of it is printed with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Assumptions {
    /// vCPUs that the operating system of every VM uses.
    pub os_cpu: f64,
    /// Bytes that it uses: they need not be carried over.
    pub os_memory: f64,
    /// CPU given to a service, as a multiple of what it used.
    pub cpu_headroom: f64,
    /// Memory given to a service, as a multiple of what it used.
    pub memory_headroom: f64,
    /// Kept by each new machine.
    pub reserved: Reserved,
    /// Machines at least.
    pub least_machines: usize,
}

impl Default for Assumptions {
    /// A Debian system at rest takes some 256 MiB and 2 % of a CPU; half as much CPU again and a quarter more memory are
    /// left to each service above its busy hour.
    fn default() -> Self {
        Self {
            os_cpu: 0.02,
            os_memory: GIB / 4.0,
            cpu_headroom: 1.5,
            memory_headroom: 1.25,
            reserved: Reserved::default(),
            least_machines: 1,
        }
    }
}

/// The receipt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// VMs today.
    pub vms: usize,
    /// Dollars a month today.
    pub month_now: f64,
    /// Share of the paid CPU in use, 0 to 1.
    pub cpu_busy: f64,
    /// Share of the paid memory in use, 0 to 1.
    pub memory_busy: f64,
    /// Bytes that only operating systems use today.
    pub os_memory: f64,
    /// What carries the same load.
    pub packing: Packing,
    /// Dollars saved a month; negative when moving would cost more.
    pub saved: f64,
    /// The three VMs whose unused part costs most.
    pub savers: Vec<Saver>,
    /// What was assumed.
    pub assumptions: Assumptions,
}

/// A change and what it saves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Saver {
    /// What to do.
    pub what: String,
    /// Dollars a month.
    pub month: f64,
}

/// Reads a CSV list of VMs whose first line names the columns, in any order.
pub fn read_vms(text: &str, file: &str) -> Result<Vec<Vm>, Error> {
    let mut reader =
        csv::ReaderBuilder::new().comment(Some(b'#')).trim(csv::Trim::All).from_reader(text.as_bytes());
    let bad = |e: &csv::Error| Error::Line {
        file: file.to_owned(),
        line: e.position().map_or(0, csv::Position::line),
        why: e.to_string(),
    };
    let headers = reader.headers().map_err(|e| bad(&e))?.clone();
    let places: HashMap<&str, usize> = headers.iter().enumerate().map(|(i, h)| (h, i)).collect();
    let at = |column: &'static str| {
        places.get(column).copied().ok_or(Error::Column { file: file.to_owned(), column, expected: COLUMNS })
    };
    let name = at("name")?;
    let numbers = [at("vcpu")?, at("memory_gib")?, at("used_cpu")?, at("used_memory_gib")?, at("usd_month")?];
    let mut vms = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| bad(&e))?;
        let line = row.position().map_or(0, csv::Position::line);
        let mut values = [0.0; 5];
        for (value, place) in values.iter_mut().zip(numbers) {
            let text = row.get(place).unwrap_or_default();
            let wrong = || Error::Line {
                file: file.to_owned(),
                line,
                why: format!("{}: {text:?} is not a number of 0 or more", &headers[place]),
            };
            *value = text.parse::<f64>().ok().filter(|v| v.is_finite() && *v >= 0.0).ok_or_else(wrong)?;
        }
        let [vcpu, memory, used_cpu, used_memory, month] = values;
        vms.push(Vm {
            name: row.get(name).unwrap_or_default().to_owned(),
            vcpu,
            memory: memory * GIB,
            used_cpu,
            used_memory: used_memory * GIB,
            month,
        });
    }
    if vms.is_empty() { Err(Error::Empty(file.to_owned())) } else { Ok(vms) }
}

/// Makes the receipt.
pub fn plan(vms: &[Vm], shapes: &[Shape], assumptions: Assumptions) -> Result<Plan, Error> {
    let loads: Vec<Load> = vms.iter().enumerate().map(|(i, vm)| load_of(i, vm, &assumptions)).collect();
    let packing = packing::cheapest(&loads, shapes, assumptions.reserved, assumptions.least_machines)?;
    let sum = |of: fn(&Vm) -> f64| vms.iter().map(of).sum::<f64>();
    let share = |used: f64, paid: f64| if paid > 0.0 { used / paid } else { 0.0 };
    let month_now = sum(|v| v.month);
    let mut savers: Vec<Saver> = vms.iter().map(unused).collect();
    savers.sort_by(|a, b| b.month.total_cmp(&a.month));
    savers.truncate(3);
    Ok(Plan {
        vms: vms.len(),
        month_now,
        cpu_busy: share(sum(|v| v.used_cpu), sum(|v| v.vcpu)),
        memory_busy: share(sum(|v| v.used_memory), sum(|v| v.memory)),
        os_memory: assumptions.os_memory * vms.len() as f64,
        saved: month_now - packing.month,
        packing,
        savers,
        assumptions,
    })
}

fn load_of(index: usize, vm: &Vm, assumptions: &Assumptions) -> Load {
    let cpu = (vm.used_cpu - assumptions.os_cpu).max(0.01) * assumptions.cpu_headroom;
    let memory = (vm.used_memory - assumptions.os_memory).max(GIB / 32.0) * assumptions.memory_headroom;
    // Two VMs may have one name.
    Load { name: format!("{:03}-{}", index + 1, vm.name), cpu, memory }
}

fn unused(vm: &Vm) -> Saver {
    let share = |used: f64, paid: f64| if paid > 0.0 { (used / paid).min(1.0) } else { 1.0 };
    let busy = share(vm.used_cpu, vm.vcpu).max(share(vm.used_memory, vm.memory));
    Saver {
        what: format!(
            "{}: pays for {:.0} vCPU and {:.0} GiB, uses {:.1} and {:.1}",
            vm.name,
            vm.vcpu,
            vm.memory / GIB,
            vm.used_cpu,
            vm.used_memory / GIB
        ),
        month: vm.month * (1.0 - busy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::built_in;

    const LIST: &str = "name,vcpu,memory_gib,used_cpu,used_memory_gib,usd_month\n\
        web,2,8,0.1,1.2,70.08\napi,4,16,0.3,2.5,140.16\ndb,4,16,0.8,6,140.16\n";

    #[test]
    fn idle_vms_become_one_machine() {
        let vms = read_vms(LIST, "vms.csv").unwrap();
        let plan = plan(&vms, built_in(), Assumptions::default()).unwrap();
        assert_eq!(plan.vms, 3);
        assert_eq!(plan.packing.machines.len(), 1);
        assert!((plan.cpu_busy - 0.12).abs() < 0.001);
        assert!((plan.month_now - plan.packing.month - plan.saved).abs() < 1e-9);
        assert!(plan.saved > 0.0);
        assert_eq!(plan.savers.len(), 3);
    }

    #[test]
    fn a_bad_number_is_told_with_its_line() {
        let error = read_vms(&LIST.replace("0.3", "much"), "vms.csv").unwrap_err();
        assert_eq!(error.to_string(), "vms.csv:3: used_cpu: \"much\" is not a number of 0 or more");
    }

    #[test]
    fn a_missing_column_is_named() {
        let error = read_vms("name,vcpu\nx,1\n", "vms.csv").unwrap_err();
        assert!(error.to_string().contains("\"memory_gib\" is missing"));
    }

    #[test]
    fn an_empty_list_is_refused() {
        let header = LIST.lines().next().unwrap();
        assert!(matches!(read_vms(header, "vms.csv"), Err(Error::Empty(_))));
    }
}
