//! `apiserver_flowcontrol_*` on `/metrics`.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use super::{
    Flow,
    borrowing::Known,
    stats::{BOUNDS, REASONS, Stats},
};

const PREFIX: &str = "apiserver_flowcontrol_";

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} {kind}");
}

/// Seats of levels, and what they go by.
fn borrowing(flow: &Flow, out: &mut String) {
    let snapshot = flow.snapshot.load();
    let mut levels: Vec<(&str, Known, Option<f64>)> = snapshot
        .levels()
        .map(|level| {
            let (known, target) = level.figures();
            (level.spec.name.as_str(), known, target)
        })
        .collect();
    levels.sort_by_key(|(name, ..)| *name);
    let mut each = |name: &str, help: &str, of: &dyn Fn(&Known) -> f64| {
        head(out, name, "gauge", help);
        for (level, known, _) in &levels {
            let _ = writeln!(out, "{PREFIX}{name}{{priority_level=\"{level}\"}} {}", of(known));
        }
    };
    each(
        "nominal_limit_seats",
        "Nominal number of execution seats configured for each priority level",
        &|known| known.bounds.nominal.into(),
    );
    each("lower_limit_seats", "Least number of execution seats of each priority level", &|known| {
        known.bounds.least.into()
    });
    each("upper_limit_seats", "Largest number of execution seats of each priority level", &|known| {
        known.bounds.most.into()
    });
    each("current_limit_seats", "Number of execution seats available to each priority level now", &|known| {
        known.current.into()
    });
    each(
        "demand_seats_high_watermark",
        "Most seats that each priority level could use in the last period",
        &|known| known.demand.most.into(),
    );
    each(
        "demand_seats_average",
        "Seats that each priority level could use, mean over the last period",
        &|known| known.demand.average,
    );
    each(
        "demand_seats_stdev",
        "Standard deviation of the seats that each priority level could use",
        &|known| known.demand.deviation,
    );
    each("demand_seats_smoothed", "Smoothed seat demands", &|known| known.demand.smoothed);
    head(out, "target_seats", "gauge", "Seat allocation targets");
    for (level, _, target) in &levels {
        if let Some(target) = target {
            let _ = writeln!(out, "{PREFIX}target_seats{{priority_level=\"{level}\"}} {target}");
        }
    }
    let name = "seat_fair_frac";
    head(out, name, "gauge", "Part of its target that a priority level gets where no bound stops it");
    let _ = writeln!(out, "{PREFIX}{name} {}", flow.last.lock().fair);
}

/// Appends the page. Names of objects need no escaping in labels.
pub(crate) fn page(flow: &Flow, out: &mut String) {
    borrowing(flow, out);
    let mut all: Vec<_> =
        flow.stats.lock().iter().map(|(names, stats)| (names.clone(), stats.clone())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let mut each = |name: &str, kind: &str, help: &str, of: &dyn Fn(&Stats) -> i64| {
        head(out, name, kind, help);
        for ((level, schema), stats) in &all {
            let labels = format!("flow_schema=\"{schema}\",priority_level=\"{level}\"");
            let _ = writeln!(out, "{PREFIX}{name}{{{labels}}} {}", of(stats));
        }
    };
    each("dispatched_requests_total", "counter", "Number of requests executed", &|s| {
        i64::try_from(s.dispatched.load(Relaxed)).unwrap_or(i64::MAX)
    });
    each("current_inqueue_requests", "gauge", "Number of requests waiting in queues", &|s| {
        s.waiting.load(Relaxed)
    });
    each("current_executing_requests", "gauge", "Number of requests in execution", &|s| {
        s.executing.load(Relaxed)
    });
    each("current_executing_seats", "gauge", "Seats taken by requests in execution", &|s| {
        s.executing_seats.load(Relaxed)
    });
    head(out, "rejected_requests_total", "counter", "Number of requests refused");
    for ((level, schema), stats) in &all {
        for (reason, count) in REASONS.iter().zip(&stats.rejected) {
            let count = count.load(Relaxed);
            if count > 0 {
                let labels =
                    format!("flow_schema=\"{schema}\",priority_level=\"{level}\",reason=\"{reason}\"");
                let _ = writeln!(out, "{PREFIX}rejected_requests_total{{{labels}}} {count}");
            }
        }
    }
    let name = "request_wait_duration_seconds";
    head(out, name, "histogram", "How long requests waited for seats, in seconds");
    for ((level, schema), stats) in &all {
        for (waits, executed) in stats.waits.iter().zip(["true", "false"]) {
            let count = waits.count.load(Relaxed);
            if count == 0 {
                continue;
            }
            let labels =
                format!("execute=\"{executed}\",flow_schema=\"{schema}\",priority_level=\"{level}\"");
            let mut sum = 0;
            for (bound, bucket) in BOUNDS.iter().zip(&waits.buckets) {
                sum += bucket.load(Relaxed);
                let _ = writeln!(out, "{PREFIX}{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
            }
            let _ = writeln!(out, "{PREFIX}{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
            let seconds = waits.micros.load(Relaxed) as f64 / 1e6;
            let _ = writeln!(out, "{PREFIX}{name}_sum{{{labels}}} {seconds}");
            let _ = writeln!(out, "{PREFIX}{name}_count{{{labels}}} {count}");
        }
    }
}
