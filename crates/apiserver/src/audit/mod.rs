//! The audit log: who asked for what, and what came of it, as lines of `audit.k8s.io/v1 Event`.
//!
//! A [`Policy`] says how much is told of which request. What is told gathers on the request's [`Trail`], which handlers and
//! admission add to, and is written at its stages: `RequestReceived` once it is known who asks, `ResponseStarted` when the
//! answer to a request that may last begins, `ResponseComplete` when nothing works for the request any more, `Panic`
//! instead of that when its handler has panicked. A server without an audit log has no trails.
//!
//! Reading order: [`policy`], [`reading`] → [`trail`] → [`event`], [`sources`], [`capture`] (what is on it) → [`log`],
//! [`file`] (where it goes).
//!
//! Unlike upstream: no webhook backend, no mode but one (see [`log`]); `responseObject` only of errors and of resource
//! requests, and not of answers larger than a request may be; no annotations of latencies (`apiserver.latency.k8s.io/*`) and of stale or
//! legacy tokens (`authentication.k8s.io/*`). A request that ran out of time is complete, with the code of what the server
//! has done, when it has done it.
//!
//! Source: `k8s.io/apiserver/pkg/audit`, `…/endpoints/filters/audit.go`.

mod capture;
mod event;
mod file;
mod log;
mod policy;
mod reading;
mod sources;
mod trail;

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use access::UserInfo;
use http::{HeaderMap, HeaderValue};

use self::{
    event::Event,
    policy::{Level, Verdict},
};
pub use self::{file::Rotation, log::Log, policy::Policy};
pub(crate) use self::{sources::Remote, trail::Trail};
use crate::request::RequestInfo;

/// A longer `Audit-ID` of a request is cut, in characters. Upstream cuts it in its own log only.
const LONGEST_ID: usize = 64;
/// The header that names a request across servers.
pub(crate) const ID: &str = "audit-id";

/// The policy and the log of a server.
pub struct Audit {
    policy: Policy,
    log: Log,
    told: AtomicU64,
    /// Requests by level.
    levels: [AtomicU64; 4],
}

impl Audit {
    /// What `policy` says goes to `log`.
    #[must_use]
    pub fn new(policy: Policy, log: Log) -> Arc<Self> {
        Arc::new(Self { policy, log, told: AtomicU64::default(), levels: Default::default() })
    }

    /// Resolves when everything that was told is written.
    pub async fn flush(&self) {
        self.log.flush().await;
    }

    fn judge(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Verdict {
        let verdict = self.policy.judge(user, info);
        self.levels[verdict.level as usize].fetch_add(1, Relaxed);
        verdict
    }

    fn tell(&self, event: &Event) {
        self.told.fetch_add(1, Relaxed);
        match serde_json::to_vec(event) {
            Ok(mut line) => {
                line.push(b'\n');
                self.log.push(line);
            }
            Err(error) => tracing::error!(%error, "an audit event cannot be written"),
        }
    }

    /// Appends what `/metrics` says of it.
    pub(crate) fn page(&self, out: &mut String) {
        let head = |out: &mut String, name: &str, help: &str| {
            let _ =
                writeln!(out, "# HELP apiserver_audit_{name} {help}\n# TYPE apiserver_audit_{name} counter");
        };
        head(out, "event_total", "Counter of audit events generated and sent to the audit backend.");
        let _ = writeln!(out, "apiserver_audit_event_total {}", self.told.load(Relaxed));
        head(out, "error_total", "Counter of audit events that could not be written.");
        let _ = writeln!(out, "apiserver_audit_error_total{{plugin=\"log\"}} {}", self.log.lost());
        head(out, "level_total", "Counter of policy levels for audit events (1 per request).");
        for level in Level::ALL {
            let count = self.levels[level as usize].load(Relaxed);
            let _ = writeln!(out, "apiserver_audit_level_total{{level=\"{}\"}} {count}", level.name());
        }
    }
}

/// The name of a request: the one it was given, as far as it is text and short, or a new one.
pub(crate) fn id(headers: &HeaderMap) -> Option<HeaderValue> {
    let given = headers.get(ID).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.is_empty() {
        return uuid::Uuid::new_v4().to_string().parse().ok();
    }
    // Text of a header is ASCII.
    HeaderValue::from_str(&given[..given.len().min(LONGEST_ID)]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_name_if_that_can_be_one() {
        let named = |name: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(ID, HeaderValue::from_bytes(name).unwrap());
            id(&headers).unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(named(b"my-request"), "my-request");
        assert_eq!(named(&[b'x'; 70]), "x".repeat(64));
        assert_eq!(named(b"").len(), 36);
        assert_eq!(named(b"\xff\xff").len(), 36);
    }
}
