//! Whether this node can take a pod, judged before anything is begun.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use crate::{machine::Verdict, resources, spec};

/// Sysctls that any pod may set: they are namespaced and isolated.
const SAFE_SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Judges `pod` beside `others`, the pods that this node already runs. `allocatable` counts milli-CPU, bytes, pods.
pub(crate) fn admit(
    pod: &Pod,
    others: &[&Pod],
    node: &Node,
    allocatable: &BTreeMap<String, i64>,
) -> Result<(), Verdict> {
    let spec = spec::spec(pod);
    let refuse = |reason: &str, message: String| {
        Err(Verdict {
            reason: reason.to_owned(),
            message: format!("Pod was rejected: {message}"),
            grace: 0,
            disruption: false,
        })
    };
    let os_label = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if os_label.is_some_and(|os| os != "linux") {
        let why = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return refuse("PodOSSelectorNodeLabelDoesNotMatch", why.into());
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        let why = "Failed to admit pod as the OS field doesn't match node OS";
        return refuse("PodOSNotSupported", why.into());
    }
    for sysctl in spec.security_context.iter().flat_map(|s| s.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return refuse("SysctlForbidden", format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        let shared = match name.starts_with("net.") {
            true => spec.host_network == Some(true),
            false => spec.host_ipc == Some(true),
        };
        if shared {
            let namespace = if name.starts_with("net.") { "net" } else { "ipc" };
            let why =
                format!("forbidden sysctl: {:?} not allowed with host {namespace} enabled", sysctl.name);
            return refuse("SysctlForbidden", why);
        }
    }
    if let Some((resource, requested, used, capacity)) = shortage(&spec, others, allocatable) {
        return refuse(
            &format!("OutOf{resource}"),
            format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        );
    }
    if !selected(&spec, node) {
        let why = "node(s) didn't match Pod's node affinity/selector";
        return refuse("NodeAffinity", format!("Predicate NodeAffinity failed: {why}"));
    }
    if others.iter().any(|other| ports_meet(&spec, &spec::spec(other))) {
        let why = "node(s) didn't have free ports for the requested pod ports";
        return refuse("NodePorts", format!("Predicate NodePorts failed: {why}"));
    }
    if untolerated(&spec, node) {
        let why = "node(s) had taints that the pod didn't tolerate";
        return refuse("TaintToleration", format!("Predicate TaintToleration failed: {why}"));
    }
    Ok(())
}

/// Judges a resize of `pod` beside `others`: why the pod cannot have what it asks for, as (reason, message).
/// `Deferred` may become possible when others leave, `Infeasible` never on this node.
pub(crate) fn resize(
    pod: &Pod,
    others: &[&Pod],
    allocatable: &BTreeMap<String, i64>,
) -> Result<(), (String, String)> {
    let spec = spec::spec(pod);
    for name in ["cpu", "memory"] {
        let asked = resources::pod_total(&spec, name, |r| r.requests.as_ref());
        let capacity = allocatable.get(name).copied().unwrap_or(i64::MAX);
        if asked > capacity {
            let why =
                format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {capacity}");
            return Err(("Infeasible".into(), why));
        }
    }
    match shortage(&spec, others, allocatable) {
        Some((name, requested, used, capacity)) => Err((
            "Deferred".into(),
            format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )),
        None => Ok(()),
    }
}

/// The first resource of which there is not enough: name, requested, used, capacity.
fn shortage(
    spec: &PodSpec,
    others: &[&Pod],
    allocatable: &BTreeMap<String, i64>,
) -> Option<(String, i64, i64, i64)> {
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    let pods = allocatable.get("pods").copied().unwrap_or(i64::MAX);
    if count >= pods {
        return Some(("pods".into(), 1, count, pods));
    }
    // resources that the node does not know are not its to judge
    let mut names: BTreeSet<&str> = BTreeSet::from(["cpu", "memory", "ephemeral-storage"]);
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    for list in all.filter_map(|c| c.resources.as_ref()?.requests.as_ref()) {
        names.extend(list.keys().map(String::as_str));
    }
    let order = |n: &&str| ["cpu", "memory", "ephemeral-storage"].iter().position(|o| o == n).unwrap_or(3);
    let mut names: Vec<&str> = names.into_iter().filter(|n| *n != "pods").collect();
    names.sort_by_key(order);
    names.into_iter().find_map(|name| {
        let capacity = *allocatable.get(name)?;
        let asks = |s: &PodSpec| resources::pod_total(s, name, |r| r.requests.as_ref());
        let requested = asks(spec);
        let used = others.iter().map(|o| asks(&spec::spec(o))).fold(0, i64::saturating_add);
        let short = requested > 0 && requested > capacity.saturating_sub(used);
        short.then(|| (name.to_owned(), requested, used, capacity))
    })
}

/// Whether the node has what `nodeSelector` and required node affinity ask for.
fn selected(spec: &PodSpec, node: &Node) -> bool {
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    if !spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v)) {
        return false;
    }
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let Some(required) =
        affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
    else {
        return true;
    };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let fields = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    required.node_selector_terms.iter().any(|term| term_fits(term, labels, &fields))
}

fn term_fits(
    term: &NodeSelectorTerm,
    labels: &BTreeMap<String, String>,
    fields: &BTreeMap<String, String>,
) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let field_expressions = term.match_fields.as_deref().unwrap_or_default();
    // an empty term selects nothing
    !(expressions.is_empty() && field_expressions.is_empty())
        && expressions.iter().all(|r| requirement_fits(r, labels))
        && field_expressions.iter().all(|r| requirement_fits(r, fields))
}

fn requirement_fits(r: &NodeSelectorRequirement, values: &BTreeMap<String, String>) -> bool {
    let value = values.get(&r.key);
    let listed = |v: &String| r.values.iter().flatten().any(|x| x == v);
    let compared = |f: fn(&i64, &i64) -> bool| {
        let bound = r.values.as_ref().and_then(|v| v.first()).and_then(|v| v.parse().ok());
        let value = value.and_then(|v| v.parse().ok());
        matches!((value, bound), (Some(value), Some(bound)) if f(&value, &bound))
    };
    match r.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(i64::gt),
        "Lt" => compared(i64::lt),
        _ => false,
    }
}

/// Whether two pods want the same port of the host: same number and protocol, and the same address or any.
fn ports_meet(one: &PodSpec, other: &PodSpec) -> bool {
    let wanted = |spec: &PodSpec| -> Vec<(i32, String, String)> {
        let any = |ip: Option<String>| ip.filter(|i| !i.is_empty() && i != "::").unwrap_or("0.0.0.0".into());
        let ports = spec::parts(spec).into_iter().flat_map(|p| p.container.ports.clone().unwrap_or_default());
        ports
            .filter_map(|p| {
                let port = p.host_port.filter(|h| *h > 0)?;
                Some((port, p.protocol.unwrap_or("TCP".into()), any(p.host_ip)))
            })
            .collect()
    };
    let theirs = wanted(other);
    wanted(one).iter().any(|(port, protocol, ip)| {
        theirs.iter().any(|(p, proto, i)| {
            p == port && proto == protocol && (i == ip || i == "0.0.0.0" || ip == "0.0.0.0")
        })
    })
}

/// Whether the node has a NoExecute taint that the pod does not tolerate.
fn untolerated(spec: &PodSpec, node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.filter(|t| t.effect == "NoExecute").any(|taint| {
        !spec.tolerations.iter().flatten().any(|t| {
            let effect = t.effect.as_deref().is_none_or(|e| e.is_empty() || e == taint.effect);
            let key = t.key.as_deref().is_none_or(|k| k.is_empty() || k == taint.key);
            let value = t.operator.as_deref() == Some("Exists")
                || (t.key.as_deref().is_some_and(|k| !k.is_empty())
                    && t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default());
            effect && key && value
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": "a", "size": "5"}}}))
            .unwrap()
    }

    fn judge(p: &Pod, others: &[&Pod]) -> String {
        let allocatable = [("cpu", 1000), ("memory", 1 << 30), ("pods", 3)];
        let allocatable = allocatable.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        admit(p, others, &node(), &allocatable).err().map_or_else(|| "ok".into(), |v| v.reason)
    }

    fn cpu(milli: i64) -> Pod {
        pod(json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": format!("{milli}m")}}}]}))
    }

    #[test]
    fn a_pod_that_asks_for_more_than_is_left_is_refused() {
        assert_eq!(judge(&cpu(600), &[&cpu(400)]), "ok");
        assert_eq!(judge(&cpu(601), &[&cpu(400)]), "OutOfcpu");
        assert_eq!(judge(&cpu(0), &[&cpu(400), &cpu(700)]), "ok", "who asks for nothing is not refused");
        assert_eq!(judge(&cpu(1), &[&cpu(1), &cpu(1), &cpu(1)]), "OutOfpods");
        let unknown =
            json!({"containers": [{"name": "a", "resources": {"requests": {"example.com/x": "9"}}}]});
        assert_eq!(judge(&pod(unknown), &[]), "ok", "what the node does not count is not its to judge");
    }

    #[test]
    fn a_resize_is_deferred_while_others_are_in_its_way_and_infeasible_where_the_node_is_too_small() {
        let allocatable = BTreeMap::from([("cpu".to_owned(), 1000)]);
        let judge = |p: &Pod, others: &[&Pod]| resize(p, others, &allocatable).map_err(|(reason, _)| reason);
        assert_eq!(judge(&cpu(700), &[&cpu(300)]), Ok(()));
        assert_eq!(judge(&cpu(800), &[&cpu(300)]), Err("Deferred".into()));
        assert_eq!(judge(&cpu(1100), &[]), Err("Infeasible".into()));
    }

    #[test]
    fn the_message_counts_as_upstream_does() {
        let allocatable = BTreeMap::from([("cpu".to_owned(), 1000)]);
        let refused = admit(&cpu(2000), &[&cpu(300)], &node(), &allocatable).unwrap_err();
        assert_eq!(
            refused.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 300, capacity: 1000"
        );
    }

    #[test]
    fn selectors_and_affinity_have_to_fit() {
        let with = |more: Value| {
            let mut spec = json!({"containers": []});
            for (k, v) in more.as_object().unwrap() {
                spec[k] = v.clone();
            }
            judge(&pod(spec), &[])
        };
        let affinity = |terms: Value| {
            with(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": terms}}}}))
        };
        assert_eq!(with(json!({"nodeSelector": {"zone": "a"}})), "ok");
        assert_eq!(with(json!({"nodeSelector": {"zone": "b"}})), "NodeAffinity");
        let size = |op: &str, v: &str| {
            affinity(json!([{"matchExpressions": [{"key": "size", "operator": op, "values": [v]}]}]))
        };
        assert_eq!(
            [size("Gt", "4"), size("Lt", "4"), size("NotIn", "5")],
            ["ok", "NodeAffinity", "NodeAffinity"]
        );
        assert_eq!(affinity(json!([{}])), "NodeAffinity", "an empty term selects nothing");
        let name = |n: &str| {
            affinity(
                json!([{}, {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]}]),
            )
        };
        assert_eq!([name("n"), name("m")], ["ok", "NodeAffinity"]);
    }

    #[test]
    fn host_ports_meet_on_the_same_address_and_protocol_only() {
        let p = |port: Value| pod(json!({"containers": [{"name": "a", "ports": [port]}]}));
        let base = p(json!({"containerPort": 1, "hostPort": 80, "hostIP": "127.0.0.1"}));
        let other = |ip: &str, proto: &str| {
            judge(&p(json!({"containerPort": 1, "hostPort": 80, "hostIP": ip, "protocol": proto})), &[&base])
        };
        assert_eq!(other("127.0.0.1", "TCP"), "NodePorts");
        assert_eq!(other("", "TCP"), "NodePorts");
        assert_eq!(other("127.0.0.2", "TCP"), "ok");
        assert_eq!(other("127.0.0.1", "UDP"), "ok");
    }

    #[test]
    fn only_safe_sysctls_are_taken() {
        let with = |name: &str, host: bool| {
            judge(
                &pod(json!({"containers": [], "hostNetwork": host,
                    "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})),
                &[],
            )
        };
        assert_eq!(with("net/ipv4/tcp_syncookies", false), "ok");
        assert_eq!(with("net.ipv4.tcp_syncookies", true), "SysctlForbidden");
        assert_eq!(with("kernel.msgmax", false), "SysctlForbidden");
    }

    #[test]
    fn pods_for_another_system_are_refused() {
        assert_eq!(
            judge(&pod(json!({"containers": [], "os": {"name": "windows"}})), &[]),
            "PodOSNotSupported"
        );
    }
}
