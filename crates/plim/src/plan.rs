//! `plim plan`: the receipt before moving.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use economy::{
    GIB,
    plan::{self, Assumptions},
    shapes::{self, Shape},
};

/// Shown by `plim plan --help`.
pub const EXAMPLES: &str = "Examples:\n  plim plan --from-vms examples/vms.csv\n  plim plan --from-vms vms.csv --provider gcp --machines 2 -o json\n\nThe file is CSV; its first line names the columns:\n  name,vcpu,memory_gib,used_cpu,used_memory_gib,usd_month";

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What a list of VMs costs, and which machines would carry the same load.
#[derive(Args, Debug)]
pub struct Plan {
    /// The list of VMs, CSV.
    #[arg(long, value_name = "FILE")]
    from_vms: PathBuf,
    /// A catalogue of machine shapes instead of the built-in one, CSV of the same columns.
    #[arg(long, value_name = "FILE")]
    shapes: Option<PathBuf>,
    /// Only machines of this provider.
    #[arg(long)]
    provider: Option<String>,
    /// At least so many machines, to survive the loss of one.
    #[arg(long, default_value_t = 1)]
    machines: usize,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Plan {
    /// Reads, plans, prints.
    pub fn run(self) -> Result<()> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let vms = plan::read_vms(&read(&self.from_vms)?, &self.from_vms.display().to_string())?;
        let mut catalogue: Vec<Shape> = match &self.shapes {
            Some(path) => shapes::read(&read(path)?, &path.display().to_string())?,
            None => shapes::built_in().to_vec(),
        };
        if let Some(provider) = &self.provider {
            let mut known: Vec<String> = catalogue.iter().map(|s| s.provider.clone()).collect();
            known.sort();
            known.dedup();
            catalogue.retain(|s| s.provider == *provider);
            anyhow::ensure!(
                !catalogue.is_empty(),
                "no shapes of {provider:?}: there are {}",
                known.join(", ")
            );
        }
        let assumptions = Assumptions { least_machines: self.machines, ..Assumptions::default() };
        let plan = plan::plan(&vms, &catalogue, assumptions)?;
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(&plan)?),
            Output::Yaml => print!("{}", serde_yaml_ng::to_string(&plan)?),
            Output::Text => print!("{}", text(&plan)),
        }
        Ok(())
    }
}

fn text(plan: &plan::Plan) -> String {
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let mut lines = vec![
        format!(
            "{} VMs, {} of their CPU and {} of their memory busy: ${:.0} a month",
            plan.vms,
            percent(plan.cpu_busy),
            percent(plan.memory_busy),
            plan.month_now
        ),
        format!("  {:.1} GiB of it only run {} operating systems", plan.os_memory / GIB, plan.vms),
        String::new(),
        format!(
            "{} machine(s) carry the same load: ${:.0} a month",
            plan.packing.machines.len(),
            plan.packing.month
        ),
    ];
    for machine in &plan.packing.machines {
        lines.push(format!(
            "  {:<12} {:<16} {:>3} services  {:>4.1} of {:.0} vCPU  {:>5.1} of {:.0} GiB  ${:.0}",
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
    lines.push(String::new());
    let share = if plan.month_now > 0.0 { plan.saved / plan.month_now } else { 0.0 };
    lines.push(format!("Saved: ${:.0} a month ({})", plan.saved, percent(share)));
    lines.push("Idle today, dearest first:".to_owned());
    for saver in &plan.savers {
        lines.push(format!("  ${:>5.0}  {}", saver.month, saver.what));
    }
    let a = &plan.assumptions;
    lines.push(format!(
        "Assumed: an operating system takes {:.2} vCPU and {:.0} MiB; services get {} x the CPU and {} x the memory they used;",
        a.os_cpu,
        a.os_memory / GIB * 1024.0,
        a.cpu_headroom,
        a.memory_headroom
    ));
    let dates: Vec<&str> = plan.packing.machines.iter().map(|m| m.shape.read.as_str()).collect();
    lines.push(format!("list prices on demand, read {}.", dates.iter().min().unwrap_or(&"")));
    lines.join("\n") + "\n"
}
