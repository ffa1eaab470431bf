//! The checks of the baseline: nothing that is known to give away the host.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    checks::Violation,
    pod::{Pod, containers, distinct, name, plural, quoted, setters},
};

fn found(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

/// What the pod and its containers have at a path below `securityContext`, where it is not as `fine` says: whether it is
/// the pod, which containers, and which values.
pub fn settings<'p>(
    pod: Pod<'p>,
    path: &str,
    fine: impl Fn(&Value) -> bool,
) -> (bool, Vec<&'p str>, BTreeSet<&'p str>) {
    let value =
        |context: &'p Value| context["securityContext"].pointer(path).filter(|value| !value.is_null());
    let wrong = |context: &'p Value| value(context).filter(|value| !fine(value));
    let bad: Vec<&'p Value> = pod.containers().filter(|container| wrong(container).is_some()).collect();
    let own = wrong(pod.spec);
    let values = distinct(own.into_iter().chain(bad.iter().filter_map(|container| wrong(container))));
    (own.is_some(), bad.into_iter().map(name).collect(), values)
}

fn annotations(pod: Pod<'_>) -> impl Iterator<Item = (&String, &str)> {
    let all = pod.annotations.as_object().into_iter().flatten();
    all.filter_map(|(key, value)| Some((key, value.as_str()?)))
}

pub fn app_armor(pod: Pod<'_>) -> Option<Violation> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let (own, names, values) = settings(pod, "/appArmorProfile/type", |kind| {
        matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost"))
    });
    let fine = |profile: &str| matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
    let mut noted: Vec<String> = annotations(pod)
        .filter(|(key, profile)| key.starts_with(PREFIX) && !fine(profile))
        .map(|(key, profile)| format!("{key}={profile:?}"))
        .collect();
    noted.sort();
    let mut who: Vec<String> =
        Some(setters(own, &names)).filter(|setters| !setters.is_empty()).into_iter().collect();
    if !noted.is_empty() {
        who.push(plural("annotation", "annotations", noted.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().map(str::to_owned).chain(noted).collect();
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    found(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

/// Capabilities that a container engine gives by itself.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities that a container adds beyond those.
pub fn added<'c>(container: &'c Value, allowed: &[&str]) -> Vec<&'c str> {
    let added = container["securityContext"]["capabilities"]["add"].as_array();
    added.into_iter().flatten().filter_map(Value::as_str).filter(|name| !allowed.contains(name)).collect()
}

pub fn capabilities(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| !added(container, &DEFAULT_CAPABILITIES).is_empty());
    let extra: BTreeSet<&str> =
        pod.containers().flat_map(|container| added(container, &DEFAULT_CAPABILITIES)).collect();
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    found(
        "non-default capabilities",
        format!("{who} must not include {} in securityContext.capabilities.add", quoted(extra)),
    )
}

pub fn host_namespaces(pod: Pod<'_>) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { found("host namespaces", shared.join(", ")) }
}

pub fn host_path_volumes(pod: Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> = volumes.filter(|volume| !volume["hostPath"].is_null()).map(name).collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    found("hostPath volumes", format!("{word} {}", quoted(names)))
}

fn ports(container: &Value) -> impl Iterator<Item = i64> {
    let ports = container["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0)
}

pub fn host_ports(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| ports(container).next().is_some());
    if names.is_empty() {
        return None;
    }
    let all: BTreeSet<String> = pod.containers().flat_map(ports).map(|port| port.to_string()).collect();
    let (verb, word) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", all.len()));
    let all: Vec<String> = all.into_iter().collect();
    found("hostPort", format!("{} {verb} {word} {}", containers(&names), all.join(", ")))
}

/// Hosts other than the pod that the node is told to ask.
fn hosts(container: &Value) -> impl Iterator<Item = &str> {
    const ASKING: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    ASKING
        .into_iter()
        .filter_map(|path| container.pointer(path))
        .flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]])
        .filter_map(Value::as_str)
        .filter(|host| !host.is_empty())
}

pub fn hosts_of_probes(pod: Pod<'_>) -> Option<Violation> {
    let names: BTreeSet<&str> =
        pod.named(|container| hosts(container).next().is_some()).into_iter().collect();
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect();
    let all: BTreeSet<&str> = pod.containers().flat_map(hosts).collect();
    let verb = plural("uses", "use", names.len());
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
    found("probe or lifecycle host", format!("{} {verb} {word} {}", containers(&names), quoted(all)))
}

pub fn privileged(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["privileged"] == true);
    if names.is_empty() {
        return None;
    }
    found("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

pub fn proc_mount(pod: Pod<'_>) -> Option<Violation> {
    let (_, names, values) = settings(pod, "/procMount", |kind| kind == "Default");
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    found("procMount", format!("{who} must not set securityContext.procMount to {}", quoted(values)))
}

pub fn proc_mount_of_host_users(pod: Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

pub fn selinux(pod: Pod<'_>) -> Option<Violation> {
    selinux_types(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub fn selinux_with_engine(pod: Pod<'_>) -> Option<Violation> {
    selinux_types(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn selinux_types(pod: Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let text = |options: &Value, field: &str| options[field].as_str().unwrap_or_default().to_owned();
    let wrong = |options: &Value| {
        !allowed.contains(&text(options, "type").as_str())
            || !text(options, "user").is_empty()
            || !text(options, "role").is_empty()
    };
    let (own, names, _) = settings(pod, "/seLinuxOptions", |options| !wrong(options));
    let who = setters(own, &names);
    if who.is_empty() {
        return None;
    }
    let all: Vec<&Value> = std::iter::once(pod.spec)
        .chain(pod.containers())
        .map(|context| &context["securityContext"]["seLinuxOptions"])
        .collect();
    let types: BTreeSet<String> = all
        .iter()
        .map(|options| text(options, "type"))
        .filter(|kind| !allowed.contains(&kind.as_str()))
        .collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !text(options, field).is_empty()) {
            what.push(format!("{field} may not be set"));
        }
    }
    let what = what.join("; ");
    found("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {what}"))
}

pub fn seccomp_annotations(pod: Pod<'_>) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let names: BTreeSet<&str> = pod.containers().map(name).collect();
    let concerns = |key: &str| key == POD || key.strip_prefix(CONTAINER).is_some_and(|n| names.contains(n));
    let fine = |profile: &str| {
        matches!(profile, "runtime/default" | "docker/default") || profile.starts_with("localhost/")
    };
    let wrong: BTreeSet<String> = annotations(pod)
        .filter(|(key, profile)| concerns(key) && !fine(profile))
        .map(|(key, profile)| format!("{key}={profile:?}"))
        .collect();
    if wrong.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", wrong.len());
    let wrong: Vec<String> = wrong.into_iter().collect();
    found("seccompProfile", format!("forbidden {word} {}", wrong.join(", ")))
}

/// A profile that confines.
pub fn confines(kind: &Value) -> bool {
    matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost"))
}

pub fn seccomp(pod: Pod<'_>) -> Option<Violation> {
    let (own, names, values) = settings(pod, "/seccompProfile/type", confines);
    let who = setters(own, &names);
    if who.is_empty() {
        return None;
    }
    let values = quoted(values);
    found("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {values}"))
}

/// Sysctls of the pod alone, in the order in which they were allowed.
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

fn sysctls(pod: Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let set = pod.spec["securityContext"]["sysctls"].as_array().into_iter().flatten().map(name);
    let wrong: Vec<&str> = set.filter(|sysctl| !allowed.contains(sysctl)).collect();
    if wrong.is_empty() { None } else { found("forbidden sysctls", wrong.join(", ")) }
}

pub fn sysctls_0(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..5])
}

pub fn sysctls_27(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..6])
}

pub fn sysctls_29(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..10])
}

pub fn sysctls_32(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS[..12])
}

pub fn sysctls_37(pod: Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SYSCTLS)
}

pub fn host_process(pod: Pod<'_>) -> Option<Violation> {
    let (own, names, _) = settings(pod, "/windowsOptions/hostProcess", |is| is != true);
    let who = setters(own, &names);
    if who.is_empty() {
        return None;
    }
    found("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
