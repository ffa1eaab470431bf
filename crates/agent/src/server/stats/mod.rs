//! Statistics of the node and its pods, measured when somebody asks: nothing is sampled in between.

mod disk;
mod host;
mod rates;
pub(super) mod summary;

use std::{collections::HashMap, io, path::Path, sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod};
use tonic::Request;

use super::reply::Refused;
use crate::{Config, spec, view::Pods};
use summary::{
    Container, Cpu, Fs, Interface, Memory, Network, Node, Pod, PodRef, Processes, RuntimeFs, Summary, Swap,
};

/// Counters that nobody has looked at for so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(3600);

/// What is remembered between two requests.
#[derive(Default)]
pub(super) struct Stats {
    kernel: host::Kernel,
    rates: rates::Rates,
    folders: Arc<disk::Folders>,
}

impl Stats {
    /// The whole summary; `brief` leaves out all but processors and memory.
    pub(super) async fn summary(
        &self,
        config: &Config,
        pods: &dyn Pods,
        brief: bool,
    ) -> Result<Summary, Refused> {
        let now = Utc::now();
        let failed =
            |what: &str, why: &dyn std::fmt::Display| Refused::internal(format!("failed to {what}: {why}"));
        let mut node = self.node(config, now).map_err(|e| failed("get root cgroup stats", &e))?;
        let listed = config
            .runtime
            .list_pod_sandbox_stats(Request::new(cri::ListPodSandboxStatsRequest::default()))
            .await
            .map_err(|status| failed("list pod stats", &status.message()))?
            .into_inner()
            .stats;
        let known: HashMap<String, Arc<ApiPod>> =
            pods.list().into_iter().map(|p| (p.metadata.uid.clone().unwrap_or_default(), p)).collect();
        let mut all: Vec<Pod> =
            listed.into_iter().filter_map(|stats| self.pod(stats, &known, pods)).collect();
        all.sort_by(|a, b| {
            (&a.pod_ref.namespace, &a.pod_ref.name).cmp(&(&b.pod_ref.namespace, &b.pod_ref.name))
        });
        if !brief {
            let time = stamp(now);
            node.fs = disk::file_system(&config.root, &time).ok();
            node.runtime = self.images(config, &time).await;
            node.network = self.kernel.network(&time);
            node.rlimit = self.kernel.processes(&time);
            let image_fs = node.runtime.as_ref().map(|r| r.container_fs.clone()).unwrap_or_default();
            let measured = (self.folders.clone(), config.clone());
            all = tokio::task::spawn_blocking(move || {
                let (folders, config) = measured;
                for pod in &mut all {
                    storage(pod, known.get(&pod.pod_ref.uid), &config, &folders, &image_fs, &time);
                }
                all
            })
            .await
            .map_err(Refused::internal)?;
        } else {
            for pod in &mut all {
                pod.network = None;
                pod.process_stats = None;
                pod.containers.iter_mut().for_each(|c| c.rootfs = None);
            }
        }
        self.rates.forget(FORGOTTEN);
        Ok(Summary { node, pods: all })
    }

    /// Processors and memory of the node.
    fn node(&self, config: &Config, now: DateTime<Utc>) -> io::Result<Node> {
        let (at, time) = (nanos(now), stamp(now));
        let (machine, total) = self.kernel.machine()?;
        let share = config.capacity.get("memory").and_then(|m| u64::try_from(*m).ok());
        // A node that is told its capacity has a share of its machine: what is in its cgroup.
        let (used, capacity) = match share {
            Some(share) => (self.kernel.group(&config.cgroup_parent), share),
            None => (machine, total),
        };
        let mut cpu = used.cpu(at, &time);
        self.rate("node", &mut cpu);
        let uptime =
            self.kernel.boot_time().map(|boot| now.timestamp() - boot).and_then(|t| u64::try_from(t).ok());
        if let (Some(cpu), Some(uptime)) = (&mut cpu, uptime) {
            // Nobody has asked before: what it was since the machine was started.
            let usage = cpu.usage_core_nano_seconds.unwrap_or_default();
            cpu.usage_nano_cores.get_or_insert(usage / uptime.max(1));
        }
        Ok(Node {
            node_name: config.node_name.clone(),
            start_time: self.kernel.boot_time().and_then(|t| DateTime::from_timestamp(t, 0)).map(stamp),
            memory: used.memory(capacity, at, &time),
            swap: self.kernel.swap(&time),
            cpu,
            ..Node::default()
        })
    }

    fn rate(&self, key: &str, cpu: &mut Option<Cpu>) {
        if let Some(cpu) = cpu
            && let Some(usage) = cpu.usage_core_nano_seconds
        {
            let rate = self.rates.per_second(key, cpu.at, usage);
            cpu.usage_nano_cores = rate.or(cpu.usage_nano_cores);
        }
    }

    fn pod(
        &self,
        stats: cri::PodSandboxStats,
        known: &HashMap<String, Arc<ApiPod>>,
        view: &dyn Pods,
    ) -> Option<Pod> {
        let metadata = stats.attributes?.metadata?;
        let linux = stats.linux.unwrap_or_default();
        let pod_ref = PodRef { name: metadata.name, namespace: metadata.namespace, uid: metadata.uid };
        let pod = known.get(&pod_ref.uid);
        let status = pod.and_then(|p| p.status.as_ref());
        let mut containers: Vec<Container> = Vec::new();
        for stats in linux.containers {
            let Some(attributes) = stats.attributes else { continue };
            let name = attributes.metadata.map(|m| m.name).unwrap_or_default();
            // Instances that have ended may still be listed.
            let current = view.container(&pod_ref.namespace, &pod_ref.name, &name).and_then(|v| v.id);
            if current.is_some_and(|current| current != attributes.id) {
                continue;
            }
            let seen = status.and_then(|s| find(s, &name));
            let since = seen.and_then(|s| s.state.as_ref()?.running.as_ref()?.started_at.as_ref());
            let since = since.and_then(|t| DateTime::from_timestamp(t.0.as_second(), 0));
            let mut cpu = cpu(stats.cpu);
            self.rate(&attributes.id, &mut cpu);
            containers.push(Container {
                start_time: since.map(stamp),
                started: since.map(|t| t.timestamp() as f64),
                cpu,
                memory: memory(stats.memory),
                rootfs: stats.writable_layer.map(|layer| Fs {
                    time: time_of(layer.timestamp),
                    used_bytes: layer.used_bytes.map(|v| v.value),
                    inodes_used: layer.inodes_used.map(|v| v.value),
                    ..Fs::default()
                }),
                logs: None,
                swap: stats.swap.map(|swap| Swap {
                    time: time_of(swap.timestamp),
                    swap_available_bytes: swap.swap_available_bytes.map(|v| v.value),
                    swap_usage_bytes: swap.swap_usage_bytes.map(|v| v.value),
                }),
                id: attributes.id,
                image: seen.map(|s| s.image.clone()).unwrap_or_default(),
                name,
            });
        }
        let mut cpu = cpu(linux.cpu);
        self.rate(&pod_ref.uid, &mut cpu);
        let started = status.and_then(|s| s.start_time.as_ref());
        Some(Pod {
            start_time: started.and_then(|t| DateTime::from_timestamp(t.0.as_second(), 0)).map(stamp),
            cpu,
            memory: memory(linux.memory),
            network: linux.network.map(network),
            process_stats: linux
                .process
                .map(|p| Processes { process_count: p.process_count.map(|v| v.value) }),
            containers,
            pod_ref,
            ..Pod::default()
        })
    }

    async fn images(&self, config: &Config, time: &String) -> Option<RuntimeFs> {
        let info = config.images.image_fs_info(Request::new(cri::ImageFsInfoRequest {})).await;
        let info =
            info.inspect_err(|status| tracing::debug!(%status, "the images' file system is unknown")).ok()?;
        let fs = |list: Vec<cri::FilesystemUsage>| {
            let usage = list.into_iter().next()?;
            let place = disk::file_system(Path::new(&usage.fs_id?.mountpoint), time).ok()?;
            let used = |v: Option<cri::UInt64Value>| v.map(|v| v.value);
            Some(Fs { used_bytes: used(usage.used_bytes), inodes_used: used(usage.inodes_used), ..place })
        };
        let info = info.into_inner();
        let image_fs = fs(info.image_filesystems)?;
        let container_fs = fs(info.container_filesystems).unwrap_or_else(|| image_fs.clone());
        Some(RuntimeFs { image_fs, container_fs })
    }
}

/// Adds what a pod keeps on disk.
fn storage(
    pod: &mut Pod,
    api: Option<&Arc<ApiPod>>,
    config: &Config,
    folders: &disk::Folders,
    container_fs: &Fs,
    time: &String,
) {
    let PodRef { name, namespace, uid } = &pod.pod_ref;
    let mut total = disk::Usage::default();
    let logs = config.log_dir(namespace, name, uid);
    let logs_fs = disk::file_system(&config.log_root, time).unwrap_or_default();
    for container in &mut pod.containers {
        if let Some(rootfs) = &mut container.rootfs {
            total.bytes += rootfs.used_bytes.unwrap_or(0);
            total.inodes += rootfs.inodes_used.unwrap_or(0);
            *rootfs = Fs {
                time: rootfs.time.clone(),
                used_bytes: rootfs.used_bytes,
                inodes_used: rootfs.inodes_used,
                ..container_fs.clone()
            };
        }
        let usage = disk::measure(&logs.join(&container.name));
        total.bytes += usage.bytes;
        total.inodes += usage.inodes;
        container.logs = Some(disk::within(&logs_fs, usage));
    }
    let dir = config.pod_dir(uid);
    let root_fs = disk::file_system(&config.root, time).unwrap_or_default();
    let spec = api.map(|pod| spec::spec(pod));
    for volume in spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let Some(empty) = &volume.empty_dir else { continue };
        let place = dir.join("volumes").join(&volume.name);
        let fs = if empty.medium.as_deref().unwrap_or_default().is_empty() {
            let usage = folders.usage(&place);
            total.bytes += usage.bytes;
            total.inodes += usage.inodes;
            disk::within(&root_fs, usage)
        } else {
            match disk::file_system(&place, time) {
                Ok(fs) => fs,
                Err(_) => continue,
            }
        };
        pod.volume.push(summary::Volume { fs, name: volume.name.clone(), pvc_ref: None });
    }
    pod.ephemeral_storage = Some(disk::within(&root_fs, total));
}

fn find<'a>(status: &'a k8s_openapi::api::core::v1::PodStatus, name: &str) -> Option<&'a ContainerStatus> {
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == name)
}

fn cpu(usage: Option<cri::CpuUsage>) -> Option<Cpu> {
    let usage = usage?;
    Some(Cpu {
        time: time_of(usage.timestamp),
        usage_nano_cores: usage.usage_nano_cores.map(|v| v.value),
        usage_core_nano_seconds: usage.usage_core_nano_seconds.map(|v| v.value),
        at: usage.timestamp,
    })
}

fn memory(usage: Option<cri::MemoryUsage>) -> Option<Memory> {
    let usage = usage?;
    let value = |v: Option<cri::UInt64Value>| v.map(|v| v.value);
    Some(Memory {
        time: time_of(usage.timestamp),
        available_bytes: value(usage.available_bytes).filter(|bytes| *bytes > 0),
        usage_bytes: value(usage.usage_bytes),
        working_set_bytes: value(usage.working_set_bytes),
        rss_bytes: value(usage.rss_bytes),
        page_faults: value(usage.page_faults),
        major_page_faults: value(usage.major_page_faults),
        at: usage.timestamp,
    })
}

fn network(usage: cri::NetworkUsage) -> Network {
    let value = |v: Option<cri::UInt64Value>| v.map(|v| v.value);
    let one = |i: cri::NetworkInterfaceUsage| Interface {
        name: i.name,
        rx_bytes: value(i.rx_bytes),
        rx_errors: value(i.rx_errors),
        tx_bytes: value(i.tx_bytes),
        tx_errors: value(i.tx_errors),
    };
    let default = usage.default_interface.map(one).unwrap_or_default();
    let mut interfaces: Vec<Interface> = usage.interfaces.into_iter().map(one).collect();
    if !default.name.is_empty() && !interfaces.contains(&default) {
        interfaces.insert(0, default.clone());
    }
    Network { time: time_of(usage.timestamp), default, interfaces }
}

fn nanos(time: DateTime<Utc>) -> i64 {
    time.timestamp_nanos_opt().unwrap_or(i64::MAX)
}

fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn time_of(nanos: i64) -> String {
    stamp(DateTime::from_timestamp_nanos(nanos))
}
