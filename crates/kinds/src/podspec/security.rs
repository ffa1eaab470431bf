//! Security contexts of pods and containers.

use std::collections::BTreeSet;

use apimachinery::{FieldError, FieldPath};
use serde_json::Value;

use super::volumes::below;
use crate::{
    checks::Checks,
    object::{at, flag, has, list, text},
};

/// User and group ids, as the kernel has them without the one that means "none".
fn check_id(checks: &mut Checks, context: &Value, field: &str, path: &FieldPath) {
    if let Some(id) = at(context, field).as_i64() {
        check_id_value(checks, id, &path.child(field));
    }
}

fn check_id_value(checks: &mut Checks, id: i64, path: &FieldPath) {
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        checks.invalid(path, id, &apimachinery::names::not_between(0, i64::from(i32::MAX)));
    }
}

/// `spec.securityContext`
pub fn check_pod(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let context = at(spec, "securityContext");
    let path = path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        check_id(checks, context, field, &path);
    }
    for (index, group) in list(context, "supplementalGroups").iter().enumerate() {
        check_id_value(checks, group.as_i64().unwrap_or(-1), &path.child("supplementalGroups").index(index));
    }
    check_sysctls(checks, list(context, "sysctls"), spec, &path.child("sysctls"));
    if let Some(policy) = at(context, "fsGroupChangePolicy").as_str() {
        checks.one_of(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    check_seccomp(checks, at(context, "seccompProfile"), &path.child("seccompProfile"));
    super::windows::check(checks, at(context, "windowsOptions"), &path);
    check_apparmor(checks, at(context, "appArmorProfile"), &path.child("appArmorProfile"));
    if let Some(policy) = at(context, "supplementalGroupsPolicy").as_str() {
        checks.one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = at(context, "seLinuxChangePolicy").as_str() {
        checks.one_of(&path.child("seLinuxChangePolicy"), policy, &["MountOption", "Recursive"]);
    }
}

fn check_sysctls(checks: &mut Checks, sysctls: &[Value], spec: &Value, path: &FieldPath) {
    const LONGEST: usize = 253;
    const PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let mut seen = BTreeSet::new();
    for (index, sysctl) in sysctls.iter().enumerate() {
        let path = path.index(index).child("name");
        let name = text(sysctl, "name");
        let readable = name.len() <= LONGEST
            && name.split(['.', '/']).all(|part| {
                let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
                let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
                part.bytes().all(inner) && edge(part.bytes().next()) && edge(part.bytes().last())
            });
        if name.is_empty() {
            checks.required(&path, "");
        } else if !readable {
            let detail = format!("must have at most {LONGEST} characters and match regex {PATTERN}");
            checks.invalid(&path, name, &detail);
        } else if seen.contains(name) {
            checks.duplicate(&path, name);
        }
        let dotted = name.replace('/', ".");
        let network = dotted.starts_with("net.");
        let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| dotted.starts_with(prefix))
            || dotted == "kernel.sem";
        if network && flag(spec, "hostNetwork") {
            checks.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if ipc && flag(spec, "hostIPC") {
            checks.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
        seen.insert(name);
    }
}

fn check_seccomp(checks: &mut Checks, profile: &Value, path: &FieldPath) {
    if profile.is_null() {
        return;
    }
    let kind = text(profile, "type");
    if kind.is_empty() {
        checks.required(&path.child("type"), "type is required when seccompProfile is set");
    } else {
        checks.one_of(&path.child("type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    let file = at(profile, "localhostProfile").as_str();
    match (kind, file) {
        ("Localhost", None) => {
            checks.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost");
        }
        ("Localhost", Some(file)) => below(checks, file, &path.child("localhostProfile")),
        (_, Some(_)) => {
            let detail = "can only be set when seccomp type is Localhost";
            checks.invalid(&path.child("localhostProfile"), profile.clone(), detail);
        }
        _ => {}
    }
}

fn check_apparmor(checks: &mut Checks, profile: &Value, path: &FieldPath) {
    const LONGEST: usize = 4095;
    if profile.is_null() {
        return;
    }
    let file = at(profile, "localhostProfile").as_str();
    let file_path = path.child("localhostProfile");
    match (text(profile, "type"), file) {
        ("Localhost", None) => checks.required(&file_path, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                checks.invalid(&file_path, file, "must not be padded with whitespace");
            } else if file.is_empty() {
                checks.required(&file_path, "must be set when AppArmor type is Localhost");
            }
            if file.len() > LONGEST {
                checks.errors.push(FieldError::too_long(&file_path, LONGEST));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            checks.invalid(&file_path, file, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => checks.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => {
            checks.one_of(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"])
        }
    }
}

/// The security context of one container.
pub fn check_container(checks: &mut Checks, context: &Value, spec: &Value, path: &FieldPath) {
    if context.is_null() {
        return;
    }
    check_id(checks, context, "runAsUser", path);
    check_id(checks, context, "runAsGroup", path);
    if let Some(mount) = at(context, "procMount").as_str() {
        checks.one_of(&path.child("procMount"), mount, &["Default", "Unmasked"]);
        if mount == "Unmasked" && at(spec, "hostUsers") != false {
            checks.invalid(&path.child("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    check_seccomp(checks, at(context, "seccompProfile"), &path.child("seccompProfile"));
    if at(context, "allowPrivilegeEscalation") == false {
        if flag(context, "privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            checks.invalid(path, context.clone(), detail);
        }
        if list(context, "capabilities.add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            checks.invalid(path, context.clone(), detail);
        }
    }
    check_apparmor(checks, at(context, "appArmorProfile"), &path.child("appArmorProfile"));
    super::windows::check(checks, at(context, "windowsOptions"), path);
}

/// What does not go with a user namespace of the pod's own.
pub fn check_user_namespace(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    const DETAIL: &str = "when `hostUsers` is false";
    if at(spec, "hostUsers") != false {
        return;
    }
    for (field, reported) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if flag(spec, field) {
            checks.forbidden(&path.child(reported), DETAIL);
        }
    }
    for group in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, group).iter().enumerate() {
            if !list(container, "volumeDevices").is_empty() {
                checks.forbidden(&path.child(group).index(index).child("volumeDevices"), DETAIL);
            }
        }
    }
}

/// `spec.os` and what the operating system rules out.
pub fn check_os(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    const WINDOWS_POD: [&str; 8] = [
        "hostPID",
        "hostIPC",
        "securityContext.seLinuxOptions",
        "securityContext.seccompProfile",
        "securityContext.fsGroup",
        "securityContext.fsGroupChangePolicy",
        "securityContext.sysctls",
        "shareProcessNamespace",
    ];
    if !has(spec, "os") {
        return;
    }
    let name = text(spec, "os.name");
    match name {
        "" => checks.required(&path.child("os").child("name"), "cannot be empty"),
        "linux" => {
            if has(spec, "securityContext.windowsOptions") {
                let path = path.child("securityContext").child("windowsOptions");
                checks.forbidden(&path, "windows options cannot be set for a linux pod");
            }
        }
        "windows" => {
            for field in WINDOWS_POD {
                let value = at(spec, field);
                if !value.is_null() && value != false {
                    let path = field.split('.').fold(path.clone(), |path, name| path.child(name));
                    checks.forbidden(&path, "cannot be set for a windows pod");
                }
            }
        }
        other => checks.one_of(&path.child("os"), other, &["linux", "windows"]),
    }
}
