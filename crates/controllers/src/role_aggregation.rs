//! clusterrole-aggregation-controller: ClusterRoles that are the sum of others, chosen by labels.

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, PolicyRule},
    jiff::Timestamp,
};
use serde_json::json;

use crate::{Change, Controller, Key, Kind, Outcome, PatchKind, Plan, World, Write, ownership};

/// The loop; its keys are ClusterRoles with an aggregation rule.
pub struct RoleAggregation;

impl Controller for RoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Vec<Kind> {
        vec![Kind::of::<ClusterRole>()]
    }

    fn keys(&self, _change: &Change, world: &World) -> Vec<Key> {
        let mut roles = world.list::<ClusterRole>("");
        roles.retain(|role| role.aggregation_rule.is_some());
        roles.iter().map(|role| Key::of(&role.metadata)).collect()
    }

    fn reconcile(&self, key: &Key, world: &World, _last: &Outcome, _now: Timestamp) -> Plan {
        let mut plan = Plan::none();
        let Some(role) = world.get::<ClusterRole>("", &key.name) else { return plan };
        let Some(aggregation) = &role.aggregation_rule else { return plan };
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in aggregation.cluster_role_selectors.iter().flatten() {
            let selector = ownership::selector(selector);
            // in the order of their names, as the world lists them
            let all = world.list::<ClusterRole>("");
            let parts = all.iter().filter(|part| part.metadata.name != role.metadata.name);
            for part in parts.filter(|part| ownership::matches(&selector, &part.metadata)) {
                for rule in part.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        // the order of rules means nothing
        let has = role.rules.as_deref().unwrap_or_default();
        let same = has.iter().all(|r| rules.contains(r)) && rules.iter().all(|r| has.contains(r));
        if !same {
            let body = json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": key.name}, "rules": rules,
            });
            plan.then(Write::patch(&*role, PatchKind::Apply, body));
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::fixtures::{add, key, patched, plan, world};

    fn role(name: &str, label: &str, verb: &str) -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {label: "true"}},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]})
    }

    fn sum() -> Value {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "sum", "labels": {"to-sum": "true"}},
            "aggregationRule": {"clusterRoleSelectors": [
                {"matchLabels": {"to-sum": "true"}}, {"matchExpressions": [{"key": "also", "operator": "Exists"}]},
            ]}, "rules": []})
    }

    #[test]
    fn a_role_is_the_sum_of_those_it_selects_without_doubles_and_itself() {
        let mut world =
            world([sum(), role("b", "to-sum", "get"), role("a", "also", "list"), role("c", "also", "get")]);
        let first = plan(&RoleAggregation, &world, "", "sum");
        let rules = &patched(&first)[0].1["rules"];
        let verbs: Vec<&Value> = rules.as_array().unwrap().iter().map(|r| &r["verbs"][0]).collect();
        assert_eq!(verbs, ["get", "list"]);
        let mut done = sum();
        done["rules"] = json!([rules[1], rules[0]]);
        add(&mut world, done);
        assert_eq!(plan(&RoleAggregation, &world, "", "sum"), Plan::none());
        let change = add(&mut world, role("d", "also", "watch"));
        assert_eq!(RoleAggregation.keys(&change, &world), [key("", "sum")]);
    }
}
