//! Whoever makes an admission policy, or binds one, may read the parameters that it names: else a policy's messages
//! would show what its writer may not see.
//!
//! Upstream asks this in the storage of the four kinds; as a plugin it sits at the same place of the chain for every
//! write. Source: `k8s.io/kubernetes/pkg/registry/admissionregistration/*/authz.go`.

use std::sync::Arc;

use apimachinery::{ApiError, FieldError, FieldPath, Object};
use async_trait::async_trait;
use serde_json::Value;

use crate::{Admission, AdmissionRequest, Attributes, Authorizer, Decision, Reader, UserInfo};

const GROUP: &str = "admissionregistration.k8s.io";

/// See the module.
pub struct PolicyParameters {
    /// Everybody who is asked whether a request may be made.
    pub authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Admission for PolicyParameters {
    fn name(&self) -> &'static str {
        "PolicyParameters"
    }

    async fn validate(
        &self,
        request: &mut AdmissionRequest<'_>,
        reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        let at = request.attributes;
        if at.group != GROUP || !at.subresource.is_empty() || request.operation == "DELETE" {
            return Ok(());
        }
        let (field, same): (&str, &[&str]) = match at.resource.as_str() {
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => ("paramKind", &["paramKind"]),
            "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
                ("paramRef", &["paramRef", "policyName"])
            }
            _ => return Ok(()),
        };
        let spec = &request.object["spec"];
        let unchanged =
            request.old.is_some_and(|old| same.iter().all(|field| old["spec"][*field] == spec[*field]));
        let master = at.user.groups.iter().any(|group| group == "system:masters");
        if spec[field].is_null() || unchanged || master {
            return Ok(());
        }
        let refused = if field == "paramKind" {
            self.check_kind(&at.user, &spec["paramKind"], reader)
        } else {
            let policies = at.resource.replace("bindings", "").replace("policy", "policies");
            let policy = reader.get(GROUP, &policies, "", text(&spec["policyName"]));
            self.check_reference(&at.user, spec, policy.as_deref(), reader)
        };
        refused.map_err(|why| {
            let error = FieldError::forbidden(&FieldPath::root().child("spec").child(field), why);
            let name = text(&request.object["metadata"]["name"]);
            ApiError::invalid(GROUP, &request.resource.kind, name, &[error])
        })
    }
}

impl PolicyParameters {
    fn may(&self, user: &Arc<UserInfo>, verb: &str, kind: &Kind, namespace: &str, name: &str) -> bool {
        let asked = Attributes {
            user: Arc::clone(user),
            verb: verb.to_owned(),
            resource_request: true,
            group: kind.group.clone(),
            version: kind.version.clone(),
            resource: kind.resource.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        matches!(self.authorizer.authorize(&asked), Decision::Allow(_))
    }

    /// A policy: every object of the kind may be read.
    fn check_kind(&self, user: &Arc<UserInfo>, reference: &Value, reader: &dyn Reader) -> Result<(), String> {
        let kind = Kind::of(reference, reader);
        if self.may(user, "get", &kind, "*", "*") {
            return Ok(());
        }
        Err(format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
            shown(user),
            text(&reference["kind"]),
            text(&reference["apiVersion"])
        ))
    }

    /// A binding: the object, or the objects, that it names may be read.
    fn check_reference(
        &self,
        user: &Arc<UserInfo>,
        spec: &Value,
        policy: Option<&Object>,
        reader: &dyn Reader,
    ) -> Result<(), String> {
        let reference = &spec["paramRef"];
        let (name, namespace) = (text(&reference["name"]), text(&reference["namespace"]));
        let verb = if name.is_empty() { "list" } else { "get" };
        let kind = policy.map_or_else(Kind::any, |policy| Kind::of(&policy["spec"]["paramKind"], reader));
        if self.may(user, verb, &kind, namespace, name) {
            return Ok(());
        }
        let user = shown(user);
        let all =
            format!("user {user} does not have \"{verb}\" permission for all groups, versions and resources");
        Err(match policy {
            None => {
                let policy = text(&spec["policyName"]);
                format!("unable to get policy {policy} to determine minimum required permissions and {all}")
            }
            Some(policy) if kind.resource == "*" && !policy["spec"]["paramKind"].is_null() => {
                let (version, kind) = {
                    let kind = &policy["spec"]["paramKind"];
                    (text(&kind["apiVersion"]), text(&kind["kind"]))
                };
                format!(
                    "unable to resolve paramKind &{{{version} {kind}}} to determine minimum required permissions and {all}"
                )
            }
            Some(_) => format!(
                "user {user} does not have \"{verb}\" permission on the object referenced by paramRef"
            ),
        })
    }
}

/// What has to be readable; `*` where it is not known more exactly.
struct Kind {
    group: String,
    version: String,
    resource: String,
}

impl Kind {
    fn any() -> Self {
        let any = || "*".to_owned();
        Self { group: any(), version: any(), resource: any() }
    }

    /// The resource of `{apiVersion, kind}`, built in or defined.
    fn of(reference: &Value, reader: &dyn Reader) -> Self {
        let (whole, kind) = (text(&reference["apiVersion"]), text(&reference["kind"]));
        if whole.is_empty() || whole.split('/').count() > 2 {
            return Self::any();
        }
        let (group, version) = whole.split_once('/').unwrap_or(("", whole));
        let built_in = kinds::all()
            .iter()
            .find(|r| &*r.group == group && &*r.version == version && &*r.kind == kind)
            .map(|r| r.plural.to_string());
        let defined = || {
            let definitions = reader.list("apiextensions.k8s.io", "customresourcedefinitions", "");
            let found = definitions.into_iter().find(|definition| {
                let spec = &definition["spec"];
                let versions = spec["versions"].as_array().into_iter().flatten();
                spec["group"] == group
                    && spec["names"]["kind"] == kind
                    && versions.into_iter().any(|v| v["name"] == version && v["served"] == true)
            })?;
            found["spec"]["names"]["plural"].as_str().map(str::to_owned)
        };
        let resource = built_in.or_else(defined).unwrap_or_else(|| "*".to_owned());
        Self { group: group.to_owned(), version: version.to_owned(), resource }
    }
}

/// A user as upstream's words show one.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::json;

    use super::*;
    use crate::memory::Memory;

    /// Allows one verb on one resource and name.
    struct Only([&'static str; 4]);

    impl Authorizer for Only {
        fn authorize(&self, request: &Attributes) -> Decision {
            let asked = [&request.verb, &request.group, &request.resource, &request.name];
            let fits = asked.iter().zip(self.0).all(|(asked, allowed)| *asked == allowed);
            if fits { Decision::Allow(String::new()) } else { Decision::NoOpinion(String::new()) }
        }
    }

    async fn judge(
        allowed: [&'static str; 4],
        plural: &str,
        spec: Value,
        reader: &Memory,
    ) -> Result<(), ApiError> {
        let attributes = Attributes {
            user: Arc::new(UserInfo { name: "jane".to_owned(), ..UserInfo::default() }),
            group: GROUP.to_owned(),
            resource: plural.to_owned(),
            ..Attributes::default()
        };
        let mut object = json!({"metadata": {"name": "a"}, "spec": spec});
        let mut request = AdmissionRequest {
            attributes: &attributes,
            resource: kinds::find(GROUP, "v1", plural).unwrap(),
            operation: "CREATE",
            object: &mut object,
            old: None,
            dry_run: false,
            now: Utc::now(),
            warnings: &mut Vec::new(),
            audit: None,
            companions: &mut Vec::new(),
        };
        PolicyParameters { authorizer: Arc::new(Only(allowed)) }.validate(&mut request, reader).await
    }

    fn definition() -> Value {
        json!({"metadata": {"name": "limits.example.com"}, "spec": {
            "group": "example.com", "names": {"kind": "Limit", "plural": "limits"},
            "versions": [{"name": "v1", "served": true}],
        }})
    }

    #[tokio::test]
    async fn a_policy_needs_its_parameters_to_be_readable() {
        let reader = Memory::default();
        reader.put("apiextensions.k8s.io", "customresourcedefinitions", definition());
        let policies = "validatingadmissionpolicies";
        let built_in = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}});
        let defined = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"}});
        assert!(judge(["get", "", "configmaps", "*"], policies, built_in.clone(), &reader).await.is_ok());
        assert!(
            judge(["get", "example.com", "limits", "*"], policies, defined.clone(), &reader).await.is_ok()
        );
        let refused = judge(["get", "", "secrets", "*"], policies, built_in, &reader).await.unwrap_err();
        assert_eq!(refused.code, 422);
        assert!(
            refused.message.contains("spec.paramKind: Forbidden: user &{jane  [] map[]} must have \"get\"")
        );
        assert!(judge(["get", "", "secrets", "*"], policies, json!({}), &reader).await.is_ok());
    }

    #[tokio::test]
    async fn a_binding_needs_what_it_names_to_be_readable() {
        let reader = Memory::default();
        let policy = json!({"metadata": {"name": "p"}, "spec": {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}});
        reader.put(GROUP, "mutatingadmissionpolicies", policy);
        let bindings = "mutatingadmissionpolicybindings";
        let named = |policy: &str| json!({"policyName": policy, "paramRef": {"name": "x", "namespace": "b"}});
        assert!(judge(["get", "", "configmaps", "x"], bindings, named("p"), &reader).await.is_ok());
        assert!(judge(["get", "", "configmaps", "x"], bindings, named("q"), &reader).await.is_err());
        let selected = json!({"policyName": "p", "paramRef": {"selector": {}}});
        assert!(judge(["list", "", "configmaps", ""], bindings, selected.clone(), &reader).await.is_ok());
        assert!(judge(["get", "", "configmaps", "x"], bindings, selected, &reader).await.is_err());
    }
}
