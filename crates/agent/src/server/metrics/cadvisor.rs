//! `/metrics/cadvisor`: usage in the names that cAdvisor has for it.

use super::{number, page::Page, reply, seconds};
use crate::server::{
    Kubelet,
    reply::{Refused, Reply},
    stats::summary::{Cpu, Interface, Memory, Summary},
};

/// What cAdvisor's page has a row for: the node, a pod, or a container of a pod.
#[derive(Default)]
struct Row<'a> {
    container: &'a str,
    id: String,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
    cpu: Option<&'a Cpu>,
    memory: Option<&'a Memory>,
    fs: Option<u64>,
    inodes: Option<u64>,
    processes: Option<u64>,
    swap: Option<u64>,
    started: Option<f64>,
    interfaces: &'a [Interface],
}

type OfRow = fn(&Row<'_>) -> (Option<f64>, Option<i64>);
type OfInterface = fn(&Interface) -> Option<u64>;

/// `/metrics/cadvisor`
pub(in super::super) async fn cadvisor(kubelet: &Kubelet) -> Result<Reply, Refused> {
    let summary = kubelet.stats.summary(&kubelet.config, &*kubelet.pods, false).await?;
    let mut page = Page::default();
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let milli = kubelet.config.capacity.get("cpu").map(|m| *m as f64 / 1000.0);
    page.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.").sample(
        &[],
        Some(milli.unwrap_or(cores)),
        None,
    );
    let memory = summary.node.memory.as_ref();
    let total = memory.and_then(|m| Some(m.available_bytes? + m.working_set_bytes?));
    page.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.").sample(
        &[],
        number(total),
        None,
    );
    rows(&mut page, &all_rows(&summary));
    Ok(reply(page))
}

fn all_rows(summary: &Summary) -> Vec<Row<'_>> {
    let node = &summary.node;
    let mut rows = vec![Row {
        id: "/".to_owned(),
        cpu: node.cpu.as_ref(),
        memory: node.memory.as_ref(),
        fs: node.fs.as_ref().and_then(|f| f.used_bytes),
        inodes: node.fs.as_ref().and_then(|f| f.inodes_used),
        interfaces: node.network.as_ref().map(|n| n.interfaces.as_slice()).unwrap_or_default(),
        ..Row::default()
    }];
    for pod in &summary.pods {
        let (namespace, name) = (pod.pod_ref.namespace.as_str(), pod.pod_ref.name.as_str());
        rows.push(Row {
            id: format!("/kubepods/pod{}", pod.pod_ref.uid),
            namespace,
            pod: name,
            cpu: pod.cpu.as_ref(),
            memory: pod.memory.as_ref(),
            processes: pod.process_stats.as_ref().and_then(|p| p.process_count),
            interfaces: pod.network.as_ref().map(|n| n.interfaces.as_slice()).unwrap_or_default(),
            ..Row::default()
        });
        for container in &pod.containers {
            rows.push(Row {
                container: &container.name,
                id: format!("/kubepods/pod{}/{}", pod.pod_ref.uid, container.id),
                image: &container.image,
                name: &container.id,
                namespace,
                pod: name,
                cpu: container.cpu.as_ref(),
                memory: container.memory.as_ref(),
                fs: container.rootfs.as_ref().and_then(|f| f.used_bytes),
                inodes: container.rootfs.as_ref().and_then(|f| f.inodes_used),
                swap: container.swap.as_ref().and_then(|s| s.swap_usage_bytes),
                started: container.started,
                ..Row::default()
            });
        }
    }
    rows
}

fn rows(page: &mut Page, rows: &[Row<'_>]) {
    fn memory(row: &Row<'_>, value: fn(&Memory) -> Option<u64>) -> (Option<f64>, Option<i64>) {
        (row.memory.and_then(|m| number(value(m))), row.memory.map(|m| m.at))
    }
    let families: [(&str, &str, &str, OfRow); 9] = [
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |r| {
            memory(r, |m| m.working_set_bytes)
        }),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |r| memory(r, |m| m.usage_bytes),
        ),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |r| memory(r, |m| m.rss_bytes)),
        ("container_memory_swap", "gauge", "Container swap usage in bytes.", |r| (number(r.swap), None)),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Number of bytes that are consumed by the container on this filesystem.",
            |r| (number(r.fs), None),
        ),
        ("container_fs_inodes_used", "gauge", "Number of inodes that are consumed by the container.", |r| {
            (number(r.inodes), None)
        }),
        ("container_processes", "gauge", "Number of processes running inside the container.", |r| {
            (number(r.processes), None)
        }),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
            |r| (r.started, None),
        ),
        ("container_last_seen", "gauge", "Last time a container was seen by the exporter", |r| {
            (r.cpu.map(|c| (c.at / 1_000_000_000) as f64), None)
        }),
    ];
    let mut family = page.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
    );
    for row in rows {
        let mut labels = row.labels().to_vec();
        labels.insert(1, ("cpu", "total"));
        family.sample(
            &labels,
            row.cpu.and_then(|c| seconds(c.usage_core_nano_seconds)),
            row.cpu.map(|c| c.at),
        );
    }
    for (name, kind, help, value) in families {
        let mut family = page.family(name, kind, help);
        for row in rows {
            let (value, at) = value(row);
            family.sample(&row.labels(), value, at);
        }
    }
    let faults = "Cumulative count of memory allocation failures.";
    let mut family = page.family("container_memory_failures_total", "counter", faults);
    for row in rows {
        for (kind, value) in [
            ("pgfault", row.memory.and_then(|m| m.page_faults)),
            ("pgmajfault", row.memory.and_then(|m| m.major_page_faults)),
        ] {
            let mut labels = row.labels().to_vec();
            labels.extend([("failure_type", kind), ("scope", "hierarchy")]);
            family.sample(&labels, number(value), row.memory.map(|m| m.at));
        }
    }
    let interfaces: [(&str, &str, OfInterface); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |i| i.rx_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |i| i.tx_errors,
        ),
    ];
    for (name, help, value) in interfaces {
        let mut family = page.family(name, "counter", help);
        for (row, interface) in rows.iter().flat_map(|r| r.interfaces.iter().map(move |i| (r, i))) {
            let mut labels = row.labels().to_vec();
            labels.insert(3, ("interface", &interface.name));
            family.sample(&labels, number(value(interface)), None);
        }
    }
}

impl Row<'_> {
    fn labels(&self) -> [(&str, &str); 6] {
        [
            ("container", self.container),
            ("id", &self.id),
            ("image", self.image),
            ("name", self.name),
            ("namespace", self.namespace),
            ("pod", self.pod),
        ]
    }
}
