//! What is wrong with a change of a PodCertificateRequest's status.
//!
//! Source: `ValidatePodCertificateRequestStatusUpdate` of `k8s.io/kubernetes/pkg/apis/certificates/validation`.

use apimachinery::{FieldError, FieldPath};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::{
    bytes, pem,
    x509::{Certificate, Request},
};
use crate::{
    cells,
    checks::{Checks, path},
    object::{at, has, list, number, same, text},
};

/// Of these there is one at most, and it is true. With it the status is final.
const STATES: [&str; 3] = ["Issued", "Denied", "Failed"];

/// Bytes.
const LARGEST_CHAIN: usize = 100 * 1024;

/// How far the beginning of a certificate's life may lie from now, minutes.
const SKEW: i64 = 5;
/// How far a refresh has to lie within a certificate's life, minutes.
const MARGIN: i64 = 10;

fn is(object: &Value, state: &str) -> bool {
    list(object, "status.conditions").iter().any(|c| c["type"] == state && c["status"] == "True")
}

/// See the module. `now` is the server's time.
pub fn check(checks: &mut Checks, new: &Value, old: &Value, now: DateTime<Utc>) {
    check_conditions(checks, list(new, "status.conditions"));
    if !checks.errors.is_empty() {
        return;
    }
    let (after, before) = (at(new, "status"), at(old, "status"));
    if STATES.iter().any(|state| is(old, state)) {
        let detail = "immutable after PodCertificateRequest is issued, denied, or failed";
        require_same(checks, after, before, detail);
    } else if is(new, "Denied") || is(new, "Failed") {
        let only = json!({"conditions": at(after, "conditions")});
        let detail =
            "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
        require_same(checks, after, &only, detail);
    } else if is(new, "Issued") {
        Issue { status: after, spec: at(old, "spec"), now }.check(checks);
    } else {
        let detail = r#"status is immutable unless transitioning to "Issued", "Denied", or "Failed""#;
        require_same(checks, after, before, detail);
    }
}

fn require_same(checks: &mut Checks, status: &Value, wanted: &Value, detail: &str) {
    if !same(status, wanted) {
        checks.omitted(&path("status"), detail);
    }
}

fn check_conditions(checks: &mut Checks, conditions: &[Value]) {
    let path = path("status").child("conditions");
    let mut known = 0;
    for (index, condition) in conditions.iter().enumerate() {
        // Upstream writes the index as a name of its own.
        let path = path.child(&format!("[{index}]"));
        let kind = text(condition, "type");
        if !STATES.contains(&kind) {
            checks.one_of(&path.child("type"), kind, &STATES);
            continue;
        }
        known += 1;
        if known > 1 {
            let detail = r#"There may be at most one condition with type "Issued", "Denied", or "Failed""#;
            checks.invalid(&path.child("type"), kind, detail);
        }
        checks.one_of(&path.child("status"), text(condition, "status"), &["True"]);
    }
    checks.conditions(&path, conditions);
}

/// A request that becomes issued.
struct Issue<'v> {
    status: &'v Value,
    spec: &'v Value,
    now: DateTime<Utc>,
}

impl Issue<'_> {
    fn path(field: &str) -> FieldPath {
        path("status").child(field)
    }

    /// A fault of the chain, which is shown whole.
    fn refuse(&self, checks: &mut Checks, detail: &str) {
        checks.invalid(&Self::path("certificateChain"), text(self.status, "certificateChain"), detail);
    }

    fn check(&self, checks: &mut Checks) {
        let chain = text(self.status, "certificateChain");
        if chain.len() > LARGEST_CHAIN {
            let path = Self::path("certificateChain");
            return checks.errors.push(FieldError::too_long(&path, LARGEST_CHAIN));
        }
        let mut blocks = pem::blocks(chain);
        let Some(leaf) = blocks.next() else {
            return self.refuse(checks, "issued certificate chain must contain at least one certificate");
        };
        if leaf.label != "CERTIFICATE" {
            let detail = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks";
            return self.refuse(checks, detail);
        }
        let Ok(leaf) = Certificate::from_der(&leaf.data) else {
            return self.refuse(checks, "leaf certificate does not parse as valid X.509");
        };
        check_names(checks, &leaf);
        match Request::from_der(&bytes(at(self.spec, "stubPKCS10Request"))) {
            Err(_) => {
                let path = path("spec").child("stubPKCS10Request");
                return checks.omitted(&path, "must be a valid PKCS#10 CSR");
            }
            Ok(request) if request.key != leaf.key => {
                return self.refuse(checks, "leaf certificate was not issued to the requested public key");
            }
            Ok(_) => {}
        }
        if self.check_times(checks, &leaf) {
            self.check_rest(checks, blocks);
        }
    }

    /// Whether the times of the status are there and fit the certificate.
    fn check_times(&self, checks: &mut Checks, leaf: &Certificate) -> bool {
        let consistent = "must be present and consistent with the issued certificate";
        let range = "must be present and in the range [notbefore+10min, notafter-10min]";
        for (field, detail) in
            [("notBefore", consistent), ("notAfter", consistent), ("beginRefreshAt", range)]
        {
            if !has(self.status, field) {
                checks.required(&Self::path(field), detail);
            }
        }
        if !checks.errors.is_empty() {
            return false;
        }
        let time = |field: &str| cells::parse(at(self.status, field)).unwrap_or_default();
        let (from, until, refresh) = (time("notBefore"), time("notAfter"), time("beginRefreshAt"));
        let life = leaf.not_after - leaf.not_before;
        let longest = number(self.spec, "maxExpirationSeconds");
        let wrong = |field: &str, detail: &str| {
            FieldError::invalid(&Self::path(field), at(self.status, field).clone(), detail)
        };
        // Durations are told in nanoseconds.
        let wrong_life = |detail: &str| {
            let nanoseconds = life.saturating_mul(1_000_000_000);
            FieldError::invalid(&Self::path("certificateChain"), nanoseconds, detail)
        };
        let error = if from.timestamp() != leaf.not_before {
            wrong("notBefore", "must be set to the NotBefore time encoded in the leaf certificate")
        } else if (from - self.now).abs() >= TimeDelta::minutes(SKEW) {
            wrong("notBefore", "must be set to within 5 minutes of kube-apiserver's current time")
        } else if until.timestamp() != leaf.not_after {
            wrong("notAfter", "must be set to the NotAfter time encoded in the leaf certificate")
        } else if life < 3600 {
            wrong_life("leaf certificate lifetime must be >= 1 hour")
        } else if life > longest {
            let detail =
                format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})");
            wrong_life(&detail)
        } else if refresh - from < TimeDelta::minutes(MARGIN) {
            wrong("beginRefreshAt", "must be at least 10 minutes after status.notBefore")
        } else if until - refresh < TimeDelta::minutes(MARGIN) {
            wrong("beginRefreshAt", "must be at least 10 minutes before status.notAfter")
        } else {
            return true;
        };
        checks.errors.push(error);
        false
    }

    /// The certificates behind the leaf only have to be certificates.
    fn check_rest(&self, checks: &mut Checks, blocks: impl Iterator<Item = pem::Block>) {
        for block in blocks {
            if block.label != "CERTIFICATE" {
                // Upstream's spelling.
                let detail = "issued certificate chain must consist entirely of CERTFICATE PEM blocks";
                return self.refuse(checks, detail);
            }
            if Certificate::from_der(&block.data).is_err() {
                return self.refuse(checks, "intermediate certificate does not parse as valid X.509");
            }
        }
    }
}

fn check_names(checks: &mut Checks, leaf: &Certificate) {
    let path = Issue::path("certificateChain");
    for name in &leaf.dns_names {
        if name.is_empty() {
            checks.invalid(&path, name.as_str(), "leaf certificate should not contain empty DNSName");
        }
        if name.contains("..") {
            checks.invalid(&path, name.as_str(), "leaf certificate's DNSName should not contain '..'");
        }
        if name.starts_with('.') || name.ends_with('.') {
            let detail = "leaf certificate's DNSName should not start or end with '.'";
            checks.invalid(&path, name.as_str(), detail);
        }
    }
    for address in leaf.emails.iter().filter(|address| !is_mail_address(address)) {
        let detail = "leaf certificate should not contain invalid EmailAddress";
        checks.invalid(&path, address.as_str(), detail);
    }
}

/// An address as certificates hold it: `local@domain`, both of dot-separated atoms (RFC 5322, 3.4.1).
fn is_mail_address(address: &str) -> bool {
    let atom = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c))
    };
    address
        .rsplit_once('@')
        .is_some_and(|(local, domain)| [local, domain].iter().all(|p| p.split('.').all(atom)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_addresses_are_atoms_around_an_at() {
        for good in ["a@b.c", "a.b+c@d"] {
            assert!(is_mail_address(good), "{good}");
        }
        for bad in ["", "a", "@b", "a@", "a..b@c", "a b@c", ".a@b", "a@b@c"] {
            assert!(!is_mail_address(bad), "{bad}");
        }
    }
}
