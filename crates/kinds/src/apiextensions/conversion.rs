//! How versions of a custom resource are converted, and by whom.

use std::collections::HashSet;

use apimachinery::{FieldPath, names as dns};
use serde_json::Value;

use crate::{
    checks::Checks,
    object::{has, list, text},
};

/// Where a webhook is reached from outside.
fn webhook_url(checks: &mut Checks, url: &str, at: &FieldPath) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    if scheme != "https" {
        checks.invalid(at, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let rest = rest.strip_prefix("//").unwrap_or_default();
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        checks.invalid(at, "", &format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        checks.invalid(at, user, "user information is not permitted in the URL");
    }
    let (tail, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    if !fragment.is_empty() {
        checks.invalid(at, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = tail.split_once('?').filter(|(_, query)| !query.is_empty()) {
        checks.invalid(at, query, "query parameters are not permitted in the URL");
    }
}

/// Which service a webhook is behind.
fn webhook_service(checks: &mut Checks, service: &Value, at: &FieldPath) {
    for field in ["name", "namespace"] {
        if text(service, field).is_empty() {
            checks.required(&at.child(field), "");
        }
    }
    let port = service["port"].as_i64().unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let words = "port is not valid: must be between 1 and 65535, inclusive";
        checks.invalid(&at.child("port"), port, words);
    }
    let whole = text(service, "path");
    let at = at.child("path");
    if whole.is_empty() || whole == "/" {
        return;
    }
    let Some(path) = whole.strip_prefix('/') else {
        return checks.invalid(&at, whole, "must start with a '/'");
    };
    for (index, segment) in path.strip_suffix('/').unwrap_or(path).split('/').enumerate() {
        if segment.is_empty() {
            checks.invalid(&at, whole, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for words in dns::is_dns1123_subdomain(segment) {
            checks.invalid(&at, whole, &format!("segment[{index}]: {words}"));
        }
    }
}

/// The conversion of a definition.
pub fn check(checks: &mut Checks, conversion: &Value, here: &FieldPath) {
    if conversion.is_null() {
        return;
    }
    let strategy = text(conversion, "strategy");
    checks.required_one_of(&here.child("strategy"), strategy, &["None", "Webhook"]);
    let webhook = &conversion["webhook"];
    if strategy == "Webhook" {
        let client = &webhook["clientConfig"];
        let at = here.child("webhookClientConfig");
        if client.is_null() {
            checks.required(&at, "required when strategy is set to Webhook");
        } else if has(client, "url") == has(client, "service") {
            checks.required(&at, "exactly one of url or service is required");
        } else if has(client, "url") {
            webhook_url(checks, text(client, "url"), &at.child("url"));
        } else {
            webhook_service(checks, &client["service"], &at.child("service"));
        }
        let known = list(webhook, "conversionReviewVersions");
        let at = here.child("conversionReviewVersions");
        if known.is_empty() {
            checks.required(&at, "");
        }
        let mut seen = HashSet::new();
        for (index, version) in known.iter().enumerate() {
            let word = version.as_str().unwrap_or_default();
            if !seen.insert(word) {
                checks.invalid(&at.index(index), word, "duplicate version");
                continue;
            }
            checks.each(&at.index(index), word, dns::is_dns1035_label(word));
        }
        if !known.is_empty() && !known.iter().any(|v| v == "v1" || v == "v1beta1") {
            checks.invalid(&at, known.to_vec(), "must include at least one of v1, v1beta1");
        }
    } else {
        if has(webhook, "clientConfig") {
            let words = "should not be set when strategy is not set to Webhook";
            checks.forbidden(&here.child("webhookClientConfig"), words);
        }
        if !list(webhook, "conversionReviewVersions").is_empty() {
            let words = "should not be set when strategy is not set to Webhook";
            checks.forbidden(&here.child("conversionReviewVersions"), words);
        }
    }
}
