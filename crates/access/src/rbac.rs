//! Role-based access control: what the four kinds of `rbac.authorization.k8s.io` grant.
//!
//! Bindings are indexed by subject once per change of any of the four kinds, so that a decision looks only at the
//! bindings of the user and its groups.

use std::{collections::HashMap, sync::Arc};

use apimachinery::Object;
use parking_lot::RwLock;
use serde_json::Value;

use crate::{Attributes, Authorizer, Decision, Reader, UserInfo};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// One PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// `verbs`
    pub verbs: Vec<String>,
    /// `apiGroups`
    pub groups: Vec<String>,
    /// `resources`, with `/subresource`.
    pub resources: Vec<String>,
    /// `resourceNames`; empty: all.
    pub names: Vec<String>,
    /// `nonResourceURLs`
    pub urls: Vec<String>,
}

impl Rule {
    /// Reads a PolicyRule; what is missing or of another type is empty.
    #[must_use]
    pub fn read(rule: &Value) -> Self {
        let list = |field: &str| {
            rule[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            urls: list("nonResourceURLs"),
        }
    }

    /// The rules of a Role or ClusterRole.
    #[must_use]
    pub fn of_role(role: &Object) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::read).collect()
    }

    fn allows(&self, request: &Attributes) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|v| v == "*" || v == wanted);
        if !any(&self.verbs, &request.verb) {
            return false;
        }
        if !request.resource_request {
            return self.urls.iter().any(|url| matches_url(url, &request.path));
        }
        any(&self.groups, &request.group)
            && self.resources.iter().any(|r| matches_resource(r, &request.resource, &request.subresource))
            && (self.names.is_empty() || self.names.contains(&request.name))
    }

    /// Whether this rule alone grants all of `wanted`, which holds one verb, and one group and resource or one URL.
    fn covers(&self, wanted: &Rule) -> bool {
        let all = |have: &[String], want: &[String]| {
            have.iter().any(|v| v == "*") || want.iter().all(|w| have.contains(w))
        };
        if !all(&self.verbs, &wanted.verbs) {
            return false;
        }
        if !wanted.urls.is_empty() {
            return wanted
                .urls
                .iter()
                .all(|u| self.urls.iter().any(|have| have == u || matches_url(have, u)));
        }
        let resources = wanted.resources.iter().all(|w| {
            let (resource, sub) = w.split_once('/').unwrap_or((w, ""));
            self.resources.iter().any(|have| have == w || matches_resource(have, resource, sub))
        });
        let names = self.names.is_empty()
            || (!wanted.names.is_empty() && wanted.names.iter().all(|n| self.names.contains(n)));
        all(&self.groups, &wanted.groups) && resources && names
    }

    /// The rule as single grants, for comparison.
    fn split(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for verb in &self.verbs {
            for url in &self.urls {
                out.push(Rule { verbs: vec![verb.clone()], urls: vec![url.clone()], ..Rule::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let base = Rule {
                        verbs: vec![verb.clone()],
                        groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.names.is_empty() {
                        out.push(base);
                    } else {
                        out.extend(
                            self.names.iter().map(|n| Rule { names: vec![n.clone()], ..base.clone() }),
                        );
                    }
                }
            }
        }
        out
    }
}

/// The grants of `wanted` that no rule of `held` covers. Empty: nothing is escalated.
#[must_use]
pub fn not_covered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(Rule::split).filter(|w| !held.iter().any(|h| h.covers(w))).collect()
}

fn matches_url(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

fn matches_resource(pattern: &str, resource: &str, subresource: &str) -> bool {
    match pattern.split_once('/') {
        None if pattern == "*" => true,
        None => subresource.is_empty() && pattern == resource,
        Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
        Some((name, sub)) => name == resource && sub == subresource,
    }
}

/// A binding, seen from one of its subjects.
#[derive(Clone)]
struct Grant {
    /// Empty: everywhere.
    namespace: String,
    /// How a reason names it.
    binding: String,
    role: String,
    subject: String,
    rules: Arc<[Rule]>,
}

#[derive(Default)]
struct Index {
    seen: [u64; 4],
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
}

const KINDS: [&str; 4] = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];

impl Index {
    fn build(reader: &dyn Reader, seen: [u64; 4]) -> Self {
        let mut index = Self { seen, ..Self::default() };
        let mut roles: HashMap<(String, String, String), Arc<[Rule]>> = HashMap::new();
        for (resource, kind) in [("roles", "Role"), ("clusterroles", "ClusterRole")] {
            for role in reader.list(GROUP, resource, "") {
                let key =
                    (kind.to_owned(), text(&role["metadata"]["namespace"]), text(&role["metadata"]["name"]));
                roles.insert(key, Rule::of_role(&role).into());
            }
        }
        for resource in ["rolebindings", "clusterrolebindings"] {
            for binding in reader.list(GROUP, resource, "") {
                index.add_binding(&binding, &roles);
            }
        }
        index
    }

    fn add_binding(&mut self, binding: &Object, roles: &HashMap<(String, String, String), Arc<[Rule]>>) {
        let namespace = text(&binding["metadata"]["namespace"]);
        let name = text(&binding["metadata"]["name"]);
        let (kind, role) = (text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"]));
        let role_namespace = if kind == "Role" { namespace.clone() } else { String::new() };
        let Some(rules) = roles.get(&(kind.clone(), role_namespace, role.clone())) else { return };
        let grant = Grant {
            binding: if namespace.is_empty() {
                format!("ClusterRoleBinding {name:?}")
            } else {
                format!("RoleBinding {:?}", format!("{name}/{namespace}"))
            },
            role: format!("{kind} {role:?}"),
            subject: String::new(),
            namespace: namespace.clone(),
            rules: Arc::clone(rules),
        };
        for subject in binding["subjects"].as_array().into_iter().flatten() {
            let name = text(&subject["name"]);
            let kind = subject["kind"].as_str().unwrap_or_default();
            let mut grant = Grant { subject: format!("{kind} {name:?}"), ..grant.clone() };
            match kind {
                "User" => self.users.entry(name).or_default().push(grant),
                "Group" => self.groups.entry(name).or_default().push(grant),
                "ServiceAccount" => {
                    let account_namespace = subject["namespace"].as_str().unwrap_or(&namespace);
                    grant.subject = format!("{kind} {:?}", format!("{name}/{account_namespace}"));
                    let user = format!("system:serviceaccount:{account_namespace}:{name}");
                    self.users.entry(user).or_default().push(grant);
                }
                _ => {}
            }
        }
    }

    /// The bindings of the user that count in `namespace`, cluster-wide ones first as upstream evaluates them.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = &'a Grant> {
        let mine = move || {
            let groups = user.groups.iter().filter_map(|g| self.groups.get(g));
            self.users.get(&user.name).into_iter().chain(groups).flatten()
        };
        let everywhere = mine().filter(|g| g.namespace.is_empty());
        everywhere.chain(mine().filter(move |g| !namespace.is_empty() && g.namespace == namespace))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The authorizer over what is stored.
pub struct Rbac {
    reader: Arc<dyn Reader>,
    index: RwLock<Arc<Index>>,
}

impl Rbac {
    /// Reads the four kinds through `reader`, again whenever one of them changes.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>) -> Self {
        Self { reader, index: RwLock::new(Arc::new(Index { seen: [u64::MAX; 4], ..Index::default() })) }
    }

    fn index(&self) -> Arc<Index> {
        let seen = KINDS.map(|kind| self.reader.changed(GROUP, kind));
        let current = Arc::clone(&self.index.read());
        if current.seen == seen {
            return current;
        }
        let fresh = Arc::new(Index::build(&*self.reader, seen));
        *self.index.write() = Arc::clone(&fresh);
        fresh
    }

    /// All rules that the user holds in a namespace (cluster-wide ones included).
    #[must_use]
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let index = self.index();
        index.grants(user, namespace).flat_map(|g| g.rules.iter().cloned()).collect()
    }

    /// The rules behind a `roleRef`; `None` when the role does not exist.
    #[must_use]
    pub fn rules_behind(&self, role_ref: &Value, namespace: &str) -> Option<Vec<Rule>> {
        let name = role_ref["name"].as_str()?;
        let role = match role_ref["kind"].as_str()? {
            "Role" => self.reader.get(GROUP, "roles", namespace, name),
            _ => self.reader.get(GROUP, "clusterroles", "", name),
        }?;
        Some(Rule::of_role(&role))
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, request: &Attributes) -> Decision {
        let index = self.index();
        for grant in index.grants(&request.user, &request.namespace) {
            if grant.rules.iter().any(|rule| rule.allows(request)) {
                return Decision::Allow(format!(
                    "RBAC: allowed by {} of {} to {}",
                    grant.binding, grant.role, grant.subject
                ));
            }
        }
        Decision::NoOpinion(String::new())
    }
}

/// Members of `system:masters` may do everything.
pub struct Masters;

impl Authorizer for Masters {
    fn authorize(&self, request: &Attributes) -> Decision {
        if request.user.groups.iter().any(|g| g == "system:masters") {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::memory::Memory;

    fn ask(user: &str, verb: &str, resource: &str, namespace: &str, name: &str) -> Attributes {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        Attributes {
            user: Arc::new(UserInfo { name: user.to_owned(), ..UserInfo::default() }),
            verb: verb.to_owned(),
            resource_request: true,
            resource: resource.to_owned(),
            subresource: subresource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        }
    }

    fn cluster() -> (Arc<Memory>, Rbac) {
        let memory = Arc::new(Memory::default());
        memory.put(
            GROUP,
            "roles",
            json!({"metadata": {"namespace": "shop", "name": "reader"}, "rules": [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"]}]}),
        );
        memory.put(
            GROUP,
            "rolebindings",
            json!({"metadata": {"namespace": "shop", "name": "jane"},
            "roleRef": {"kind": "Role", "name": "reader"}, "subjects": [{"kind": "User", "name": "jane"},
            {"kind": "ServiceAccount", "name": "bot"}]}),
        );
        let rbac = Rbac::new(Arc::clone(&memory) as Arc<dyn Reader>);
        (memory, rbac)
    }

    fn allowed(rbac: &Rbac, request: &Attributes) -> bool {
        matches!(rbac.authorize(request), Decision::Allow(_))
    }

    #[test]
    fn what_is_allowed_says_by_which_binding_and_as_whom() {
        let (_, rbac) = cluster();
        let said = |user| rbac.authorize(&ask(user, "get", "pods", "shop", "x"));
        let reason = |subject| {
            let text = format!("RBAC: allowed by RoleBinding \"jane/shop\" of Role \"reader\" to {subject}");
            Decision::Allow(text)
        };
        assert_eq!(said("jane"), reason("User \"jane\""));
        assert_eq!(said("system:serviceaccount:shop:bot"), reason("ServiceAccount \"bot/shop\""));
    }

    #[test]
    fn a_role_binding_grants_its_role_in_its_namespace_only() {
        let (_, rbac) = cluster();
        assert!(allowed(&rbac, &ask("jane", "get", "pods", "shop", "a")));
        assert!(allowed(&rbac, &ask("jane", "get", "pods/log", "shop", "a")));
        assert!(!allowed(&rbac, &ask("jane", "get", "pods/exec", "shop", "a")));
        assert!(!allowed(&rbac, &ask("jane", "get", "pods", "default", "a")));
        assert!(!allowed(&rbac, &ask("jane", "delete", "pods", "shop", "a")));
        assert!(!allowed(&rbac, &ask("joe", "get", "pods", "shop", "a")));
    }

    #[test]
    fn resource_names_restrict_a_rule() {
        let (_, rbac) = cluster();
        assert!(allowed(&rbac, &ask("jane", "get", "secrets", "shop", "db")));
        assert!(!allowed(&rbac, &ask("jane", "get", "secrets", "shop", "other")));
    }

    #[test]
    fn a_service_account_subject_defaults_to_the_namespace_of_the_binding() {
        let (_, rbac) = cluster();
        assert!(allowed(&rbac, &ask("system:serviceaccount:shop:bot", "list", "pods", "shop", "")));
    }

    #[test]
    fn a_new_binding_counts_at_once() {
        let (memory, rbac) = cluster();
        assert!(!allowed(&rbac, &ask("joe", "get", "nodes", "", "n")));
        memory.put(
            GROUP,
            "clusterroles",
            json!({"metadata": {"name": "all"},
            "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]}),
        );
        memory.put(GROUP, "clusterrolebindings", json!({"metadata": {"name": "joe"},
            "roleRef": {"kind": "ClusterRole", "name": "all"}, "subjects": [{"kind": "User", "name": "joe"}]}));
        assert!(allowed(&rbac, &ask("joe", "get", "nodes", "", "n")));
    }

    #[test]
    fn granting_more_than_one_holds_is_found() {
        let held = [Rule::read(&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}))];
        let more =
            [Rule::read(&json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}))];
        assert!(not_covered(&held, &held).is_empty());
        assert_eq!(not_covered(&held, &more).len(), 1);
    }
}
