//! What a machine is and has, read from the kernel.

use std::{collections::BTreeMap, fs, path::Path};

use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};

/// The release of Kubernetes whose kubelet this agent stands for.
pub(crate) const VERSION: &str = "v1.37.2";

/// What there is: milli-CPU, bytes, counts.
pub(crate) fn capacity(root: &Path, max_pods: i64) -> BTreeMap<String, i64> {
    let cpus = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
    let mut all = BTreeMap::from([
        ("cpu".to_owned(), cpus * 1000),
        ("memory".to_owned(), meminfo("MemTotal").unwrap_or(0)),
        ("pods".to_owned(), max_pods),
    ]);
    if let Some(disk) = disk(root) {
        all.insert("ephemeral-storage".to_owned(), disk.size);
    }
    for entry in fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugepages-").and_then(|s| s.strip_suffix("kB"));
        let Some(size) = size.and_then(|s| s.parse::<i64>().ok()) else { continue };
        let count = number(&entry.path().join("nr_hugepages")).unwrap_or(0);
        let unit =
            if size % (1 << 20) == 0 { format!("{}Gi", size >> 20) } else { format!("{}Mi", size >> 10) };
        all.insert(format!("hugepages-{unit}"), count * size * 1024);
    }
    all
}

/// The file system at `path`, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Disk {
    /// As large as it is.
    pub size: i64,
    /// What may ever be used: what is used and what is available, but not what is kept for others.
    pub usable: i64,
    /// Available.
    pub available: i64,
}

/// The file system at `path`.
pub(crate) fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.f_frsize)).ok();
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    Some(Disk {
        size: bytes(stat.f_blocks)?,
        usable: bytes(used.saturating_add(stat.f_bavail))?,
        available: bytes(stat.f_bavail)?,
    })
}

/// A line of /proc/meminfo in bytes.
pub(crate) fn meminfo(key: &str) -> Option<i64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").parse::<i64>().ok()? * 1024)
}

fn number(path: &Path) -> Option<i64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn text(path: &str) -> String {
    fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default()
}

/// The CPU architecture as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// `status.nodeInfo`; `runtime` is the container runtime as `name://version`.
pub(crate) fn info(runtime: String) -> NodeSystemInfo {
    let machine_id = text("/etc/machine-id");
    let uuid = text("/sys/class/dmi/id/product_uuid");
    let release = text("/etc/os-release");
    let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    let swap = meminfo("SwapTotal").filter(|s| *s > 0);
    NodeSystemInfo {
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        kernel_version: text("/proc/sys/kernel/osrelease"),
        os_image: pretty.map(|p| p.trim_matches('"').to_owned()).unwrap_or_else(|| "Linux".into()),
        container_runtime_version: runtime,
        kubelet_version: VERSION.into(),
        operating_system: "linux".into(),
        architecture: architecture().into(),
        swap: Some(NodeSwapStatus { capacity: swap }),
        ..NodeSystemInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_processors_memory_and_disk() {
        let all = capacity(Path::new("/"), 110);
        for name in ["cpu", "memory", "ephemeral-storage", "pods"] {
            assert!(all[name] > 0, "{name}");
        }
        assert!(!info(String::new()).kernel_version.is_empty());
    }
}
