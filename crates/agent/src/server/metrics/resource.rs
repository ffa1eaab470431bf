//! `/metrics/resource`

use super::{number, page::Page, reply, seconds};
use crate::server::{
    Kubelet,
    reply::{Refused, Reply},
    stats::summary::{Container, Pod, Summary},
};

/// `/metrics/resource`: what the metrics server reads. Of a failure it tells in `resource_scrape_error`.
pub(in super::super) async fn resource(kubelet: &Kubelet) -> Reply {
    let mut page = Page::default();
    let summary = kubelet.stats.summary(&kubelet.config, &*kubelet.pods, true).await;
    let failed = summary.as_ref().err().map(|Refused(_, why)| why);
    if let Some(why) = failed {
        tracing::warn!(why, "resource metrics cannot be had");
    }
    let error = Some(if failed.is_some() { 1.0 } else { 0.0 });
    if let Ok(summary) = &summary {
        resources(&mut page, summary);
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    page.family("resource_scrape_error", "gauge", help).sample(&[], error, None);
    page.family("scrape_error", "gauge", help).sample(&[], error, None);
    reply(page)
}

type OfContainer = fn(&Container) -> (Option<f64>, Option<i64>);
type OfPod = fn(&Pod) -> (Option<f64>, Option<i64>);

const CPU_HELP: &str = "Cumulative cpu time consumed by the container in core-seconds";

fn resources(page: &mut Page, summary: &Summary) {
    let containers: [(&str, &str, &str, OfContainer); 5] = [
        ("container_cpu_usage_seconds_total", "counter", CPU_HELP, |c| {
            let cpu = c.cpu.as_ref();
            (cpu.and_then(|u| seconds(u.usage_core_nano_seconds)), cpu.map(|u| u.at))
        }),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set of the container in bytes",
            |c| {
                let memory = c.memory.as_ref();
                (memory.and_then(|u| number(u.working_set_bytes)), memory.map(|u| u.at))
            },
        ),
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds",
            |c| (c.started, None),
        ),
        ("container_swap_limit_bytes", "gauge", "Current amount of the container swap limit in bytes", |c| {
            let limit =
                c.swap.as_ref().and_then(|s| Some(s.swap_available_bytes? + s.swap_usage_bytes.unwrap_or(0)));
            (number(limit), None)
        }),
        ("container_swap_usage_bytes", "gauge", "Current amount of the container swap usage in bytes", |c| {
            (number(c.swap.as_ref().and_then(|s| s.swap_usage_bytes)), None)
        }),
    ];
    for (name, kind, help, value) in containers {
        let mut family = page.family(name, kind, help);
        for (pod, container) in summary.pods.iter().flat_map(|p| p.containers.iter().map(move |c| (p, c))) {
            let labels = [
                ("container", container.name.as_str()),
                ("namespace", pod.pod_ref.namespace.as_str()),
                ("pod", pod.pod_ref.name.as_str()),
            ];
            let (value, at) = value(container);
            family.sample(&labels, value, at);
        }
    }
    let pods: [(&str, &str, &str, OfPod); 3] = [
        (
            "pod_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed by the pod in core-seconds",
            |p| {
                let cpu = p.cpu.as_ref();
                (cpu.and_then(|u| seconds(u.usage_core_nano_seconds)), cpu.map(|u| u.at))
            },
        ),
        ("pod_memory_working_set_bytes", "gauge", "Current working set of the pod in bytes", |p| {
            let memory = p.memory.as_ref();
            (memory.and_then(|u| number(u.working_set_bytes)), memory.map(|u| u.at))
        }),
        ("pod_swap_usage_bytes", "gauge", "Current amount of the pod swap usage in bytes", |p| {
            (number(p.swap.as_ref().and_then(|s| s.swap_usage_bytes)), None)
        }),
    ];
    for (name, kind, help, value) in pods {
        let mut family = page.family(name, kind, help);
        for pod in &summary.pods {
            let labels = [("namespace", pod.pod_ref.namespace.as_str()), ("pod", pod.pod_ref.name.as_str())];
            let (value, at) = value(pod);
            family.sample(&labels, value, at);
        }
    }
    let node = &summary.node;
    let cpu = node.cpu.as_ref();
    page.family(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    )
    .sample(&[], cpu.and_then(|u| seconds(u.usage_core_nano_seconds)), cpu.map(|u| u.at));
    let memory = node.memory.as_ref();
    page.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes").sample(
        &[],
        memory.and_then(|u| number(u.working_set_bytes)),
        memory.map(|u| u.at),
    );
    page.family("node_swap_usage_bytes", "gauge", "Current swap usage of the node in bytes").sample(
        &[],
        node.swap.as_ref().and_then(|s| number(s.swap_usage_bytes)),
        None,
    );
}
