//! Pod Security Standards: what a pod may ask for at each level, as of each version.
//!
//! Pure: a pod and a level in, what is forbidden out. The plugin that asks is `admission::PodSecurity`.
//!
//! Reading order: this file (levels, versions, a namespace's policy) → [`checks`] (the table of checks) → [`baseline`],
//! [`restricted`] (the checks).
//!
//! Source: `k8s.io/pod-security-admission`.

mod baseline;
mod checks;
mod pod;
mod restricted;

use std::fmt;

use apimachinery::{FieldError, FieldPath};
use serde_json::Value;

pub use checks::{Violation, evaluate};

/// How much a pod may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything.
    Privileged,
    /// Nothing that is known to give away the host.
    Baseline,
    /// Only what a hardened workload needs.
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }
}

/// The version of the standards: minors of v1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.N`
    Minor(u32),
    /// The newest that is known.
    Latest,
}

impl Version {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "must be \"latest\" or \"v1.x\"";
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let digits = text.strip_prefix("v1.").ok_or(WRONG)?;
        let plain =
            digits.bytes().all(|b| b.is_ascii_digit()) && (digits.len() == 1 || !digits.starts_with('0'));
        digits.parse().ok().filter(|_| plain).map(Self::Minor).ok_or(WRONG)
    }
}

/// A level as of a version; printed as `baseline:v1.25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// How much.
    pub level: Level,
    /// As of when.
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
            Version::Latest => write!(f, "{level}:latest"),
        }
    }
}

/// What a namespace wants of its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pods beyond it are refused.
    pub enforce: Standard,
    /// Pods beyond it are noted in the audit log.
    pub audit: Standard,
    /// Writers of pods beyond it are warned.
    pub warn: Standard,
}

impl Policy {
    /// The policy that the labels of a namespace ask for, and what is wrong with them. A level that cannot be read is
    /// the strictest to be enforced, the laxest to be noted or warned for.
    #[must_use]
    pub fn of_labels(labels: &Value) -> (Self, Vec<FieldError>) {
        let mut errors = Vec::new();
        let open = Standard { level: Level::Privileged, version: Version::Latest };
        let (mut standards, mut given) = ([open; 3], [(false, false); 3]);
        for (index, mode) in ["enforce", "audit", "warn"].into_iter().enumerate() {
            let label = format!("pod-security.kubernetes.io/{mode}");
            let mut wrong = |label: &str, value: &str, why: &str| {
                let path = FieldPath::from("metadata.labels").key(label);
                errors.push(FieldError::invalid(&path, value, why));
            };
            if let Some(value) = labels.get(&label).and_then(Value::as_str) {
                match Level::parse(value) {
                    Ok(level) => {
                        standards[index].level = level;
                        given[index].0 = true;
                    }
                    Err(why) => {
                        standards[index].level =
                            if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                        // A warning that cannot be read is not made up from what is enforced.
                        given[index].0 = mode == "warn";
                        wrong(&label, value, why);
                    }
                }
            }
            let label = format!("{label}-version");
            if let Some(value) = labels.get(&label).and_then(Value::as_str) {
                given[index].1 = true;
                match Version::parse(value) {
                    Ok(version) => standards[index].version = version,
                    Err(why) => wrong(&label, value, why),
                }
            }
        }
        let [enforce, audit, mut warn] = standards;
        if !given[2].0 && given[0].0 && enforce.level > warn.level {
            warn.level = enforce.level;
            if !given[2].1 {
                warn.version = enforce.version;
            }
        }
        (Self { enforce, audit, warn }, errors)
    }

    /// Nothing is asked of pods.
    #[must_use]
    pub fn is_open(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|standard| standard.level == Level::Privileged)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_enforced_is_warned_for_unless_the_namespace_says_otherwise() {
        let (policy, errors) = Policy::of_labels(&json!({
            "pod-security.kubernetes.io/enforce": "baseline",
            "pod-security.kubernetes.io/enforce-version": "v1.25",
        }));
        assert!(errors.is_empty());
        assert_eq!(policy.warn.to_string(), "baseline:v1.25");
        assert_eq!(policy.audit.to_string(), "privileged:latest");
        let (policy, _) = Policy::of_labels(&json!({
            "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "privileged",
        }));
        assert_eq!(policy.warn.to_string(), "privileged:latest");
    }

    #[test]
    fn labels_that_cannot_be_read_close_the_door_and_are_told() {
        let (policy, errors) = Policy::of_labels(&json!({
            "pod-security.kubernetes.io/enforce": "open", "pod-security.kubernetes.io/audit-version": "v1.01",
        }));
        assert_eq!(policy.enforce.to_string(), "restricted:latest");
        assert_eq!(policy.warn.to_string(), "privileged:latest");
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"open\": must be one of \
                 privileged, baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"v1.01\": must be \
                 \"latest\" or \"v1.x\"",
            ]
        );
    }
}
