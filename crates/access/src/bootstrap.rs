//! The roles and bindings that exist in every cluster, as a v1.37.2 API server makes them.

use apimachinery::Object;
use serde_json::{Value, json};

use crate::rbac::GROUP;

/// One object a line: kind, metadata, rules or roleRef and subjects. Taken from a running kube-apiserver v1.37.2.
const TABLE: &str = include_str!("../data/bootstrap-rbac.jsonl");

/// Plural and object of each, in the order in which they have to be made. Rules of the aggregated roles (admin, edit,
/// view) are already filled in, so that they work before the aggregation controller runs.
#[must_use]
pub fn rbac_objects() -> Vec<(&'static str, Object)> {
    let mut objects: Vec<Object> = TABLE.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for object in &mut objects {
        let name = object["metadata"]["name"].clone();
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        object["apiVersion"] = json!(format!("{GROUP}/v1"));
        object["metadata"]["name"] = name;
        object["metadata"]["labels"]["kubernetes.io/bootstrapping"] = json!("rbac-defaults");
        object["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "true"});
        if kind.ends_with("Binding") {
            object["roleRef"]["apiGroup"] = json!(GROUP);
        }
        for subject in object["subjects"].as_array_mut().into_iter().flatten() {
            if subject["kind"] != "ServiceAccount" {
                subject["apiGroup"] = json!(GROUP);
            }
        }
    }
    fill_aggregated(&mut objects);
    objects.into_iter().filter_map(|o| Some((plural(o["kind"].as_str()?)?, o))).collect()
}

fn plural(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Role" => "roles",
        "ClusterRole" => "clusterroles",
        "RoleBinding" => "rolebindings",
        "ClusterRoleBinding" => "clusterrolebindings",
        _ => return None,
    })
}

/// Gives each role with an aggregationRule the rules of the roles it selects. `view` feeds `edit` feeds `admin`, so this
/// goes on until nothing changes.
fn fill_aggregated(objects: &mut [Object]) {
    loop {
        let mut changed = false;
        for i in 0..objects.len() {
            let Some(selectors) = objects[i]["aggregationRule"]["clusterRoleSelectors"].as_array() else {
                continue;
            };
            let selects = |role: &Value| {
                selectors.iter().any(|s| {
                    s["matchLabels"]
                        .as_object()
                        .is_some_and(|m| m.iter().all(|(k, v)| &role["metadata"]["labels"][k] == v))
                })
            };
            let mut rules: Vec<Value> = Vec::new();
            for (j, role) in objects.iter().enumerate() {
                if i != j && role["kind"] == "ClusterRole" && selects(role) {
                    for rule in role["rules"].as_array().into_iter().flatten() {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            if objects[i]["rules"] != json!(rules) {
                objects[i]["rules"] = json!(rules);
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_an_object() {
        assert_eq!(rbac_objects().len(), TABLE.lines().count());
    }

    #[test]
    fn admin_holds_what_edit_and_view_hold() {
        let objects = rbac_objects();
        let rules = |name: &str| {
            let (_, role) =
                objects.iter().find(|(r, o)| *r == "clusterroles" && o["metadata"]["name"] == name).unwrap();
            role["rules"].as_array().unwrap().clone()
        };
        let admin = rules("admin");
        assert!(!rules("view").is_empty());
        assert!(rules("edit").iter().all(|r| admin.contains(r)));
        assert!(rules("view").iter().all(|r| admin.contains(r)));
    }
}
