//! The checks of the restricted level: only what a hardened workload needs.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    baseline::{added, confines, settings},
    checks::Violation,
    pod::{Pod, containers, name, plural, quoted, setters},
};

fn found(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

pub fn escalation(pod: Pod<'_>) -> Option<Violation> {
    let names = pod.named(|container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    found(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

pub fn escalation_but_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { escalation(pod) }
}

pub fn capabilities(pod: Pod<'_>) -> Option<Violation> {
    const ALLOWED: [&str; 1] = ["NET_BIND_SERVICE"];
    let keeps = |container: &Value| {
        let dropped = container["securityContext"]["capabilities"]["drop"].as_array();
        !dropped.is_some_and(|dropped| dropped.iter().any(|name| name == "ALL"))
    };
    let keeping = pod.named(keeps);
    let adding = pod.named(|container| !added(container, &ALLOWED).is_empty());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let extra: BTreeSet<&str> =
            pod.containers().flat_map(|container| added(container, &ALLOWED)).collect();
        let who = containers(&adding);
        details.push(format!("{who} must not include {} in securityContext.capabilities.add", quoted(extra)));
    }
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

pub fn capabilities_but_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { capabilities(pod) }
}

/// Sources of volumes that bring nothing of the host.
const PLAIN_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// The others, in the order in which they are looked for.
const OTHER_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn volumes(pod: Pod<'_>) -> Option<Violation> {
    let has = |volume: &Value, source: &str| volume.get(source).is_some_and(|value| !value.is_null());
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let bad: Vec<&Value> =
        volumes.filter(|volume| !PLAIN_VOLUMES.iter().any(|source| has(volume, source))).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad
        .iter()
        .map(|volume| OTHER_VOLUMES.into_iter().find(|source| has(volume, source)).unwrap_or("unknown"))
        .collect();
    let (word, verb) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
    let what = plural("restricted volume type", "restricted volume types", kinds.len());
    let names = quoted(bad.into_iter().map(name));
    found("restricted volume types", format!("{word} {names} {verb} {what} {}", quoted(kinds)))
}

pub fn non_root(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let (own, names, _) = settings(pod, "/runAsNonRoot", |is| is == true);
    let who = setters(own, &names);
    if !who.is_empty() {
        return found(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if pod.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let silent = pod.named(|container| container["securityContext"]["runAsNonRoot"].is_null());
    if silent.is_empty() {
        return None;
    }
    found(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

pub fn non_root_of_host_users(pod: Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { non_root(pod) }
}

pub fn run_as_user(pod: Pod<'_>) -> Option<Violation> {
    let (own, names, _) = settings(pod, "/runAsUser", |user| user != 0);
    let who = setters(own, &names);
    if who.is_empty() { None } else { found("runAsUser=0", format!("{who} must not set runAsUser=0")) }
}

pub fn run_as_user_of_host_users(pod: Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() { None } else { run_as_user(pod) }
}

pub fn seccomp(pod: Pod<'_>) -> Option<Violation> {
    const REASON: &str = "seccompProfile";
    let (own, names, values) = settings(pod, "/seccompProfile/type", confines);
    let who = setters(own, &names);
    if !who.is_empty() {
        let values = quoted(values);
        return found(REASON, format!("{who} must not set securityContext.seccompProfile.type to {values}"));
    }
    if confines(&pod.spec["securityContext"]["seccompProfile"]["type"]) {
        return None;
    }
    let silent = pod.named(|container| container["securityContext"]["seccompProfile"].is_null());
    if silent.is_empty() {
        return None;
    }
    let who = containers(&silent);
    found(
        REASON,
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ),
    )
}

pub fn seccomp_but_windows(pod: Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { seccomp(pod) }
}
