//! What the API server needs to know about a resource to serve it. A built-in kind and a
//! CustomResourceDefinition both end as one of these.

use std::{fmt, sync::Arc};

use apimachinery::{FieldError, Object, Schema};
use chrono::{DateTime, Utc};
use serde_json::Value;

/// One resource at one version.
#[derive(Clone)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// `v1`, `v1beta1`, …
    pub version: Arc<str>,
    /// `Pod`
    pub kind: Arc<str>,
    /// `PodList`
    pub list_kind: Arc<str>,
    /// `pods`
    pub plural: Arc<str>,
    /// `pod`
    pub singular: Arc<str>,
    /// `po`
    pub short_names: Vec<Arc<str>>,
    /// `all`
    pub categories: Vec<Arc<str>>,
    /// Lives in a namespace.
    pub namespaced: bool,
    /// Of `create delete deletecollection get list patch update watch`, sorted.
    pub verbs: Vec<Arc<str>>,
    /// Its shape, the whole object with `apiVersion`, `kind` and `metadata`.
    pub schema: Arc<Schema>,
    /// What is below an object.
    pub subresources: Vec<Subresource>,
    /// What `kubectl get` shows, without the name when [`Strategy::row`] is not used.
    pub columns: Vec<Column>,
    /// What a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<SelectableField>,
    /// How the generic engine treats it.
    pub behaviour: Behaviour,
    /// What only this kind does.
    pub strategy: Arc<dyn Strategy>,
    /// Not a CustomResourceDefinition's. List items of built-ins carry no kind, and patches may be strategic.
    pub builtin: bool,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.plural)
    }
}

impl Resource {
    /// `v1` or `apps/v1`
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The subresource of this name.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| &*s.name == name)
    }
}

/// A subresource as discovery shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Subresource {
    /// `status`, `scale`, `log`, `exec`, `binding`, …
    pub name: Arc<str>,
    /// Group of the object it takes and gives (`autoscaling` for scale), the parent's where it is the parent.
    pub group: Arc<str>,
    /// Version of that object.
    pub version: Arc<str>,
    /// Kind of that object.
    pub kind: Arc<str>,
    /// Of `create get patch update …`, sorted.
    pub verbs: Vec<Arc<str>>,
    /// Only for `scale`: where the numbers are.
    pub scale: Option<ScalePaths>,
}

/// Where a scale subresource finds its numbers, as dotted paths from the object: `spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// The wanted replicas.
    pub spec_replicas: Arc<str>,
    /// The seen replicas.
    pub status_replicas: Arc<str>,
    /// A selector: a string in a CRD, a LabelSelector or a plain map in a built-in.
    pub selector: Option<Arc<str>>,
}

/// A column of the printed table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// `READY`, as declared (kubectl prints it in capitals).
    pub name: Arc<str>,
    /// `string`, `integer`, `number`, `boolean`, `date`
    pub kind: Arc<str>,
    /// OpenAPI format; may be empty. `name` for the name column.
    pub format: Arc<str>,
    /// What the column means.
    pub description: Arc<str>,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// Where the cell comes from (`.spec.x`, JSONPath of printer columns); empty when [`Strategy::row`] makes it.
    pub json_path: Arc<str>,
}

/// A field that a selector may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectableField {
    /// As the selector names it: `spec.nodeName`.
    pub name: Arc<str>,
    /// Dotted path to its value; the empty string stands for an absent value. Of several, parted by `|`, the first counts
    /// that leads to something that is not empty.
    pub path: Arc<str>,
    /// The value that an absent field has for the selector, e.g. `false` for `spec.unschedulable`.
    pub absent: Arc<str>,
}

/// When `metadata.generation` rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Generation {
    /// Never set (ConfigMap, Secret, Service …).
    #[default]
    Untracked,
    /// 1 at creation, +1 when the spec differs.
    Spec,
    /// Absent at creation, +1 when the spec differs (CSIDriver).
    SpecChanges,
    /// As [`Generation::Spec`], and +1 when a write of the object, not of its status, changes annotations (Deployment: they are copied
    /// to the ReplicaSets).
    SpecOrAnnotations,
    /// 1 at creation, +1 when anything but metadata (and status, if it is a subresource) differs. For custom resources.
    Content,
    /// The same, and +1 when labels differ (EndpointSlice).
    ContentOrLabels,
}

/// What DELETE answers once the object is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletedObject {
    /// A `Status` of Success.
    #[default]
    Status,
    /// The object's last state.
    Object,
}

/// Differences between kinds that the generic engine itself carries out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// When the generation rises.
    pub generation: Generation,
    /// PUT of a missing name creates it.
    pub create_on_update: bool,
    /// PUT without resourceVersion is accepted.
    pub unconditional_update: bool,
    /// What DELETE answers.
    pub deleted: DeletedObject,
    /// Dependents are orphaned when the request names no policy (Job, ReplicationController).
    pub orphans_by_default: bool,
    /// Deletion waits for a grace period and a second request (Pod).
    pub graceful: bool,
    /// `/status` writes leave labels, annotations, finalizers and owner references as they were.
    pub status_keeps_metadata: bool,
    /// Names are path segments (RBAC), DNS labels or DNS subdomains.
    pub name: NameRule,
    /// Lifetime after creation in seconds (Event: 3600).
    pub ttl_seconds: Option<u32>,
    /// What every use of a deprecated version is warned with.
    pub deprecated: Option<&'static str>,
    /// Annotations that begin so stand for what upstream keeps in fields: they are shown with the whole object only, not
    /// with its metadata alone.
    pub annotated: Option<&'static str>,
    /// Fields that may never change once set: dotted paths; checked by the engine as `field is immutable`.
    pub immutable: Vec<&'static str>,
}

/// What a name has to look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, 253.
    #[default]
    Subdomain,
    /// RFC 1123 label, 63.
    Label,
    /// RFC 1035 label, 63.
    Label1035,
    /// Anything but `.`, `..`, `/` and `%`.
    PathSegment,
    /// An IP address in its usual form.
    Address,
}

/// What only this kind does. Every function has a default that does nothing. `subresource` is empty for the object
/// itself, else `status`, `scale`, `ephemeralcontainers`, `resize`, …
pub trait Strategy: Send + Sync {
    /// Values of absent fields that depend on other fields. Runs after schema defaults, on every decode.
    fn default(&self, _object: &mut Object) {}

    /// Before a new object is admitted: drop what a creator may not set, set what the server sets.
    fn prepare_create(&self, _object: &mut Object, _now: DateTime<Utc>) {}

    /// Before an update is admitted: bring back from `old` what this request may not change. The engine itself already
    /// keeps the status on updates of the object, and everything but the status on updates of `status`.
    fn prepare_update(&self, _new: &mut Object, _old: &Object, _subresource: &str) {}

    /// [`Strategy::prepare_update`] as the engine calls it: where the server sets times, this is what a kind has instead.
    fn prepare_update_at(&self, new: &mut Object, old: &Object, subresource: &str, _now: DateTime<Utc>) {
        self.prepare_update(new, old, subresource);
    }

    /// What is wrong with an object, beyond its schema.
    fn validate(&self, _object: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change, besides what [`Strategy::validate`] finds in `new`.
    fn validate_update(&self, _new: &Object, _old: &Object, _subresource: &str) -> Vec<FieldError> {
        Vec::new()
    }

    /// [`Strategy::validate_update`] as the engine calls it: where times are judged by the server's clock, this is what a
    /// kind has instead.
    fn validate_update_at(
        &self,
        new: &Object,
        old: &Object,
        subresource: &str,
        _now: DateTime<Utc>,
    ) -> Vec<FieldError> {
        self.validate_update(new, old, subresource)
    }

    /// Texts for `Warning` headers. Asked for writes of the object itself, not of a subresource.
    fn warnings(&self, _new: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// One table row, a cell a column of [`Resource::columns`] (the name column included); `None`: cells come from the
    /// columns' JSON paths after the name.
    fn row(&self, _object: &Object, _now: DateTime<Utc>) -> Option<Vec<Value>> {
        None
    }
}

/// The strategy of a kind without behaviour of its own.
pub struct Plain;
impl Strategy for Plain {}
