//! Which checks there are, from which version on, and which of them a stricter one stands in for.

use serde_json::Value;

use super::{Level, Standard, Version, baseline, pod::Pod, restricted};

/// The newest version that brought something new.
const NEWEST: u32 = 37;

/// What a standard forbids and a pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `host namespaces`
    pub reason: &'static str,
    /// `hostNetwork=true`
    pub detail: String,
}

/// One look at a pod.
pub(super) type Look = fn(Pod<'_>) -> Option<Violation>;

/// A check with its forms, each from a minor version on, oldest first.
struct Check {
    id: &'static str,
    forms: &'static [(u32, Look)],
    /// The check of the baseline that this one stands in for, once it is there.
    replaces: &'static str,
}

const fn check(id: &'static str, forms: &'static [(u32, Look)]) -> Check {
    Check { id, forms, replaces: "" }
}

/// Sorted by id: the order in which violations are told.
static BASELINE: [Check; 12] = [
    check("appArmorProfile", &[(0, baseline::app_armor)]),
    check("capabilities_baseline", &[(0, baseline::capabilities)]),
    check("hostNamespaces", &[(0, baseline::host_namespaces)]),
    check("hostPathVolumes", &[(0, baseline::host_path_volumes)]),
    check("hostPorts", &[(0, baseline::host_ports)]),
    check("hostProbesAndHostLifecycle", &[(34, baseline::hosts_of_probes)]),
    check("privileged", &[(0, baseline::privileged)]),
    check("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_of_host_users)]),
    check("seLinuxOptions", &[(0, baseline::selinux), (31, baseline::selinux_with_engine)]),
    check("seccompProfile_baseline", &[(0, baseline::seccomp_annotations), (19, baseline::seccomp)]),
    check(
        "sysctls",
        &[
            (0, baseline::sysctls_0),
            (27, baseline::sysctls_27),
            (29, baseline::sysctls_29),
            (32, baseline::sysctls_32),
            (37, baseline::sysctls_37),
        ],
    ),
    check("windowsHostProcess", &[(0, baseline::host_process)]),
];

static RESTRICTED: [Check; 7] = [
    check(
        "allowPrivilegeEscalation",
        &[(8, restricted::escalation), (25, restricted::escalation_but_windows)],
    ),
    Check {
        id: "capabilities_restricted",
        forms: &[(22, restricted::capabilities), (25, restricted::capabilities_but_windows)],
        replaces: "capabilities_baseline",
    },
    Check { id: "procMount_restricted", forms: &[(35, baseline::proc_mount)], replaces: "procMount" },
    Check { id: "restrictedVolumes", forms: &[(0, restricted::volumes)], replaces: "hostPathVolumes" },
    check("runAsNonRoot", &[(0, restricted::non_root), (35, restricted::non_root_of_host_users)]),
    check("runAsUser", &[(23, restricted::run_as_user), (35, restricted::run_as_user_of_host_users)]),
    Check {
        id: "seccompProfile_restricted",
        forms: &[(19, restricted::seccomp), (25, restricted::seccomp_but_windows)],
        replaces: "seccompProfile_baseline",
    },
];

impl Check {
    /// The form of a version, if it is there by then.
    fn form(&self, minor: u32) -> Option<Look> {
        self.forms.iter().rev().find(|(from, _)| *from <= minor).map(|(_, look)| *look)
    }
}

/// What a pod, or a template, has that the standard forbids. `object` has `metadata` and `spec`.
#[must_use]
pub fn evaluate(standard: Standard, object: &Value) -> Vec<Violation> {
    let minor = match standard.version {
        Version::Minor(minor) => minor.min(NEWEST),
        Version::Latest => NEWEST,
    };
    let strict: &[Check] = if standard.level == Level::Restricted { &RESTRICTED } else { &[] };
    let replaced =
        |check: &Check| strict.iter().any(|other| other.replaces == check.id && other.form(minor).is_some());
    let base = BASELINE.iter().filter(|check| standard.level != Level::Privileged && !replaced(check));
    let pod = Pod::of(object);
    base.chain(strict).filter_map(|check| check.form(minor)?(pod)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_told_in_the_order_of_their_names() {
        for checks in [&BASELINE[..], &RESTRICTED[..]] {
            assert!(checks.iter().map(|check| check.id).is_sorted());
        }
        for check in &RESTRICTED {
            let known = BASELINE.iter().any(|other| other.id == check.replaces);
            assert!(check.replaces.is_empty() || known, "{}", check.id);
        }
    }
}
