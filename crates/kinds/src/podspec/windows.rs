//! What is said to Windows nodes. It is kept and judged; no node acts on it.
//!
//! Source: `validateWindowsSecurityContextOptions` and `validateWindowsHostProcessPod` in
//! `k8s.io/kubernetes/pkg/apis/core/validation`.

use apimachinery::{FieldPath, names};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{at, flag, list},
};

/// Bytes of a specification of credentials.
const LONGEST_SPEC: usize = 64 * 1024;
/// Bytes of the domain and of the name of a user.
const LONGEST_DOMAIN: usize = 256;
const LONGEST_USER: usize = 104;

/// The options in the security context at `context`.
pub fn check(checks: &mut Checks, options: &Value, context: &FieldPath) {
    let path = context.child("windowsOptions");
    if let Some(name) = at(options, "gmsaCredentialSpecName").as_str() {
        checks.each(&path.child("gmsaCredentialSpecName"), name, names::is_dns1123_subdomain(name));
    }
    if let Some(spec) = at(options, "gmsaCredentialSpec").as_str() {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            checks.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > LONGEST_SPEC {
            let detail = format!("gmsaCredentialSpec size must be under {} KiB", LONGEST_SPEC / 1024);
            checks.invalid(&path, spec, &detail);
        }
    }
    if let Some(name) = at(options, "runAsUserName").as_str() {
        for fault in faults_of_user(name) {
            checks.invalid(&path.child("runAsUserName"), name, &fault);
        }
    }
}

/// What is wrong with `DOMAIN\\USER`, or `USER` alone.
fn faults_of_user(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.chars().any(char::is_control) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash".to_owned()];
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let mut faults = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= LONGEST_DOMAIN) {
        faults.push(format!("runAsUserName's Domain length must be under {LONGEST_DOMAIN} characters"));
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_domain(domain)) {
        faults.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
    }
    if user.is_empty() {
        faults.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > LONGEST_USER {
        faults.push(format!("runAsUserName's User length must not be longer than {LONGEST_USER} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        faults.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        let words = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        faults.push(words.to_owned());
    }
    faults
}

/// At most fifteen characters without those that NetBIOS forbids; the first is no period.
fn is_net_bios(domain: &str) -> bool {
    let bad = |c: char| matches!(c, '\\' | '/' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    (1..=15).contains(&domain.chars().count()) && !domain.starts_with('.') && !domain.contains(bad)
}

fn is_domain(domain: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    domain.split('.').all(label)
}

/// Pods of processes of the host: all of their containers are, and they use its network.
pub fn check_host_process(checks: &mut Checks, spec: &Value, path: &FieldPath) {
    let said = |value: &Value| at(value, "securityContext.windowsOptions.hostProcess").as_bool();
    let of_pod = said(spec);
    let (mut all, mut inside) = (0, 0);
    for group in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in list(spec, group).iter().enumerate() {
            all += 1;
            let own = said(container);
            if let (Some(pod), Some(own)) = (of_pod, own)
                && pod != own
            {
                let at = path.child(group).index(index).child("securityContext").child("windowsOptions");
                let detail =
                    format!("pod hostProcess value must be identical if both are specified, was {pod}");
                checks.invalid(&at.child("hostProcess"), own, &detail);
            }
            inside += usize::from(own.or(of_pod) == Some(true));
        }
    }
    if inside == 0 {
        return;
    }
    if inside != all {
        let detail =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        checks.invalid(path, "", detail);
    }
    if !flag(spec, "hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        checks.invalid(&path.child("hostNetwork"), false, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_with_or_without_a_domain() {
        for right in ["ContainerUser", "DOMAIN\\user", "ad.example.com\\user name"] {
            assert!(faults_of_user(right).is_empty(), "{right}");
        }
        let words = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        assert_eq!(faults_of_user("example.com/a"), [words]);
        assert_eq!(faults_of_user("..."), ["runAsUserName's User cannot contain only periods or spaces"]);
        assert_eq!(faults_of_user("a\\b\\c"), ["runAsUserName cannot contain more than one backslash"]);
    }
}
