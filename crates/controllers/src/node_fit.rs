//! Whether a pod may be on a node, by what the pod asks for and the node's labels and taints. Not whether there is room.
//!
//! Source: `k8s.io/component-helpers/scheduling/corev1`.

use apimachinery::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

/// The node's name matches, if the pod names one, and so do its labels.
#[must_use]
pub fn matches_node(spec: &PodSpec, node: &Node) -> bool {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|l| l.get(key)).map(String::as_str);
    if spec.node_name.as_deref().is_some_and(|wanted| !wanted.is_empty() && wanted != name) {
        return false;
    }
    if spec.node_selector.iter().flatten().any(|(key, value)| label(key) != Some(value)) {
        return false;
    }
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|terms| terms.node_selector_terms.iter().any(|term| matches_term(term, name, label)))
}

/// A term without any requirement matches nothing.
fn matches_term<'a>(term: &NodeSelectorTerm, name: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let (labels, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
    let field = |key: &str| (key == "metadata.name").then_some(name);
    (!labels.is_empty() || !fields.is_empty())
        && labels.iter().all(|r| holds(r, label(&r.key)))
        && fields.iter().all(|r| holds(r, field(&r.key)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement { key: requirement.key.clone(), operator, values }.matches(value)
}

/// A toleration covers a taint.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        _ => false,
    }
}

/// The first taint with one of these effects that none of the tolerations covers.
#[must_use]
pub fn untolerated<'a>(
    taints: Option<&'a Vec<Taint>>,
    tolerations: Option<&Vec<Toleration>>,
    effects: &[&str],
) -> Option<&'a Taint> {
    taints
        .into_iter()
        .flatten()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.into_iter().flatten().any(|t| tolerates(t, taint)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::object;

    fn node() -> Node {
        object(json!({"metadata": {"name": "one", "labels": {"zone": "a", "cores": "8"}}}))
    }

    fn fits(spec: Value) -> bool {
        let mut whole = json!({"containers": []});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        matches_node(&object(whole), &node())
    }

    fn affinity(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn names_selectors_and_affinity_all_have_to_match() {
        assert!(fits(json!({"nodeName": "one", "nodeSelector": {"zone": "a"}})));
        assert!(!fits(json!({"nodeName": "two"})));
        assert!(!fits(json!({"nodeSelector": {"zone": "b"}})));
        let name = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["one"]}]}]);
        assert!(fits(affinity(name)));
        let more = json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]}]);
        assert!(!fits(affinity(more)));
        let either = json!([{"matchExpressions": [{"key": "x", "operator": "Exists"}]},
            {"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["b"]}]}]);
        assert!(fits(affinity(either)));
        assert!(!fits(affinity(json!([{}]))), "a term without requirements matches nothing");
    }

    #[test]
    fn a_toleration_without_a_key_covers_every_taint() {
        let taints: Vec<Taint> = object(json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]));
        let found = |tolerations: Value| {
            let tolerations: Vec<Toleration> = object(tolerations);
            untolerated(Some(&taints), Some(&tolerations), &["NoSchedule", "NoExecute"]).is_some()
        };
        assert!(found(json!([])));
        assert!(!found(json!([{"operator": "Exists"}])));
        assert!(found(json!([{"key": "k", "value": "w"}])));
        assert!(!found(json!([{"key": "k", "value": "v", "effect": "NoSchedule"}])));
        assert!(found(json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}])));
    }
}
