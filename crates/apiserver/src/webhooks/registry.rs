//! The webhooks of all configurations, read once and again when a configuration changes.

use std::{sync::Arc, time::Duration};

use access::Reader as _;
use apimachinery::{Object, meta};
use arc_swap::ArcSwapOption;
use serde_json::Value;
use store::Revision;

use super::conditions;
use crate::{admission_match::Criteria, catalogue, extension::Target, policies::Expression, server::Inner};

const GROUP: &str = "admissionregistration.k8s.io";

/// What is known of the configurations. A write that follows a change of one sees it.
pub(crate) struct Webhooks {
    mutating: Kept,
    validating: Kept,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            mutating: Kept::of("mutatingwebhookconfigurations"),
            validating: Kept::of("validatingwebhookconfigurations"),
        }
    }
}

impl Webhooks {
    /// Those that may change an object, in the order in which they are asked.
    pub(super) fn mutating(&self, inner: &Inner) -> Arc<[Webhook]> {
        self.mutating.get(inner)
    }

    /// Those that may refuse it.
    pub(super) fn validating(&self, inner: &Inner) -> Arc<[Webhook]> {
        self.validating.get(inner)
    }
}

/// The webhooks of one kind of configuration, as of the last change of any of them.
struct Kept {
    resource: &'static str,
    prefix: String,
    seen: ArcSwapOption<(Revision, Arc<[Webhook]>)>,
}

impl Kept {
    fn of(resource: &'static str) -> Self {
        Self { resource, prefix: catalogue::prefix(GROUP, resource), seen: ArcSwapOption::empty() }
    }

    fn get(&self, inner: &Inner) -> Arc<[Webhook]> {
        let changed = inner.config.store.last_change(&self.prefix);
        if let Some(seen) = &*self.seen.load()
            && seen.0 == changed
        {
            return seen.1.clone();
        }
        // The list is in the order of names. It may be newer than `changed`; then it is read once more, for nothing.
        let configurations = inner.reader.list(GROUP, self.resource, "");
        let webhooks: Arc<[Webhook]> = configurations.iter().flat_map(|c| Webhook::all(c)).collect();
        self.seen.store(Some(Arc::new((changed, webhooks.clone()))));
        webhooks
    }
}

/// One webhook. Fields that the API defaults count as their default where they are missing.
pub(super) struct Webhook {
    /// Unlike that of all others, and the same as long as the configuration stays.
    pub identity: String,
    /// The name of the configuration.
    pub configuration: String,
    pub name: String,
    pub criteria: Criteria,
    pub conditions: Vec<Expression>,
    /// Where it is.
    pub target: Result<Target, String>,
    /// A call that fails is as good as one that allows.
    pub ignores_failure: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether it does anything besides answering, where nothing is to be done. `None`: it does not say.
    pub dry_run: Option<bool>,
    /// The form of the question; `None`: it understands none of ours.
    pub form: Option<Form>,
    /// It is called again when a later one changes the object.
    pub reinvoked: bool,
}

/// A version of AdmissionReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    V1,
    V1Beta1,
}

impl Webhook {
    fn all(configuration: &Object) -> Vec<Self> {
        let mut webhooks: Vec<Self> = Vec::new();
        for value in configuration["webhooks"].as_array().into_iter().flatten() {
            // Names were not always unique.
            let name = value["name"].as_str().unwrap_or_default();
            let same = webhooks.iter().filter(|w| w.name == name).count();
            let configuration = meta::name(configuration).to_owned();
            webhooks.push(Self::of(value, format!("{configuration}/{name}/{same}"), configuration));
        }
        webhooks
    }

    fn of(value: &Value, identity: String, configuration: String) -> Self {
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some(Form::V1),
            Some("v1beta1") => Some(Form::V1Beta1),
            _ => None,
        };
        Self {
            identity,
            configuration,
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            criteria: Criteria::of_webhook(value),
            conditions: conditions::of(&value["matchConditions"]),
            target: Target::of_client_config(&value["clientConfig"]),
            ignores_failure: value["failurePolicy"] == "Ignore",
            timeout: Duration::from_secs(value["timeoutSeconds"].as_u64().unwrap_or(10)),
            dry_run: value["sideEffects"].as_str().map(|effects| matches!(effects, "None" | "NoneOnDryRun")),
            form: value["admissionReviewVersions"].as_array().into_iter().flatten().find_map(known),
            reinvoked: value["reinvocationPolicy"] == "IfNeeded",
        }
    }
}
