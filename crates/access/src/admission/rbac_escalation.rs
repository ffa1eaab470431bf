//! Nobody grants what they do not hold: writes of roles and bindings need every rule already, or `escalate` / `bind`.
//!
//! Upstream does this in the storage of the four kinds; as a plugin it sits at the same place of the chain for every
//! write, patches and apply included.

use std::sync::Arc;

use apimachinery::{ApiError, Object};
use async_trait::async_trait;

use crate::{
    Admission, AdmissionRequest, Attributes, Authorizer, Decision, Reader,
    rbac::{GROUP, Rbac, Rule, not_covered},
};

/// See the module.
pub struct RbacEscalation {
    /// Knows what the user holds.
    pub rbac: Arc<Rbac>,
}

#[async_trait]
impl Admission for RbacEscalation {
    fn name(&self) -> &'static str {
        "RbacEscalation"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        _reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        if at.group != GROUP || !matches!(request.operation, "CREATE" | "UPDATE") {
            return Ok(());
        }
        if at.user.groups.iter().any(|g| g == "system:masters") {
            return Ok(());
        }
        let binding = at.resource.ends_with("bindings");
        let same = |old: &Object| {
            let fields: &[&str] =
                if binding { &["subjects", "roleRef"] } else { &["rules", "aggregationRule"] };
            fields.iter().all(|f| old[*f] == request.object[*f])
        };
        if request.old.is_some_and(same) {
            return Ok(());
        }
        let name = request.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let wanted = if binding {
            let role_ref = &request.object["roleRef"];
            if self.allowed(at, "bind", role_resource(role_ref["kind"].as_str()), role_ref["name"].as_str()) {
                return Ok(());
            }
            let Some(rules) = self.rbac.rules_behind(role_ref, &at.namespace) else {
                let resource = role_resource(role_ref["kind"].as_str());
                return Err(ApiError::not_found(
                    GROUP,
                    resource,
                    role_ref["name"].as_str().unwrap_or_default(),
                ));
            };
            rules
        } else {
            if self.allowed(at, "escalate", &at.resource, Some(&name)) {
                return Ok(());
            }
            let mut rules = Rule::of_role(request.object);
            if request.object["aggregationRule"].is_object() {
                let all = || vec!["*".to_owned()];
                rules.push(Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() });
                rules.push(Rule { verbs: all(), urls: all(), ..Rule::default() });
            }
            rules
        };
        let missing = not_covered(&self.rbac.rules_of(&at.user, &at.namespace), &wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = missing.iter().map(describe).collect();
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            at.user.name,
            at.user.groups,
            list.join("\n")
        );
        Err(ApiError::forbidden(GROUP, &at.resource, &name, &why))
    }
}

impl RbacEscalation {
    fn allowed(&self, at: &Attributes, verb: &str, resource: &str, name: Option<&str>) -> bool {
        let request = Attributes {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            name: name.unwrap_or_default().to_owned(),
            ..at.clone()
        };
        matches!(self.rbac.authorize(&request), Decision::Allow(_))
    }
}

fn role_resource(kind: Option<&str>) -> &'static str {
    if kind == Some("Role") { "roles" } else { "clusterroles" }
}

/// As upstream prints a rule: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
fn describe(rule: &Rule) -> String {
    let mut parts = Vec::new();
    let fields = [
        ("APIGroups", &rule.groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.names),
        ("NonResourceURLs", &rule.urls),
        ("Verbs", &rule.verbs),
    ];
    for (name, values) in fields {
        if !values.is_empty() {
            let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
            parts.push(format!("{name}:[{}]", quoted.join(" ")));
        }
    }
    format!("{{{}}}", parts.join(", "))
}
