//! `plim why`: one answer over the whole chain, with the command that mends it.
//!
//! `read` gathers what the cluster knows; [`diagnose`] is pure and says what it means.

mod diagnose;
mod read;

use anyhow::Result;
use clap::Args;

use crate::{client, data::Data, output::Output};

pub use diagnose::{Evidence, Finding, diagnose};

/// Shown by `plim why --help`.
pub const EXAMPLES: &str = "Examples:\n  plim why web              a workload, a service or a pod\n  plim why orders -n shop -o json";

/// Why something does not run, or does not answer.
#[derive(Args, Debug)]
pub struct Why {
    /// A workload, a service or a pod.
    name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    output: Output,
}

impl Why {
    /// Prints the answer; exits with 1 if something is wrong.
    pub fn run(self, data: &Data) -> Result<u8> {
        let evidence =
            client::with(data, async |client| read::read(&client, &self.namespace, &self.name).await)?;
        let findings = diagnose(&evidence);
        let healthy = findings.iter().all(|f| f.good);
        self.output.print(&findings, |f| f.iter().map(|f| f.stage.to_owned()).collect(), |f, _| text(f))?;
        Ok(u8::from(!healthy))
    }
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = if finding.good { '✔' } else { '✘' };
        out.push_str(&format!("{mark} {:<11} {}\n", finding.stage, finding.what));
        for line in &finding.details {
            out.push_str(&format!("              {line}\n"));
        }
        if let Some(next) = &finding.next {
            out.push_str(&format!("              → {next}\n"));
        }
    }
    out
}
