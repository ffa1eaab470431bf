//! Warnings that several kinds share, worded as upstream words them.
//!
//! Source: `k8s.io/apimachinery/pkg/util/validation/ip.go`, `k8s.io/kubernetes/pkg/api/{node,persistentvolumeclaim}`.

use std::net::IpAddr;

use apimachinery::{FieldPath, names};
use ipnet::IpNet;
use serde_json::Value;

use crate::{
    checks::quantity,
    object::{at, list, text},
};

/// Labels of nodes that have a newer name or no meaning, and what is said of them.
const NODE_LABELS: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#),
    ("beta.kubernetes.io/os", r#"deprecated since v1.14; use "kubernetes.io/os" instead"#),
    (
        "failure-domain.beta.kubernetes.io/region",
        r#"deprecated since v1.17; use "topology.kubernetes.io/region" instead"#,
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        r#"deprecated since v1.17; use "topology.kubernetes.io/zone" instead"#,
    ),
    (
        "beta.kubernetes.io/instance-type",
        r#"deprecated since v1.17; use "node.kubernetes.io/instance-type" instead"#,
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", r#"use "node-role.kubernetes.io/control-plane" instead"#),
];

/// What is said of a node's label, if it is deprecated.
pub fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, words)| *words)
}

/// A valid IP address that is not in its usual form.
pub fn ip(warnings: &mut Vec<String>, path: &FieldPath, value: &str) {
    if let Ok(IpAddr::V6(address)) = value.parse::<IpAddr>() {
        if let Some(inner) = address.to_ipv4_mapped() {
            warnings.push(format!("{path}: non-standard IP address {value:?} is invalid: use \"{inner}\""));
        } else if address.to_string() != value {
            warnings.push(format!(
                "{path}: IPv6 address {value:?} should be in RFC 5952 canonical format (\"{address}\")"
            ));
        }
    }
}

/// A valid CIDR block that says more than its prefix or is not in its usual form.
pub fn cidr(warnings: &mut Vec<String>, path: &FieldPath, value: &str) {
    let Ok(block) = value.parse::<IpNet>() else { return };
    let mut found = false;
    if block.addr() != block.network() {
        found = true;
        warnings.push(format!(
            "{path}: CIDR value {value:?} is ambiguous in this context (should be \"{}\" or \"{}/{}\"?)",
            block.trunc(),
            block.addr(),
            block.max_prefix_len()
        ));
    }
    if !found && matches!(block, IpNet::V6(_)) && block.to_string() != value {
        warnings.push(format!(
            "{path}: IPv6 CIDR value {value:?} should be in RFC 5952 canonical format (\"{block}\")"
        ));
    }
}

/// A term of a node selector. `values`: its values are not validated elsewhere, so they are looked at too.
pub fn node_selector_term(warnings: &mut Vec<String>, term: &Value, values: bool, path: &FieldPath) {
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let key = text(expression, "key");
        if let Some(words) = node_label(key) {
            warnings.push(format!("{}: {key} is {words}", path.child("key")));
        }
        for (index, value) in list(expression, "values").iter().enumerate().filter(|_| values) {
            let value = value.as_str().unwrap_or_default();
            for words in names::is_label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {words}", path.child("values").index(index)));
            }
        }
    }
}

/// Bytes come whole.
pub fn fraction(warnings: &mut Vec<String>, map: &Value, resource: &str, path: &FieldPath) {
    if let Some(amount) = map.get(resource).and_then(quantity)
        && amount.milli() % 1000 != 0
    {
        warnings.push(format!(
            "{}: fractional byte value \"{amount}\" is invalid, must be an integer",
            path.key(resource)
        ));
    }
}

/// The spec of a PersistentVolumeClaim, also as a template has it.
pub fn claim(warnings: &mut Vec<String>, spec: &Value, path: &FieldPath) {
    for field in ["requests", "limits"] {
        let path = path.child("resources").child(field);
        fraction(warnings, at(at(spec, "resources"), field), "storage", &path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_out_of_their_usual_form_are_warned_for() {
        let mut found = Vec::new();
        for value in ["10.0.0.1", "fd00::1", "fd00:0::1", "::ffff:10.0.0.1"] {
            ip(&mut found, &FieldPath::from("f"), value);
        }
        cidr(&mut found, &FieldPath::from("f"), "10.0.0.1/24");
        cidr(&mut found, &FieldPath::from("f"), "10.0.0.0/24");
        assert_eq!(
            found,
            [
                r#"f: IPv6 address "fd00:0::1" should be in RFC 5952 canonical format ("fd00::1")"#,
                r#"f: non-standard IP address "::ffff:10.0.0.1" is invalid: use "10.0.0.1""#,
                r#"f: CIDR value "10.0.0.1/24" is ambiguous in this context (should be "10.0.0.0/24" or "10.0.0.1/32"?)"#,
            ]
        );
    }
}
