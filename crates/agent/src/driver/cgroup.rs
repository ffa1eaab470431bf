//! The cgroups above containers: one per QoS class and one per pod, on cgroup v1 and v2.
//!
//! Containers' own cgroups are the runtime's. Nothing is touched outside [`Config::cgroup_parent`]; where that is empty,
//! the runtime does without.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    api::core::v1::{Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::{config::Config, quantity, resources, spec, translate};

/// Where the kernel shows cgroups.
const ROOT: &str = "/sys/fs/cgroup";
/// Controllers that pods are limited by, as version 1 names their hierarchies.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The directories of a cgroup: one on version 2, one per controller on version 1.
fn directories(cgroup: &str) -> Vec<(&'static str, PathBuf)> {
    let relative = cgroup.trim_start_matches('/');
    if unified() {
        return vec![("", Path::new(ROOT).join(relative))];
    }
    let controllers = CONTROLLERS.into_iter().filter(|c| Path::new(ROOT).join(c).is_dir());
    controllers.map(|c| (c, Path::new(ROOT).join(c).join(relative))).collect()
}

/// Makes the cgroup of a pod and sets what its containers may use together. Failures are logged: containers still have
/// their own limits.
pub(crate) fn prepare(config: &Config, pod: &Pod) {
    if config.cgroup_parent.is_empty() {
        return;
    }
    let cgroup = translate::cgroup(config, pod);
    let limits = Limits::of(&spec::spec(pod));
    for (controller, dir) in directories(&cgroup) {
        if let Err(error) = make(&dir).and_then(|()| limits.write(controller, &dir)) {
            tracing::warn!(cgroup, controller, %error, "a pod's cgroup is not as it should be");
        }
    }
}

/// Sets the pod's cgroup so that it holds what its containers have (`running`, by name) as well as what they shall have.
pub(crate) fn widen(config: &Config, pod: &Pod, running: &BTreeMap<String, ResourceRequirements>) {
    let mut wide = pod.clone();
    if let Some(spec) = wide.spec.as_mut() {
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(now) = running.get(&container.name) {
                container.resources = Some(larger(&container.resources.clone().unwrap_or_default(), now));
            }
        }
    }
    prepare(config, &wide);
}

/// The larger of two limits and of two requests; no limit is larger than any.
fn larger(one: &ResourceRequirements, other: &ResourceRequirements) -> ResourceRequirements {
    type List = Option<BTreeMap<String, Quantity>>;
    let pick = |a: &List, b: &List, missing_wins: bool| -> List {
        let names: BTreeSet<&String> = a.iter().flatten().chain(b.iter().flatten()).map(|(k, _)| k).collect();
        let chosen = names.into_iter().filter_map(|name| {
            let of = |l: &List| l.as_ref().and_then(|l| l.get(name)).cloned();
            let amount = |q: &Quantity| quantity::amount(name, q).unwrap_or(0);
            match (of(a), of(b)) {
                (Some(a), Some(b)) => Some((name.clone(), if amount(&a) < amount(&b) { b } else { a })),
                (a, b) if !missing_wins => Some((name.clone(), a.or(b)?)),
                _ => None,
            }
        });
        Some(chosen.collect())
    };
    ResourceRequirements {
        requests: pick(&one.requests, &other.requests, false),
        limits: pick(&one.limits, &other.limits, true),
        claims: None,
    }
}

/// Sets the weights of the QoS classes: `burstable` is what the burstable pods ask for, in milli-CPU; best effort pods get
/// what is left.
pub(crate) fn classes(config: &Config, burstable: i64) {
    if config.cgroup_parent.is_empty() {
        return;
    }
    for (class, milli) in [("burstable", burstable), ("besteffort", 0)] {
        let cgroup = format!("{}/kubepods/{class}", config.cgroup_parent.trim_end_matches('/'));
        let limits = Limits { shares: resources::shares(milli), quota: 0, memory: 0 };
        for (controller, dir) in directories(&cgroup) {
            if let Err(error) = make(&dir).and_then(|()| limits.write(controller, &dir)) {
                tracing::warn!(cgroup, controller, %error, "a QoS class's cgroup is not as it should be");
            }
        }
    }
}

/// What a pod's containers may use together; 0 stands for no limit.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    shares: i64,
    quota: i64,
    memory: i64,
}

impl Limits {
    /// A pod has a limit only if each of its containers has one.
    fn of(spec: &PodSpec) -> Self {
        let pod_level = |what| spec.resources.as_ref().and_then(|r| quantity::of(r.limits.as_ref(), what));
        let all_limited = |what| {
            let parts = spec::parts(spec);
            pod_level(what).is_some()
                || parts
                    .iter()
                    .filter(|p| p.role != spec::Role::Ephemeral)
                    .all(|p| resources::limit(&p.container, what).is_some())
        };
        let limit = |what| {
            if all_limited(what) { resources::pod_total(spec, what, |r| r.limits.as_ref()) } else { 0 }
        };
        Self {
            shares: resources::shares(resources::pod_total(spec, "cpu", |r| r.requests.as_ref())),
            quota: resources::quota(limit("cpu")),
            memory: limit("memory"),
        }
    }

    fn write(&self, controller: &str, dir: &Path) -> io::Result<()> {
        const PERIOD: i64 = 100_000;
        let put = |file: &str, text: String| fs::write(dir.join(file), text);
        let or = |value: i64, none: &str| if value > 0 { value.to_string() } else { none.to_owned() };
        match controller {
            "cpu" => {
                put("cpu.shares", self.shares.to_string())?;
                put("cpu.cfs_quota_us", or(self.quota, "-1"))
            }
            "memory" => put("memory.limit_in_bytes", or(self.memory, "-1")),
            "" => {
                put("cpu.weight", weight(self.shares).to_string())?;
                put("cpu.max", format!("{} {PERIOD}", or(self.quota, "max")))?;
                put("memory.max", or(self.memory, "max"))
            }
            _ => Ok(()),
        }
    }
}

/// Version 2's weight (1 to 10,000, usually 100) for version 1's shares (2 to 262,144, usually 1024), as runtimes convert
/// since runc 1.3.2: a quadratic in log2 through these three points.
fn weight(shares: i64) -> i64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as i64
        }
    }
}

/// Makes a cgroup's directory; on version 2, controllers are handed down to it.
fn make(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    if !unified() {
        return Ok(());
    }
    let above: Vec<&Path> = dir.ancestors().skip(1).take_while(|d| d.starts_with(ROOT)).collect();
    for parent in above.into_iter().rev() {
        let file = parent.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file)?;
        for controller in CONTROLLERS {
            if !enabled.split_whitespace().any(|c| c == controller) {
                fs::write(&file, format!("+{controller}"))?;
            }
        }
    }
    Ok(())
}

/// Bytes of memory that a pod uses and that cannot be taken from it easily.
pub(crate) fn memory(config: &Config, pod: &Pod) -> Option<i64> {
    if config.cgroup_parent.is_empty() {
        return None;
    }
    let cgroup = translate::cgroup(config, pod);
    let directories = directories(&cgroup);
    let dir = &directories.iter().find(|(c, _)| matches!(*c, "" | "memory"))?.1;
    let (usage, inactive) = match unified() {
        true => ("memory.current", "inactive_file"),
        false => ("memory.usage_in_bytes", "total_inactive_file"),
    };
    let used: i64 = fs::read_to_string(dir.join(usage)).ok()?.trim().parse().ok()?;
    let stat = fs::read_to_string(dir.join("memory.stat")).ok()?;
    let cached = stat.lines().find_map(|l| l.strip_prefix(inactive)?.trim().parse::<i64>().ok());
    Some((used - cached.unwrap_or(0)).max(0))
}

/// Removes the cgroup of a pod with what still runs in it.
pub(crate) async fn remove(config: &Config, pod: &Pod) -> io::Result<()> {
    if config.cgroup_parent.is_empty() {
        return Ok(());
    }
    let cgroup = translate::cgroup(config, pod);
    let work = move || directories(&cgroup).into_iter().try_for_each(|(_, dir)| remove_tree(&dir));
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Removes the classes' cgroups where no pod is left in them.
pub(crate) fn remove_classes(config: &Config) {
    if config.cgroup_parent.is_empty() {
        return;
    }
    let parent = config.cgroup_parent.trim_end_matches('/');
    for cgroup in ["/kubepods/burstable", "/kubepods/besteffort", "/kubepods"] {
        for (_, dir) in directories(&format!("{parent}{cgroup}")) {
            // fails where something is left, and shall
            let _ = fs::remove_dir(dir);
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    for pid in fs::read_to_string(dir.join("cgroup.procs"))?.lines().filter_map(|l| l.parse().ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    match fs::remove_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limits(containers: serde_json::Value) -> Limits {
        Limits::of(&serde_json::from_value(json!({"containers": containers})).unwrap())
    }

    #[test]
    fn a_pod_has_a_limit_only_if_all_its_containers_have_one() {
        let full = json!({"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "250m"}}});
        let open = json!({"name": "b", "resources": {"requests": {"cpu": "250m"}}});
        assert_eq!(limits(json!([full, full])), Limits { shares: 512, quota: 100_000, memory: 2 << 30 });
        assert_eq!(limits(json!([full, open])), Limits { shares: 512, quota: 0, memory: 0 });
    }

    #[test]
    fn while_containers_change_the_pod_holds_the_larger_of_before_and_after() {
        let of = |v: serde_json::Value| -> ResourceRequirements { serde_json::from_value(v).unwrap() };
        let before = of(json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
        let after = of(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "3"}}));
        let wide = of(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "3"}}));
        assert_eq!((larger(&before, &after), larger(&after, &before)), (wide.clone(), wide));
    }

    #[test]
    fn weights_pass_through_the_three_known_points() {
        assert_eq!([weight(2), weight(1024), weight(262_144)], [1, 100, 10_000]);
        assert!(weight(100) < weight(200));
    }
}
