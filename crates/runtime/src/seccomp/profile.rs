//! The JSON of a profile: OCI's `LinuxSeccomp`, with Docker's conditions on capabilities.

use serde::Deserialize;

use super::Error;
use crate::capability;

/// A profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// For calls that no rule names.
    pub default_action: Action,
    /// Its error number.
    #[serde(default)]
    pub default_errno_ret: Option<u16>,
    /// Rules.
    #[serde(default)]
    pub syscalls: Vec<Rule>,
}

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Action {
    /// It is made.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It fails.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// The thread ends.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// The process ends.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// A tracer decides.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// It is made and logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
}

/// A rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Names of system calls. One that this machine lacks is ignored.
    #[serde(default)]
    pub names: Vec<String>,
    /// What happens.
    pub action: Action,
    /// Its error number.
    #[serde(default)]
    pub errno_ret: Option<u16>,
    /// All must hold.
    #[serde(default)]
    pub args: Option<Vec<Condition>>,
    /// Holds only with these capabilities.
    #[serde(default)]
    pub includes: Option<Circumstances>,
    /// Holds only without them.
    #[serde(default)]
    pub excludes: Option<Circumstances>,
}

/// Docker's conditions.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Circumstances {
    /// Capabilities.
    #[serde(default)]
    pub caps: Vec<String>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which, from 0.
    pub index: u8,
    /// Compared with, or the mask.
    pub value: u64,
    /// Compared with after the mask.
    #[serde(default)]
    pub value_two: u64,
    /// How.
    pub op: Operator,
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// ==
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// !=
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// <
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// <=
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// >
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// >=
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// & value == valueTwo
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Profile {
    /// Reads a profile. One without a default action is not one: it would mean nothing, or everything.
    pub(super) fn parse(text: &str) -> Result<Profile, Error> {
        let profile: Profile = serde_json::from_str(text).map_err(|e| Error::Invalid(e.to_string()))?;
        for rule in &profile.syscalls {
            if let Some(bad) = rule.args.iter().flatten().find(|c| c.index > 5) {
                return Err(Error::Invalid(format!("a system call has no argument {}", bad.index)));
            }
            let named = [&rule.includes, &rule.excludes].into_iter().flatten().flat_map(|c| &c.caps);
            capability::set(named.map(String::as_str)).map_err(Error::Invalid)?;
        }
        Ok(profile)
    }
}

impl Rule {
    /// Whether it holds for a process with these capabilities.
    pub(super) fn holds(&self, capabilities: u64) -> bool {
        let set = |c: &Option<Circumstances>| {
            let names = c.iter().flat_map(|c| &c.caps);
            names.filter_map(|n| capability::bit(n)).fold(0, |set, bit| set | bit)
        };
        let (with, without) = (set(&self.includes), set(&self.excludes));
        capabilities & with == with && capabilities & without == 0
    }
}
