//! Questions to the authorizer of the cluster: `authorizer.group('apps').resource('deployments').check('list')`.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use ::cel::{
    Value,
    common::types::{STRING_TYPE, Type},
    objects::Opaque,
};

use super::{Library, failed, give, give_text, held, hold, text};
use crate::names;

/// Whom an expression may ask what a user may do.
pub trait Authorize: Send + Sync {
    /// Answers one question.
    fn authorize(&self, question: &Question) -> Answer;
}

/// Who asks, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The service account asked about, `(namespace, name)`; else it is about whoever makes the request.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource; then everything below but the verb is empty.
    pub path: Option<String>,
    /// Verb of the API, or of HTTP for a path.
    pub verb: String,
    /// API group, empty for core.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// May be empty.
    pub subresource: String,
    /// Empty for the whole cluster.
    pub namespace: String,
    /// May be empty.
    pub name: String,
    /// As written, may be empty.
    pub field_selector: String,
    /// As written, may be empty.
    pub label_selector: String,
}

/// What the authorizer said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// No opinion is no.
    pub allowed: bool,
    /// Why.
    pub reason: String,
    /// What went wrong.
    pub error: Option<String>,
}

/// A question that is still being asked.
#[derive(Clone)]
struct Asking {
    /// `Authorizer`, `PathCheck`, `GroupCheck`, `ResourceCheck`, behind the name of the package.
    kind: &'static str,
    question: Question,
    whom: Arc<dyn Authorize>,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").field("kind", &self.kind).field("question", &self.question).finish()
    }
}

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.question == other.question && Arc::ptr_eq(&self.whom, &other.whom)
    }
}

impl Eq for Asking {}

impl Opaque for Asking {
    fn runtime_type_name(&self) -> &str {
        self.kind
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Decision(Answer);

impl Opaque for Decision {
    fn runtime_type_name(&self) -> &str {
        DECISION_NAME
    }
}

const AUTHORIZER_NAME: &str = "kubernetes.authorization.Authorizer";
const PATH_NAME: &str = "kubernetes.authorization.PathCheck";
const GROUP_NAME: &str = "kubernetes.authorization.GroupCheck";
const RESOURCE_NAME: &str = "kubernetes.authorization.ResourceCheck";
const DECISION_NAME: &str = "kubernetes.authorization.Decision";

static AUTHORIZER: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(AUTHORIZER_NAME));
static PATH: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(PATH_NAME));
static GROUP: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(GROUP_NAME));
static RESOURCE: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(RESOURCE_NAME));
static DECISION: LazyLock<Type> = LazyLock::new(|| Type::new_opaque_type(DECISION_NAME));

/// The variable `authorizer`.
#[must_use]
pub fn authorizer(whom: Arc<dyn Authorize>) -> Value {
    let asking = Asking { kind: AUTHORIZER_NAME, question: Question::default(), whom };
    Value::Opaque(Arc::new(asking))
}

/// The variable `authorizer.requestResource`: the question about what the request is about, without a verb.
#[must_use]
pub fn request_resource(whom: Arc<dyn Authorize>, about: Question) -> Value {
    Value::Opaque(Arc::new(Asking { kind: RESOURCE_NAME, question: about, whom }))
}

/// A member that writes one text into the question.
macro_rules! part {
    ($library:expr, $name:literal, $field:ident) => {
        $library.member($name, &RESOURCE, &[&STRING_TYPE], |given| {
            let mut asking: Asking = held(&given, 0)?;
            text(&given, 1)?.clone_into(&mut asking.question.$field);
            hold(asking)
        });
    };
}

pub(super) fn add(library: &mut Library) {
    library.member("path", &AUTHORIZER, &[&STRING_TYPE], |given| {
        let mut asking: Asking = held(&given, 0)?;
        let path = text(&given, 1)?;
        if path.trim().is_empty() {
            return failed("path", "path must not be empty");
        }
        asking.kind = PATH_NAME;
        asking.question.path = Some(path.to_owned());
        hold(asking)
    });
    library.member("group", &AUTHORIZER, &[&STRING_TYPE], |given| {
        let mut asking: Asking = held(&given, 0)?;
        asking.kind = GROUP_NAME;
        text(&given, 1)?.clone_into(&mut asking.question.group);
        hold(asking)
    });
    library.member("serviceAccount", &AUTHORIZER, &[&STRING_TYPE, &STRING_TYPE], |given| {
        let mut asking: Asking = held(&given, 0)?;
        let (namespace, name) = (text(&given, 1)?, text(&given, 2)?);
        if !names::is_dns1123_subdomain(name).is_empty() {
            return failed("serviceAccount", "Invalid service account name");
        }
        if !names::is_dns1123_label(namespace).is_empty() {
            return failed("serviceAccount", "Invalid service account namespace");
        }
        asking.question.service_account = Some((namespace.to_owned(), name.to_owned()));
        hold(asking)
    });
    library.member("resource", &GROUP, &[&STRING_TYPE], |given| {
        let mut asking: Asking = held(&given, 0)?;
        let resource = text(&given, 1)?;
        if resource.trim().is_empty() {
            return failed("resource", "resource must not be empty");
        }
        asking.kind = RESOURCE_NAME;
        resource.clone_into(&mut asking.question.resource);
        hold(asking)
    });
    part!(library, "subresource", subresource);
    part!(library, "namespace", namespace);
    part!(library, "name", name);
    part!(library, "fieldSelector", field_selector);
    part!(library, "labelSelector", label_selector);
    for asked in [&PATH, &RESOURCE] {
        library.member("check", asked, &[&STRING_TYPE], |given| {
            let mut asking: Asking = held(&given, 0)?;
            text(&given, 1)?.clone_into(&mut asking.question.verb);
            hold(Decision(asking.whom.authorize(&asking.question)))
        });
    }
    library.member("allowed", &DECISION, &[], |given| give(held::<Decision>(&given, 0)?.0.allowed));
    library.member("reason", &DECISION, &[], |given| give_text(held::<Decision>(&given, 0)?.0.reason));
    library.member("errored", &DECISION, &[], |given| give(held::<Decision>(&given, 0)?.0.error.is_some()));
    library.member("error", &DECISION, &[], |given| {
        give_text(held::<Decision>(&given, 0)?.0.error.unwrap_or_default())
    });
}
