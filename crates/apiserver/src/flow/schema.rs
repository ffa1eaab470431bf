//! A FlowSchema at work: which requests it takes, and which of them belong together.
//!
//! Source: `util/flowcontrol/rule.go`.

use std::sync::Arc;

use access::UserInfo;
use apimachinery::{Object, meta};
use http::HeaderValue;
use serde_json::Value;

use super::{level::Level, stats::Stats};
use crate::request::RequestInfo;

/// A list that may mean everything.
enum Choice {
    Any,
    Of(Vec<String>),
}

impl Choice {
    fn read(value: &Value) -> Self {
        let list: Vec<String> =
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        if list == ["*"] { Self::Any } else { Self::Of(list) }
    }

    fn has(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(list) => list.iter().any(|one| one == text),
        }
    }
}

enum Subject {
    Anybody,
    User(String),
    Group(String),
    /// `system:serviceaccount:NAMESPACE:`, and then anything.
    Accounts(String),
}

impl Subject {
    fn read(value: &Value) -> Option<Self> {
        let text = |kind: &str, field: &str| value[kind][field].as_str().map(str::to_owned);
        Some(match value["kind"].as_str()? {
            "User" => match text("user", "name")? {
                all if all == "*" => Self::Anybody,
                name => Self::User(name),
            },
            "Group" => match text("group", "name")? {
                all if all == "*" => Self::Anybody,
                name => Self::Group(name),
            },
            "ServiceAccount" => {
                let (namespace, name) =
                    (text("serviceAccount", "namespace")?, text("serviceAccount", "name")?);
                let prefix = format!("system:serviceaccount:{namespace}:");
                if name == "*" { Self::Accounts(prefix) } else { Self::User(prefix + &name) }
            }
            _ => return None,
        })
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::Anybody => true,
            Self::User(name) => user.name == *name,
            Self::Group(name) => user.groups.contains(name),
            Self::Accounts(prefix) => user.name.starts_with(prefix),
        }
    }
}

struct ResourceRule {
    verbs: Choice,
    groups: Choice,
    /// `pods`, `pods/status`
    resources: Choice,
    cluster: bool,
    namespaces: Choice,
}

impl ResourceRule {
    fn read(value: &Value) -> Self {
        Self {
            verbs: Choice::read(&value["verbs"]),
            groups: Choice::read(&value["apiGroups"]),
            resources: Choice::read(&value["resources"]),
            cluster: value["clusterScope"] == true,
            namespaces: Choice::read(&value["namespaces"]),
        }
    }

    fn takes(&self, info: &RequestInfo) -> bool {
        let resource = match &self.resources {
            Choice::Any => true,
            Choice::Of(list) if info.subresource.is_empty() => list.contains(&info.resource),
            Choice::Of(list) => list
                .iter()
                .any(|one| one.split_once('/') == Some((info.resource.as_str(), info.subresource.as_str()))),
        };
        let place =
            if info.namespace.is_empty() { self.cluster } else { self.namespaces.has(&info.namespace) };
        resource && place && self.verbs.has(info.verb) && self.groups.has(&info.group)
    }
}

struct PathRule {
    verbs: Choice,
    paths: Vec<String>,
}

impl PathRule {
    fn read(value: &Value) -> Self {
        let paths = value["nonResourceURLs"].as_array().into_iter().flatten();
        Self {
            verbs: Choice::read(&value["verbs"]),
            paths: paths.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    fn takes(&self, info: &RequestInfo) -> bool {
        let below = |rule: &str| {
            let folder = rule.strip_suffix('*').unwrap_or(rule).trim_end_matches('/');
            info.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        self.verbs.has(info.verb)
            && self.paths.iter().any(|rule| rule == "*" || *rule == info.path || below(rule))
    }
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

impl Rule {
    fn read(value: &Value) -> Self {
        let list = |field: &str| value[field].as_array().into_iter().flatten();
        Self {
            subjects: list("subjects").filter_map(Subject::read).collect(),
            resources: list("resourceRules").map(ResourceRule::read).collect(),
            paths: list("nonResourceRules").map(PathRule::read).collect(),
        }
    }

    fn takes(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(user)) {
            return false;
        }
        if info.is_resource {
            self.resources.iter().any(|rule| rule.takes(info))
        } else {
            self.paths.iter().any(|rule| rule.takes(info))
        }
    }
}

/// What tells the flows of a schema apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    User,
    Namespace,
}

/// See the module.
pub struct Schema {
    pub name: String,
    pub mark: HeaderValue,
    pub level: Arc<Level>,
    pub stats: Arc<Stats>,
    precedence: i64,
    by: By,
    rules: Vec<Rule>,
}

impl Schema {
    pub fn new(object: &Object, level: Arc<Level>, stats: Arc<Stats>) -> Self {
        let spec = &object["spec"];
        Self {
            name: meta::name(object).to_owned(),
            mark: HeaderValue::from_str(meta::uid(object)).unwrap_or(HeaderValue::from_static("")),
            level,
            stats,
            precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
            by: match spec["distinguisherMethod"]["type"].as_str() {
                Some("ByUser") => By::User,
                Some("ByNamespace") => By::Namespace,
                _ => By::Nothing,
            },
            rules: spec["rules"].as_array().into_iter().flatten().map(Rule::read).collect(),
        }
    }

    /// Lower comes first; of equal ones the name decides.
    pub fn place(&self) -> (i64, &str) {
        (self.precedence, &self.name)
    }

    pub fn takes(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.takes(user, info))
    }

    /// Which flow of the schema a request belongs to.
    pub fn distinguish<'a>(&self, user: &'a UserInfo, info: &'a RequestInfo) -> &'a str {
        match self.by {
            By::Nothing => "",
            By::User => &user.name,
            By::Namespace => &info.namespace,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::request::Query;

    fn takes(rule: Value, user: &str, url: &str) -> bool {
        let user = UserInfo { name: user.to_owned(), groups: vec!["dev".to_owned()], ..UserInfo::default() };
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        Rule::read(&rule).takes(&user, &RequestInfo::parse(&Method::GET, path, &Query::parse(query)))
    }

    fn rule(subject: Value) -> Value {
        json!({
            "subjects": [subject],
            "resourceRules": [{
                "verbs": ["list"], "apiGroups": [""], "resources": ["pods", "pods/log"], "namespaces": ["shop"],
                "clusterScope": true,
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz", "/apis/*"]}],
        })
    }

    #[test]
    fn subjects_are_users_groups_and_accounts() {
        let url = "/api/v1/namespaces/shop/pods";
        assert!(takes(rule(json!({"kind": "User", "user": {"name": "*"}})), "x", url));
        assert!(!takes(rule(json!({"kind": "User", "user": {"name": "y"}})), "x", url));
        assert!(takes(rule(json!({"kind": "Group", "group": {"name": "dev"}})), "x", url));
        let account = |name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": name}});
        assert!(takes(rule(account("*")), "system:serviceaccount:n:a", url));
        assert!(takes(rule(account("a")), "system:serviceaccount:n:a", url));
        assert!(!takes(rule(account("*")), "system:serviceaccount:nn:a", url));
        assert!(!takes(rule(json!({"kind": "Nobody"})), "x", url));
    }

    #[test]
    fn resources_match_by_verb_place_and_subresource() {
        let anybody = || rule(json!({"kind": "Group", "group": {"name": "*"}}));
        assert!(takes(anybody(), "x", "/api/v1/pods"));
        assert!(!takes(anybody(), "x", "/api/v1/pods?watch=1"));
        assert!(!takes(anybody(), "x", "/api/v1/namespaces/other/pods"));
        assert!(!takes(anybody(), "x", "/api/v1/namespaces/shop/pods/p/status"));
        assert!(!takes(anybody(), "x", "/apis/apps/v1/deployments"));
    }

    #[test]
    fn paths_match_whole_or_below() {
        let anybody = || rule(json!({"kind": "Group", "group": {"name": "*"}}));
        for (path, wanted) in [
            ("/healthz", true),
            ("/healthz/etcd", true),
            ("/healthzz", false),
            ("/apis/apps", true),
            ("/apis", false),
        ] {
            assert_eq!(takes(anybody(), "x", path), wanted, "{path}");
        }
    }
}
