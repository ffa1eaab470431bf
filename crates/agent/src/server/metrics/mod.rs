//! `/metrics` and the pages beside it, in the names that dashboards and autoscalers read.

mod cadvisor;
mod page;
mod resource;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
};

use http::{HeaderValue, Method, header};
use parking_lot::Mutex;

use super::{
    Kubelet,
    reply::{Reply, text},
};
pub(super) use cadvisor::cadvisor;
use page::Page;
pub(super) use resource::resource;

/// Counts of requests.
#[derive(Default)]
pub(super) struct Requests {
    counts: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    inflight: AtomicI64,
}

/// A request that is being answered.
pub(super) struct Begun<'a>(&'a AtomicI64);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    pub(super) fn begin(&self, method: &Method, path: &str) -> Begun<'_> {
        const METHODS: [&str; 8] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"];
        const PATHS: [&str; 11] = [
            "attach",
            "configz",
            "containerLogs",
            "exec",
            "healthz",
            "metrics",
            "pods",
            "portForward",
            "run",
            "runningpods",
            "stats",
        ];
        let method = METHODS.into_iter().find(|m| *m == method.as_str()).unwrap_or("other");
        let root = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let path = PATHS.into_iter().find(|p| *p == root).unwrap_or("other");
        *self.counts.lock().entry((method, path)).or_default() += 1;
        self.inflight.fetch_add(1, Ordering::Relaxed);
        Begun(&self.inflight)
    }
}

fn reply(page: Page) -> Reply {
    let mut reply = text(page.text());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}

/// `/metrics`: the kubelet itself.
pub(super) fn own(kubelet: &Kubelet) -> Reply {
    let mut page = Page::default();
    let name = kubelet.config.node_name.as_str();
    page.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.").sample(
        &[("node", name)],
        Some(1.0),
        None,
    );
    let pods = kubelet.pods.list();
    let (mut running_pods, mut states) = (0, BTreeMap::from([("created", 0), ("exited", 0), ("running", 0)]));
    for pod in &pods {
        let statuses = pod.status.iter().flat_map(|s| {
            let lists = [&s.container_statuses, &s.init_container_statuses, &s.ephemeral_container_statuses];
            lists.into_iter().flatten().flatten()
        });
        let mut runs = false;
        for state in statuses.filter_map(|s| s.state.as_ref()) {
            let name = match state {
                s if s.running.is_some() => "running",
                s if s.terminated.is_some() => "exited",
                _ => continue,
            };
            runs |= name == "running";
            *states.entry(name).or_default() += 1;
        }
        running_pods += i32::from(runs);
    }
    page.family("kubelet_running_pods", "gauge", "Number of pods that have a running pod sandbox").sample(
        &[],
        Some(running_pods.into()),
        None,
    );
    let mut family =
        page.family("kubelet_running_containers", "gauge", "Number of containers currently running");
    for (state, count) in states {
        family.sample(&[("container_state", state)], Some(count.into()), None);
    }
    let mut family =
        page.family("kubelet_http_requests_total", "counter", "Number of the http requests received");
    for ((method, path), count) in &*kubelet.requests.counts.lock() {
        family.sample(&[("method", method), ("path", path)], Some(*count as f64), None);
    }
    let inflight = kubelet.requests.inflight.load(Ordering::Relaxed);
    page.family("kubelet_http_inflight_requests", "gauge", "Number of the inflight http requests").sample(
        &[],
        Some(inflight as f64),
        None,
    );
    process(&mut page);
    reply(page)
}

/// This process, as every Prometheus client tells it.
fn process(page: &mut Page) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    // proc_pid_stat(5): after the name in parentheses, 12 words lead to utime and stime, 20 to starttime, 22 to rss
    let stat = read("stat");
    let words: Vec<f64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|w| w.parse().unwrap_or(0.0)).collect())
        .unwrap_or_default();
    let ticks = |i: usize| words.get(i).map(|t| t / 100.0);
    let cpu = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    page.family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.")
        .sample(&[], cpu, None);
    let boot = std::fs::read_to_string("/proc/stat").ok().and_then(|s| {
        s.lines().find_map(|l| l.strip_prefix("btime ")).and_then(|t| t.trim().parse::<f64>().ok())
    });
    let started = boot.zip(ticks(19)).map(|(boot, after)| boot + after);
    page.family(
        "process_start_time_seconds",
        "gauge",
        "Start time of the process since unix epoch in seconds.",
    )
    .sample(&[], started, None);
    let resident = read("status").lines().find_map(|l| l.strip_prefix("VmRSS:")).and_then(|l| {
        l.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).map(|kib| kib * 1024.0)
    });
    page.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.").sample(
        &[],
        resident,
        None,
    );
    let open = std::fs::read_dir("/proc/self/fd").map(|d| d.count() as f64).ok();
    page.family("process_open_fds", "gauge", "Number of open file descriptors.").sample(&[], open, None);
}

fn seconds(nanos: Option<u64>) -> Option<f64> {
    nanos.map(|n| n as f64 / 1e9)
}

fn number(value: Option<u64>) -> Option<f64> {
    value.map(|v| v as f64)
}
