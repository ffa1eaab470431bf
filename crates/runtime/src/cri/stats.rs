//! What containers and sandboxes use.

use std::{
    collections::HashSet,
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use k8s_cri::v1 as cri;
use tonic::Status;

use super::{ContainerRecord, Runtime, SandboxRecord, now};
use crate::{cgroup::Usage, launch::sys};

fn some(value: u64) -> Option<cri::UInt64Value> {
    Some(cri::UInt64Value { value })
}

/// Whether labels have all that a selector names.
pub(super) fn matches(
    labels: &std::collections::HashMap<String, String>,
    selector: &std::collections::HashMap<String, String>,
) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

impl Runtime {
    /// Blocks.
    pub(super) fn container_stats_of(&self, record: &ContainerRecord) -> cri::ContainerStats {
        let at = now();
        let usage = if record.is_running() { self.cgroups.usage(&record.cgroup).ok() } else { None };
        let upper = self.container_dir(&record.id).join("upper");
        let (used_bytes, inodes_used) = disk_usage(&upper);
        cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                id: record.id.clone(),
                metadata: record.config.metadata.clone(),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            cpu: usage.map(|u| self.cpu(&record.id, record.started_at, at, u.cpu)),
            memory: usage.map(|u| memory(at, &u)),
            writable_layer: Some(cri::FilesystemUsage {
                timestamp: at,
                fs_id: Some(cri::FilesystemIdentifier { mountpoint: upper.display().to_string() }),
                used_bytes: some(used_bytes),
                inodes_used: some(inodes_used),
            }),
            swap: usage.map(|u| cri::SwapUsage {
                timestamp: at,
                swap_available_bytes: None,
                swap_usage_bytes: some(u.swap),
            }),
        }
    }

    /// The rate is that since the last time somebody asked; since its beginning when nobody has.
    fn cpu(&self, key: &str, since: i64, at: i64, used: u64) -> cri::CpuUsage {
        let before = self.usage.lock().insert(key.to_owned(), (at, used)).unwrap_or((since, 0));
        let rate = Some(before).filter(|(then, _)| at > *then).map(|(then, old)| {
            let (time, spent) = ((at - then) as u128, u128::from(used.saturating_sub(old)));
            (spent * 1_000_000_000 / time) as u64
        });
        cri::CpuUsage {
            timestamp: at,
            usage_core_nano_seconds: some(used),
            usage_nano_cores: rate.and_then(some),
        }
    }

    /// Blocks.
    pub(super) fn sandbox_stats_of(&self, record: &SandboxRecord) -> cri::PodSandboxStats {
        let at = now();
        let containers: Vec<ContainerRecord> = {
            let tables = self.tables.lock();
            let of =
                tables.containers.values().filter(|c| c.record.sandbox == record.id && c.record.is_running());
            of.map(|c| c.record.clone()).collect()
        };
        let usage = self.cgroups.usage(&self.parent_of(record)).ok();
        let network = if record.host_network() || !record.ready {
            None
        } else {
            network(&self.sandbox_dir(&record.id).join("net")).ok()
        };
        cri::PodSandboxStats {
            attributes: Some(cri::PodSandboxAttributes {
                id: record.id.clone(),
                metadata: Some(record.metadata()),
                labels: record.config.labels.clone(),
                annotations: record.config.annotations.clone(),
            }),
            linux: Some(cri::LinuxPodSandboxStats {
                cpu: usage.map(|u| self.cpu(&record.id, record.created_at, at, u.cpu)),
                memory: usage.map(|u| memory(at, &u)),
                network: network.map(|interfaces| cri::NetworkUsage {
                    timestamp: at,
                    default_interface: interfaces.iter().find(|i| i.name == "eth0").cloned(),
                    interfaces: interfaces.into_iter().filter(|i| i.name != "eth0").collect(),
                }),
                process: usage.map(|u| cri::ProcessUsage { timestamp: at, process_count: some(u.pids) }),
                containers: containers.iter().map(|c| self.container_stats_of(c)).collect(),
            }),
            windows: None,
        }
    }

    pub(super) async fn list_stats(
        &self,
        filter: cri::ContainerStatsFilter,
    ) -> Result<Vec<cri::ContainerStats>, Status> {
        let records: Vec<ContainerRecord> = {
            let tables = self.tables.lock();
            let wanted = |r: &&ContainerRecord| {
                r.id.starts_with(&filter.id)
                    && r.sandbox.starts_with(&filter.pod_sandbox_id)
                    && matches(&r.config.labels, &filter.label_selector)
                    && r.is_running()
            };
            tables.containers.values().map(|c| &c.record).filter(wanted).cloned().collect()
        };
        self.blocking(move |me| records.iter().map(|r| me.container_stats_of(r)).collect()).await
    }
}

fn memory(at: i64, u: &Usage) -> cri::MemoryUsage {
    cri::MemoryUsage {
        timestamp: at,
        working_set_bytes: some(u.working_set),
        available_bytes: u.memory_limit.and_then(|limit| some(limit.saturating_sub(u.working_set))),
        usage_bytes: some(u.memory),
        rss_bytes: some(u.rss),
        page_faults: some(u.page_faults),
        major_page_faults: some(u.major_page_faults),
    }
}

/// Bytes on disk and inodes below a folder, each file once.
fn disk_usage(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut seen, mut todo) = (0, HashSet::new(), vec![dir.to_owned()]);
    while let Some(path) = todo.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        bytes += meta.blocks() * 512;
        if meta.is_dir()
            && let Ok(entries) = fs::read_dir(&path)
        {
            todo.extend(entries.filter_map(|e| Some(e.ok()?.path())));
        }
    }
    (bytes, seen.len() as u64)
}

/// Counters of the interfaces in a network namespace, without `lo`. Blocks.
fn network(netns: &Path) -> std::io::Result<Vec<cri::NetworkInterfaceUsage>> {
    let file = fs::File::open(netns)?;
    let read = move || -> std::io::Result<String> {
        sys::setns(file.as_fd(), libc::CLONE_NEWNET)?;
        fs::read_to_string("/proc/thread-self/net/dev")
    };
    let thread = std::thread::Builder::new().name("netstat".into()).spawn(read)?;
    let text =
        thread.join().map_err(|_| std::io::Error::other("the thread that reads counters has failed"))??;
    Ok(parse_net_dev(&text))
}

fn parse_net_dev(text: &str) -> Vec<cri::NetworkInterfaceUsage> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let numbers: Vec<u64> = rest.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            let at = |i: usize| numbers.get(i).copied().and_then(some);
            (name.trim() != "lo").then(|| cri::NetworkInterfaceUsage {
                name: name.trim().to_owned(),
                rx_bytes: at(0),
                rx_errors: at(2),
                tx_bytes: at(8),
                tx_errors: at(10),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read_by_column() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 0 0 0 0 0 40 5 6 0 0 0 0 0\n";
        let got = parse_net_dev(text);
        assert_eq!(got.len(), 1);
        let value = |v: &Option<cri::UInt64Value>| v.as_ref().map(|v| v.value);
        assert_eq!((value(&got[0].rx_bytes), value(&got[0].rx_errors)), (Some(10), Some(3)));
        assert_eq!((value(&got[0].tx_bytes), value(&got[0].tx_errors)), (Some(40), Some(6)));
    }

    #[test]
    fn a_file_with_two_names_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 8192]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let (bytes, inodes) = disk_usage(dir.path());
        assert_eq!(inodes, 2);
        assert!((8192..16_384).contains(&bytes), "{bytes}");
    }
}
