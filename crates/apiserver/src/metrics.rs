//! `/metrics`: what the server counts, in Prometheus' text form and under upstream's names.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/metrics`.

use std::{
    collections::HashMap,
    fmt::Write as _,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use crate::{catalogue::View, flow, request::RequestInfo, server::Inner};

/// Upper bounds of the duration histogram, in seconds.
const BOUNDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// So many kinds of requests are told apart at most; codes are told apart in each.
const MOST: usize = 5000;

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Labels<'a> {
    /// `GET LIST WATCH POST PUT PATCH APPLY DELETE DELETECOLLECTION CONNECT`, or another method.
    pub verb: &'static str,
    pub dry_run: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// `resource`, `namespace`, `cluster`, or nothing.
    pub scope: &'static str,
}

impl<'a> Labels<'a> {
    /// Of a request. `known`: this server serves the resource and its subresource; names that it does not know are not told, since anybody
    /// could make them up.
    pub fn of(info: &'a RequestInfo, known: bool, apply: bool, dry_run: bool) -> Self {
        let name = |text: &'a str| if known { text } else { "" };
        let connect =
            matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log");
        let verb = match info.verb {
            _ if known && connect => "CONNECT",
            "get" | "head" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if apply => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let scope = if !info.name.is_empty() || info.verb == "create" {
            "resource"
        } else if !info.namespace.is_empty() {
            "namespace"
        } else if info.is_resource {
            "cluster"
        } else {
            ""
        };
        Self {
            verb,
            dry_run,
            group: name(&info.group),
            version: name(&info.version),
            resource: name(&info.resource),
            subresource: name(&info.subresource),
            scope,
        }
    }

    fn text(&self) -> String {
        let Self { verb, dry_run, group, version, resource, subresource, scope } = self;
        let dry_run = if *dry_run { "All" } else { "" };
        format!(
            "component=\"apiserver\",dry_run=\"{dry_run}\",group=\"{group}\",resource=\"{resource}\",\
             scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\"",
        )
    }
}

#[derive(Default)]
struct Counts {
    codes: Vec<(u16, u64)>,
    buckets: [u64; BOUNDS.len()],
    sum: f64,
    count: u64,
}

/// Counters of one kind of requests.
pub struct Series {
    /// All labels but the code, as they are written.
    labels: String,
    counts: Mutex<Counts>,
}

impl Series {
    /// Counts one answered request.
    pub fn observe(&self, code: u16, took: Duration) {
        let seconds = took.as_secs_f64();
        let mut counts = self.counts.lock();
        match counts.codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => counts.codes.push((code, 1)),
        }
        if let Some(index) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            counts.buckets[index] += 1;
        }
        counts.sum += seconds;
        counts.count += 1;
    }
}

/// Counters of requests.
#[derive(Default)]
pub struct Metrics {
    hasher: RandomState,
    /// By the hash of the labels.
    requests: Mutex<HashMap<u64, Arc<Series>>>,
    /// Requests that are worked at: those that read, those that write.
    inflight: [AtomicI64; 2],
}

/// A request that is worked at.
pub struct Inflight<'a>(&'a AtomicI64);

impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Counts a request until the guard is dropped.
    pub fn begin(&self, write: bool) -> Inflight<'_> {
        let counter = &self.inflight[usize::from(write)];
        counter.fetch_add(1, Relaxed);
        Inflight(counter)
    }

    /// Where requests of these labels are counted.
    pub fn series(&self, labels: Labels<'_>) -> Arc<Series> {
        let mut hash = self.hasher.hash_one(labels);
        let mut requests = self.requests.lock();
        let mut labels = labels;
        if requests.len() >= MOST && !requests.contains_key(&hash) {
            labels = Labels { group: "", version: "", resource: "other", subresource: "", ..labels };
            hash = self.hasher.hash_one(labels);
        }
        let new = || Arc::new(Series { labels: labels.text(), counts: Mutex::default() });
        requests.entry(hash).or_insert_with(new).clone()
    }

    fn requests(&self, out: &mut String) {
        head(
            out,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        let mut all: Vec<Arc<Series>> = self.requests.lock().values().cloned().collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        for series in &all {
            for (code, count) in &series.counts.lock().codes {
                let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {count}", series.labels);
            }
        }
        let name = "apiserver_request_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for series in &all {
            let labels = &series.labels;
            let counts = series.counts.lock();
            let Counts { buckets, sum, count, .. } = &*counts;
            // A request that is not answered yet.
            if *count == 0 {
                continue;
            }
            let mut below = 0;
            for (bucket, bound) in buckets.iter().zip(BOUNDS) {
                below += bucket;
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
        }
        let name = "apiserver_current_inflight_requests";
        head(out, name, "gauge", "Requests that are worked at, or wait for a seat, per request kind.");
        for (kind, count) in ["readOnly", "mutating"].iter().zip(&self.inflight) {
            let _ = writeln!(out, "{name}{{request_kind=\"{kind}\"}} {}", count.load(Relaxed));
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The page.
pub(crate) fn page(inner: &Inner) -> String {
    let mut out = String::new();
    inner.metrics.requests(&mut out);
    watches(inner, &mut out);
    objects(inner, &mut out);
    flow::page(&inner.flow, &mut out);
    if let Some(audit) = &inner.config.audit {
        audit.page(&mut out);
    }
    let name = "aggregator_unavailable_apiservice";
    head(&mut out, name, "gauge", "APIServices of other servers that do not answer, by name.");
    for remote in inner.aggregation.table.load().remotes() {
        let count = u8::from(!remote.available);
        let _ = writeln!(out, "{name}{{name=\"{}\"}} {count}", remote.backend.name);
    }
    let name = "apiserver_storage_revision";
    head(&mut out, name, "gauge", "Newest revision of the store.");
    let _ = writeln!(out, "{name} {}", inner.config.store.revision());
    out
}

fn watches(inner: &Inner, out: &mut String) {
    let catalogue = inner.catalogue.load();
    let mut all: Vec<_> = catalogue.all().filter(|s| s.watches.ever()).collect();
    all.sort_by(|a, b| (&a.api_version, &a.resource.plural).cmp(&(&b.api_version, &b.resource.plural)));
    let name = "apiserver_longrunning_requests";
    head(out, name, "gauge", "Gauge of all active watches broken out by group, version and resource.");
    for served in &all {
        let resource = &served.resource;
        let (group, version, plural) = (&resource.group, &resource.version, &resource.plural);
        let _ = writeln!(
            out,
            "{name}{{component=\"apiserver\",group=\"{group}\",resource=\"{plural}\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"{version}\"}} {}",
            served.watches.open(),
        );
    }
    let name = "apiserver_watch_events_total";
    head(out, name, "counter", "Number of events sent in watch clients");
    for served in &all {
        let resource = &served.resource;
        let (group, version, plural) = (&resource.group, &resource.version, &resource.plural);
        let labels = format!("group=\"{group}\",resource=\"{plural}\",version=\"{version}\"");
        let _ = writeln!(out, "{name}{{{labels}}} {}", served.watches.events());
    }
}

/// How many objects there are, under the name of today and the one that upstream will drop.
fn objects(inner: &Inner, out: &mut String) {
    let catalogue = inner.catalogue.load();
    let mut counts: Vec<_> = catalogue
        .by_prefix
        .values()
        .filter(|served| !matches!(served.view, View::Converted(_)))
        .map(|served| {
            let count = inner.flow.counts.of(inner, &served.prefix);
            (&served.resource.group, &served.resource.plural, count)
        })
        .filter(|(.., count)| count.objects > 0)
        .collect();
    counts.sort_by_key(|(group, plural, _)| (*group, *plural));
    let name = "apiserver_resource_objects";
    head(out, name, "gauge", "Number of stored objects split by kind.");
    for (group, plural, count) in &counts {
        let _ = writeln!(out, "{name}{{group=\"{group}\",resource=\"{plural}\"}} {}", count.objects);
    }
    let name = "apiserver_resource_size_estimate_bytes";
    head(out, name, "gauge", "Estimated size of stored objects, from the first of them.");
    for (group, plural, count) in &counts {
        let bytes = count.objects * count.size;
        let _ = writeln!(out, "{name}{{group=\"{group}\",resource=\"{plural}\"}} {bytes}");
    }
    let name = "apiserver_storage_objects";
    head(out, name, "gauge", "Number of stored objects split by kind.");
    for (group, plural, count) in &counts {
        let dot = if group.is_empty() { "" } else { "." };
        let _ = writeln!(out, "{name}{{resource=\"{plural}{dot}{group}\"}} {}", count.objects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    #[test]
    fn made_up_names_and_endless_kinds_of_requests_do_not_fill_the_memory() {
        let metrics = Metrics::default();
        for n in 0..2 * MOST {
            let path = format!("/apis/x{n}/v1/y{n}");
            let info = RequestInfo::parse(&http::Method::GET, &path, &Query::default());
            metrics.series(Labels::of(&info, false, false, false)).observe(404, Duration::ZERO);
            metrics.series(Labels::of(&info, true, false, false)).observe(200, Duration::ZERO);
        }
        assert!(metrics.requests.lock().len() <= MOST + 1);
        let mut page = String::new();
        metrics.requests(&mut page);
        assert!(page.contains(
            "code=\"404\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"\",scope=\"cluster\""
        ));
        assert!(page.contains("resource=\"other\""));
    }

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        let info = RequestInfo::parse(&http::Method::GET, "/api/v1/pods", &Query::default());
        for millis in [1, 300, 70_000] {
            metrics.series(Labels::of(&info, true, false, false)).observe(200, Duration::from_millis(millis));
        }
        let mut page = String::new();
        metrics.requests(&mut page);
        let labels = Labels::of(&info, true, false, false).text();
        for (bound, count) in [("0.005", 1), ("0.4", 2), ("60", 2), ("+Inf", 3)] {
            let line =
                format!("apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}\n");
            assert!(page.contains(&line), "{line}");
        }
    }
}
