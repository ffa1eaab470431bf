//! legacy-serviceaccount-token-cleaner-controller: tokens without end that were made of themselves, for years, go when nobody
//! has used them for one.
//!
//! They are first marked as invalid, which the API server heeds, and deleted after another year. When a token was used is a
//! label that the API server writes; since when it writes it is told in a ConfigMap. Without that nothing is cleaned.
//!
//! Source: `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
    jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone},
};
use serde_json::{Value, json};

use crate::{
    Change, Controller, Key, Kind, Outcome, PatchKind, Plan, World, Write,
    about::{annotation, label},
    token_secrets::{ACCOUNT, ACCOUNT_UID, TYPE},
};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const TRACKING: (&str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
/// How long a token may be unused, and how long one that is marked stays.
const PERIOD: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Between two looks.
const INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// The loop; it has one key.
pub struct LegacyTokens;

impl Controller for LegacyTokens {
    fn name(&self) -> &'static str {
        "legacy-serviceaccount-token-cleaner-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<Secret>(), Kind::of::<ServiceAccount>(), Kind::of::<Pod>(), Kind::of::<ConfigMap>()]
    }

    fn first(&self) -> Vec<Key> {
        vec![Key::default()]
    }

    fn keys(&self, _change: &Change, _world: &World) -> Vec<Key> {
        Vec::new()
    }

    fn reconcile(&self, _key: &Key, world: &World, _last: &Outcome, now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        plan.wake(now.saturating_add(INTERVAL).unwrap_or(Timestamp::MAX));
        let cutoff = now.saturating_sub(PERIOD).unwrap_or(Timestamp::MIN);
        // the first day of which all is known is the one after the first
        let tracked = tracked_since(world).and_then(|day| day.tomorrow().ok()).and_then(start);
        if tracked.is_none_or(|since| since > cutoff) {
            return plan;
        }
        let secrets = world.list::<Secret>("");
        let mut used = BTreeMap::new();
        let idle =
            secrets.iter().filter(|secret| is_idle(secret, cutoff) && is_made_of_itself(secret, world));
        let mut writes = Vec::new();
        for secret in idle {
            let namespace = secret.metadata.namespace.clone().unwrap_or_default();
            let name = secret.metadata.name.as_deref().unwrap_or_default();
            let used = used.entry(namespace.clone()).or_insert_with(|| used_by_pods(world, &namespace));
            if !used.contains(name) {
                writes.extend(step(secret, cutoff, now));
            }
        }
        plan.all(writes);
        plan
    }
}

fn day(text: &str) -> Option<Date> {
    Date::strptime("%Y-%m-%d", text).ok()
}

fn start(day: Date) -> Option<Timestamp> {
    Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn date(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn tracked_since(world: &World) -> Option<Date> {
    let map = world.get::<ConfigMap>(TRACKING.0, TRACKING.1)?;
    day(map.data.as_ref()?.get("since")?)
}

/// An old token that was not used of late. One whose date cannot be read is left alone.
fn is_idle(secret: &Secret, cutoff: Timestamp) -> bool {
    let made = secret.metadata.creation_timestamp.as_ref();
    let unused = match label(&secret.metadata, LAST_USED) {
        None => true,
        Some(text) => day(text).is_some_and(|last| last < date(cutoff)),
    };
    secret.type_.as_deref() == Some(TYPE)
        && secret.metadata.deletion_timestamp.is_none()
        && made.is_some_and(|made| made.0 < cutoff)
        && unused
}

/// The account lists it: nobody made it by hand.
fn is_made_of_itself(secret: &Secret, world: &World) -> bool {
    let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
    let account = annotation(&secret.metadata, ACCOUNT)
        .filter(|name| !name.is_empty())
        .and_then(|name| world.get::<ServiceAccount>(namespace, name));
    account.is_some_and(|account| {
        let uid = annotation(&secret.metadata, ACCOUNT_UID).filter(|uid| !uid.is_empty());
        let same = uid.is_none() || uid == account.metadata.uid.as_deref();
        same && account.secrets.iter().flatten().any(|s| s.name == secret.metadata.name)
    })
}

/// The names of Secrets that pods of a namespace use in any way.
fn used_by_pods(world: &World, namespace: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for pod in world.list::<Pod>(namespace) {
        let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
        gather("", &spec, &mut names);
    }
    names
}

/// Whatever names a Secret in a pod's spec does so as `secretName`, or as `name` below a field that tells of secrets.
fn gather(field: &str, value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let names_one =
                    key == "secretName" || (key == "name" && field.to_lowercase().contains("secret"));
                if let (true, Some(name)) = (names_one, inner.as_str()) {
                    names.insert(name.to_owned());
                }
                gather(key, inner, names);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| gather(field, inner, names)),
        _ => {}
    }
}

/// Marks a token, or deletes one that was marked long ago.
fn step(secret: &Secret, cutoff: Timestamp, now: Timestamp) -> Option<Write> {
    let Some(since) = label(&secret.metadata, INVALID_SINCE).and_then(day) else {
        let body = json!({"metadata": {"labels": {INVALID_SINCE: date(now).to_string()}}});
        return Some(Write::patch(secret, PatchKind::Merge, body));
    };
    (since < date(cutoff)).then(|| match Write::delete(secret) {
        // it may have been used in the meantime
        Write::Delete { target, grace, propagation, on_success, on_failure, .. } => Write::Delete {
            target,
            resource_version: secret.metadata.resource_version.clone(),
            grace,
            propagation,
            on_success,
            on_failure,
        },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{add, deleted, noon, patched, plan, world};

    /// Noon is on 2026-11-25.
    fn tracked(since: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": TRACKING.0, "name": TRACKING.1},
            "data": {"since": since}})
    }

    fn account() -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "d", "name": "a"},
            "secrets": [{"name": "t"}]})
    }

    fn token(labels: Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": {"namespace": "d", "name": "t",
            "labels": labels, "creationTimestamp": "2020-01-01T00:00:00Z",
            "annotations": {ACCOUNT: "a", ACCOUNT_UID: "uid-a"}}})
    }

    fn look(objects: Vec<Value>) -> Plan {
        plan(&LegacyTokens, &world(objects), "", "")
    }

    fn all(labels: Value) -> Vec<Value> {
        vec![tracked("2020-01-01"), account(), token(labels)]
    }

    #[test]
    fn a_token_that_was_not_used_for_a_year_is_marked_and_a_year_later_deleted() {
        let marked = look(all(json!({LAST_USED: "2025-11-24"})));
        assert_eq!(patched(&marked)[0].1["metadata"]["labels"], json!({INVALID_SINCE: "2026-11-25"}));
        assert_eq!(marked.again, noon().saturating_add(INTERVAL).ok());
        assert_eq!(look(all(json!({LAST_USED: "2025-11-25"}))).steps.len(), 0, "used a year ago to the day");
        assert_eq!(look(all(json!({LAST_USED: "a day"}))).steps.len(), 0);
        assert_eq!(look(all(json!({INVALID_SINCE: "2025-11-25"}))).steps.len(), 0);
        assert_eq!(deleted(&look(all(json!({INVALID_SINCE: "2025-11-24"})))), ["t"]);
    }

    #[test]
    fn it_has_to_have_been_watched_for_a_year() {
        let steps = |since: &str| look(vec![tracked(since), account(), token(json!({}))]).steps.len();
        assert_eq!((steps("2025-11-23"), steps("2025-11-25")), (1, 0));
        assert_eq!(look(vec![account(), token(json!({}))]).steps.len(), 0);
    }

    #[test]
    fn what_a_pod_uses_or_somebody_made_by_hand_is_left_alone() {
        let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "d", "name": "p"}, "spec": spec});
        let container = |env: Value| json!({"containers": [{"name": "c", "env": env}]});
        for spec in [
            json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "t"}}]}),
            json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "t"}}]}}]}),
            json!({"containers": [], "imagePullSecrets": [{"name": "t"}]}),
            container(json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}}])),
        ] {
            let mut world = world(all(json!({})));
            add(&mut world, pod(spec));
            assert_eq!(plan(&LegacyTokens, &world, "", "").steps.len(), 0);
        }
        let mut by_hand = account();
        by_hand["secrets"] = json!([]);
        assert_eq!(look(vec![tracked("2020-01-01"), by_hand, token(json!({}))]).steps.len(), 0);
    }
}
