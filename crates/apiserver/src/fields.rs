//! `metadata.managedFields`: which write owns which fields.
//!
//! Ownership is noted as soon as a body is decoded, before admission and strategies change it: what the server adds
//! belongs to nobody.

use apimachinery::{
    ApiError, Object,
    apply::{self, Applied, Reach},
};
use chrono::{DateTime, Utc};
use http::header;
use kinds::Resource;
use serde_json::Value;

use crate::{catalogue::Served, options, server::Call};

/// The name of the server itself where it writes.
pub const SERVER: &str = "kube-apiserver";

const EXCEPT_STATUS: Reach = Reach::Except(&[&["status"]]);

/// What a write of the object, or of a subresource, can reach: the rest is put back by the engine or the strategy.
///
/// Source: `GetResetFields` of the strategies in `k8s.io/kubernetes/pkg/registry`.
fn reach(resource: &Resource, subresource: &str) -> Reach {
    if (&*resource.group, &*resource.plural) == ("certificates.k8s.io", "certificatesigningrequests") {
        // Nothing of a request is its writer's: it is made once and then answered by others.
        return match subresource {
            "status" => Reach::Except(&[&["spec"], &["status", "conditions"]]),
            "approval" => Reach::Except(&[&["spec"], &["status", "certificate"]]),
            _ => Reach::Except(&[&["spec"], &["status"]]),
        };
    }
    match subresource {
        "" | "finalize" if resource.subresource("status").is_some() => EXCEPT_STATUS,
        "status" if !resource.builtin || resource.behaviour.status_keeps_metadata => {
            Reach::Except(&[&["metadata"], &["spec"]])
        }
        "status" => match (&*resource.group, &*resource.plural) {
            ("", "pods") => Reach::Except(&[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ]),
            ("apps", "deployments") => Reach::Except(&[&["spec"], &["metadata", "labels"]]),
            ("apiextensions.k8s.io", _) => Reach::Except(&[&["metadata"], &["spec"]]),
            _ => Reach::Except(&[&["spec"]]),
        },
        "ephemeralcontainers" => Reach::Only(&[&["spec", "ephemeralContainers"]]),
        _ => Reach::All,
    }
}

/// Notes the ownership of one request's writes.
pub struct Tracker<'a> {
    served: &'a Served,
    manager: String,
    subresource: String,
    now: DateTime<Utc>,
}

impl<'a> Tracker<'a> {
    /// The manager is the one that the options name, else the head of the user agent.
    pub fn new(call: &Call, served: &'a Served, options: &options::Write) -> Self {
        let manager = if options.field_manager.is_empty() {
            let agent = call.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
            apply::manager_of_agent(agent.unwrap_or_default())
        } else {
            options.field_manager.clone()
        };
        Self { served, manager, subresource: call.info.subresource.clone(), now: call.now }
    }

    /// The server's own writes.
    pub fn internal(served: &'a Served, now: DateTime<Utc>) -> Self {
        Self { served, manager: SERVER.to_owned(), subresource: String::new(), now }
    }

    /// The same, for a subresource.
    pub fn of(mut self, subresource: &str) -> Self {
        subresource.clone_into(&mut self.subresource);
        self
    }

    fn write(&self) -> apply::Write<'_> {
        apply::Write {
            manager: &self.manager,
            api_version: &self.served.api_version,
            subresource: &self.subresource,
            schema: &self.served.resource.schema,
            others: &self.served.others,
            empty: &self.served.empty,
            reach: reach(&self.served.resource, &self.subresource),
            now: self.now,
        }
    }

    /// Notes in `new` who owns what after a create (`old: None`) or a change.
    pub fn update(&self, old: Option<&Object>, new: &mut Object) {
        apply::update(old, new, &self.write());
    }

    /// Lays a configuration over the object.
    pub fn apply(&self, old: Option<&Object>, config: &Object, force: bool) -> Result<Applied, ApiError> {
        apply::apply(old, config, &self.write(), force)
    }
}

fn managed(object: &Object) -> Option<&Vec<Value>> {
    object.get("metadata")?.get("managedFields")?.as_array()
}

/// Takes back new times in `managedFields` if nothing but them changed, so that a write without effect stays one.
pub fn settle_times(new: &mut Object, old: &Object) {
    let (Some(now), Some(before)) = (managed(new), managed(old)) else { return };
    if now.len() != before.len() || now == before {
        return;
    }
    let but_time = |entry: &Value, other: &Value| {
        let (Some(a), Some(b)) = (entry.as_object(), other.as_object()) else { return false };
        let keys = |m: &serde_json::Map<String, Value>| m.len() - usize::from(m.contains_key("time"));
        keys(a) == keys(b) && a.iter().all(|(k, v)| k == "time" || b.get(k) == Some(v))
    };
    if !now.iter().zip(before).all(|(a, b)| but_time(a, b)) {
        return;
    }
    let same = |new: &Value, old: &Value, except: &str| match (new.as_object(), old.as_object()) {
        (Some(a), Some(b)) => a.len() == b.len() && a.iter().all(|(k, v)| k == except || b.get(k) == Some(v)),
        _ => false,
    };
    if same(new, old, "metadata") && same(&new["metadata"], &old["metadata"], "managedFields") {
        new["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    }
}

/// Drops `managedFields`, so that an object that is too large for the store may fit without them. Whether there were any.
pub fn shed(object: &mut Object) -> bool {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.is_some_and(|m| m.remove("managedFields").is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_times_are_taken_back_and_only_if_nothing_else_changed() {
        let old = json!({"spec": {"a": 1}, "metadata": {"name": "x", "managedFields": [{"manager": "m", "time": "1"}]}});
        let mut new = old.clone();
        new["metadata"]["managedFields"][0]["time"] = json!("2");
        let mut other = new.clone();
        settle_times(&mut new, &old);
        assert_eq!(new, old);
        other["spec"]["a"] = json!(2);
        settle_times(&mut other, &old);
        assert_eq!(other["metadata"]["managedFields"][0]["time"], "2");
    }
}
