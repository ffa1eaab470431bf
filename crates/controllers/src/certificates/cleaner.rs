//! certificatesigningrequest-cleaner-controller and podcertificaterequest-cleaner-controller: requests do not stay for ever.
//!
//! Upstream looks every hour and every five minutes; here each request is looked at when its time has come.
//!
//! Source: `pkg/controller/certificates/cleaner`.

use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest, PodCertificateRequest},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use x509_parser::{certificate::X509Certificate, pem::parse_x509_pem, prelude::FromDer};

use super::issued;
use crate::{Change, Controller, Key, Kind, Outcome, Plan, World, Write};

/// How long what is done stays: issued, denied, failed.
const DONE: SignedDuration = SignedDuration::from_hours(1);
/// How long what nobody has decided or signed stays.
const PENDING: SignedDuration = SignedDuration::from_hours(24);
/// How long a pod's request stays.
const POD: SignedDuration = SignedDuration::from_mins(15);
/// Times have whole seconds: nothing is deleted in the second in which it becomes too old.
const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The loop of CertificateSigningRequests.
pub struct Cleaner;

/// The loop of PodCertificateRequests.
pub struct PodCleaner;

fn after(time: Option<&Time>, wait: SignedDuration) -> Option<Timestamp> {
    time.map(|time| time.0.saturating_add(wait).unwrap_or(Timestamp::MAX))
}

/// When a request has to go.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    if conditions.is_empty() {
        return after(request.metadata.creation_timestamp.as_ref(), PENDING);
    }
    let certificate = issued(request);
    let ends = conditions.iter().filter_map(|condition| {
        let since = condition.last_update_time.as_ref();
        match (&*condition.type_, certificate) {
            ("Denied" | "Failed", _) => after(since, DONE),
            ("Approved", None) => after(since, PENDING),
            ("Approved", Some(pem)) => [after(since, DONE), expiry(pem)].into_iter().flatten().min(),
            _ => None,
        }
    });
    ends.min()
}

fn expiry(pem: &[u8]) -> Option<Timestamp> {
    let (_, block) = parse_x509_pem(pem).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

fn delete_at(end: Option<Timestamp>, now: Timestamp, write: impl FnOnce() -> Write) -> Plan {
    let mut plan = Plan::none();
    let Some(end) = end else { return plan };
    let end = end.saturating_add(SECOND).unwrap_or(Timestamp::MAX);
    if end <= now {
        plan.then(write());
    } else {
        plan.wake(end);
    }
    plan
}

impl Controller for Cleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<CertificateSigningRequest>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        change.after::<CertificateSigningRequest>().map(|r| Key::of(&r.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        match world.get::<CertificateSigningRequest>("", &key.name) {
            Some(found) => delete_at(end(&found), now, || Write::delete(&*found)),
            None => Plan::none(),
        }
    }
}

impl Controller for PodCleaner {
    fn name(&self) -> &'static str {
        "podcertificaterequest-cleaner-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<PodCertificateRequest>()]
    }

    fn keys(&self, change: &Change, _world: &World) -> Vec<Key> {
        change.after::<PodCertificateRequest>().map(|r| Key::of(&r.metadata)).into_iter().collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        match world.get::<PodCertificateRequest>(&key.namespace, &key.name) {
            Some(found) => {
                let end = after(found.metadata.creation_timestamp.as_ref(), POD);
                delete_at(end, now, || Write::delete(&*found))
            }
            None => Plan::none(),
        }
    }
}
