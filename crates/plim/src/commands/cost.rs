//! `plim cost`: what runs, what it was given, what it used, and what that costs.

use anyhow::{Context, Result, ensure};
use clap::Args;
use economy::{
    GIB,
    ledger::{self, Fleet, Ledger},
    packing::{self, Load, Packing, Reserved},
    plan::Assumptions,
    shapes::{self, Shape},
};
use serde::Serialize;

use crate::{
    client,
    commands::top::{self, Loads, cores},
    data::Data,
    output::{Output, Table, bytes},
};

/// Shown by `plim cost --help`.
pub const EXAMPLES: &str = "Examples:\n  plim cost\n  plim cost --usd-month 39 -n shop      what you really pay for this machine\n  plim cost --provider aws -o json";

/// What runs and what it costs.
#[derive(Args, Debug)]
pub struct Cost {
    /// Only workloads of this namespace; the rest of the machines counts as idle.
    #[arg(short, long)]
    namespace: Option<String>,
    /// What all machines together cost a month, in US dollars; the list price of a like shape when left out.
    #[arg(long)]
    usd_month: Option<f64>,
    /// Compare with machines of this provider only.
    #[arg(long)]
    provider: Option<String>,
    /// A catalogue of machine shapes instead of the built-in one, CSV of the same columns.
    #[arg(long, value_name = "FILE")]
    shapes: Option<std::path::PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// The receipt of what runs.
#[derive(Serialize)]
struct Receipt {
    /// Where the price of the machines comes from.
    price_from: String,
    /// Every dollar, booked once.
    ledger: Ledger,
    /// Machines that would carry what is used now, with headroom.
    packing: Packing,
    /// What each service on a VM of its own would cost a month.
    vm_month: f64,
}

impl Cost {
    /// Reads, books, prints.
    pub fn run(self, data: &Data) -> Result<()> {
        let mut catalogue: Vec<Shape> = match &self.shapes {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                shapes::read(&text, &path.display().to_string())?
            }
            None => shapes::built_in().to_vec(),
        };
        if let Some(provider) = &self.provider {
            catalogue.retain(|s| s.provider == *provider);
            ensure!(!catalogue.is_empty(), "no shapes of {provider:?} in the catalogue");
        }
        let loads = client::with(data, async |client| top::read(&client).await)?;
        ensure!(!loads.nodes.is_empty(), "the cluster has no nodes: `plim status` shows it");
        let receipt = self.receipt(&loads, &catalogue)?;
        self.output.print(
            &receipt,
            |r| r.ledger.lines.iter().map(|l| l.workload.name.clone()).collect(),
            |r, _| text(r),
        )
    }

    fn receipt(&self, loads: &Loads, catalogue: &[Shape]) -> Result<Receipt> {
        let sum = |of: fn(&top::NodeLoad) -> f64| loads.nodes.iter().map(of).sum::<f64>();
        let (cpu, memory) = (sum(|n| n.cpu), sum(|n| n.memory));
        let (usd_month, price_from) = match self.usd_month {
            Some(month) => (month, "as given by --usd-month".to_owned()),
            None => list_price(loads, catalogue)?,
        };
        let mine = |l: &&top::Load| self.namespace.as_ref().is_none_or(|n| l.workload.namespace == *n);
        let workloads = loads.workloads.iter().filter(mine).map(|l| ledger::Workload {
            name: format!("{}/{}", l.workload.namespace, l.workload.name),
            replicas: l.pods,
            requested_cpu: l.requested_cpu,
            requested_memory: l.requested_memory,
            used_cpu: l.used_cpu,
            used_memory: l.used_memory,
        });
        let assumed = Assumptions::default();
        let fleet = Fleet { cpu, memory, usd_hour: usd_month / economy::HOURS };
        let own_system = Reserved { cpu: assumed.os_cpu, memory: assumed.os_memory };
        let ledger = ledger::book(&fleet, workloads.collect(), catalogue, own_system);
        let used: Vec<Load> = loads
            .workloads
            .iter()
            .filter(mine)
            .flat_map(|l| {
                let pods = f64::from(l.pods.max(1));
                let one = (
                    l.used_cpu / pods * assumed.cpu_headroom,
                    l.used_memory / pods * assumed.memory_headroom,
                );
                (0..l.pods).map(move |i| Load {
                    name: format!("{}/{}-{i}", l.workload.namespace, l.workload.name),
                    cpu: one.0,
                    memory: one.1,
                })
            })
            .collect();
        let packing = packing::cheapest(&used, catalogue, assumed.reserved, 1)?;
        Ok(Receipt { price_from, vm_month: ledger.vm_month, ledger, packing })
    }
}

/// The list price of the smallest shapes that are as large as the nodes, each.
fn list_price(loads: &Loads, catalogue: &[Shape]) -> Result<(f64, String)> {
    let mut month = 0.0;
    let mut names = Vec::new();
    for node in &loads.nodes {
        // A kernel keeps some memory: a machine sold with 8 GiB shows 7.8.
        let fits =
            catalogue.iter().filter(|s| s.vcpu >= node.cpu && s.memory_gib * 1.04 >= node.memory / GIB);
        let shape = fits.min_by(|a, b| a.usd_hour.total_cmp(&b.usd_hour)).with_context(|| {
            format!(
                "no shape of the catalogue is as large as node {} ({:.0} vCPU, {:.0} GiB): give its price with --usd-month",
                node.name,
                node.cpu,
                node.memory / GIB
            )
        })?;
        month += shape.month();
        names.push(format!("{} {}", shape.provider, shape.name));
    }
    names.dedup();
    Ok((month, format!("list price of {}", names.join(", "))))
}

fn text(receipt: &Receipt) -> String {
    let ledger = &receipt.ledger;
    let mut table = Table::new(&[
        "WORKLOAD",
        "PODS",
        "CPU ASKED/USED",
        "MEMORY ASKED/USED",
        "$/MONTH",
        "UNUSED",
        "OWN VMS",
    ]);
    for line in &ledger.lines {
        let w = &line.workload;
        table.row([
            w.name.clone(),
            w.replicas.to_string(),
            format!("{}/{}", cores(w.requested_cpu), cores(w.used_cpu)),
            format!("{}/{}", bytes(w.requested_memory), bytes(w.used_memory)),
            format!("{:.2}", line.month),
            format!("{:.2}", line.unused),
            line.vm.as_ref().map_or("-".to_owned(), |(name, month)| format!("{month:.0} ({name})")),
        ]);
    }
    table.row(["(idle)", "", "", "", &format!("{:.2}", ledger.idle), "", ""].into_iter().map(str::to_owned));
    let mut lines = vec![
        table.to_string(),
        format!("This cluster: ${:.0} a month ({}).", ledger.month, receipt.price_from),
        format!("One VM for each replica: ${:.0} a month.", receipt.vm_month),
        format!("What is used now, with headroom, fits on: ${:.0} a month", receipt.packing.month),
    ];
    for machine in &receipt.packing.machines {
        lines.push(format!(
            "  {} {}  {} pods, {:.1} of {:.0} vCPU, {:.1} of {:.0} GiB  ${:.0}",
            machine.shape.provider,
            machine.shape.name,
            machine.loads.len(),
            machine.cpu,
            machine.shape.vcpu,
            machine.memory / GIB,
            machine.shape.memory_gib,
            machine.shape.month()
        ));
    }
    if !ledger.savers.is_empty() {
        lines.push("What would save most:".to_owned());
        lines.extend(ledger.savers.iter().map(|s| format!("  ${:>6.2}  {}", s.month, s.what)));
    }
    lines.join("\n") + "\n"
}
