//! Flags of the audit log, named as kube-apiserver's.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use apiserver::{Audit, Log, Policy, Rotation};
use clap::Args;

const MEGABYTE: u64 = 1 << 20;

/// What is told of requests, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Audit log")]
pub struct AuditFlags {
    /// File with the policy: of which requests how much is told.
    #[arg(long, value_name = "FILE")]
    audit_policy_file: Option<PathBuf>,
    /// File that events are appended to; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    audit_log_path: Option<PathBuf>,
    /// Megabytes after which a new file is begun; 0: never.
    #[arg(long, default_value_t = 100, value_name = "MB")]
    audit_log_maxsize: u32,
    /// How many old files stay; 0: all.
    #[arg(long, default_value_t = 100, value_name = "N")]
    audit_log_maxbackup: u32,
    /// For how many days old files stay; 0: for ever.
    #[arg(long, default_value_t = 366, value_name = "DAYS")]
    audit_log_maxage: u32,
    /// Compress old files.
    #[arg(long)]
    audit_log_compress: bool,
}

impl AuditFlags {
    /// Reads the policy, so that what is wrong with it is told at once.
    pub fn check(&self) -> Result<()> {
        self.policy().map(|_| ())
    }

    fn policy(&self) -> Result<Option<Policy>> {
        let Some(file) = &self.audit_policy_file else { return Ok(None) };
        let told = || format!("--audit-policy-file {}", file.display());
        let text = std::fs::read_to_string(file).with_context(told)?;
        Policy::parse(&text).map(Some).map_err(anyhow::Error::msg).with_context(told)
    }

    /// Begins the log, if there is to be one: it takes a policy and a path.
    pub fn open(&self) -> Result<Option<Arc<Audit>>> {
        let (policy, path) = match (self.policy()?, &self.audit_log_path) {
            (Some(policy), Some(path)) => (policy, path),
            (None, None) => return Ok(None),
            (None, Some(_)) => {
                tracing::warn!("no audit policy file is given: no events will be recorded");
                return Ok(None);
            }
            (Some(_), None) => {
                tracing::warn!("no audit log path is given: no events will be recorded");
                return Ok(None);
            }
        };
        let log = if path.as_os_str() == "-" {
            Log::to(Box::new(std::io::stdout()))
        } else {
            let rotation = Rotation {
                size: u64::from(self.audit_log_maxsize) * MEGABYTE,
                backups: self.audit_log_maxbackup as usize,
                days: self.audit_log_maxage,
                compress: self.audit_log_compress,
            };
            Log::to_file(path, rotation)
        };
        let log = log.with_context(|| format!("--audit-log-path {}", path.display()))?;
        Ok(Some(Audit::new(policy, log)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        audit: AuditFlags,
    }

    fn flags(arguments: &[&str]) -> AuditFlags {
        Cli::parse_from([&["x"][..], arguments].concat()).audit
    }

    #[test]
    fn a_log_takes_a_policy_and_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (policy, log) = (file("policy.yaml"), file("log/audit.log"));
        let text = "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
        std::fs::write(&policy, text).unwrap();
        assert!(flags(&[]).open().unwrap().is_none());
        assert!(flags(&["--audit-policy-file", &policy]).open().unwrap().is_none());
        assert!(flags(&["--audit-log-path", &log]).open().unwrap().is_none());
        let both = flags(&["--audit-policy-file", &policy, "--audit-log-path", &log]);
        assert!(both.open().unwrap().is_some());
        assert!(std::path::Path::new(&log).exists());
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_told_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.yaml").display().to_string();
        assert!(flags(&["--audit-policy-file", &policy]).check().is_err(), "it is not there");
        std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{}]}").unwrap();
        let error = flags(&["--audit-policy-file", &policy]).check().unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            format!("--audit-policy-file {policy}: rules[0].level: Required value")
        );
    }
}
