//! How long a Job waits before it makes new pods after failures.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::core::v1::Pod,
    jiff::{SignedDuration, Timestamp},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pods;

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const MOST: SignedDuration = SignedDuration::from_mins(10);

/// What is remembered of a Job's failures.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    uid: String,
    /// Since the last success.
    failures: u32,
    last: Option<Timestamp>,
    /// Pods that are in it and will be seen again until they are counted in the Job's status.
    known: BTreeSet<String>,
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

impl Record {
    /// What was remembered, with pods that have succeeded and failed and are not yet counted.
    pub fn next(remembered: &Value, job: &str, succeeded: &[&Arc<Pod>], failed: &[&Arc<Pod>]) -> Self {
        let mut record: Self = serde_json::from_value(remembered.clone()).unwrap_or_default();
        if record.uid != job {
            record = Self { uid: job.to_owned(), ..Self::default() };
        }
        let new = |pods: &[&Arc<Pod>]| -> Vec<Timestamp> {
            let new = pods.iter().filter(|pod| !record.known.contains(&uid(pod)));
            new.map(|pod| pods::finished_at(pod)).collect()
        };
        let (successes, mut failures) = (new(succeeded), new(failed));
        if let Some(last) = successes.iter().max() {
            record.failures = 0;
            record.last = None;
            failures.retain(|at| at > last);
        }
        record.failures = record.failures.saturating_add(u32::try_from(failures.len()).unwrap_or(u32::MAX));
        record.last = record.last.max(failures.into_iter().max());
        record.known = succeeded.iter().chain(failed).map(|pod| uid(pod)).collect();
        record
    }

    /// When new pods may come.
    pub fn end(&self) -> Timestamp {
        self.last.map_or(Timestamp::MIN, |last| wait_after(self.failures, last))
    }

    /// To be remembered.
    pub fn to_value(&self) -> Value {
        if self.failures == 0 && self.known.is_empty() {
            return Value::Null;
        }
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// When the index of a pod that has failed may have a new one.
pub fn end_for_index(pod: &Pod) -> Timestamp {
    let failures = pods::all_failures(pod).saturating_add(1).unsigned_abs();
    wait_after(failures, pods::finished_at(pod))
}

/// 10 s, doubled with each failure, at most 10 min.
fn wait_after(failures: u32, last: Timestamp) -> Timestamp {
    if failures == 0 {
        return Timestamp::MIN;
    }
    let wait = crate::Backoff { first: FIRST, most: MOST }.after(failures);
    last.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, object};

    fn pod(name: &str, second: i64) -> Arc<Pod> {
        let time = at(second).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        Arc::new(object(json!({"metadata": {"name": name, "uid": name, "creationTimestamp": time}})))
    }

    #[test]
    fn failures_after_the_last_success_double_the_wait() {
        let (a, b, c) = (pod("a", 100), pod("b", 110), pod("c", 120));
        let first = Record::next(&Value::Null, "j", &[], &[&a]);
        assert_eq!(first.end(), at(110));
        let again = Record::next(&first.to_value(), "j", &[], &[&a]);
        assert_eq!(again.end(), at(110), "the same pod is not counted twice");
        let second = Record::next(&again.to_value(), "j", &[], &[&a, &b]);
        assert_eq!(second.end(), at(130));
        let success = Record::next(&second.to_value(), "j", &[&c], &[]);
        assert_eq!(success.end(), Timestamp::MIN);
        let other = Record::next(&second.to_value(), "another", &[], &[]);
        assert_eq!(other.end(), Timestamp::MIN);
    }
}
