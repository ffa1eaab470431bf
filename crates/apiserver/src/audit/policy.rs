//! `audit.k8s.io/v1 Policy`: of which requests how much is told.
//!
//! Source: `k8s.io/apiserver/pkg/audit/policy`.

use access::UserInfo;

use crate::request::RequestInfo;

/// How much is told of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and what came of it.
    Metadata,
    /// … and the object that was sent.
    Request,
    /// … and the object that was answered.
    RequestResponse,
}

impl Level {
    /// All of them, from little to much.
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Metadata, Self::Request, Self::RequestResponse];

    /// As policies and events name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is known who asks; nothing has been done.
    RequestReceived,
    /// The head of an answer that may last is on its way.
    ResponseStarted,
    /// Nothing follows.
    ResponseComplete,
    /// The handler has panicked.
    Panic,
}

impl Stage {
    pub(super) const ALL: [Self; 4] =
        [Self::RequestReceived, Self::ResponseStarted, Self::ResponseComplete, Self::Panic];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stages(u8);

impl Stages {
    pub(super) fn insert(&mut self, stage: Stage) {
        self.0 |= 1 << stage as u8;
    }

    pub(super) fn contains(self, stage: Stage) -> bool {
        self.0 & (1 << stage as u8) != 0
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a policy says of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub level: Level,
    /// Stages that are not told.
    pub omitted: Stages,
    /// Objects are told without `metadata.managedFields`.
    pub without_managed_fields: bool,
}

/// A policy that was read and checked: see [`Policy::parse`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub(super) rules: Vec<Rule>,
    pub(super) omitted: Stages,
    pub(super) without_managed_fields: bool,
}

/// A rule; an empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub level: Level,
    pub users: Vec<String>,
    pub groups: Vec<String>,
    pub verbs: Vec<String>,
    pub resources: Vec<Resources>,
    pub namespaces: Vec<String>,
    pub urls: Vec<String>,
    pub omitted: Stages,
    pub without_managed_fields: Option<bool>,
}

/// Resources of one API group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    /// `*`: of all.
    pub group: String,
    /// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`
    pub resources: Vec<String>,
    pub names: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == wanted)
}

impl Policy {
    /// The first rule that fits decides; nothing is told if none does. `user`: `None` where nobody was recognized.
    pub(super) fn judge(&self, user: Option<&UserInfo>, info: &RequestInfo) -> Verdict {
        match self.rules.iter().find(|rule| rule.fits(user, info)) {
            Some(rule) => Verdict {
                level: rule.level,
                omitted: self.omitted.union(rule.omitted),
                without_managed_fields: rule.without_managed_fields.unwrap_or(self.without_managed_fields),
            },
            None => Verdict::default(),
        }
    }
}

impl Rule {
    fn fits(&self, user: Option<&UserInfo>, info: &RequestInfo) -> bool {
        let named = |user: &UserInfo| has(&self.users, &user.name);
        let member = |user: &UserInfo| user.groups.iter().any(|group| has(&self.groups, group));
        if !self.users.is_empty() && !user.is_some_and(named)
            || !self.groups.is_empty() && !user.is_some_and(member)
            || !self.verbs.is_empty() && !has(&self.verbs, info.verb)
        {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|one| one.fits(info)));
        }
        self.urls.is_empty() || !info.is_resource && self.urls.iter().any(|url| is_below(&info.path, url))
    }
}

impl Resources {
    fn fits(&self, info: &RequestInfo) -> bool {
        if self.group != "*" && self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        (self.names.is_empty() || has(&self.names, &info.name))
            && self.resources.iter().any(|pattern| match pattern.split_once('/') {
                None => pattern == "*" || info.subresource.is_empty() && *pattern == info.resource,
                // Upstream takes the resource itself for one of its subresources here.
                Some((resource, "*")) => resource == info.resource,
                Some(("*", subresource)) => !info.subresource.is_empty() && subresource == info.subresource,
                Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
            })
    }
}

/// Whether a path is the one of a rule, or begins as one that ends in `*` does.
fn is_below(path: &str, rule: &str) -> bool {
    rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::Query;

    fn info(method: Method, url: &str) -> RequestInfo {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    fn level(rules: &str, user: Option<&UserInfo>, info: &RequestInfo) -> Level {
        let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: {rules}}}");
        Policy::parse(&text).unwrap().judge(user, info).level
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rules = "[{level: None, verbs: [list]}, {level: Request, namespaces: [shop]}, {level: Metadata}]";
        let at = |method, url| level(rules, None, &info(method, url));
        assert_eq!(at(Method::GET, "/api/v1/namespaces/shop/pods"), Level::None);
        assert_eq!(at(Method::GET, "/api/v1/namespaces/shop/pods/x"), Level::Request);
        assert_eq!(at(Method::GET, "/api/v1/namespaces/other/pods/x"), Level::Metadata);
        assert_eq!(at(Method::GET, "/healthz"), Level::Metadata);
        assert_eq!(level("[{level: Request, verbs: [watch]}]", None, &info(Method::GET, "/x")), Level::None);
    }

    #[test]
    fn users_and_groups_are_those_of_the_caller() {
        let rules = "[{level: Request, users: [eve]}, {level: Metadata, userGroups: [devs, ops]}]";
        let user = |name: &str, group: &str| UserInfo {
            name: name.to_owned(),
            groups: vec!["x".to_owned(), group.to_owned()],
            ..UserInfo::default()
        };
        let request = info(Method::GET, "/version");
        assert_eq!(level(rules, Some(&user("eve", "")), &request), Level::Request);
        assert_eq!(level(rules, Some(&user("bob", "ops")), &request), Level::Metadata);
        assert_eq!(level(rules, Some(&user("bob", "sales")), &request), Level::None);
        assert_eq!(level(rules, None, &request), Level::None, "nobody is no user");
    }

    /// What a list of resources takes, held against upstream's `ruleMatchesResource`.
    #[test]
    fn resources_are_told_apart_from_their_subresources() {
        let cases = [
            ("pods", [true, false, false, false]),
            ("pods/log", [false, true, false, false]),
            ("pods/*", [true, true, false, false]),
            ("*/scale", [false, false, true, false]),
            ("*", [true, true, true, true]),
            ("*/*", [false, false, false, false]),
        ];
        let urls = [
            "/api/v1/namespaces/a/pods/x",
            "/api/v1/namespaces/a/pods/x/log",
            "/api/v1/namespaces/a/replicationcontrollers/x/scale",
            "/api/v1/namespaces/a/services/x",
        ];
        for (pattern, wanted) in cases {
            let rules = format!("[{{level: Metadata, resources: [{{resources: ['{pattern}']}}]}}]");
            let got = urls.map(|url| level(&rules, None, &info(Method::GET, url)) == Level::Metadata);
            assert_eq!(got, wanted, "{pattern}");
        }
        let any = "[{level: Metadata, resources: [{group: ''}]}]";
        assert_eq!(level(any, None, &info(Method::GET, urls[1])), Level::Metadata);
        assert_eq!(level(any, None, &info(Method::GET, "/apis/apps/v1/deployments")), Level::None);
        assert_eq!(level(any, None, &info(Method::GET, "/version")), Level::None);
        let names = "[{level: Metadata, resources: [{group: '*', resources: [pods], resourceNames: [x]}]}]";
        assert_eq!(level(names, None, &info(Method::GET, urls[0])), Level::Metadata);
        assert_eq!(level(names, None, &info(Method::GET, "/api/v1/namespaces/a/pods/y")), Level::None);
    }

    #[test]
    fn a_path_is_matched_whole_or_up_to_a_star() {
        let rules = "[{level: Metadata, nonResourceURLs: ['/healthz*', '/version']}]";
        let at = |url| level(rules, None, &info(Method::GET, url));
        assert_eq!(at("/healthz/etcd"), Level::Metadata);
        assert_eq!(at("/version"), Level::Metadata);
        assert_eq!(at("/version/x"), Level::None);
        assert_eq!(at("/api/v1/pods"), Level::None);
        let all = "[{level: Metadata, nonResourceURLs: ['*']}]";
        assert_eq!(level(all, None, &info(Method::GET, "/x")), Level::Metadata);
        assert_eq!(level(all, None, &info(Method::GET, "/api/v1/pods")), Level::None);
    }

    #[test]
    fn a_rule_adds_to_the_stages_that_are_omitted_and_overrides_the_rest() {
        let text = "
            apiVersion: audit.k8s.io/v1
            kind: Policy
            omitStages: [RequestReceived]
            omitManagedFields: true
            rules:
            - {level: Metadata, verbs: [get], omitStages: [Panic], omitManagedFields: false}
            - {level: Metadata}";
        let policy = Policy::parse(text).unwrap();
        let got = policy.judge(None, &info(Method::GET, "/x"));
        assert!(!got.without_managed_fields);
        assert_eq!(
            Stage::ALL.map(|stage| got.omitted.contains(stage)),
            [true, false, false, true],
            "the union of both"
        );
        let other = policy.judge(None, &info(Method::POST, "/x"));
        assert!(other.without_managed_fields && !other.omitted.contains(Stage::Panic));
    }
}
