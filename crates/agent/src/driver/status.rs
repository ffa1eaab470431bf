//! What is written of a pod's status: the difference to what the API server is known to have.

use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use crate::spec;

/// Bytes that the termination messages of a pod's containers share.
const MESSAGES_LIMIT: usize = 12 << 10;

/// The fields of a pod's status that a node owns. What others put there is left alone.
const OWNED: [&str; 14] = [
    "allocatedResources",
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
];

/// Whether a node keeps this condition.
fn ours(condition: &PodCondition) -> bool {
    match condition.type_.as_str() {
        "PodReadyToStartContainers"
        | "Initialized"
        | "Ready"
        | "ContainersReady"
        | "PodScheduled"
        | "PodResizePending"
        | "PodResizeInProgress" => true,
        "DisruptionTarget" => condition.reason.as_deref() == Some("TerminationByKubelet"),
        _ => false,
    }
}

/// Adds what the state machine does not know: the addresses of the node, and how long messages may be.
pub(crate) fn complete(pod: &Pod, status: &mut PodStatus, host_ips: &[String]) {
    if let Some(first) = host_ips.first() {
        status.host_ip = Some(first.clone());
        status.host_ips = Some(host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    let share = MESSAGES_LIMIT / spec::parts(&spec::spec(pod)).len().max(1);
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
            let message = state.terminated.as_mut().and_then(|t| t.message.as_mut());
            if let Some(message) = message.filter(|m| m.len() > share) {
                let mut cut = share;
                while !message.is_char_boundary(cut) {
                    cut -= 1;
                }
                message.truncate(cut);
            }
        }
    }
}

/// The status that further steps start from, once the API server has shown `incoming`: our fields as decided, those of
/// others as they came. An end that someone else declared counts.
pub(crate) fn join(incoming: &PodStatus, decided: &PodStatus) -> PodStatus {
    let mut status = PodStatus {
        conditions: None,
        nominated_node_name: incoming.nominated_node_name.clone(),
        resource_claim_statuses: incoming.resource_claim_statuses.clone(),
        extended_resource_claim_status: incoming.extended_resource_claim_status.clone(),
        node_allocatable_resource_claim_statuses: incoming.node_allocatable_resource_claim_statuses.clone(),
        resize: incoming.resize.clone(),
        ..decided.clone()
    };
    let over = |s: &PodStatus| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over(incoming) && !over(decided) {
        status.phase.clone_from(&incoming.phase);
        status.reason.clone_from(&incoming.reason);
        status.message.clone_from(&incoming.message);
    }
    let kept = decided.conditions.iter().flatten().filter(|c| ours(c)).cloned();
    let mut conditions: Vec<_> = kept.collect();
    for condition in incoming.conditions.iter().flatten() {
        if !conditions.iter().any(|c| c.type_ == condition.type_) {
            conditions.push(condition.clone());
        }
    }
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    status
}

/// The strategic merge patch of the status that leads from `base` to `want`; `None` when there is nothing to write.
pub(crate) fn patch(base: &PodStatus, want: &PodStatus) -> Option<Value> {
    let only_ours = |s: &PodStatus| {
        let mut s = s.clone();
        s.conditions = s.conditions.map(|list| list.into_iter().filter(ours).collect());
        match serde_json::to_value(s) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    };
    let (base, want) = (only_ours(base), only_ours(want));
    let mut changes = Map::new();
    // set once, at admission, and never changed
    if let (None, Some(start)) = (base.get("startTime"), want.get("startTime")) {
        changes.insert("startTime".into(), start.clone());
    }
    for key in OWNED {
        let (old, new) = (base.get(key), want.get(key));
        if old == new {
            continue;
        }
        let change = match (key, new) {
            (_, None) => Value::Null,
            ("conditions", Some(new)) => keyed(old, new, "type", |kind| kind.starts_with("PodResize")),
            ("podIPs" | "hostIPs", Some(new)) => keyed(old, new, "ip", |_| true),
            ("allocatedResources", Some(new)) => with_removals(old, new),
            (_, Some(new)) => new.clone(),
        };
        if change.as_array().is_none_or(|list| !list.is_empty()) {
            changes.insert(key.to_owned(), change);
        }
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

/// Items of a list merged by `key` that have changed, and those that are gone where they may go.
fn keyed(old: Option<&Value>, new: &Value, key: &str, may_go: fn(&str) -> bool) -> Value {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (items(old), items(Some(new)));
    let find = |list: &[Value], item: &Value| list.iter().find(|o| o[key] == item[key]).cloned();
    let mut changes: Vec<Value> = vec![];
    let goes = |o: &&Value| find(&new, o).is_none() && o[key].as_str().is_some_and(may_go);
    for item in old.iter().filter(goes) {
        changes.push(json!({"$patch": "delete", key: item[key]}));
    }
    for item in &new {
        match find(&old, item) {
            Some(before) if before == *item => {}
            before => changes.push(with_removals(before.as_ref(), item)),
        }
    }
    Value::Array(changes)
}

/// `new`, with nulls for what only `old` has.
fn with_removals(old: Option<&Value>, new: &Value) -> Value {
    let mut item = new.clone();
    if let (Some(old), Some(map)) = (old.and_then(Value::as_object), item.as_object_mut()) {
        for key in old.keys() {
            map.entry(key.clone()).or_insert(Value::Null);
        }
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let s = status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(patch(&s, &s), None);
        // fractions of seconds are never stored
        let with = |t: &str| status(json!({"startTime": t, "phase": "Running"}));
        assert_eq!(patch(&with("2026-01-01T00:00:00Z"), &with("2026-01-01T00:00:00.7Z")), None);
    }

    #[test]
    fn only_what_changed_is_sent_and_what_is_gone_is_null() {
        let base = status(
            json!({"phase": "Pending", "reason": "X", "podIPs": [{"ip": "1"}], "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R"}, {"type": "Initialized", "status": "True"}]}),
        );
        let want = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}], "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}));
        assert_eq!(
            patch(&base, &want).unwrap(),
            json!({"phase": "Running", "reason": null,
                "podIPs": [{"$patch": "delete", "ip": "1"}, {"ip": "2"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]})
        );
    }

    #[test]
    fn what_belongs_to_others_is_neither_written_nor_forgotten() {
        let incoming = status(json!({"phase": "Pending", "nominatedNodeName": "n",
            "conditions": [{"type": "x/gate", "status": "True"}, {"type": "PodScheduled", "status": "True"}]}));
        let decided = status(json!({"phase": "Running",
            "conditions": [{"type": "x/gate", "status": "False"}, {"type": "Ready", "status": "False"}]}));
        let joined = join(&incoming, &decided);
        let types: Vec<_> =
            joined.conditions.iter().flatten().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(types, [("Ready", "False"), ("x/gate", "True"), ("PodScheduled", "True")]);
        assert_eq!(
            (joined.phase.as_deref(), joined.nominated_node_name.as_deref()),
            (Some("Running"), Some("n"))
        );
        let sent = patch(&incoming, &decided).unwrap();
        assert_eq!(sent, json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}));
    }

    #[test]
    fn an_end_declared_by_another_counts() {
        let incoming = status(json!({"phase": "Failed", "reason": "NodeLost"}));
        let joined = join(&incoming, &status(json!({"phase": "Running"})));
        assert_eq!((joined.phase.as_deref(), joined.reason.as_deref()), (Some("Failed"), Some("NodeLost")));
    }

    #[test]
    fn messages_share_twelve_kibibytes() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}]}}))
        .unwrap();
        let long = "ä".repeat(3000);
        let mut s =
            status(json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 1, "message": long}}}]}));
        complete(&pod, &mut s, &["10.0.0.1".into()]);
        assert_eq!(s.host_ip.as_deref(), Some("10.0.0.1"));
        let list = s.container_statuses.unwrap();
        let message = list[0].state.as_ref().unwrap().terminated.as_ref().unwrap().message.as_ref().unwrap();
        assert_eq!(message.len(), 3072);
    }
}
