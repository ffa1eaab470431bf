//! Whether a write is one that a webhook or a policy is for, and in which version they want to see it.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/webhook/{generic,predicates}`, `…/plugin/policy/matching`.

use std::sync::{Arc, OnceLock};

use apimachinery::{ApiError, Object, selector::LabelSelector};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    admit::{Kind, Write},
    catalogue::Served,
    server::Inner,
};

/// A write, held against many criteria: what they have in common is looked up once.
pub(crate) struct Subject<'a> {
    pub inner: &'a Inner,
    pub write: &'a Write<'a>,
    namespace: OnceLock<Option<Arc<Object>>>,
    equivalents: OnceLock<Vec<Target>>,
    /// What conversion webhooks have made of objects of the write: several rules may name one version.
    conversions: Mutex<Vec<(Object, Object)>>,
}

/// So many conversions are remembered: object and old object in a few versions.
const CONVERSIONS: usize = 8;

/// The resource that a rule has matched: the requested one, or another version of it.
#[derive(Clone)]
pub(crate) struct Target {
    pub group: Arc<str>,
    pub version: Arc<str>,
    pub resource: Arc<str>,
    /// Of the object, which may be a subresource's.
    pub kind: Kind,
    /// `None`: the requested one.
    served: Option<Arc<Served>>,
}

impl<'a> Subject<'a> {
    pub fn new(inner: &'a Inner, write: &'a Write<'a>) -> Self {
        Self {
            inner,
            write,
            namespace: OnceLock::new(),
            equivalents: OnceLock::new(),
            conversions: Mutex::default(),
        }
    }

    /// What the resource's conversion webhook makes of an object for `to`; `None`: there is no such webhook. It is asked
    /// once for the same object.
    ///
    /// # Errors
    /// The webhook failed.
    pub async fn converted(&self, to: &Served, object: &Object) -> Result<Option<Object>, ApiError> {
        let is = |(from, made): &&(Object, Object)| made["apiVersion"] == *to.api_version && from == object;
        if let Some((_, made)) = self.conversions.lock().iter().find(is) {
            return Ok(Some(made.clone()));
        }
        let made = self.inner.converted(to, object).await?;
        if let Some(made) = &made {
            let mut known = self.conversions.lock();
            known.truncate(CONVERSIONS - 1);
            known.insert(0, (object.clone(), made.clone()));
        }
        Ok(made)
    }

    /// The Namespace that the request names, as it is stored. `None`: there is none, or none is named.
    pub fn namespace(&self) -> Option<&Arc<Object>> {
        let name = &self.write.attributes.namespace;
        let find = || self.inner.stored("", "namespaces", "", name);
        self.namespace.get_or_init(|| if name.is_empty() { None } else { find() }).as_ref()
    }

    /// Webhook configurations, policies and their bindings are never shown to any of them: a mistake in one could not be
    /// taken back.
    pub fn is_exempt(&self) -> bool {
        &*self.write.kind.group == "admissionregistration.k8s.io"
            && matches!(
                &*self.write.kind.kind,
                "ValidatingWebhookConfiguration"
                    | "MutatingWebhookConfiguration"
                    | "ValidatingAdmissionPolicy"
                    | "ValidatingAdmissionPolicyBinding"
                    | "MutatingAdmissionPolicy"
                    | "MutatingAdmissionPolicyBinding"
            )
    }

    /// The write as it was asked for.
    pub fn requested(&self) -> Target {
        let at = &self.write.attributes;
        Target {
            group: at.group.as_str().into(),
            version: at.version.as_str().into(),
            resource: at.resource.as_str().into(),
            kind: self.write.kind.clone(),
            served: None,
        }
    }

    /// The other resources that the same stored objects are seen through.
    fn equivalents(&self) -> &[Target] {
        self.equivalents.get_or_init(|| {
            let (served, at) = (self.write.served, &self.write.attributes);
            let catalogue = self.inner.catalogue.load();
            let others = catalogue.all().filter(|other| {
                let resource = &other.resource;
                other.prefix == served.prefix
                    && (resource.group != served.resource.group
                        || resource.version != served.resource.version)
                    && (at.subresource.is_empty() || resource.subresource(&at.subresource).is_some())
            });
            let target = |other: &Arc<Served>| Target {
                group: other.resource.group.clone(),
                version: other.resource.version.clone(),
                resource: other.resource.plural.clone(),
                kind: Kind::of(&other.resource, &at.subresource),
                served: Some(other.clone()),
            };
            others.map(target).collect()
        })
    }
}

impl Target {
    /// The resource whose shape the object has in this version, unless it is a subresource's own.
    pub fn served<'t>(&'t self, write: &'t Write<'_>) -> &'t Served {
        self.served.as_deref().unwrap_or(write.served)
    }

    /// Whether the write's object has to be converted to be seen in this version.
    pub fn converts(&self, write: &Write<'_>) -> bool {
        self.kind != write.kind
    }
}

/// What a webhook or a policy says about the requests that it is for, read once.
pub(crate) struct Criteria {
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    equivalent: bool,
    /// `None`: all requests.
    rules: Option<Vec<Rule>>,
    excluded: Vec<Rule>,
}

/// A `RuleWithOperations` or a `NamedRuleWithOperations`.
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    /// `*`, `Cluster`, `Namespaced`
    scope: String,
    /// Empty: all.
    names: Vec<String>,
}

impl Criteria {
    /// Of a webhook: without rules it is for nothing.
    pub fn of_webhook(webhook: &Value) -> Self {
        Self { rules: Some(rules(&webhook["rules"])), excluded: Vec::new(), ..Self::of(webhook) }
    }

    /// Of `matchResources` or `matchConstraints`: without rules they are for everything.
    pub fn of_match_resources(resources: &Value) -> Self {
        let list = rules(&resources["resourceRules"]);
        let excluded = rules(&resources["excludeResourceRules"]);
        Self { rules: (!list.is_empty()).then_some(list), excluded, ..Self::of(resources) }
    }

    fn of(value: &Value) -> Self {
        // An absent selector is stored as the empty one, which selects everything.
        let selector = |field: &str| match &value[field] {
            Value::Null => Ok(LabelSelector::everything()),
            given => LabelSelector::from_object(given),
        };
        Self {
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            // What is defaulted to when it is written.
            equivalent: value["matchPolicy"] != "Exact",
            rules: None,
            excluded: Vec::new(),
        }
    }

    /// Whether the write is one of them: the resource that it is to be seen as. `object` and `old` are those of the
    /// write, as it stands; either may be absent.
    ///
    /// # Errors
    /// 404 of a namespace that is selected by labels and does not exist.
    pub fn matches(
        &self,
        subject: &Subject<'_>,
        object: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<Option<Target>, ApiError> {
        // What a selector cannot tell is no error for those that the write does not concern otherwise.
        let in_namespace = self.selects_namespace(subject, object);
        let selected = self.selects_object(object, old);
        if matches!(in_namespace, Ok(false)) || matches!(selected, Ok(false)) {
            return Ok(None);
        }
        if self.find(&self.excluded, subject).is_some() {
            return Ok(None);
        }
        let found = match &self.rules {
            None => Some(subject.requested()),
            Some(rules) => self.find(rules, subject),
        };
        if found.is_some() {
            in_namespace?;
            selected?;
        }
        Ok(found)
    }

    fn selects_namespace(&self, subject: &Subject<'_>, object: Option<&Object>) -> Result<bool, ApiError> {
        let at = &subject.write.attributes;
        if at.namespace.is_empty() && at.resource != "namespaces" {
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(ApiError::internal)?;
        if selector.is_everything() {
            return Ok(true);
        }
        // A namespace that is being written has the labels that it will have.
        let itself = at.resource == "namespaces"
            && at.subresource.is_empty()
            && matches!(subject.write.operation, "CREATE" | "UPDATE");
        if itself && let Some(object) = object {
            return Ok(selector.matches_object(object));
        }
        match subject.namespace() {
            Some(namespace) => Ok(selector.matches_object(namespace)),
            None => Err(ApiError::not_found("", "namespaces", &at.namespace)),
        }
    }

    fn selects_object(&self, object: Option<&Object>, old: Option<&Object>) -> Result<bool, ApiError> {
        let selector = self.objects.as_ref().map_err(ApiError::internal)?;
        let mut seen = object.into_iter().chain(old).filter(|o| o["metadata"].is_object());
        Ok(selector.is_everything() || seen.any(|o| selector.matches_object(o)))
    }

    /// The resource of the first rule that matches: as requested, else as another version.
    fn find(&self, rules: &[Rule], subject: &Subject<'_>) -> Option<Target> {
        let write = subject.write;
        let at = &write.attributes;
        if rules.iter().any(|rule| rule.matches(write, &at.group, &at.version, &at.resource)) {
            return Some(subject.requested());
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = subject.equivalents();
        let of = |rule: &Rule| others.iter().find(|t| rule.matches(write, &t.group, &t.version, &t.resource));
        rules.iter().find_map(of).cloned()
    }
}

impl Rule {
    fn matches(&self, write: &Write<'_>, group: &str, version: &str, resource: &str) -> bool {
        let at = &write.attributes;
        let any = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let cluster = at.namespace.is_empty() || (group, version, resource) == ("", "v1", "namespaces");
        let scope = match self.scope.as_str() {
            "*" => true,
            "Cluster" => cluster,
            "Namespaced" => !cluster,
            _ => false,
        };
        scope
            && any(&self.operations, write.operation)
            && any(&self.groups, group)
            && any(&self.versions, version)
            && self
                .resources
                .iter()
                .any(|(of, sub)| (of == "*" || of == resource) && (sub == "*" || *sub == at.subresource))
            && (self.names.is_empty() || self.names.contains(&at.name))
    }
}

fn rules(list: &Value) -> Vec<Rule> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let split = |text: String| match text.split_once('/') {
        Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
        None => (text, String::new()),
    };
    let rule = |rule: &Value| Rule {
        operations: texts(&rule["operations"]),
        groups: texts(&rule["apiGroups"]),
        versions: texts(&rule["apiVersions"]),
        resources: texts(&rule["resources"]).into_iter().map(split).collect(),
        scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        names: texts(&rule["resourceNames"]),
    };
    list.as_array().into_iter().flatten().map(rule).collect()
}
