//! `/metrics`: what the server counts, in Prometheus' text form.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use parking_lot::Mutex;

/// Upper bounds of the duration histogram, in seconds (upstream's, thinned).
const BOUNDS: [f64; 9] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0];

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    buckets: [u64; BOUNDS.len()],
    sum: f64,
    count: u64,
}

/// Counters of requests.
#[derive(Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, String), Series>>,
}

impl Metrics {
    /// Counts one answered request.
    pub fn observe(&self, verb: &'static str, resource: &str, code: u16, took: Duration) {
        let mut requests = self.requests.lock();
        // Resources come from the URL: an attacker must not fill the memory with names.
        let known = requests.len() < 2000 || requests.contains_key(&(verb, resource.to_owned()));
        let resource = if known { resource } else { "other" };
        let series = requests.entry((verb, resource.to_owned())).or_default();
        let seconds = took.as_secs_f64();
        *series.codes.entry(code).or_default() += 1;
        for (bucket, bound) in series.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(seconds <= bound);
        }
        series.sum += seconds;
        series.count += 1;
    }

    /// The page. `revision` is the newest of the store.
    #[must_use]
    pub fn page(&self, revision: u64) -> String {
        let mut out = String::new();
        out.push_str("# HELP apiserver_request_total Counter of apiserver requests broken out for each verb, resource and HTTP response code.\n# TYPE apiserver_request_total counter\n");
        let requests = self.requests.lock();
        let label = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        for ((verb, resource), series) in &*requests {
            for (code, count) in &series.codes {
                let _ = writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",resource=\"{}\",verb=\"{}\"}} {count}",
                    label(resource),
                    verb.to_uppercase(),
                );
            }
        }
        out.push_str("# HELP apiserver_request_duration_seconds Response latency distribution in seconds.\n# TYPE apiserver_request_duration_seconds histogram\n");
        for ((verb, resource), series) in &*requests {
            let labels = format!("resource=\"{}\",verb=\"{}\"", label(resource), verb.to_uppercase());
            for (bucket, bound) in series.buckets.iter().zip(BOUNDS) {
                let _ = writeln!(
                    out,
                    "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {bucket}"
                );
            }
            let _ = writeln!(
                out,
                "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}",
                series.count
            );
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {}", series.sum);
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {}", series.count);
        }
        let _ = writeln!(
            out,
            "# HELP apiserver_storage_revision Newest revision of the store.\n# TYPE apiserver_storage_revision gauge\napiserver_storage_revision {revision}"
        );
        out
    }
}
