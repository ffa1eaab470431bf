//! Who may do what: authentication, authorization and admission.
//!
//! The API server asks these three in order for every request. Nothing here does I/O: what is stored is seen through
//! [`Reader`], time comes in as a parameter.

pub mod admission;
pub mod bootstrap;
#[cfg(test)]
mod memory;
pub mod node;
pub mod pod_security;
pub mod rbac;
pub mod token;
pub mod x509;

use std::{collections::BTreeMap, sync::Arc};

use apimachinery::{ApiError, Object};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use kinds::Resource;

/// The group of everybody who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who is not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// `system:serviceaccount:ns:name`, `system:node:name`, `system:anonymous`, …
    pub name: String,
    /// May be empty.
    pub uid: String,
    /// With `system:authenticated` or `system:unauthenticated`.
    pub groups: Vec<String>,
    /// E.g. `authentication.kubernetes.io/pod-name`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Whoever gives no credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }
}

/// What a request is about, as upstream's `RequestInfo` and `authorizer.Attributes` see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who.
    pub user: Arc<UserInfo>,
    /// `get list watch create update patch delete deletecollection`, or the lower-case HTTP method of a non-resource path.
    pub verb: String,
    /// Whether the path names a resource.
    pub resource_request: bool,
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// May be empty.
    pub subresource: String,
    /// Empty for cluster-scoped and all-namespaces requests.
    pub namespace: String,
    /// May be empty.
    pub name: String,
    /// The URL path.
    pub path: String,
    /// The raw label selector of a list, watch or deletecollection.
    pub label_selector: String,
    /// The raw field selector.
    pub field_selector: String,
}

/// What an authorizer thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, with the reason.
    Allow(String),
    /// No, and nobody else is asked.
    Deny(String),
    /// Ask the next one; the reasons of all are told when nobody allows it.
    NoOpinion(String),
}

/// How this crate sees what is stored. Implemented by the API server over its store.
pub trait Reader: Send + Sync {
    /// The object, decoded; `resource` is the plural, `namespace` is empty for cluster-scoped kinds.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Object>>;
    /// All objects, of one namespace unless it is empty.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>>;
    /// A number that rises whenever an object of the resource changes: what is derived from [`Reader::list`] stays valid
    /// while it stays the same.
    fn changed(&self, group: &str, resource: &str) -> u64;
}

/// Tells who makes a request.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// `Ok(None)`: this one finds no credentials of its sort. `Err`: credentials are there and wrong (401).
    /// `certificates` is the verified chain of the TLS client, leaf first, DER.
    async fn authenticate(
        &self,
        headers: &http::HeaderMap,
        certificates: &[Vec<u8>],
        now: DateTime<Utc>,
    ) -> Result<Option<UserInfo>, ApiError>;
}

/// Tells whether a request may be made.
pub trait Authorizer: Send + Sync {
    /// See [`Decision`].
    fn authorize(&self, request: &Attributes) -> Decision;
}

/// What several authorizers say together; the first that has an opinion decides.
#[must_use]
pub fn decide(authorizers: &[Arc<dyn Authorizer>], request: &Attributes) -> Decision {
    let mut reasons = Vec::new();
    for authorizer in authorizers {
        match authorizer.authorize(request) {
            Decision::NoOpinion(reason) if reason.is_empty() => {}
            Decision::NoOpinion(reason) => reasons.push(reason),
            decision => return decision,
        }
    }
    Decision::NoOpinion(reasons.join("\n"))
}

/// Several authorizers as one.
pub struct Union(pub Vec<Arc<dyn Authorizer>>);

impl Authorizer for Union {
    fn authorize(&self, request: &Attributes) -> Decision {
        decide(&self.0, request)
    }
}

/// Takes down what the audit log will say of a request.
pub trait Audit: Send + Sync {
    /// Adds an annotation; the first value of a key stays. `key` is a qualified name with a prefix, else it is ignored.
    fn annotate(&self, key: &str, value: String);
    /// Whether the log keeps bodies of this request, and so may be told parts of them.
    fn keeps_bodies(&self) -> bool;
}

/// A write on its way, as admission sees it.
pub struct AdmissionRequest<'a> {
    /// The request.
    pub attributes: &'a Attributes,
    /// The kind.
    pub resource: &'a Resource,
    /// `CREATE`, `UPDATE`, `DELETE`, `CONNECT`
    pub operation: &'static str,
    /// The object as it will be; `null` on DELETE. Mutating plugins change it.
    pub object: &'a mut Object,
    /// The object as it is; absent on CREATE.
    pub old: Option<&'a Object>,
    /// No effects outside the object.
    pub dry_run: bool,
    /// When.
    pub now: DateTime<Utc>,
    /// Texts for `Warning` headers.
    pub warnings: &'a mut Vec<String>,
    /// The audit log, if it says anything of the request.
    pub audit: Option<&'a dyn Audit>,
    /// Changes of other objects that have to happen together with this write, or not at all. Only
    /// [`Admission::validate`] may ask for them.
    pub companions: &'a mut Vec<Companion>,
}

/// A change of another object that is committed together with a write: the charge of a quota. If the object is not as it
/// was any more when the write is committed, the plugins are asked again.
#[derive(Clone, Debug)]
pub struct Companion {
    /// API group.
    pub group: &'static str,
    /// Plural.
    pub resource: &'static str,
    /// The new state. Its `metadata.resourceVersion` is that of the state it was made from.
    pub object: Object,
}

/// One admission plugin.
#[async_trait]
pub trait Admission: Send + Sync {
    /// Upstream's name of the plugin: `LimitRanger`, `ServiceAccount`, …
    fn name(&self) -> &'static str;
    /// May change the object. Runs before validation.
    async fn mutate(
        &self,
        _request: &mut AdmissionRequest<'_>,
        _reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        Ok(())
    }
    /// May refuse. Runs after validation; sees the final object. May run again for one write, when a
    /// [`Companion`] was changed by somebody else meanwhile.
    async fn validate(
        &self,
        _request: &mut AdmissionRequest<'_>,
        _reader: &dyn Reader,
    ) -> Result<(), ApiError> {
        Ok(())
    }
}
